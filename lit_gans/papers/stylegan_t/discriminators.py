"""The discriminators of StyleGAN-T (Sauer et al., 2023, Sec. 3.2): one for each set of tokens of a frozen network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from lit_gans.augment import DiffAugment
from lit_gans.augment.diffaug import POLICIES
from lit_gans.nn.equalized import EqualizedLinear
from lit_gans.nn.resample import no_autocast
from lit_gans.nn.spectral_norm import SpectralLayer
from lit_gans.papers.projected_gan.features import PUBLISHED_PX
from lit_gans.papers.stylegan_t.features import DINO, TokenNetwork

GROUP = 8  # images whose statistics a local batch norm takes together
KERNEL = 9  # tokens that the second block looks at


class SpectralConv1d(nn.Conv1d, SpectralLayer):
    """Along tokens, of which the first follows on the last."""

    def __init__(self, fan_in: int, fan_out: int, kernel_size: int) -> None:
        super().__init__(fan_in, fan_out, kernel_size, padding=kernel_size // 2, padding_mode="circular")
        self.add_vectors()

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.normalised(), self.bias)


def check_groups(n: int, group: int, *, what: str) -> None:
    """ValueError unless `n` images are divided into groups of at most `group` and of one size."""
    groups = math.ceil(n / group)
    if n % groups:
        fitting = max(k for k in range(1, group + 1) if n % k == 0)
        raise ValueError(
            f"{what} of {n} images does not divide into {groups} groups of one size, of which local batch norms take "
            f"statistics: give a multiple of {group}, or norm_group={fitting}"
        )


class LocalBatchNorm(nn.Module):
    """x [N, C, T] normalised by mean and variance of each channel over the tokens of `group` neighbouring images.

    N images are ceil(N / group) groups of one size. There are no running statistics: evaluating, it is the same.
    """

    def __init__(self, channels: int, *, group: int = GROUP, eps: float = 1e-5) -> None:
        super().__init__()
        self.group, self.eps = group, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        check_groups(len(x), self.group, what="a batch")
        with no_autocast(x):
            grouped = x.float().unflatten(0, (math.ceil(len(x) / self.group), -1))  # [N, C, T] -> [G, N / G, C, T]
            var, mean = torch.var_mean(grouped, (1, 3), correction=0, keepdim=True)
            y = ((grouped - mean) / (var + self.eps).sqrt()).flatten(0, 1)
            return (y * self.weight[:, None] + self.bias[:, None]).to(x.dtype)


class Block(nn.Module):
    """Convolution, local batch norm and leaky rectifier of tokens [N, C, T]."""

    def __init__(self, channels: int, kernel_size: int, *, group: int) -> None:
        super().__init__()
        self.conv, self.norm = SpectralConv1d(channels, channels, kernel_size), LocalBatchNorm(channels, group=group)

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(self.norm(self.conv(x)), 0.2)


class Head(nn.Module):
    """tokens [N, C, T] (and sentences [N, c_dim]) -> logits [N, 1, T], projected onto the sentence (Miyato and Koyama).

    Two blocks: of each token alone, and of its neighbours beside what comes in.
    """

    def __init__(self, channels: int, *, c_dim: int, cmap_dim: int = 64, group: int = GROUP) -> None:
        super().__init__()
        self.first, self.second = Block(channels, 1, group=group), Block(channels, KERNEL, group=group)
        self.classify = SpectralConv1d(channels, cmap_dim if c_dim else 1, 1)
        self.condition = EqualizedLinear(c_dim, cmap_dim) if c_dim else None

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        x = self.first(x)
        logits = self.classify((self.second(x) + x) * math.sqrt(0.5))
        if self.condition is None:
            return logits
        if c is None:
            raise ValueError("this discriminator is conditional: give sentences [N, C]")
        mapped = self.condition(c)[..., None].to(logits.dtype)  # [N, M, 1]
        return (logits * mapped).sum(1, keepdim=True) / math.sqrt(mapped.shape[1])


class Discriminator(nn.Module):
    """Images [N, C, H, W] in [-1, 1] (and sentences [N, c_dim]) -> logits [N, L], those of all heads one after another.

    Args:
        features, features_weights, fingerprint, seed: the network that looks at the images, see `TokenNetwork`.
        features_px: the side that it sees: 224 as published.
        c_dim: size of the sentences, 0 for none; cmap_dim: of what logits are projected onto.
        group: of `LocalBatchNorm`.
        policy: of `DiffAugment`, in training; [] for none. Cutouts have a fifth of the side, as in the official code.

    Raises:
        ValueError: there are fewer tokens than the heads' convolutions reach over.
    """

    def __init__(
        self,
        features: str = DINO,
        *,
        features_px: int = PUBLISHED_PX,
        features_weights: str | None = None,
        fingerprint: str | None = None,
        c_dim: int = 0,
        cmap_dim: int = 64,
        group: int = GROUP,
        policy: Sequence[str] = POLICIES,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if group < 1:
            raise ValueError(f"norm_group {group} is below 1: give how many images have statistics together, such as 8")
        options: dict[str, Any] = {"weights": features_weights, "fingerprint": fingerprint, "seed": seed}
        self.features = TokenNetwork(features, px=features_px, **options)
        if min(self.features.tokens) < KERNEL // 2:
            raise ValueError(
                f"images of {features_px} px give {min(self.features.tokens)} tokens by {features}, and the heads look "
                f"at {KERNEL}: set features_px to {2 * features_px} or so"
            )
        self.augment = DiffAugment(list(policy), cutout=0.2)
        self.heads = nn.ModuleList(
            Head(channels, c_dim=c_dim, cmap_dim=cmap_dim, group=group) for channels in self.features.channels
        )

    def forward(self, images: Tensor, c: Tensor | None = None, *, place: tuple[int, int] | None = None) -> Tensor:
        """place: the top and left of the crop of `features_px` that is looked at; None looks at whole images."""
        if self.training:
            images = self.augment(images)
        if place is not None:
            images = cropped(images, place, px=self.features.px)
        found = [head(x, c).flatten(1) for head, x in zip(self.heads, self.features(images), strict=True)]
        return torch.cat(found, 1)

    def idle_biases(self) -> Iterator[nn.Parameter]:
        """Those of convolutions that a local batch norm follows, which takes them away again."""
        for block in self.heads.modules():
            if isinstance(block, Block) and block.conv.bias is not None:
                yield block.conv.bias


def cropped(images: Tensor, place: tuple[int, int], *, px: int) -> Tensor:
    """images [N, C, H, W] -> [N, C, px, px] at the same top and left of all."""
    top, left = place
    return images[:, :, top : top + px, left : left + px]
