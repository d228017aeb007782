"""Frozen feature networks, cut in four (Sauer et al., 2021, Sec. 3.2): what projected discriminators look through."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lit_gans.base.cache import cache_folder, digest
from lit_gans.base.download import weights_file
from lit_gans.metrics.backbones import from_timm, timm_with
from lit_gans.metrics.extractors import IMAGENET_MEAN, IMAGENET_STD, opening
from lit_gans.official.weights import read_published

PUBLISHED_PX = 224  # what smaller images are enlarged to
RANDOM = "random"
WITHOUT = "or pass features_weights, a file of them; features_weights=random goes without"
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
AS_IT_IS = ((0.5,) * 3, (0.5,) * 3)  # of images in [-1, 1]


def freeze(network: nn.Module, *, saved: bool) -> nn.Module:
    """The network, evaluating, its parameters made buffers: no optimiser takes them, and no pass makes them gradients.

    `saved` says whether state dicts hold them.
    """
    for module in network.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            delattr(module, name)
            module.register_buffer(name, tensor.detach(), persistent=saved)
    return network.eval()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Layers made inside are drawn by the seed alone, and torch's generator does not feel it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


# ---- cuts ------------------------------------------------------------------------------------------------------------


class Stages(nn.ModuleList):
    """images -> a feature map after each stage."""

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in self:
            x = stage(x)
            found.append(x)
        return found


class Tokens(nn.Module):
    """images -> the patches' tokens after each quarter of a vision transformer's blocks, as maps [N, C, H, W]."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        depth = len(network.blocks)
        self.network, self.blocks = network, [depth * (k + 1) // 4 - 1 for k in range(4)]

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.network.forward_intermediates(x, indices=self.blocks, norm=False, intermediates_only=True)


class TokenMaps(nn.Module):
    """Token maps [N, C, H, W] of four depths -> maps of 4, 2, 1 and 1/2 times their size, by random convolutions."""

    def __init__(self, width: int, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        a, b, c, d = channels
        self.layers = nn.ModuleList([
            nn.Sequential(nn.Conv2d(width, a, 1), nn.ConvTranspose2d(a, a, 4, 4)),
            nn.Sequential(nn.Conv2d(width, b, 1), nn.ConvTranspose2d(b, b, 2, 2)),
            nn.Sequential(nn.Conv2d(width, c, 1)),
            nn.Sequential(nn.Conv2d(width, d, 1), nn.Conv2d(d, d, 3, 2, 1)),
        ])  # fmt: skip

    def forward(self, tokens: list[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, tokens, strict=True)]


def as_maps(tokens: Tensor, *, prefix: int) -> Tensor:
    """tokens [N, prefix + H * H, C] -> [N, C, H, H] without the first, which are of no patch."""
    side = round((tokens.shape[1] - prefix) ** 0.5)
    return tokens[:, prefix:].mT.unflatten(2, (side, side))


def cut(network: nn.Module, name: str) -> nn.Module:
    """The network as `Stages` or `Tokens`. ValueError for a family that is not known here."""
    child, kind = network.get_submodule, f"{type(network).__module__}.{type(network).__name__}"
    if kind == "timm.models.efficientnet.EfficientNet":  # newer versions have the rectifier in bn1
        blocks, stem = child("blocks"), [m for n, m in network.named_children() if n in ("conv_stem", "bn1", "act1")]
        a, b, c, d = last_blocks(network)
        return Stages([nn.Sequential(*stem, *blocks[:a]), blocks[a:b], blocks[b:c], blocks[c:d]])
    if re.fullmatch(r"(timm|torchvision)\.models\.resnet\.ResNet", kind):
        stem = [m for n, m in network.named_children() if n in ("conv1", "bn1", "act1", "relu", "maxpool")]
        return Stages([nn.Sequential(*stem, child("layer1")), *(child(f"layer{i}") for i in (2, 3, 4))])
    if kind == "torchvision.models.squeezenet.SqueezeNet":  # after each pooling, and before the first
        layers: Any = child("features")
        pools = [0, *(i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)), len(layers)]
        return Stages([layers[i:j] for i, j in pairwise(pools)])
    if kind.startswith("timm.models.vision_transformer.") or kind.startswith("timm.models.deit."):
        return Tokens(network)
    raise ValueError(
        f"features {name!r}: {kind} is not cut here; EfficientNets, ResNets and vision transformers (DeiT, DINOv2) of "
        "timm are, and torchvision's SqueezeNets and ResNets"
    )


def folded(network: nn.Module, *, px: int) -> nn.Module:
    """The network with the batch norms that follow a convolution in its weights: the same function when evaluating."""
    made: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # tensors are kept, so that none has the identity of another
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def note(conv: nn.Module, _: Any, x: Tensor) -> None:
        made[id(x)] = (x, cast(nn.Conv2d, conv))

    def look(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        if id(inputs[0]) in made:
            pairs[cast(nn.BatchNorm2d, norm)] = made[id(inputs[0])][1]

    convs, norms = ([m for m in network.modules() if isinstance(m, kind)] for kind in (nn.Conv2d, nn.BatchNorm2d))
    hooks = [m.register_forward_hook(note) for m in convs] + [m.register_forward_pre_hook(look) for m in norms]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, px, px))
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    for norm, conv in pairs.items():
        assert norm.running_mean is not None and norm.running_var is not None
        statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)  # type: ignore[assignment]
        network.set_submodule(names[norm], getattr(norm, "act", nn.Identity()))  # timm's hold their rectifier
    return network


def last_blocks(network: Any) -> list[int]:
    """Behind which of an EfficientNet's blocks images have 1/4, 1/8, 1/16, 1/32 of their side: 2, 3, 5, 7 of lite0."""
    return [int(f["module"].split(".")[1]) + 1 for f in network.feature_info if f["reduction"] >= 4]


# ---- networks --------------------------------------------------------------------------------------------------------


class FeatureNetwork(nn.Module):
    """images [N, 1 or 3, H, W] in [-1, 1] -> four feature maps, the finest first; never trained, always evaluating.

    Its weights are read by `load`, before the first pass at the latest: a model that only samples needs none. State
    dicts do not hold them. `channels` and `sizes` [4] are of the maps.

    Args:
        name: a model of timm, or "torchvision:<model>".
        weights: a file of the whole model's; None takes the published ones, from where they are kept or downloaded;
            "random" draws them by `seed`.
        px: the side that images are resized to, bilinearly.
        normalise: mean and standard deviation of what it was trained on, in [0, 1], or True for those it is published
            with; None feeds images as they are.
        fingerprint: of the weights that are expected; None takes any.
        seed: of all that is drawn.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        px: int,
        weights: str | Path | None = None,
        normalise: Statistics | Literal[True] | None = None,
        fingerprint: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.weights, self.px, self.seed = name, weights, px, seed
        self.fingerprint = fingerprint  # 16 hex digits of the weights
        self.network: nn.Module | None = None
        mean, std = published_statistics(name) if normalise is True else normalise or AS_IT_IS
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 2 - 1, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 2, persistent=False)
        with seeded(seed), torch.device("meta"):
            stages = cut(whole(name, RANDOM), name).eval()
        self.maps: nn.Module | None = None
        if isinstance(stages, Tokens):
            width = stages.network.embed_dim
            with seeded(seed):
                self.maps = freeze(TokenMaps(width, (width // 8, width // 4, width // 2, width)), saved=True)
        shapes = self._shapes(stages)
        self.channels, self.sizes = [s[1] for s in shapes], [s[2] for s in shapes]

    def _shapes(self, stages: nn.Module) -> list[torch.Size]:
        """Of the maps, without computing them."""
        maps = None if self.maps is None else copy.deepcopy(self.maps).to("meta")
        try:
            found = stages(torch.zeros(1, 3, self.px, self.px, device="meta"))
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"images of {self.px} px do not pass through {self.name}: {opening(error)}") from error
        return [x.shape for x in (found if maps is None else maps(found))]

    def load(self) -> None:
        """Reads the weights, unless they are there.

        FileNotFoundError or ConnectionError where they cannot be had, ValueError for those of another network, or for
        others than are expected.
        """
        if self.network is not None:
            return
        with seeded(self.seed):
            network = whole(self.name, self.weights)
        found = digest(network.state_dict())[:16]
        if self.fingerprint not in (None, found):
            raise ValueError(
                f"the weights of features {self.name!r} have fingerprint {found}, and {self.fingerprint} is expected: "
                "give the file that the run was trained with"
            )
        self.fingerprint = found
        self.network = freeze(folded(cut(network, self.name), px=self.px), saved=False).to(self.mean.device)

    def forward(self, images: Tensor) -> list[Tensor]:
        self.load()
        assert self.network is not None
        x = images.expand(-1, 3, -1, -1)
        if x.shape[2:] != (self.px, self.px):
            x = interpolate(x, (self.px, self.px), mode="bilinear", align_corners=False)
        found = self.network((x - self.mean) / self.std)
        return found if self.maps is None else self.maps(found)

    def stamp(self) -> dict[str, object]:
        """Which network sees what, with which weights."""
        return {"network": self.name, "px": self.px, **stamp_of(self.weights, self.fingerprint)}

    def told(self) -> str:
        """The same in a line."""
        return "features: {network} at {px} px, {weights} ({fingerprint})".format(**self.stamp())

    def check_trained_with(self, fingerprint: str | None) -> None:
        """ValueError unless the weights are those of a run, of this fingerprint; None where either is not known."""
        if None not in (self.fingerprint, fingerprint) and self.fingerprint != fingerprint:
            raise ValueError(
                f"the run was trained with weights of {self.name} of fingerprint {fingerprint}, and these have "
                f"{self.fingerprint}: give features_weights, the file that it was trained with"
            )

    def train(self, mode: bool = True) -> FeatureNetwork:
        return super().train(False)

    def extra_repr(self) -> str:
        return f"{self.name}, weights={self.weights}, px={self.px}"


def stamp_of(weights: str | Path | None, fingerprint: str | None) -> dict[str, object]:
    """What a run's record says of a network's weights, which came from there."""
    named = {None: "published weights", RANDOM: "random weights"}
    return {"weights": named.get(weights, str(weights)), "fingerprint": fingerprint}


def whole(name: str, weights: str | Path | None) -> nn.Module:
    """The network before it is cut: drawn, with the weights of a file, or with published ones."""
    family, _, model = name.rpartition(":")
    if family not in ("", "timm", "torchvision"):
        raise ValueError(f"features {name!r} are of no known family: give a model of timm, or torchvision:<model>")
    return (_torchvision if family == "torchvision" else _timm)(model, weights)


def published_statistics(name: str) -> Statistics:
    """Mean and standard deviation of the images that the network was trained on, in [0, 1]."""
    family, _, model = name.rpartition(":")
    if family == "torchvision":
        return IMAGENET_MEAN, IMAGENET_STD
    settings = timm_with(model, what=f"features {name!r}").get_pretrained_cfg(model)
    return settings.mean, settings.std


def _timm(name: str, weights: str | Path | None) -> nn.Module:
    timm = timm_with(name, what=f"features {name!r}")
    transformer = timm.models.is_model_in_modules(name, ["vision_transformer", "deit"])
    create = partial(timm.create_model, **{"dynamic_img_size": True} if transformer else {})
    if weights == RANDOM:
        return create(name)
    kept = cache_folder() / "timm" / name / "model.safetensors"
    hub = timm.get_pretrained_cfg(name).hf_hub_id
    hint = (
        f"where there is a network, `hf download {hub} model.safetensors --local-dir {kept.parent}` fetches {kept}, "
        f"which is looked for here; {WITHOUT}"
    )
    path = kept if weights is None and kept.is_file() else weights
    path = None if path is None else Path(path).expanduser()
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"no weights of features {name!r} at {path}: {hint}")
    return from_timm(create, name, path, hint=hint)


def _torchvision(name: str, weights: str | Path | None) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(f"torchvision has no classifier {name!r}; it has {', '.join(models.list_models(models))}")
    network = models.get_model(name, weights=None)
    if weights == RANDOM:
        return network
    url = models.get_model_weights(name).DEFAULT.url
    prefix = re.search(r"-([0-9a-f]{8,})\.", url)
    path = weights_file(url, what=name, sha256_prefix=prefix and prefix[1], path=weights, hint=WITHOUT)
    try:
        network.load_state_dict(read_published(path))
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of torchvision's {name}: {opening(error)}") from error
    return network
