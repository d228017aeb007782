"""Discriminators of projected features (Sauer et al., 2021, Sec. 3.2): one for each level, none of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_gans.nn import BatchNorm
from lit_gans.nn.spectral_norm import SpectralConv2d
from lit_gans.papers.projected_gan.features import PUBLISHED_PX, FeatureNetwork
from lit_gans.papers.projected_gan.projector import Mixing, Projector

WIDTHS = {4: 512, 8: 512, 16: 256, 32: 128, 64: 64, 128: 64, 256: 32, 512: 16, 1024: 8}  # channels by nominal side
LAST_PX = 8  # the nominal side that the last convolution sees
KERNEL = 4  # of that convolution, which has no padding


class Separable(nn.Module):
    """A 3x3 convolution of each channel alone, and a 1x1 of all."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.depthwise = SpectralConv2d(fan_in, fan_in, 3, padding=1, groups=fan_in, bias=False)
        self.pointwise = SpectralConv2d(fan_in, fan_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def halving(fan_in: int, fan_out: int, *, separable: bool) -> nn.Module:
    """[N, fan_in, H, W] -> [N, fan_out, H / 2, W / 2]."""
    if separable:
        first, last = Separable(fan_in, fan_out), [nn.AvgPool2d(2, 2)]
    else:
        first, last = SpectralConv2d(fan_in, fan_out, 4, 2, 1), []
    return nn.Sequential(first, BatchNorm(fan_out), nn.LeakyReLU(0.2, inplace=True), *last)


def patch_halving(fan_in: int, fan_out: int, *, separable: bool) -> nn.Module:
    """`halving`, and a 1x1 convolution of what it gives."""
    again = SpectralConv2d(fan_out, fan_out, 1, bias=False), BatchNorm(fan_out), nn.LeakyReLU(0.2, inplace=True)
    return nn.Sequential(halving(fan_in, fan_out, separable=separable), *again)


class Condition(nn.Module):
    """labels [N], or one-hot [N, num_classes] -> what logits are projected onto, [N, out_dim]."""

    def __init__(self, num_classes: int, *, embed_dim: int = 128, out_dim: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_classes, embed_dim)
        self.project = nn.Sequential(nn.Linear(embed_dim, out_dim), nn.LeakyReLU(0.2, inplace=True))

    def forward(self, labels: Tensor) -> Tensor:
        return self.project(self.embed(labels if labels.dim() == 1 else labels.argmax(1)))


class Head(nn.Module):
    """The discriminator of one level: [N, C, H, W] (and labels) -> logits [N, 1, H', W'].

    Args:
        nominal_px: blocks halve from this side to 8, whatever the level's true one. Of sides without a width of their
            own the nearest counts.
        width: of all blocks, in place of `WIDTHS`.
        condition: what labels are projected by (Miyato and Koyama, 2018), to `condition_dim` numbers; None: no labels.
    """

    def __init__(
        self, channels: int, *, nominal_px: int, width: int | None = None, separable: bool = False,
        patch: bool = False, condition: nn.Module | None = None, condition_dim: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        nominal_px = min(WIDTHS, key=lambda px: abs(px - nominal_px))
        sides = [px for px in sorted(WIDTHS, reverse=True) if LAST_PX <= px <= nominal_px] or [nominal_px]
        widths = [channels, *(width or WIDTHS[px] for px in sides[1:])]
        block = patch_halving if patch else halving
        layers = [block(a, b, separable=separable) for a, b in pairwise(widths)]
        self.condition = condition
        last = SpectralConv2d(widths[-1], 1 if condition is None else condition_dim, KERNEL, bias=False)
        # Of a head with labels the last one has a name of its own.
        self.layers = nn.Sequential(*layers, *([last] if condition is None else []))
        self.classify = None if condition is None else last

    def from_image_on(self) -> list[nn.Module]:
        """What the image passes, then what the label passes."""
        return [part for part in (self.layers, self.classify, self.condition) if part is not None]

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.layers(x)
        if self.condition is None or self.classify is None:
            return x
        if labels is None:
            raise ValueError("this discriminator is conditional: give labels [N]")
        x, direction = self.classify(x), self.condition(labels)
        return torch.einsum("nchw,nc->nhw", x, direction)[:, None] * direction.shape[1] ** -0.5


class MultiScale(nn.Module):
    """A `Head` for each level: levels, the finest first (and labels) -> logits [N, L], those of all one after another.

    `channels` and `nominal_px` are of the levels; `condition` makes a head's.
    """

    def __init__(
        self, channels: Sequence[int], *, nominal_px: Sequence[int], width: int | None = None, separable: bool = False,
        patch: bool = False, condition: Callable[[], nn.Module] | None = None, condition_dim: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads = nn.ModuleList(
            Head(
                c, nominal_px=2 * LAST_PX if patch else px, width=width, separable=separable, patch=patch,
                condition=None if condition is None else condition(), condition_dim=condition_dim,
            )
            for c, px in zip(channels, nominal_px, strict=True)
        )  # fmt: skip

    def forward(self, levels: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        return torch.cat([h(x, labels).flatten(1) for h, x in zip(self.heads, levels, strict=False)], 1)


def nominal_sides(sizes: Sequence[int], *, finest: int) -> list[int] | None:
    """For levels of these true sides: `finest`, its half, ..., all halved until the last convolutions fit in.

    The authors have those of images of 256 px for every size, which 128 px still fills. None where none fits.
    """
    sides = [finest >> k for k in range(len(sizes))]
    while sides and min(sides) >= LAST_PX:
        if all(size // (side // LAST_PX) >= KERNEL for size, side in zip(sizes, sides, strict=True)):
            return sides
        sides = [side // 2 for side in sides]
    return None


class Discriminator(nn.Module):
    """Images [N, C, H, W] in [-1, 1] (and labels) -> logits [N, L], by features, projection and heads.

    Args:
        features, features_px, features_weights, fingerprint: the network that looks at the images, see
            `FeatureNetwork`; with `normalise` by the statistics that it is published with, else images as they are.
        mixing, mixed_channels, expand: of its maps, see `Projector`. seed: of all that is drawn and not trained.
        num_heads: so many levels are judged, from the finest on.
        width, separable, patch: of `MultiScale`.
        num_classes: 0 for none. condition: makes of it what labels are projected by, to 64 numbers.

    Raises:
        ValueError: the levels are too small for the heads.
    """

    def __init__(
        self,
        features: str = "tf_efficientnet_lite0",
        *,
        features_px: int = PUBLISHED_PX,
        features_weights: str | None = None,
        fingerprint: str | None = None,
        normalise: bool = False,
        mixing: Mixing = "scales",
        mixed_channels: int = 64,
        expand: bool = True,
        num_heads: int = 4,
        width: int | None = None,
        separable: bool = False,
        patch: bool = False,
        num_classes: int = 0,
        condition: Callable[[int], nn.Module] = Condition,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.features = FeatureNetwork(
            features,
            px=features_px,
            weights=features_weights,
            normalise=normalise or None,
            fingerprint=fingerprint,
            seed=seed,
        )
        projector = Projector(
            self.features.channels, out_channels=mixed_channels, expand=expand, mixing=mixing, seed=seed
        )
        if not 1 <= num_heads <= len(projector.channels):
            raise ValueError(f"num_heads {num_heads}: there are levels for 1 to {len(projector.channels)}")
        self.projector = projector
        sizes = projector.sizes(self.features.sizes)[:num_heads]
        finest = 128 if projector.mixing == "scales" else 64
        nominal = [2 * LAST_PX] * num_heads if patch else nominal_sides(sizes, finest=finest)
        if nominal is None or (patch and min(sizes) < 2 * KERNEL):
            raise ValueError(
                f"images of {features_px} px give levels of {', '.join(map(str, sizes))} px by {features}, too "
                f"small for discriminators of {num_heads} levels: set features_px to {2 * features_px} or so, or take "
                "fewer num_heads"
            )
        self.heads = MultiScale(
            projector.channels[:num_heads],
            nominal_px=nominal,
            width=width,
            separable=separable,
            patch=patch,
            condition=partial(condition, num_classes) if num_classes else None,
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.heads(self.projector(self.features(images)), labels)

    def idle_biases(self) -> Iterator[nn.Parameter]:
        """Those of convolutions that a batch norm follows, which takes them away again in training."""
        for block in self.heads.modules():
            if isinstance(block, nn.Sequential) and len(block) > 1 and isinstance(block[1], BatchNorm):
                if isinstance(block[0], SpectralConv2d) and block[0].bias is not None:
                    yield block[0].bias
