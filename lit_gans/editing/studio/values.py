"""Values that a browser sends, which may be anything."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.base.images import to_pil
from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, Framing, open_picture

T = TypeVar("T")


def shown(value: object) -> str:
    """For a message, of any length."""
    return repr(value)[:100]


def whole(said: Mapping[str, Any], name: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number from low to high. ValueError for anything else."""
    value = said.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} {shown(value)}: give a whole number from {low} to {high}")
    return value


def one_of(said: Mapping[str, Any], name: str, choices: tuple[T, ...]) -> T:
    """One of the choices, by default the first. ValueError for anything else."""
    value = said.get(name, choices[0])
    if value not in choices:
        raise ValueError(f"{name} {shown(value)}: choose one of {', '.join(map(str, choices))}")
    return value


def words(said: Mapping[str, Any], name: str, most: int = 500) -> str:
    """A text that is not blank. ValueError for anything else."""
    value = said.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise ValueError(f"{name} {shown(value)}: give a text of at most {most} letters")
    return value


def data_url(picture: Tensor) -> str:
    """uint8 [C, H, W] as a PNG within a page."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    to_pil(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def thumbnail(picture: Tensor, most_px: int = 96) -> Tensor:
    """uint8 [C, R, R] averaged down to `most_px` a side where it is larger."""
    if picture.shape[-1] <= most_px:
        return picture
    return F.interpolate(picture[None].float(), size=most_px, mode="area")[0].round().byte()


def square_of(data: bytes, *, resolution: int, channels: int) -> tuple[Tensor, str]:
    """(uint8 [C, R, R], what was done) of an uploaded picture's largest middle square. ValueError for what is none."""
    try:
        width, height = open_picture(io.BytesIO(data), MAX_PIXELS).size
        pixels = Framing(resolution, channels).decode(io.BytesIO(data))
    except UNREADABLE as error:
        raise ValueError(f"this file cannot be read as a picture: {error}") from error
    done = [f"cropped to the middle {min(width, height)}"] * (width != height)
    done += [f"scaled to {resolution}"] * (min(width, height) != resolution)
    told = f"{width} x {height} px{', ' if done else ''}{' and '.join(done)}"
    return torch.from_numpy(pixels.copy()), told
