"""What a look at all pictures says before training: those that are nearly the same, and whether they are few."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.base.grids import spread
from lit_gans.data.sets import ImageSet

MOST, SECONDS = 4096, 5.0
# Of 512 bits: most copies of another size or quality differ in fewer, other pictures in 80 and more.
SIDE, BITS_APART = 16, 40
FEW = 1000


class Alike(NamedTuple):
    """Pairs of pictures, by number, that are nearly the same, among the `looked_at`, evenly chosen ones."""

    pairs: list[tuple[int, int]]
    looked_at: int


def nearly_alike(images: ImageSet, *, most: int = MOST, seconds: float = SECONDS) -> Alike:
    """Pairs whose brightness rises and falls alike, by differences of neighbours among 16 x 16 places ("dHash").

    Of more than `most` pictures, or where reading takes more than `seconds`, some are looked at.
    """
    chosen, hashes, began = spread(len(images), most), list[Tensor](), time.monotonic()
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))]  # time may end anywhere
    for part in chosen.split(64):
        hashes.append(signs(images.images(part)))
        if time.monotonic() - began > seconds:
            break
    found = torch.cat(hashes)
    apart = (found.shape[1] - found @ found.T) / 2
    first, second = ((apart <= BITS_APART) & torch.ones_like(apart, dtype=torch.bool).triu(1)).nonzero().T
    pairs = sorted(tuple(sorted(pair)) for pair in zip(chosen[first].tolist(), chosen[second].tolist(), strict=True))
    return Alike(pairs, len(found))


def signs(pixels: Tensor) -> Tensor:
    """uint8 [N, C, H, W] -> [N, 512] of -1 and 1: whether each place is brighter than its neighbour to the left, and
    above."""
    grey = F.adaptive_avg_pool2d(pixels.float().mean(1, keepdim=True), SIDE + 1)
    rises = [grey[..., 1:, 1:] > grey[..., 1:, :-1], grey[..., 1:, 1:] > grey[..., :-1, 1:]]
    return torch.cat([each.flatten(1) for each in rises], 1).float() * 2 - 1


def advice(count: int, *, augmented: bool, mirrored: bool) -> str:
    """What helps with few pictures; "" where they are not few."""
    if count >= FEW:
        return ""
    ways = ["augmentation delays it" + (" (is on)" if augmented else " (give the model one: model.init_args.augment)")]
    ways += ["mirrored pictures count twice" + (" (is on)" if mirrored else " (data.init_args.mirror=true)")]
    ways += ["beginning with a model of similar pictures needs fewer (--init_from)"]
    return f"{count} pictures are few: they are soon known by heart, and samples repeat them; {', '.join(ways)}"
