"""Many images as one picture: rows and columns, readable sizes, what is shown of many."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.base.images import to_uint8


def grid(images: Tensor, columns: int, *, min_cell_px: int = 1) -> Tensor:
    """[N, C, H, W] uint8 or [-1, 1] -> one uint8 image [C, rows * H', columns * W'], row by row, blanks black.

    Cells smaller than `min_cell_px` are enlarged by an integer factor, without smoothing.
    """
    if images.is_floating_point():
        images = to_uint8(images)
    factor = max(1, math.ceil(min_cell_px / images.shape[-1]))
    images = _large(images, factor)
    n, c, h, w = images.shape
    rows = math.ceil(n / columns)
    canvas = images.new_zeros(rows * columns, c, h, w)
    canvas[:n] = images
    return canvas.view(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)

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


def columns_of(cells: int) -> int:
    """How many cells make a row: without a gap where two rows of width and height let it, as 4 of 8 and 3 of 6."""
    square = math.ceil(math.sqrt(cells))
    whole = (c for c in range(square, cells + 1) if cells % c == 0 and c <= 2 * (cells // c))
    return next(whole, square)


READABLE_CELL_PX, READABLE_WIDTH_PX, LINE_PX = 64, 1600, 2


def readable_grid(images: Tensor, columns: int) -> Tensor:
    """uint8 [N, C, H, W] -> one image [C, H', W'].

    Cells below 64 pixels are enlarged to about that, while the whole is at most 1,600 wide, and parted by grey lines.
    """
    side = images.shape[-1]
    if side >= READABLE_CELL_PX:
        return grid(images, columns)
    factor = max(min(-(-READABLE_CELL_PX // side), READABLE_WIDTH_PX // (columns * side)), 1)
    return grid(F.pad(_large(images, factor), (0, LINE_PX, 0, LINE_PX), value=128), columns)[:, :-LINE_PX, :-LINE_PX]


def joined(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Rows of uint8 images [C, H, W], of one height and any widths, as one image, parted like `readable_grid`."""
    factor = max(-(-READABLE_CELL_PX // rows[0][0].shape[-2]), 1)
    lines = [torch.cat([F.pad(_large(image, factor), (0, LINE_PX), value=128) for image in row], 2) for row in rows]
    return torch.cat([F.pad(line, (0, 0, 0, LINE_PX), value=128) for line in lines], 1)[:, :-LINE_PX, :-LINE_PX]


def _large(images: Tensor, factor: int) -> Tensor:
    return images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
