"""Where words are drawn: attention maps over pictures, and a sheet of them (Xu et al., 2018, Figures 4 and 6)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.base.images import save_png

LABEL_PX = 16  # height of a line of text
DIMMED = 0.25  # brightness of a place that a word gives no attention


class WordMaps(NamedTuple):
    """images uint8 [N, 3, R, R]; maps [N, T, H, W] of one stage, summing to 1 over T; words: those of each caption."""

    images: Tensor
    maps: Tensor
    words: list[list[str]]


def most_attended(maps: Tensor, count: int) -> list[int]:
    """maps [T, H, W] -> the numbers of the `count` words with most attention, most first.

    Only attention above 2 / T counts, as in the official code; among words that have none, the sum decides.
    """
    strong = (maps * (maps > 2 / len(maps))).sum((1, 2)).tolist()
    total = maps.sum((1, 2)).tolist()
    return sorted(range(len(maps)), key=lambda word: (-strong[word], -total[word], word))[:count]


def overlay(image: Tensor, attention: Tensor) -> Tensor:
    """image uint8 [3, R, R], attention [H, W] -> uint8 [3, R, R]: bright where the attention is."""
    attention = attention.float() / attention.max().clamp(min=1e-12)
    light = F.interpolate(attention[None, None], size=image.shape[1:], mode="bilinear", align_corners=False)[0]
    return (image * (DIMMED + (1 - DIMMED) * light.clamp(0, 1))).round().to(torch.uint8)


def attention_sheet(found: WordMaps, *, top: int = 5) -> Tensor:
    """-> one uint8 image [3, H, W]: in each row a picture, then the same for its `top` most attended words, named.

    ValueError for a `top` below 1.
    """
    if top < 1:
        raise ValueError(f"top {top} is below 1: a sheet shows the maps of one word or more")
    rows = []
    for image, maps, words in zip(found.images, found.maps, found.words, strict=True):
        maps = maps[: len(words)]
        chosen = most_attended(maps, top)
        cells = [image, *(overlay(image, maps[word]) for word in chosen)]
        cells += [torch.zeros_like(image)] * (top + 1 - len(cells))
        side = image.shape[2]
        caption = _line([" ".join(words)], side * (top + 1))
        names = _line(["", *(words[word] for word in chosen), *[""] * (top - len(chosen))], side)
        rows += [caption, torch.cat(cells, dim=2), names]
    return torch.cat(rows, dim=1)


def save_attention_sheet(found: WordMaps, path: str | os.PathLike, *, top: int = 5) -> Path:
    """Writes `attention_sheet` as a PNG."""
    return save_png(attention_sheet(found, top=top), path)


def _line(texts: Sequence[str], cell_px: int) -> Tensor:
    """uint8 [3, LABEL_PX, cell_px for each text]: black on white, each text cut at its cell's right."""
    import numpy as np
    from PIL import Image, ImageDraw

    cells = []
    for text in texts:
        cell = Image.new("RGB", (cell_px, LABEL_PX), "white")
        ImageDraw.Draw(cell).text((2, 2), text, fill="black")
        cells.append(torch.from_numpy(np.array(cell)).permute(2, 0, 1))  # [H, W, 3] -> [3, H, W]
    return torch.cat(cells, dim=2)
