"""How alike two images look to a network: LPIPS (Zhang et al., 2018), https://arxiv.org/abs/1801.03924, and the feature
reconstruction distance (Johnson et al., 2016), https://arxiv.org/abs/1603.08155. Beside them, for editing, distances
that need no published heads: of the same features unweighted, and of pixels.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.cache import digest
from lit_gans.base.checkpoints import read_weights
from lit_gans.base.download import weights_file
from lit_gans.base.images import as_channels, from_uint8
from lit_gans.base.precision import exact_float32
from lit_gans.metrics.extractors import IMAGENET_MEAN, IMAGENET_STD
from lit_gans.metrics.pair_mean import PairMean

_EPS = 1e-8  # under the root, where all channels are 0


class Net(NamedTuple):
    """A torchvision model, the layers of its `features` that are compared, and the least side they leave a pixel of."""

    model: str
    taps: tuple[int, ...]
    least_px: int


LPIPS_NETS = {
    "vgg": Net("vgg16", (3, 8, 15, 22, 29), 16),
    "alex": Net("alexnet", (1, 4, 7, 9, 11), 31),
    "squeeze": Net("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12), 17),
}
VGG16_LAYERS = {
    "relu1_1": 1, "relu1_2": 3, "relu2_1": 6, "relu2_2": 8, "relu3_1": 11, "relu3_2": 13, "relu3_3": 15,
    "relu4_1": 18, "relu4_2": 20, "relu4_3": 22, "relu5_1": 25, "relu5_2": 27, "relu5_3": 29,
}  # fmt: skip
PD_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


class Activations(nn.Module):
    """What chosen layers of a frozen torchvision network say of images."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: Net, state: Mapping[str, Tensor]) -> None:
        """`state` has torchvision's names; those outside of the layers needed are not looked at."""
        super().__init__()
        from torchvision import models

        self.net = net
        with torch.device("meta"):  # weights are not drawn only to be replaced
            self.layers = models.get_model(net.model, weights=None).features[: max(net.taps) + 1]
        given = {name: state.get(f"features.{name}") for name in self.layers.state_dict()}
        own = {name: tensor.detach().float().clone() for name, tensor in given.items() if tensor is not None}
        self.layers.load_state_dict(own, assign=True)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """uint8 or float in [-1, 1], [N, 1 or 3, H, W] -> one [N, C, H', W'] for each layer, in their order.

        ValueError for other images, and for images too small for the last layer.
        """
        x, found = (self._as_float(images) / 2 + 0.5 - self.mean) / self.std, []
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in self.net.taps:
                found.append(x)
        return found

    def _as_float(self, images: Tensor) -> Tensor:
        if not images.is_floating_point():
            images = from_uint8(as_channels(images, 3))
        elif images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"float images {list(images.shape)}, expected [N, 1 or 3, H, W] in [-1, 1]")
        if min(images.shape[2:]) < self.net.least_px:
            raise ValueError(
                f"images of {images.shape[3]} x {images.shape[2]} px are too small for {self.net.model}: their sides "
                f"must be {self.net.least_px} px or more"
            )
        return images.to(self.mean.dtype).expand(-1, 3, -1, -1)


class FrozenDistance(nn.Module, ABC):
    """Base of the distances: weights never learn, the module never leaves evaluation mode, gradients reach the images.

    `name` names the number, `fingerprint` is 16 hex digits of all weights, `settings` is for the protocol.
    """

    name: str
    fingerprint: str

    def freeze(self) -> None:
        """To be called once the weights are in."""
        self.requires_grad_(False)
        self.eval()
        self.fingerprint = digest(self.state_dict())[:16]

    def train(self, mode: bool = True) -> FrozenDistance:
        return super().train(False)

    @abstractmethod
    def features(self, images: Tensor) -> list[Tensor]:
        """Images as `forward` takes them -> what `between` compares, one [N, C, H', W'] for each layer."""

    @abstractmethod
    def between(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Two results of `features` -> [N]; for one target and many candidates, take the target's features once."""

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Pairs, uint8 or float in [-1, 1], [N, 1 or 3, H, W] -> [N], 0 or more. ValueError for unequal shapes."""
        if fake.shape != real.shape or fake.dtype != real.dtype:
            raise ValueError(
                f"images {fake.dtype} {list(fake.shape)} and {real.dtype} {list(real.shape)}: "
                f"pairs have one type and one shape"
            )
        return self.between(self.features(fake), self.features(real))


class LPIPS(FrozenDistance):
    """Learned perceptual distance, version 0.1, of `net` "vgg", "alex" or "squeeze": a sum over its layers.

    Each layer's activations are scaled to unit length over channels, their squared differences are weighted by the
    published heads and averaged over space. Only with torchvision's published weights is it the LPIPS of the
    literature, and only then called so: of others it is called `lpips_form_squeezenet1_1` and alike, as the heads
    were made for other channels. The published code adds 1e-10 to the length; here 1e-8 is added under the root, as in
    torchmetrics, so that the gradient of an all-zero pixel is finite.
    """

    def __init__(self, net: str, state: Mapping[str, Tensor], *, published: bool = False) -> None:
        """`state`: the backbone's, by torchvision's names. published: it is torchvision's own, as `build_lpips` finds.

        ValueError for an unknown net.
        """
        super().__init__()
        self.backbone = Activations(_net(net), state)
        self.name = f"lpips_{net}" if published else f"lpips_form_{self.backbone.net.model}"
        heads = read_weights(_heads_file(net))
        for number in range(len(self.backbone.net.taps)):
            self.register_buffer(f"head{number}", heads[f"lin{number}.model.1.weight"].flatten())
        self.freeze()

    @property
    def settings(self) -> dict[str, object]:
        return {"network": self.backbone.net.model, "network_fingerprint": self.fingerprint}

    @property
    def heads(self) -> list[Tensor]:
        """Weights [C] of each layer's channels."""
        return [self.get_buffer(f"head{number}") for number in range(len(self.backbone.net.taps))]

    def features(self, images: Tensor) -> list[Tensor]:
        return [unit_length(x) for x in self.backbone(images)]

    def between(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        return weighted_distance(fake, real, heads=self.heads)


class FeatureDistance(FrozenDistance):
    """As `LPIPS`, with all channels weighted alike: a mean over layers of 2 - 2 cos, in [0, 2], of any weights."""

    def __init__(self, net: str, state: Mapping[str, Tensor]) -> None:
        """`state`: the backbone's, by torchvision's names. ValueError for an unknown net."""
        super().__init__()
        self.backbone = Activations(_net(net), state)
        self.name = f"features_{self.backbone.net.model}"
        self.freeze()

    def features(self, images: Tensor) -> list[Tensor]:
        return [unit_length(x) for x in self.backbone(images)]

    def between(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        heads = [a.new_full((a.shape[1],), 1 / len(fake)) for a in fake]
        return weighted_distance(fake, real, heads=heads)


class PixelDistance(FrozenDistance):
    """Mean squared differences of images and of their averages over 2 x 2 and 4 x 4 pixels: no network, no weights."""

    name = "pixels"

    def __init__(self) -> None:
        super().__init__()
        self.freeze()

    def features(self, images: Tensor) -> list[Tensor]:
        images = images if images.is_floating_point() else from_uint8(images)
        return [images] + [F.avg_pool2d(images, size) for size in (2, 4) if min(images.shape[2:]) >= size]

    def between(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        return feature_distance(fake, real)


class PerceptualDistance(FrozenDistance):
    """Feature reconstruction distance of VGG16, summed over the named `layers`.

    The published numbers are of the Caffe release of VGG16, whose activations have another scale than torchvision's.
    """

    name = "pd_vgg16"

    def __init__(self, state: Mapping[str, Tensor], *, layers: Sequence[str] = PD_LAYERS) -> None:
        """`state`: VGG16's, by torchvision's names. ValueError for unknown layers or none."""
        super().__init__()
        unknown = [layer for layer in layers if layer not in VGG16_LAYERS]
        if unknown or not layers:
            raise ValueError(f"layers {list(layers)}: choose one or more of {', '.join(VGG16_LAYERS)}")
        self.layers = tuple(name for name in VGG16_LAYERS if name in layers)
        pools = int(self.layers[-1][len("relu")]) - 1
        self.backbone = Activations(Net("vgg16", tuple(VGG16_LAYERS[name] for name in self.layers), 2**pools), state)
        self.freeze()

    @property
    def settings(self) -> dict[str, object]:
        return {"network": "vgg16", "network_fingerprint": self.fingerprint, "layers": list(self.layers)}

    def features(self, images: Tensor) -> list[Tensor]:
        return self.backbone(images)

    def between(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        return feature_distance(fake, real)


def unit_length(x: Tensor) -> Tensor:
    """[N, C, H, W] -> the same with length 1 over channels at every place; zeros stay zeros."""
    return x / (x.square().sum(dim=1, keepdim=True) + _EPS).sqrt()


def weighted_distance(fake: Sequence[Tensor], real: Sequence[Tensor], *, heads: Sequence[Tensor]) -> Tensor:
    """Unit features [N, C, H, W] of several layers, heads [C] -> [N] (Zhang et al., Eq. 1).

    The paper weights the differences; the published code, and its heads, weight their squares. We follow the code.
    """
    layers = [
        torch.einsum("nchw,c->nhw", (a - b).square(), head).mean(dim=(1, 2))
        for a, b, head in zip(fake, real, heads, strict=True)
    ]
    return torch.stack(layers).sum(dim=0)


def feature_distance(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Features [N, C, H, W] of several layers -> [N]: the sum of |a - b|^2 / (C H W) (Johnson et al., Eq. 2)."""
    layers = [(a - b).square().mean(dim=(1, 2, 3)) for a, b in zip(fake, real, strict=True)]
    return torch.stack(layers).sum(dim=0)


class PerceptualSimilarity(PairMean):
    """Mean of an `LPIPS` or a `PerceptualDistance` over uint8 pairs, in full float32; `name` is the network's."""

    higher_is_better = False

    def __init__(self, network: LPIPS | PerceptualDistance) -> None:
        super().__init__()
        self.network, self.name, self.settings = network, network.name, network.settings

    def measure(self, fake: Tensor, real: Tensor) -> Tensor:
        with exact_float32(fake.device):
            return self.network(fake, real)


def build_lpips(net: str = "vgg", *, weights_path: str | Path | None = None) -> LPIPS:
    """LPIPS on `net` "vgg", "alex" or "squeeze".

    `weights_path` is a .safetensors or .pth file of torchvision's vgg16, alexnet or squeezenet1_1; without it, the
    published weights are taken from the cache folder or downloaded. Only of torchvision's own file, told by its
    checksum, the distance is called LPIPS. ValueError for an unknown net or a file of other weights, FileNotFoundError
    or ConnectionError for weights that cannot be had.
    """
    model = _net(net).model
    path = _backbone_file(model, weights_path)
    state = read_weights(path)
    try:
        return LPIPS(net, state, published=_is_published(path, model))
    except RuntimeError as error:
        raise _other_weights(path, model, error) from error


def build_distance(net: str = "vgg", *, plain: bool = False, weights_path: str | Path | None = None) -> FrozenDistance:
    """What inversion compares by: LPIPS on `net`, `plain` the same features without its heads, or of net "pixels" none.

    `weights_path` and errors as for `build_lpips`.
    """
    if net == "pixels":
        return PixelDistance()
    if not plain:
        return build_lpips(net, weights_path=weights_path)
    model = _net(net).model
    path = _backbone_file(model, weights_path)
    state = read_weights(path)
    try:
        return FeatureDistance(net, state)
    except RuntimeError as error:
        raise _other_weights(path, model, error) from error


def build_perceptual_distance(
    *, layers: Sequence[str] = PD_LAYERS, weights_path: str | Path | None = None
) -> PerceptualDistance:
    """The distance at these layers of VGG16; `weights_path` and errors as for `build_lpips`."""
    path = _backbone_file("vgg16", weights_path)
    state = read_weights(path)
    try:
        return PerceptualDistance(state, layers=layers)
    except RuntimeError as error:
        raise _other_weights(path, "vgg16", error) from error


def _net(name: str) -> Net:
    if name not in LPIPS_NETS:
        raise ValueError(f"LPIPS has no net {name!r}; it has {', '.join(LPIPS_NETS)}")
    return LPIPS_NETS[name]


def _other_weights(path: Path, model: str, error: RuntimeError) -> ValueError:
    return ValueError(f"{path} does not hold the weights of torchvision's {model}: {error}")


def _backbone_file(model: str, weights_path: str | Path | None) -> Path:
    url, digits = _published_file(model)
    return weights_file(url, sha256_prefix=digits, path=weights_path, hint="or pass weights_path")


def _published_file(model: str) -> tuple[str, str]:
    """(where torchvision publishes a model's weights, the first digits of that file's SHA-256)."""
    from torchvision import models

    url = models.get_model_weights(model).IMAGENET1K_V1.url
    digits = re.search(r"-([0-9a-f]{8})\.pth$", url)
    assert digits is not None, url  # torchvision's files end in the first digits of their SHA-256
    return url, digits[1]


def _is_published(path: Path, model: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(_published_file(model)[1])


def _heads_file(net: str) -> Path:
    """The heads of LPIPS 0.1 are part of torchmetrics; its own loading of them is not restricted to tensors."""
    import torchmetrics

    return Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / f"{net}.pth"
