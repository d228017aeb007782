"""One picture file -> uint8 [C, R, R]: every mode that Pillow reads, turned upright, framed and scaled."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

# Pillow's other formats include some that run programs or hold no pictures; only these are ever tried.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
PAGED = ("PNG", "WEBP", "TIFF")
MAX_PIXELS = 89_478_485  # Pillow's own MAX_IMAGE_PIXELS, at which it merely warns
RESIZES = ("crop", "stretch", "fit", "none")
# What Pillow and zipfile raise on a damaged file.
UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, RuntimeError,
    struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip


class Header(NamedTuple):
    """What the head of a picture file says: its size as stored, how many pages it has, whether it is of 16 bits."""

    width: int
    height: int
    pages: int = 1
    deep: bool = False

    @classmethod
    def of(cls, image: Image.Image) -> Header:
        """Of an open picture, of which nothing is decoded."""
        deep = image.mode.startswith("I;16") or any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
        return cls(*image.size, _pages(image), deep)


def _pages(image: Image.Image) -> int:
    """How many pictures the file holds. Those that a JPEG has further are previews and depth."""
    try:
        return int(getattr(image, "n_frames", 1)) if image.format in PAGED else 1
    except UNREADABLE:  # a later page is damaged, which nobody asks for
        return 1


def open_picture(file: BinaryIO, max_pixels: int) -> Image.Image:
    """The picture with its header read and nothing decoded. ValueError where it declares too many pixels."""
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"declares {width} x {height} pixels, more than max_pixels {max_pixels}")
    return image


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Any picture -> "L" or "RGB", upright: turned as its EXIF data says, transparency laid on white.

    16-bit grey is scaled to 8 bits; of 16-bit colour Pillow keeps the high byte. Colour profiles are ignored, as in the
    published data sets. ValueError for 32-bit pictures, whose white is unknown.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"has 32-bit values (mode {image.mode}), whose white is unknown: convert it to 8 or 16 bits")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return image.convert(mode)


def to_numbers(image: Image.Image) -> np.ndarray:
    """A map of 8 or 16 bits -> its numbers int32 [H, W], upright, whatever colours a palette gives them.

    ValueError for a picture of another kind.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode not in ("L", "P", "I") and not image.mode.startswith("I;16"):
        raise ValueError(f"is in mode {image.mode}; a map has one number per pixel: save it as grey of 8 or 16 bit")
    return np.asarray(image).astype(np.int32)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after it is turned as its EXIF data says; nothing is decoded."""
    width, height = image.size
    return (height, width) if image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8) else (width, height)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The size x size pixels in the middle; an odd remainder is cut from the right and the bottom."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class Framing:
    """How a picture becomes resolution x resolution; all scaling is Pillow's Lanczos, which averages when it shrinks.

    `resize`: "crop" cuts the largest square from the middle, "stretch" ignores the aspect ratio, "fit" adds black
    margins, "none" wants the right size from the start. `crop_px` first cuts that square from the middle. Pictures
    whose shorter side is below `min_px` are not used.
    """

    resolution: int
    channels: int = 3
    resize: str = "crop"
    crop_px: int | None = None
    max_pixels: int = MAX_PIXELS
    min_px: int = 0

    def check(self, file: BinaryIO) -> Header:
        """What the header says, which alone is read. One of UNREADABLE where the picture cannot be used."""
        image = open_picture(file, self.max_pixels)
        self._check_size(image.size)
        return Header.of(image)

    def enlarges(self, header: Header) -> bool:
        """Whether a picture has fewer pixels than it is brought to."""
        width, height = header[:2] if self.crop_px is None else (self.crop_px, self.crop_px)
        return (max if self.resize == "fit" else min)(width, height) < self.resolution

    def __str__(self) -> str:
        cut = "" if self.crop_px is None else f"the middle {self.crop_px} x {self.crop_px}, "
        how = {"crop": "the largest square of the middle, scaled to", "stretch": "stretched to", "none": "as stored,"}
        return f"{cut}{how.get(self.resize, 'with black margins, scaled to')} {self.resolution} x {self.resolution}"

    def decode(self, file: BinaryIO) -> np.ndarray:
        """uint8 [C, R, R]. One of UNREADABLE where the picture cannot be used."""
        image = open_picture(file, self.max_pixels)
        self._check_size(image.size)
        image = self._frame(to_mode(image, "L" if self.channels == 1 else "RGB"))
        pixels = np.asarray(image).reshape(self.resolution, self.resolution, self.channels)
        return pixels.transpose(2, 0, 1)

    def _check_size(self, size: tuple[int, int]) -> None:
        wanted = (self.resolution, self.resolution)
        if min(size) < self.min_px:
            raise ValueError(f"is {size[0]} x {size[1]}, smaller than min_px {self.min_px}")
        if self.crop_px is not None:
            if min(size) < self.crop_px:
                raise ValueError(f"is {size[0]} x {size[1]}, smaller than crop_px {self.crop_px}")
            size = (self.crop_px, self.crop_px)
        if self.resize == "none" and size != wanted:
            raise ValueError(
                f"is {size[0]} x {size[1]}, not {wanted[0]} x {wanted[1]}: resize='none' takes pictures as they are; "
                f"use 'crop', 'stretch' or 'fit'"
            )

    def _frame(self, image: Image.Image) -> Image.Image:
        if self.crop_px is not None:
            image = centre_crop(image, self.crop_px)
        if self.resize == "crop":
            image = centre_crop(image, min(image.size))
        size = (self.resolution, self.resolution)
        if self.resize == "fit":
            return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=0)
        return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
