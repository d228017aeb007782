"""Small classifiers trained here, once, on real images: features and class predictions where no download is needed.

Their distances order models of one data set well; they are no FID and are never called so.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.cache import cache_folder, digest, key_of, read_tensors, write_tensors
from lit_gans.base.images import as_channels
from lit_gans.base.processes import first_on_rank_zero
from lit_gans.metrics.extractors import Extractor, Features

if TYPE_CHECKING:
    from lit_gans.metrics.reals import RealImages


@runtime_checkable
class MadeOfDigits(Protocol):
    """A data module whose pictures are put together from a set of digits, as `lit_gans.data.StackedMNIST` is."""

    def digits(self) -> RealImages: ...


DATA_CLASSIFIERS = ("mnist", "fashionmnist", "kmnist", "stackedmnist")
_ARCHITECTURE = 1  # to be raised with any change of SmallCNN or of its training


@dataclass(frozen=True)
class Training:
    """How a classifier is trained; part of the key under which it is kept."""

    input_px: int
    epochs: int
    max_images: int = 100_000
    batch_size: int = 64
    learning_rate: float = 4e-3
    max_shift_px: int = 1
    held_out: float = 0.2
    seed: int = 0


DIGITS_TRAINING = Training(input_px=16, epochs=20)
DATA_TRAINING = Training(input_px=28, epochs=4, max_images=30_000, max_shift_px=2, batch_size=100)
# All digits, and 99 % of the test's told apart: one that is read wrongly is a wrong mode.
STACKED_TRAINING = Training(input_px=28, epochs=5, max_shift_px=1, batch_size=100, held_out=0.05)


class SmallCNN(nn.Module):
    """Two convolutions and two linear layers: grey [N, 1, R, R] in [-1, 1] -> features [N, 64] and logits [N, K]."""

    def __init__(self, input_px: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * (input_px // 4) ** 2, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return features, self.head(features)


class ClassifierFeatures(Extractor):
    """A trained SmallCNN: 64 features before its last layer, and logits. Colour is averaged to grey."""

    num_features = 64

    def __init__(self, name: str, state: dict[str, Tensor], *, input_px: int, held_out_accuracy: float) -> None:
        super().__init__()
        self.name, self.input_px, self.held_out_accuracy = name, input_px, held_out_accuracy
        self.resize = f"antialiased bilinear to {input_px}, grey"
        self.num_classes = len(state["head.bias"])
        self.network = SmallCNN(input_px, self.num_classes)
        self.network.load_state_dict(state)
        self.freeze()

    def forward(self, images: Tensor) -> Features:
        return Features(*self.network(_network_input(images, self.input_px)))


def digits_classifier() -> ClassifierFeatures:
    """Trained on four fifths of scikit-learn's 1,797 digits: some seconds on the first call, then kept."""

    def load() -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
        return pixels, torch.from_numpy(digits.target).long()

    return first_on_rank_zero(lambda: _kept_or_trained("digits", load, DIGITS_TRAINING))


def classifier_of(name: str, data: RealImages | None) -> ClassifierFeatures:
    """Trained on the labelled training split of `data`, whose class must be the one `name` stands for.

    Data made of digits have two: that of its digits, and one of its own name, trained on the digits more thoroughly.
    """
    of_digits = data.digits() if isinstance(data, MadeOfDigits) else data
    found = "no data" if data is None else type(data).__name__
    if data is None or of_digits is None or name not in (found.lower(), type(of_digits).__name__.lower()):
        raise ValueError(f"extractor {name!r} is trained on the data of that name, which must be given; got {found}")
    training = STACKED_TRAINING if name == "stackedmnist" else DATA_TRAINING
    data = of_digits

    def load() -> tuple[Tensor, Tensor]:
        chosen = _some_of(len(data.dataset("train")), training)
        batches = list(data.batches("train", 1000, indices=chosen))
        return torch.cat([batch["image"] for batch in batches]), torch.cat([batch["label"] for batch in batches])

    fingerprint = data.fingerprint("train")
    return first_on_rank_zero(lambda: _kept_or_trained(name, load, training, fingerprint=fingerprint))


def _kept_or_trained(name: str, load, training: Training, *, fingerprint: str | None = None) -> ClassifierFeatures:
    """`load` gives images uint8 [N, C, H, W] and labels [N]; `fingerprint` stands for them if they are slow to load."""
    loaded = None if fingerprint else load()
    if loaded:
        fingerprint = digest({"images": loaded[0], "labels": loaded[1]})[:16]
    key = key_of(architecture=_ARCHITECTURE, data=fingerprint, training=asdict(training))
    path = cache_folder() / f"classifier-{name}-{key}.safetensors"
    kept = read_tensors(path)
    if kept is None:
        images, labels = loaded or load()
        kept = _train_and_keep(name, images, labels, training, path)
    state, metadata = kept
    accuracy = json.loads(metadata["held_out_accuracy"])
    return ClassifierFeatures(name, state, input_px=training.input_px, held_out_accuracy=accuracy)


def _train_and_keep(
    name: str, images: Tensor, labels: Tensor, training: Training, path: Path
) -> tuple[dict[str, Tensor], dict[str, str]]:
    print(
        f"Training a small classifier on {len(images)} images for extractor {name!r}, once; kept at {path}",
        file=sys.stderr,
    )
    network, accuracy = train_classifier(images, labels, training)
    metadata = {"held_out_accuracy": json.dumps(accuracy), "training": json.dumps(asdict(training))}
    write_tensors(path, network.state_dict(), metadata)
    return network.state_dict(), metadata


def train_classifier(images: Tensor, labels: Tensor, training: Training) -> tuple[SmallCNN, float]:
    """images uint8 [N, C, H, W], labels int64 [N] -> network on the CPU and its accuracy on the part held out.

    A function of its arguments (and of the machine's arithmetic): torch's global generator is left as it was.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(training.seed))
    kept, held_out = order.split(
        [len(order) - round(len(order) * training.held_out), round(len(order) * training.held_out)]
    )
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = SmallCNN(training.input_px, int(labels.max()) + 1)
        x = _network_input(images, training.input_px)
        _fit(network, x[kept], labels[kept], training)
    with torch.no_grad():
        predicted = torch.cat([network(part)[1].argmax(dim=1) for part in x[held_out].split(1000)])
    return network, (predicted == labels[held_out]).double().mean().item()


def _fit(network: SmallCNN, x: Tensor, labels: Tensor, training: Training) -> None:
    """Adam on a one-cycle schedule, with random shifts; leaves the network in evaluation mode."""
    batches = len(x) // training.batch_size
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=batches * training.epochs, cycle_momentum=False
    )
    network.train()
    for _ in range(training.epochs):
        for rows in torch.randperm(len(x))[: batches * training.batch_size].split(training.batch_size):
            loss = F.cross_entropy(network(_shifted(x[rows], training.max_shift_px))[1], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def _shifted(x: Tensor, reach: int) -> Tensor:
    """x [N, 1, R, R] in [-1, 1], each image moved by up to `reach` pixels either way; black comes in at the borders."""
    side = x.shape[-1]
    rows, columns = (torch.randint(2 * reach + 1, (len(x), 1)) + torch.arange(side) for _ in range(2))
    padded = F.pad(x[:, 0], (reach, reach, reach, reach), value=-1.0)
    return padded[torch.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def _network_input(images: Tensor, input_px: int) -> Tensor:
    """images uint8 [N, C, H, W] -> grey float [N, 1, input_px, input_px] in [-1, 1]."""
    x = as_channels(images, 1).float() / 127.5 - 1
    if x.shape[-2:] == (input_px, input_px):
        return x
    return F.interpolate(x, size=(input_px, input_px), mode="bilinear", antialias=True)


def _some_of(length: int, training: Training) -> Tensor:
    """int64 [min(length, max_images)]: which images are used at all."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(training.seed))[: training.max_images]
