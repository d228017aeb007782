"""Images between [-1, 1] tensors, uint8 tensors and files."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_gans.base.files import replacing

if TYPE_CHECKING:
    import PIL.Image


def to_uint8(images: Tensor) -> Tensor:
    """[..., C, H, W] in [-1, 1] -> uint8; -1 is 0, 1 is 255, values outside are clamped, rounding is to nearest."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 [..., C, H, W] -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_pil(image: Tensor) -> "PIL.Image.Image":
    """uint8 [1 or 3, H, W] -> a Pillow image."""
    from PIL import Image

    array = image.cpu().numpy()
    return Image.fromarray(array[0], "L") if len(array) == 1 else Image.fromarray(array.transpose(1, 2, 0), "RGB")


def save_png(image: Tensor, path: str | os.PathLike) -> Path:
    """Writes uint8 [C, H, W] so that a reader never sees half a file."""
    with replacing(path) as unfinished:
        to_pil(image).save(unfinished, format="PNG")
    return Path(path)


def as_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 [N, C, H, W] -> uint8 [N, channels, H, W]: grey is repeated, colour averaged. ValueError for others."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images {images.dtype} {list(images.shape)}, expected uint8 [N, 1 or 3, H, W]: "
            f"see lit_gans.base.images.to_uint8"
        )
    if images.shape[1] == channels:
        return images
    return images.expand(-1, 3, -1, -1) if channels == 3 else images.float().mean(1, keepdim=True).round().byte()
