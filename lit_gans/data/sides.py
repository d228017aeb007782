"""Files of pictures that belong together, read, scaled and cropped alike: photographs, label maps, instance maps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, Header, open_picture, to_mode, to_numbers
from lit_gans.data.described import Description, Survey, told_endings, told_left, told_sizes, warn_of_contents
from lit_gans.data.images import _surveyed
from lit_gans.data.layouts import looks_side_by_side
from lit_gans.data.sets import ImageSet
from lit_gans.data.sources import Source
from lit_gans.data.translation import OneSide, TranslationSet

FRAMINGS = ("stretch", "crop", "none")
_HOW = {"stretch": "stretched to", "crop": "the largest part of that aspect, scaled to", "none": "as stored"}
_NAMED = 5
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # of EXIF: those in which width and height change places


@dataclass(frozen=True)
class Side:
    """The files of one side of the samples, in their order; `half` where a file holds two sides next to each other.

    With `guessed`, nobody said that it does, and it must look like it.
    """

    source: Source
    names: tuple[str, ...]
    kind: Literal["photo", "label", "instance"] = "photo"
    channels: int = 3
    num_labels: int = 0
    half: Literal["left", "right"] | None = None
    guessed: bool = False
    max_pixels: int = MAX_PIXELS

    def where(self, index: int) -> str:
        return f"{self.source.path.name}/{self.names[index]}"

    def header(self, index: int) -> Header:
        """By the header alone, but with `guessed`, of the picture upright. One of UNREADABLE if it cannot be used."""
        with self.source.open(self.names[index]) as file:
            image = open_picture(file, self.max_pixels)
            width, height, *others = Header.of(image)
            if image.getexif().get(_ORIENTATION) in _TURNED:
                width, height = height, width
            if self.half is None:
                return Header(width, height, *others)
            half = _halved(width)
            if self.guessed and not looks_side_by_side(image, width, height):
                raise ValueError(
                    f"is {width} x {height} and does not look like two pictures side by side (twice as wide as high, "
                    "or with a seam in the middle): set layout='side_by_side' if it is, or see the layouts of Paired"
                )
            return Header(half, height, *others)

    def read(self, index: int) -> np.ndarray:
        """uint8 [H, W, C] of a photograph, uint8 [H, W] labels, int32 [H, W] instances. One of UNREADABLE likewise."""
        with self.source.open(self.names[index]) as file:
            image = open_picture(file, self.max_pixels)
            pixels = self._photo(image) if self.kind == "photo" else self._map(image)
        if self.half is None:
            return pixels
        middle = _halved(pixels.shape[1])
        return pixels[:, :middle] if self.half == "left" else pixels[:, middle:]

    def _photo(self, image: Image.Image) -> np.ndarray:
        image = to_mode(image, "L" if self.channels == 1 else "RGB")
        return np.asarray(image).reshape(image.height, image.width, self.channels)

    def _map(self, image: Image.Image) -> np.ndarray:
        numbers = to_numbers(image)
        if self.kind == "instance":
            return numbers
        if numbers.min() < 0 or numbers.max() >= self.num_labels:
            wrong = numbers[(numbers < 0) | (numbers >= self.num_labels)][0]
            raise ValueError(
                f"has the label {wrong}, and num_labels is {self.num_labels}: labels run from 0 to "
                f"{self.num_labels - 1}; raise num_labels, or renumber the map"
            )
        return numbers.astype(np.uint8)

    def digest(self) -> str:
        return f"{self.source.digest(self.names)} {self.kind} {self.channels} {self.half}"


def _halved(width: int) -> int:
    if width % 2:
        raise ValueError(f"is {width} pixels wide, which does not part into two equal halves")
    return width // 2


def framed(pixels: np.ndarray, size: tuple[int, int], *, resize: str) -> np.ndarray:
    """[H, W] or [H, W, C] -> the same of `size` (height, width), maps without mixing their numbers.

    "stretch" ignores the aspect ratio, "crop" first cuts the largest part of the right aspect from the middle.
    Photographs by Pillow's bicubic filter, as the code of pix2pix and pix2pixHD does.
    """
    height, width = size
    if resize == "crop":
        pixels = _middle(pixels, height / width)
    if pixels.shape[:2] == size:
        return pixels
    if pixels.ndim == 2:
        rows, columns = (_nearest(old, new) for old, new in zip(pixels.shape, size, strict=True))
        return pixels[rows[:, None], columns]
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, pixels.shape[2])


def _middle(pixels: np.ndarray, aspect: float) -> np.ndarray:
    """The largest centred part whose height / width is `aspect`."""
    height, width = pixels.shape[:2]
    h, w = max(min(height, round(width * aspect)), 1), max(min(width, round(height / aspect)), 1)
    top, left = (height - h) // 2, (width - w) // 2
    return pixels[top : top + h, left : left + w]


def _nearest(old: int, new: int) -> np.ndarray:
    """int64 [new]: the old pixel under the middle of each new one."""
    return ((np.arange(new) + 0.5) * old / new).astype(np.int64)


def described(basic: Description, samples: ImageSet, *, layout: str) -> Description:
    """What was understood of samples of files, added to what is known of any data."""
    assert isinstance(samples, SampleSet)
    sources = list(dict.fromkeys(side.source for side in samples.files.values()))
    (height, width), (load_height, load_width) = samples.size, samples.load_size
    cut = samples.resize == "none" or samples.size != samples.load_size
    to = "" if samples.resize == "none" else f" {load_width} x {load_height}"
    names = [name for side in {side.source: side for side in samples.files.values()}.values() for name in side.names]
    return replace(
        basic,
        what=f"{basic.what}, {', '.join(str(source.path) for source in sources)}",
        used=f"{len(samples):,} samples of {', '.join(samples.sides)} ({told_endings(names)})",
        left=told_left(sources, samples.survey),
        sizes=told_sizes(samples.survey, to=f"{load_width} x {load_height}"),
        layout=layout,
        framing=_HOW[samples.resize] + to + (f", crops of {width} x {height}" if cut else ""),
    )


class SampleSet(TranslationSet):
    """Samples of files. After `prepare`, checked, and in memory where they fit."""

    def __init__(
        self, files: dict[str, Side], *, size: tuple[int, int], load_size: tuple[int, int], resize: str
    ) -> None:
        self.files, self.size, self.load_size, self.resize = files, size, load_size, resize
        self.sides = tuple(files)
        self.kept: list[dict[str, Tensor]] | None = None
        self.survey = Survey()

    def __len__(self) -> int:
        return len(next(iter(self.files.values())).names)

    def fetch(self, indices: Tensor) -> dict[str, Tensor]:
        """With resize "none", of each picture the middle."""
        if self.resize == "none" or self.size == self.load_size:
            half = np.full(len(indices), 0.5)
            return self.windows(indices, across=half, down=half)
        return self._stacked([self._named(i, self.size) for i in indices.tolist()])

    def windows(self, indices: Tensor, *, across: np.ndarray, down: np.ndarray) -> dict[str, Tensor]:
        chosen = indices.tolist()
        samples = [self._named(i, self.load_size) if self.kept is None else self.kept[i] for i in chosen]
        return self._stacked([self._cut(s, x, y) for s, x, y in zip(samples, across, down, strict=True)])

    def side(self, name: str) -> ImageSet:
        if name not in self.files:
            return OneSide(self, name)  # says what there is
        alone = SampleSet({name: self.files[name]}, size=self.size, load_size=self.load_size, resize=self.resize)
        alone.kept = None if self.kept is None else [{name: sample[name]} for sample in self.kept]
        return OneSide(alone, name)

    def digest(self) -> str:
        text = "\n".join(f"{name} {side.digest()}" for name, side in self.files.items())
        return hashlib.sha256(f"{self.resize}\n{text}".encode()).hexdigest()

    def prepare(self, *, cache_mb: float) -> None:
        """Checks every sample, and keeps all in memory where they take less than `cache_mb`.

        Raises:
            ValueError: files that cannot be used, with their names and what is wrong with each.
        """
        kept: list[dict[str, Tensor]] | None = None
        if len(self) * self._bytes_of_one() <= cache_mb * 2**20:
            kept = [{} for _ in range(len(self))]
        failed, self.survey = _surveyed(
            len(self), self._trial(kept), f"checking {self._folders()}", enlarges=self._enlarges
        )
        for side in {photo.source: photo for photo in self.files.values() if photo.kind == "photo"}.values():
            warn_of_contents(side.source, side.names, self.survey)
        if failed:
            first = "; ".join(f"{self._where(i)} {why}" for i, why in list(failed.items())[:_NAMED])
            more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            raise ValueError(f"{len(failed)} of {len(self)} samples in {self._folders()} cannot be used: {first}{more}")
        self.kept = kept

    def _enlarges(self, header: Header) -> bool:
        height, width = self.load_size
        return self.resize != "none" and (header.width < width or header.height < height)

    def _trial(self, kept: list[dict[str, Tensor]] | None) -> Callable[[int], Header]:
        """What is tried on each sample: its headers; all of it where it is kept or holds numbers to be checked."""
        decoded = kept is not None or any(side.kind == "label" for side in self.files.values())

        def attempt(index: int) -> Header:
            header = self._checked_header(index)
            if decoded:
                sample = self._sample(index, self.load_size)
                if kept is not None:
                    kept[index] = sample
            return header

        return attempt

    def _checked_header(self, index: int) -> Header:
        """That of the sample. Partners must show the same field, and with resize "none" hold a whole crop."""
        headers = {name: side.header(index) for name, side in self.files.items()}
        sizes = {name: header[:2] for name, header in headers.items()}
        (first, (w, h)), *others = sizes.items()
        for name, (width, height) in others:
            if abs(w * height - h * width) > max(w, h) or (self.resize == "none" and (width, height) != (w, h)):
                raise ValueError(f"is {w} x {h} in {first} and {width} x {height} in {name}: partners must fit")
        if self.resize == "none" and (w < self.size[1] or h < self.size[0]):
            raise ValueError(
                f"is {w} x {h}, smaller than the {self.size[1]} x {self.size[0]} that are cut out of it: "
                "use resize='stretch' or 'crop', or a lower resolution"
            )
        photos = [headers[name] for name, side in self.files.items() if side.kind == "photo"]
        return Header(w, h, max(header.pages for header in headers.values()), any(header.deep for header in photos))

    def _sample(self, index: int, size: tuple[int, int]) -> dict[str, Tensor]:
        """By side, photographs channels first; of `size` unless resize is "none"."""
        sample = {}
        for name, side in self.files.items():
            pixels = side.read(index)
            pixels = pixels if self.resize == "none" else framed(pixels, size, resize=self.resize)
            pixels = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels
            sample[name] = torch.from_numpy(np.array(pixels, order="C"))  # a copy: Pillow's own memory is read-only
        return sample

    def _named(self, index: int, size: tuple[int, int]) -> dict[str, Tensor]:
        try:
            return self._sample(index, size)
        except UNREADABLE as error:
            raise ValueError(f"{self._where(index)} in {self._folders()} cannot be used: {error}") from error

    def _cut(self, sample: dict[str, Tensor], across: float, down: float) -> dict[str, Tensor]:
        """The crop that lies at these shares of the margins."""
        height, width = self.size
        full = next(iter(sample.values())).shape[-2:]
        top, left = int(down * (full[0] - height + 1)), int(across * (full[1] - width + 1))
        return {name: pixels[..., top : top + height, left : left + width] for name, pixels in sample.items()}

    def _stacked(self, samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([sample[name] for sample in samples]) for name in self.files}

    def _bytes_of_one(self) -> int:
        """Decoded; with resize "none", as large as the first one."""
        height, width = self.load_size
        if self.resize == "none":
            width, height = self._first_size()
        depth = {"label": 1, "instance": 4}
        return width * height * sum(depth.get(side.kind, side.channels) for side in self.files.values())

    def _first_size(self) -> tuple[int, int]:
        try:
            return next(iter(self.files.values())).header(0)[:2]
        except UNREADABLE:
            return 0, 0  # the check of all files, which follows, says what is wrong

    def _where(self, index: int) -> str:
        return " + ".join(dict.fromkeys(side.where(index) for side in self.files.values()))

    def _folders(self) -> str:
        return ", ".join(dict.fromkeys(str(side.source.path) for side in self.files.values()))
