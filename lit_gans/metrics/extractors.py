"""Networks that turn images into the features that distances are taken of, each with a name that says which."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.cache import digest
from lit_gans.base.images import as_channels
from lit_gans.base.precision import exact_float32

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
_INCEPTION_SHA256 = "6726825d"  # as the file's name says
_SPATIAL_CHANNELS, _SPATIAL_PX = 7, 17  # Nash et al. (2021): as many numbers as the pooled features, about
RANDOM_INCEPTION_SEED = 2020
RANDOM_INCEPTION_FINGERPRINT = "62910b4f43a7d44e"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TORCHVISION_PX = 224
_OWN_INPUT = ("googlenet", "inception_v3")  # published with inputs in [-1, 1], which these networks make themselves


@dataclass(frozen=True, eq=False)
class Features:
    """features float32 [N, D]; logits float32 [N, K], or None where the network has no classes; spatial float32 [N, S].

    It unpacks into features and logits; `spatial`, None unless the extractor was asked for it, goes by name.
    """

    features: Tensor
    logits: Tensor | None
    spatial: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor | None]:
        return iter((self.features, self.logits))


class Extractor(nn.Module, ABC):
    """A frozen network from uint8 images to features. It never leaves evaluation mode.

    `name` names the numbers made with it, `resize` says how images reach its input size, `fingerprint` is 16 hex digits
    of its weights, `num_features` D, `num_classes` K (0 without logits) and `num_spatial` S (0 without them).
    `held_out_accuracy` in [0, 1]: of a classifier trained here; None of others.
    """

    name: str
    resize: str
    fingerprint: str
    num_features: int
    num_classes: int
    num_spatial: int = 0
    held_out_accuracy: float | None = None

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

    The network of every published FID; its resize is part of the number. With `spatial` also the features of sFID (Nash
    et al., 2021): the first 7 channels of TensorFlow's "mixed_6/conv", 17 x 17 x 7 = 2023 numbers, channels last.
    """

    name = "inception"
    resize = "TensorFlow 1 bilinear to 299"
    num_features = 2048
    num_classes = 1008

    def __init__(self, state: dict[str, Tensor], *, spatial: bool = False) -> None:
        super().__init__()
        layers = ["2048", "logits_unbiased"] if self.num_classes else ["2048"]
        self.network = _inception_network(state, layers)
        self._spatial: list[Tensor] = []
        if spatial:
            self.num_spatial = _SPATIAL_PX**2 * _SPATIAL_CHANNELS
            # TensorFlow's mixed_6 is Mixed_6d here; what leaves its 1x1 branch has been through batch norm and ReLU.
            self.network.get_submodule("Mixed_6d.branch1x1").register_forward_hook(self._keep_spatial)
        self.freeze()

    def _keep_spatial(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._spatial.append(output[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1))

    def forward(self, images: Tensor) -> Features:
        features, *logits = self.network(as_channels(images, 3))
        return Features(features, logits[0] if logits else None, self._spatial.pop() if self.num_spatial else None)


class RandomInception(InceptionFeatures):
    """Inception v3 with weights that were never trained: 2048 features, no logits, nothing to download.

    Naeem et al. (2020) argue for random embeddings where images are unlike ImageNet's, whose classes a trained network
    looks for. Its distances are no FID and are comparable with none.

    Definition, so that everyone has the same weights: in the order of their names, every convolution is drawn by one
    torch.randn in float64 from one torch.Generator with seed 2020, rounded to multiples of 2^-12, times
    sqrt(2 / fan in) (He et al., 2015), as float32. Batch norm is the identity (mean 0, variance 1, epsilon 1e-3). The
    rounding takes away what logarithms and cosines of different processors differ in.
    """

    name = "random_inception"
    num_classes = 0

    def __init__(self) -> None:
        super().__init__(_random_state(RANDOM_INCEPTION_SEED))


def _inception_network(state: dict[str, Tensor], layers: list[str]) -> nn.Module:
    """torch-fidelity's network, which unpickles whatever it is given: here what was read safely, from memory."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    with ambient_randomness_kept():
        return FeatureExtractorInceptionV3("inception-v3-compat", layers, file)


def _random_state(seed: int) -> dict[str, Tensor]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Shapes(FeatureExtractorInceptionV3):
        def load_state_dict(self, state: dict[str, Tensor]) -> None:
            """Nothing: only the shapes are wanted."""

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.device("meta"):
        shapes = Shapes("shapes", ["2048"], empty).state_dict()
    generator = torch.Generator().manual_seed(seed)
    return {name: _drawn(name, shapes[name], generator) for name in sorted(shapes)}


def _drawn(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """One tensor of RandomInception; the last layer, which it has no use for, is zero."""
    if name.endswith("conv.weight"):
        normal = torch.randn(like.shape, dtype=torch.float64, generator=generator).mul_(4096).round_().div_(4096)
        return normal.mul_((2 / like[0].numel()) ** 0.5).float()
    is_one = name.endswith((".bn.weight", ".running_var"))
    return (torch.ones if is_one else torch.zeros)(like.shape, dtype=like.dtype)


class TorchvisionFeatures(Extractor):
    """A torchvision classifier: what enters its last layer, averaged over space, and its logits."""

    resize = f"antialiased bilinear to {_TORCHVISION_PX}"
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, state: dict[str, Tensor]) -> None:
        super().__init__()
        from torchvision import models

        self.name = name
        with ambient_randomness_kept():
            own_input = {"transform_input": True} if name in _OWN_INPUT else {}
            self.network = models.get_model(name, weights=None, **own_input)
        self.network.load_state_dict(state)
        last = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
        self.num_features = last.in_features if isinstance(last, nn.Linear) else last.in_channels
        self.num_classes = last.out_features if isinstance(last, nn.Linear) else last.out_channels
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
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
def ambient_randomness_kept() -> Iterator[None]:
    """Layers draw weights when they are made, which loading replaces: training must not feel it."""
    with torch.random.fork_rng(devices=[]):
        yield


def opening(error: Exception) -> str:
    """The message as far as a reader gets: load_state_dict lists every name of a network."""
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else f"{text[:400]} ..."
