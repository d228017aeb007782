"""Growing networks (Karras et al., 2018), https://arxiv.org/abs/1710.10196, Section 2: what is trained, and how far in.

A network works at `stage` pixels, a power of two up to its full resolution. When a stage begins, its layers are faded
in: `alpha` is their share in the output (Figure 2), from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from lit_gans.base.checks import power_of_two

SMALLEST_PX = 4


class Growing(nn.Module):
    """A network that can stand at any stage from 4 pixels to `resolution`; built fully grown.

    The buffer `lod`, log2(resolution / stage) + 1 - alpha, is the level of detail of the published networks: what is
    saved knows how far it has grown. alpha = 0 and the finished stage before it are the same level.

    Raises:
        ValueError: resolution is not a power of two from 4.
    """

    lod: Tensor

    def __init__(self, resolution: int) -> None:
        super().__init__()
        power_of_two(
            "resolution", resolution, least=SMALLEST_PX,
            why="growing networks double it stage by stage: use 32, 64, 128, ...",
        )  # fmt: skip
        self.resolution = resolution
        self.register_buffer("lod", torch.zeros(()))
        self._stand(resolution, 1.0)

    def set_progress(self, stage: int, alpha: float) -> None:
        """Goes to `stage` pixels, with a share `alpha` of its newest layers.

        Raises:
            ValueError: no such stage, or no such share.
        """
        power_of_two("stage", stage, least=SMALLEST_PX, most=self.resolution)
        if not 0 <= alpha <= 1 or (stage == SMALLEST_PX and alpha < 1):
            raise ValueError(f"alpha {alpha} at {stage} px: it lies in [0, 1], and at {SMALLEST_PX} px it is 1")
        self._stand(stage, alpha)
        self.lod.fill_(math.log2(self.resolution / stage) + 1 - alpha)

    def _stand(self, stage: int, alpha: float) -> None:
        self.stage, self.alpha, self.fading = stage, alpha, alpha < 1

    def faded(self, old: Tensor, new: Tensor) -> Tensor:
        """A share `alpha` of `new` beside `old`, of one shape.

        The share is taken from the tensor `lod`: of the number, torch.compile would make a new graph for each value.
        """
        share = round(math.log2(self.resolution / self.stage)) + 1 - self.lod
        return torch.lerp(old, new, share.to(new.dtype))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._stand(*stage_at(float(self.lod), self.resolution))


def grow_together(networks: Sequence[Any], stage: int, alpha: float, *, leader: Growing, compiled: bool) -> None:
    """All of a game's networks, each with `set_progress`, go to a stage together; `leader` tells where they stand.

    Compiled ones get new graphs where another set of layers runs: torch.compile would keep the old ones, and at its
    limit of graphs, 8, give up before the last stages, for which it is worth the most.
    """
    if compiled and (leader.stage, leader.fading) != (stage, alpha < 1):
        torch.compiler.reset()
    for network in networks:
        network.set_progress(stage, alpha)


def stage_at(lod: float, resolution: int) -> tuple[int, float]:
    """(stage in pixels, alpha) of a level of detail from 0 (fully grown) on: 0.7 is alpha 0.3 of the last stage."""
    whole = math.floor(lod)
    return resolution >> whole, 1 - (lod - whole)


def blended(images: Tensor, alpha: float) -> Tensor:
    """Reals [N, C, H, W] as a fading stage shows them: a share 1 - alpha of what the stage before saw, enlarged."""
    if alpha == 1:
        return images
    return torch.lerp(interpolate(avg_pool2d(images, 2), scale_factor=2), images, alpha)


def enlarged(images: Tensor, resolution: int) -> Tensor:
    """[N, C, H, W] -> [N, C, resolution, resolution], each pixel repeated."""
    factor = resolution // images.shape[-1]
    return images if factor == 1 else interpolate(images, scale_factor=factor)
