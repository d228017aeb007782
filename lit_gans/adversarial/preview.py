"""What a model that samples shows of itself: fixed seeds in rows and columns."""

import torch
from torch import Tensor

from lit_gans.base.grids import grid_shape, layout
from lit_gans.base.images import to_uint8
from lit_gans.base.interpolation import arc, lerp
from lit_gans.metrics.sources import FromLatents, Samples


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
    size = batch_size or _at_once(model.resolution)
    parts = []
    for start in range(0, len(seeds), size):
        part = slice(start, start + size)
        chosen = None if labels is None else labels[part]
        parts.append(to_uint8(model.sample(seeds[part], labels=chosen, psi=psi, ema=ema)).cpu())
    return torch.cat(parts)


@torch.no_grad()
def draw_walks(model: FromLatents, resolution: int, rows: int, columns: int, *, psi: float = 1.0) -> Tensor:
    """uint8 [rows * columns, C, H, W] on the CPU: each row goes from one fixed seed's image to another's; a class each.

    Without leaps in between, the model has not learnt its pictures by heart.
    """
    start, end = (model.seeded_latents(torch.arange(first, 2 * rows, 2))[:, None] for first in (0, 1))
    t = torch.linspace(0, 1, columns, device=start.device)[:, None]
    z = (arc if model.prior.spherical else lerp)(start, end, t).flatten(0, 1)
    labels = None
    if model.num_classes:
        labels = (torch.arange(rows, device=z.device) % model.num_classes).repeat_interleave(columns)
    size, parts = _at_once(resolution), []
    for first in range(0, len(z), size):
        part = slice(first, first + size)
        parts.append(to_uint8(model.generate(z[part], labels=None if labels is None else labels[part], psi=psi)).cpu())
    return torch.cat(parts)


def _at_once(resolution: int) -> int:
    return max(min(64 * 256**2 // resolution**2, 64), 1)
