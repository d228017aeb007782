"""Images of any size for networks that want sides of certain multiples, and large ones in tiles that overlap."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TILE_PX = 1024


def reflect_to(images: Tensor, stride: int) -> tuple[Tensor, int, int]:
    """[N, C, H, W] -> (images with sides that `stride` divides, rows added above, columns added on the left).

    Reflected without repeating the border, again and again where the picture is smaller than what is added.
    """
    rows, top = _reflected(images.shape[-2], stride)
    columns, left = _reflected(images.shape[-1], stride)
    return images[..., rows, :][..., columns], top, left


def _reflected(length: int, stride: int) -> tuple[Tensor, int]:
    """(int64 [L]: which of `length` pixels stands where, how many stand before the first), L a multiple of stride."""
    total = -(-length // stride) * stride
    before = (total - length) // 2
    place = torch.arange(-before, total - before)
    if length == 1:
        return torch.zeros_like(place), before
    place = place.remainder(2 * (length - 1))
    return torch.minimum(place, 2 * (length - 1) - place), before


def tile_size(stride: int, *, tile: int | None, overlap: int) -> int:
    """The side of tiles in px, which the stride divides and which leaves a stride beside the overlap; 0 for none.

    ValueError for an asked-for size that cannot be had.
    """
    if overlap < 0:
        raise ValueError(f"overlap is {overlap}: give 0 or more")
    if tile == 0:
        return 0
    least = -(-(overlap + stride) // stride) * stride
    if tile is None:
        return max(-(-TILE_PX // stride) * stride, least)
    if tile < 0 or tile % stride:
        fits = max(-(-tile // stride) * stride, least)
        raise ValueError(f"tile {tile} is no multiple of the model's stride of {stride} px: use {fits}, or 0 for none")
    if tile < least:
        raise ValueError(
            f"tiles of {tile} px that overlap by {overlap} do not get on by the model's stride of {stride} px: "
            f"use a tile of {least} or more, or an overlap of {tile - stride} or less"
        )
    return tile


def in_tiles(
    work: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    tile: int,
    overlap: int,
    stride: int,
    told: Callable[[float], None] | None = None,
) -> Tensor:
    """work(images) of [N, C, H, W], in tiles where a side is longer than `tile` (0: never), blended where they overlap.

    Across an overlap one tile's share falls linearly as its neighbour's rises.
    """
    height, width = images.shape[-2:]
    rows, columns = (_starts(side, tile or side, overlap, stride) for side in (height, width))
    high, wide = min(tile or height, height), min(tile or width, width)
    total: Tensor | None = None
    weights = torch.ones(())
    for number, (top, left) in enumerate((top, left) for top in rows for left in columns):
        made = work(images[..., top : top + high, left : left + wide])
        if len(rows) * len(columns) == 1:
            total = made
        else:
            if total is None:
                total, weights = made.new_zeros(*made.shape[:2], height, width), made.new_zeros(height, width)
            share = _ramp(top, high, height, overlap)[:, None] * _ramp(left, wide, width, overlap)
            total[..., top : top + high, left : left + wide] += made * share
            weights[top : top + high, left : left + wide] += share
        if told is not None:
            told((number + 1) / (len(rows) * len(columns)))
    assert total is not None  # there is a first tile
    return total / weights


def _starts(length: int, tile: int, overlap: int, stride: int) -> list[int]:
    """Where tiles begin, at multiples of the stride; the last ends where the image does."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, (tile - overlap) // stride * stride), length - tile]


def _ramp(start: int, size: int, length: int, overlap: int) -> Tensor:
    """[size] in (0, 1]: a tile's share along one side, rising and falling over `overlap` px where it has neighbours."""
    share = torch.ones(size)
    rise = torch.arange(1, overlap + 1) / (overlap + 1)
    if overlap and start > 0:
        share[:overlap] = rise
    if overlap and start + size < length:
        share[-overlap:] = torch.minimum(share[-overlap:], rise.flip(0))
    return share
