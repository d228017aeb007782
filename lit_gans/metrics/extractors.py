"""Networks that turn images into the features that distances are taken of, each with a name that says which."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.metrics.cache import cache_folder, digest, read_weights
from lit_gans.metrics.ranks import first_on_rank_zero

if TYPE_CHECKING:
    from lit_gans.metrics.reals import RealImages

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
_INCEPTION_SHA256 = "6726825d"  # as the file's name says
_TORCHVISION = "torchvision:"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TORCHVISION_PX = 224


class Features(NamedTuple):
    """features float32 [N, D]; logits float32 [N, K], or None where the network has no classes."""

    features: Tensor
    logits: Tensor | None


class Extractor(nn.Module, ABC):
    """A frozen network from uint8 images to features. It never leaves evaluation mode.

    `name` names the numbers made with it, `resize` says how images reach its input size, `fingerprint` is 16 hex digits
    of its weights, `num_features` D and `num_classes` K (0 without logits).
    """

    name: str
    resize: str
    fingerprint: str
    num_features: int
    num_classes: int

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """images uint8 [N, C, H, W], C 1 or 3 -> Features."""

    def train(self, mode: bool = True) -> Extractor:
        return super().train(False)

    def extract(self, images: Tensor) -> Features:
        """forward in full float32, whatever precision training runs in: TF32 and autocast would change the numbers."""
        with exact_float32(images.device):
            return self(images)

    def freeze(self) -> None:
        """To be called once the weights are in: no gradients, evaluation mode, fingerprint taken."""
        self.requires_grad_(False)
        self.eval()
        self.fingerprint = digest(self.state_dict())[:16]


class InceptionFeatures(Extractor):
    """Inception v3 of TensorFlow 2015-12-05 as torch-fidelity has it: 2048 features, 1008 logits without bias.

    The network of every published FID; its resize is part of the number.
    """

    name = "inception"
    resize = "TensorFlow 1 bilinear to 299"
    num_features = 2048
    num_classes = 1008

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # torch-fidelity unpickles whatever it is given: give it what was read safely, from memory.
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], file)
        self.freeze()

    def forward(self, images: Tensor) -> Features:
        return Features(*self.network(as_channels(images, 3)))


class TorchvisionFeatures(Extractor):
    """A torchvision classifier: what enters its last layer, averaged over space, and its logits."""

    resize = f"antialiased bilinear to {_TORCHVISION_PX}"

    def __init__(self, name: str, state: dict[str, Tensor]) -> None:
        super().__init__()
        from torchvision import models

        if name not in models.list_models(module=models):
            raise ValueError(f"torchvision has no classifier {name!r}; it has {', '.join(models.list_models(models))}")
        self.name = name
        self.network = models.get_model(name, weights=None)
        self.network.load_state_dict(state)
        last = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
        self.num_features = last.in_features if isinstance(last, nn.Linear) else last.in_channels
        self.num_classes = last.out_features if isinstance(last, nn.Linear) else last.out_channels
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(3, 1, 1), persistent=False)
        self._entering: list[Tensor] = []
        last.register_forward_pre_hook(lambda _, inputs: self._entering.append(inputs[0]))
        self.freeze()

    def forward(self, images: Tensor) -> Features:
        size = (_TORCHVISION_PX, _TORCHVISION_PX)
        x = F.interpolate(as_channels(images, 3).float() / 255, size=size, mode="bilinear", antialias=True)
        logits = self.network((x - self.mean) / self.std)
        features = self._entering.pop()
        return Features(features.mean(dim=(2, 3)) if features.ndim == 4 else features, logits)


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No autocast and, on a GPU, no TF32 within; as before afterwards."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        try:
            conv.fp32_precision = matmul.fp32_precision = "ieee"
            yield
        finally:
            conv.fp32_precision, matmul.fp32_precision = before


def as_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 [N, C, H, W] -> uint8 [N, channels, H, W]: grey is repeated, colour averaged. ValueError for others."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images {images.dtype} {list(images.shape)}, expected uint8 [N, 1 or 3, H, W]: "
            f"see lit_gans.images.to_uint8"
        )
    if images.shape[1] == channels:
        return images
    return images.expand(-1, 3, -1, -1) if channels == 3 else images.float().mean(1, keepdim=True).round().byte()


def build_extractor(spec: str, *, weights_path: str | Path | None = None, data: RealImages | None = None) -> Extractor:
    """The extractor called `spec`: "inception", "digits", "mnist", "torchvision:squeezenet1_1" or its like.

    `weights_path` is a .safetensors or .pth file; Inception's is downloaded without it. "digits" and "mnist" are small
    classifiers trained here once and kept (see `classifiers`); "mnist" and its kin need the `data` to train on.
    ValueError for an unknown spec, FileNotFoundError or ConnectionError for weights that cannot be had.
    """
    from lit_gans.metrics.classifiers import DATA_CLASSIFIERS, classifier_of, digits_classifier

    if spec == "inception":
        return _inception(None if weights_path is None else Path(weights_path))
    if spec.startswith(_TORCHVISION):
        return _torchvision(spec.removeprefix(_TORCHVISION), weights_path)
    if spec not in ("digits", *DATA_CLASSIFIERS):
        known = ", ".join(("inception", "digits", *DATA_CLASSIFIERS, f"{_TORCHVISION}<model>"))
        raise ValueError(f"unknown extractor {spec!r}; known are {known}, such as {_TORCHVISION}squeezenet1_1")
    if weights_path is not None:
        raise ValueError(f"extractor {spec!r} trains its own weights: leave out weights_path {str(weights_path)!r}")
    return digits_classifier() if spec == "digits" else classifier_of(spec, data)


def _inception(weights_path: Path | None) -> InceptionFeatures:
    path = first_on_rank_zero(_inception_file) if weights_path is None else weights_path
    state = read_weights(path)
    try:
        return InceptionFeatures(state)
    except RuntimeError as error:
        raise ValueError(f"{path} is not torch-fidelity's Inception v3, which {INCEPTION_URL} has: {error}") from error


def _inception_file() -> Path:
    """The kept file, downloaded if it is not there."""
    from urllib.error import URLError

    path = cache_folder() / Path(INCEPTION_URL).name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), hash_prefix=_INCEPTION_SHA256, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise ConnectionError(
            f"Inception's weights are not at {path} and could not be downloaded ({error}): fetch {INCEPTION_URL} "
            f"elsewhere and put the file there, or pass weights_path; extractors 'digits' and 'torchvision:...' need "
            f"no such file"
        ) from error
    return path


def _torchvision(name: str, weights_path: str | Path | None) -> TorchvisionFeatures:
    if weights_path is None:
        raise ValueError(
            f"extractor '{_TORCHVISION}{name}' needs weights_path: a .safetensors or .pth file of its weights"
        )
    try:
        return TorchvisionFeatures(name, read_weights(Path(weights_path)))
    except RuntimeError as error:
        raise ValueError(f"{weights_path} does not hold the weights of torchvision's {name}: {error}") from error
