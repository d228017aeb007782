"""What a generator shows of itself: fixed seeds in rows and columns."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_gans.images import to_uint8

if TYPE_CHECKING:
    from lit_gans.adversarial.gan import GAN

MAX_CLASSES = 20
MAX_SIDE_PX = 7680


def grid_shape(rows: int, columns: int, *, num_classes: int, resolution: int) -> tuple[int, int]:
    """(rows, columns) of a grid: with classes a row for each of at most 20, and no side above 7,680 pixels."""
    rows = min(num_classes, MAX_CLASSES) or rows
    most = max(MAX_SIDE_PX // resolution, 1)
    return min(rows, most), min(columns, most)


def layout(rows: int, columns: int, *, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """(seeds [rows * columns], labels [rows * columns] or None), row by row: a class per row, a seed per column."""
    if num_classes == 0:
        return torch.arange(rows * columns), None
    classes = spread(num_classes, rows)
    return torch.arange(columns).repeat(len(classes)), classes.repeat_interleave(columns)


def spread(total: int, count: int) -> Tensor:
    """int64 [min(count, total)]: numbers below `total`, evenly spread from the first to the last."""
    return torch.linspace(0, total - 1, min(count, total), dtype=torch.float64).round().long()


def draw(
    gan: "GAN",
    seeds: Tensor,
    *,
    labels: Tensor | None = None,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    """uint8 [N, C, H, W] on the CPU, drawn in batches of 64 images of 256 x 256 pixels or as much memory."""
    size = batch_size or max(min(64 * 256**2 // gan.resolution**2, 64), 1)
    parts = []
    for start in range(0, len(seeds), size):
        part = slice(start, start + size)
        chosen = None if labels is None else labels[part]
        parts.append(to_uint8(gan.sample(seeds[part], labels=chosen, psi=psi, ema=ema)).cpu())
    return torch.cat(parts)
