"""Pictures of your own: a folder of files or a zip, with or without labels."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_gans.base.grids import spread
from lit_gans.data.base import ImageData
from lit_gans.data.checks import _one_of
from lit_gans.data.decode import MAX_PIXELS, RESIZES, UNREADABLE, Framing, Header, open_picture
from lit_gans.data.described import (
    Description,
    Survey,
    told_endings,
    told_folders,
    told_left,
    told_sizes,
    warn_of_contents,
    warn_of_left,
)
from lit_gans.data.labels import LABELS, Labels, labels_of
from lit_gans.data.remote import fetched_file, user_place
from lit_gans.data.sets import ImageSet
from lit_gans.data.sources import Source, open_source

_NAMED, _GLANCED = 5, 64


class FileSet(ImageSet):
    """Pictures decoded from their files when asked for; after `keep`, from memory."""

    def __init__(self, source: Source, names: Sequence[str], labels: Tensor | None, framing: Framing) -> None:
        self.source, self.names, self.labels, self.framing = source, tuple(names), labels, framing
        self.pixels: Tensor | None = None
        self.survey = Survey()

    def __len__(self) -> int:
        return len(self.names)

    def images(self, indices: Tensor) -> Tensor:
        """Raises ValueError with the name of a file that cannot be read."""
        if self.pixels is not None:
            return self.pixels[indices]
        return torch.stack([torch.from_numpy(self._named(i)) for i in indices.tolist()])

    def at(self, resolution: int) -> FileSet:
        if self.framing.resize == "none":
            return self
        return FileSet(self.source, self.names, self.labels, replace(self.framing, resolution=resolution))

    def digest(self) -> str:
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return hashlib.sha256(self.source.digest(self.names).encode() + labels).hexdigest()

    @property
    def nbytes(self) -> int:
        """Of all pictures, decoded."""
        return len(self.names) * self.framing.channels * self.framing.resolution**2

    def check(self, index: int) -> Header:
        """The header of one file."""
        with self.source.open(self.names[index]) as file:
            return self.framing.check(file)

    def decode(self, index: int) -> np.ndarray:
        """uint8 [C, R, R] of one file."""
        with self.source.open(self.names[index]) as file:
            return np.ascontiguousarray(self.framing.decode(file))

    def only(self, kept: list[int]) -> FileSet:
        """The set of these pictures alone."""
        at = torch.tensor(kept, dtype=torch.int64)
        labels = None if self.labels is None else self.labels[at]
        chosen = FileSet(self.source, [self.names[i] for i in kept], labels, self.framing)
        chosen.pixels, chosen.survey = None if self.pixels is None else self.pixels[at], self.survey
        return chosen

    def _named(self, index: int) -> np.ndarray:
        try:
            return self.decode(index)
        except UNREADABLE as error:
            raise ValueError(f"{self.names[index]} in {self.source.path} cannot be read: {error}") from error


def _surveyed(
    count: int, work: Callable[[int], Header], what: str, *, enlarges: Callable[[Header], bool]
) -> tuple[dict[int, str], Survey]:
    """Runs work(0 .. count - 1) in threads -> ({index: why} of those that failed, what the headers of all others say).

    Tells how far it is every 10 s.
    """

    def attempt(index: int) -> str | Header:
        try:
            return work(index)
        except UNREADABLE as error:
            return f"{error}" or type(error).__name__

    failed, survey, told = dict[int, str](), Survey(), time.monotonic()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for index, found in enumerate(pool.map(attempt, range(count))):
            if isinstance(found, Header):
                survey.add(index, found, enlarged=enlarges(found))
            else:
                failed[index] = found
            if time.monotonic() - told > 10:
                told = time.monotonic()
                rank_zero_info(f"{what}: {index + 1:,} of {count:,} files")
    survey.unreadable = len(failed)
    return failed, survey


class Images(ImageData):
    """The pictures of a folder (with all below it) or of a zip: png, jpg, jpeg, webp, bmp, tif, tiff.

    `path` holds split "train", `test_path` split "test"; of a URL, such as s3://bucket/photos.zip, the zip is fetched
    once into the cache folder. `labels`: "folders" takes the folders of the first level as
    classes, "json" StyleGAN's dataset.json, "auto" the latter where there is one, else the former where every picture
    lies in one of two folders or more (not in StyleGAN's 00000, 00001, ...), "none" nothing. A lone folder around all
    pictures is stepped over; folders that are splits (train, test, ...) and a few pictures beside the folders of
    classes are refused. Classes are numbered by name, or as numbers where all their names are whole ones. Hidden files
    and folders hold no data. `resize` and `crop_px`: see `Framing`. `channels` 1 gives luma. Transparency is laid on
    white, EXIF rotation is applied, 16 bits become 8.

    Before training starts all files are checked, and where all pictures decoded take less than `cache_mb` they stay in
    memory. `on_error` "fail" names the files that cannot be read, "skip" leaves them out (every file is decoded once to
    know which, so that the order of training is certain). Nothing is extracted, and a picture of more than `max_pixels`
    is not decoded; one whose shorter side is below `min_px` counts as one that cannot be used. Links that lead out of
    the folder, or to folders, are followed with `follow_links` alone.
    """

    def __init__(
        self,
        path: str,
        *,
        test_path: str | None = None,
        channels: int = 3,
        labels: str = "auto",
        resize: str = "crop",
        crop_px: int | None = None,
        on_error: str = "fail",
        cache_mb: int = 1024,
        max_pixels: int = MAX_PIXELS,
        follow_links: bool = False,
        min_px: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        _one_of("channels", channels, (1, 3))
        _one_of("labels", labels, LABELS)
        _one_of("resize", resize, RESIZES)
        _one_of("on_error", on_error, ("fail", "skip"))
        if crop_px is not None and crop_px < 1:
            raise ValueError(f"crop_px is {crop_px!r}; it must be 1 or more, or None")
        self.path, self.test_path = user_place(path), None if test_path is None else user_place(test_path)
        self.channels, self.labels, self.resize, self.crop_px = channels, labels, resize, crop_px
        self.on_error, self.cache_mb, self.max_pixels = on_error, cache_mb, max_pixels
        self.follow_links, self.min_px = follow_links, min_px
        self._sources: dict[Path | str, Source] = {}
        self._labels: dict[Path | str, Labels | None] = {}

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The folders' names or, with dataset.json, its names or numbers up to the highest; the first call lists the
        files."""
        labels = self._labels_at("train")
        return () if labels is None else labels.classes

    def location(self, split: str) -> Path | str:
        """Where the files of a split lie, or the URL of a zip."""
        if split == "test":
            if self.test_path is None:
                raise ValueError(f"no test pictures: {self.path} is split 'train'; set test_path for split 'test'")
            return self.test_path
        return self.path

    def select(self, names: tuple[str, ...], split: str) -> tuple[str, ...]:
        """Those of the files at `location(split)` that belong to the split."""
        return names

    def transform(self) -> dict[str, object]:
        return {"resize": self.resize, "crop_px": self.crop_px, "labels": self.labels}

    def load(self, split: str) -> ImageSet:
        """Raises FileNotFoundError or ValueError naming the folder or the files."""
        path = self.location(split)
        source = self._source(path)
        names = self.select(source.names, split)
        framing = Framing(self.resolution, self.channels, self.resize, self.crop_px, self.max_pixels, self.min_px)
        return self._checked(FileSet(source, names, self._numbers(split, names), framing))

    def glance(self) -> tuple[int, int]:
        source = self._opened(self.location(self.train_split))
        names, sides = self.select(source.names, self.train_split), []
        for i in spread(len(names), _GLANCED).tolist():
            with suppress(*UNREADABLE), source.open(names[i]) as file:
                sides.append(min(open_picture(file, self.max_pixels).size))
        return len(names), sorted(sides)[len(sides) // 2] if sides else 0

    def describe(self, split: str | None = None) -> Description:
        split = split or self.train_split
        files, labels = self.dataset(split), self._labels_at(split)
        assert isinstance(files, FileSet)
        own: dict[str, Any] = {
            "what": f"{type(self).__name__}, {files.source.path}",
            "used": f"{len(files):,} pictures ({told_endings(files.names)})",
            "left": told_left([files.source], files.survey),
            "sizes": told_sizes(files.survey, to=f"{self.resolution} px"),
            "layout": f"labels of {labels.origin}" if labels else f"no labels; {told_folders(files.source)}",
            "framing": str(files.framing),
        }
        return replace(super().describe(split), **own)

    def _opened(self, path: Path | str) -> Source:
        here = fetched_file(path) if isinstance(path, str) else path
        return open_source(here, follow_links=self.follow_links)

    def _source(self, path: Path | str) -> Source:
        if path not in self._sources:
            self._sources[path] = self._opened(path)
            warn_of_left(self._sources[path])
        return self._sources[path]

    def _labels_at(self, split: str) -> Labels | None:
        """The labels of the pictures of a split; those of "test" are found by the classes of "train"."""
        path = self.location(split)
        if path not in self._labels:
            known = () if path == self.location("train") else self.class_names
            self._labels[path] = labels_of(self._source(path), self.labels, known=known)
        return self._labels[path]

    def _numbers(self, split: str, names: Sequence[str]) -> Tensor | None:
        """Class numbers int64 [N] of these files, numbered as in the training split."""
        labels = self._labels_at(split)
        if labels is None:
            return None
        unknown = sorted(set(labels.classes) - set(self.class_names))
        if unknown:
            raise ValueError(
                f"{self.location(split)} has the class {unknown[0]!r}, {self.path} only "
                f"{', '.join(self.class_names)}: use the same in both"
            )
        return labels.numbers(names, self.class_names)

    def _checked(self, files: FileSet) -> FileSet:
        """The files that can be read, decoded into memory where they fit."""
        cached = files.nbytes <= self.cache_mb * 2**20
        if cached:
            shape = (len(files), self.channels, self.resolution, self.resolution)
            files.pixels = torch.zeros(shape, dtype=torch.uint8)
        failed, files.survey = _surveyed(
            len(files), self._trial(files), f"checking {files.source.path}", enlarges=files.framing.enlarges
        )
        warn_of_contents(files.source, files.names, files.survey)
        if not failed:
            return files
        first = "; ".join(f"{files.names[i]}: {failed[i]}" for i in list(failed)[:_NAMED])
        more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        found = f"{len(failed)} of {len(files)} files in {files.source.path} cannot be used: {first}{more}"
        if self.on_error == "fail" or len(failed) == len(files):
            raise ValueError(f"{found}. Mend or remove them" + ", or use on_error='skip'" * (self.on_error == "fail"))
        rank_zero_warn(f"{found}. They are left out")
        return files.only([i for i in range(len(files)) if i not in failed])

    def _trial(self, files: FileSet) -> Callable[[int], Header]:
        """What is tried on every file before training: its header, and decoding it where that is kept or decisive."""
        kept = None if files.pixels is None else files.pixels.numpy()

        def attempt(index: int) -> Header:
            header = files.check(index)
            if kept is not None:
                kept[index] = files.decode(index)
            elif self.on_error == "skip":
                files.decode(index)
            return header

        return attempt


def describe_source(
    source: Source, *, to: int | None = None, enlarges: Callable[[Header], bool] | None = None
) -> Description:
    """What the headers of all files say, and what was left out; with warnings. `to`: px that they are brought to."""

    def header(index: int) -> Header:
        with source.open(source.names[index]) as file:
            return Header.of(open_picture(file, MAX_PIXELS))

    warn_of_left(source)
    _, survey = _surveyed(len(source.names), header, f"reading {source.path}", enlarges=enlarges or (lambda _: False))
    warn_of_contents(source, source.names, survey)
    return Description(
        what=str(source.path), used=f"{len(source.names):,} pictures ({told_endings(source.names)})",
        left=told_left([source], survey), sizes=told_sizes(survey, to=f"{to} px"), layout=told_folders(source),
    )  # fmt: skip
