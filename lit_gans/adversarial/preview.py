"""What a model that samples shows of itself: fixed seeds in rows and columns."""

import torch
from torch import Tensor

from lit_gans.base.grids import grid_shape, layout
from lit_gans.base.images import to_uint8
from lit_gans.metrics.sources import Samples


def draw_grid(model: Samples, rows: int, columns: int, *, psi: float = 1.0) -> tuple[Tensor, int]:
    """(uint8 [N, C, H, W] on the CPU, columns) of fixed seeds, averaged weights; on a conditional model a class a row.

    Of many classes, or of large images, fewer rows and columns than asked for.
    """
    rows, columns = grid_shape(rows, columns, num_classes=model.num_classes, resolution=model.resolution)
    seeds, labels = layout(rows, columns, num_classes=model.num_classes)
    return draw(model, seeds, labels=labels, psi=psi), columns


def draw(
    model: Samples,
    seeds: Tensor,
    *,
    labels: Tensor | None = None,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    """uint8 [N, C, H, W] on the CPU, drawn in batches of 64 images of 256 x 256 pixels or as much memory."""
    size = batch_size or max(min(64 * 256**2 // model.resolution**2, 64), 1)
    parts = []
    for start in range(0, len(seeds), size):
        part = slice(start, start + size)
        chosen = None if labels is None else labels[part]
        parts.append(to_uint8(model.sample(seeds[part], labels=chosen, psi=psi, ema=ema)).cpu())
    return torch.cat(parts)
