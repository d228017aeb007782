"""Images between [-1, 1] tensors, uint8 tensors and files."""

import math
import os
from pathlib import Path

import torch
from torch import Tensor

from lit_gans.files import replacing


def to_uint8(images: Tensor) -> Tensor:
    """[..., C, H, W] in [-1, 1] -> uint8; -1 is 0, 1 is 255, values outside are clamped, rounding is to nearest."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 [..., C, H, W] -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def grid(images: Tensor, columns: int, *, min_cell_px: int = 1) -> Tensor:
    """[N, C, H, W] uint8 or [-1, 1] -> one uint8 image [C, rows * H', columns * W'], row by row, blanks black.

    Cells smaller than `min_cell_px` are enlarged by an integer factor, without smoothing.
    """
    if images.is_floating_point():
        images = to_uint8(images)
    factor = max(1, math.ceil(min_cell_px / images.shape[-1]))
    images = images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    n, c, h, w = images.shape
    rows = math.ceil(n / columns)
    canvas = images.new_zeros(rows * columns, c, h, w)
    canvas[:n] = images
    return canvas.view(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)


def to_pil(image: Tensor) -> "PIL.Image.Image":  # noqa: F821
    """uint8 [1 or 3, H, W] -> a Pillow image."""
    from PIL import Image

    array = image.cpu().numpy()
    return Image.fromarray(array[0], "L") if len(array) == 1 else Image.fromarray(array.transpose(1, 2, 0), "RGB")


def save_png(image: Tensor, path: str | os.PathLike) -> Path:
    """Writes uint8 [C, H, W] so that a reader never sees half a file."""
    with replacing(path) as unfinished:
        to_pil(image).save(unfinished, format="PNG")
    return Path(path)
