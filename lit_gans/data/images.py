"""Pictures of your own: a folder of files or a zip, with or without labels."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_gans.data.base import ImageData
from lit_gans.data.checks import _one_of
from lit_gans.data.decode import MAX_PIXELS, RESIZES, UNREADABLE, Framing
from lit_gans.data.sets import ImageSet
from lit_gans.data.sources import Folder, Source, open_source

LABELS = ("auto", "none", "folders", "json")
_NAMED = 5


class FileSet(ImageSet):
    """Pictures decoded from their files when asked for; after `keep`, from memory."""

    def __init__(self, source: Source, names: Sequence[str], labels: Tensor | None, framing: Framing) -> None:
        self.source, self.names, self.labels, self.framing = source, tuple(names), labels, framing
        self.pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def images(self, indices: Tensor) -> Tensor:
        """Raises ValueError with the name of a file that cannot be read."""
        if self.pixels is not None:
            return self.pixels[indices]
        return torch.stack([torch.from_numpy(self._named(i)) for i in indices.tolist()])

    def digest(self) -> str:
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return hashlib.sha256(self.source.digest(self.names).encode() + labels).hexdigest()

    @property
    def nbytes(self) -> int:
        """Of all pictures, decoded."""
        return len(self.names) * self.framing.channels * self.framing.resolution**2

    def check(self, index: int) -> None:
        """Reads the header of one file."""
        with self.source.open(self.names[index]) as file:
            self.framing.check(file)

    def decode(self, index: int) -> np.ndarray:
        """uint8 [C, R, R] of one file."""
        with self.source.open(self.names[index]) as file:
            return np.ascontiguousarray(self.framing.decode(file))

    def only(self, kept: list[int]) -> FileSet:
        """The set of these pictures alone."""
        at = torch.tensor(kept, dtype=torch.int64)
        labels = None if self.labels is None else self.labels[at]
        chosen = FileSet(self.source, [self.names[i] for i in kept], labels, self.framing)
        chosen.pixels = None if self.pixels is None else self.pixels[at]
        return chosen

    def _named(self, index: int) -> np.ndarray:
        try:
            return self.decode(index)
        except UNREADABLE as error:
            raise ValueError(f"{self.names[index]} in {self.source.path} cannot be read: {error}") from error


def _failures(count: int, work: Callable[[int], object], what: str) -> dict[int, str]:
    """Runs work(0 .. count - 1) in threads -> {index: why} of those that failed; tells how far it is every 10 s."""

    def attempt(index: int) -> str | None:
        try:
            work(index)
        except UNREADABLE as error:
            return f"{error}" or type(error).__name__
        return None

    failed, told = {}, time.monotonic()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for index, reason in enumerate(pool.map(attempt, range(count))):
            if reason is not None:
                failed[index] = reason
            if time.monotonic() - told > 10:
                told = time.monotonic()
                rank_zero_info(f"{what}: {index + 1:,} of {count:,} files")
    return failed


class Images(ImageData):
    """The pictures of a folder (with all below it) or of a zip: png, jpg, jpeg, webp, bmp, tif, tiff.

    `path` holds split "train", `test_path` split "test". `labels`: "folders" takes the folders of the first level as
    classes, "json" StyleGAN's dataset.json, "auto" the latter where there is one, else the former where every picture
    lies in one of two folders or more (not in StyleGAN's 00000, 00001, ...), "none" nothing. `resize` and
    `crop_px`: see `Framing`. `channels` 1 gives luma. Transparency is laid on white, EXIF rotation is applied, 16 bits
    become 8.

    Before training starts all files are checked, and where all pictures decoded take less than `cache_mb` they stay in
    memory. `on_error` "fail" names the files that cannot be read, "skip" leaves them out (every file is decoded once to
    know which, so that the order of training is certain). Nothing is extracted, no link is followed out of the folder,
    and a picture of more than `max_pixels` is not decoded.
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
        **options: Any,
    ) -> None:
        super().__init__(**options)
        _one_of("channels", channels, (1, 3))
        _one_of("labels", labels, LABELS)
        _one_of("resize", resize, RESIZES)
        _one_of("on_error", on_error, ("fail", "skip"))
        if crop_px is not None and crop_px < 1:
            raise ValueError(f"crop_px is {crop_px!r}; it must be 1 or more, or None")
        self.path, self.test_path = Path(path), None if test_path is None else Path(test_path)
        self.channels, self.labels, self.resize, self.crop_px = channels, labels, resize, crop_px
        self.on_error, self.cache_mb, self.max_pixels = on_error, cache_mb, max_pixels
        self._sources: dict[Path, Source] = {}
        self._labels: dict[Path, dict[str, str] | dict[str, int] | None] = {}

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The folders' names or, with dataset.json, the numbers up to the highest; the first call lists the files."""
        labels = self._labels_at(self.location("train"))
        if labels is None:
            return ()
        values = set(labels.values())
        if all(isinstance(value, int) for value in values):
            return tuple(str(number) for number in range(max(values) + 1))
        return tuple(sorted(values))

    def location(self, split: str) -> Path:
        """Where the files of a split lie."""
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
        framing = Framing(self.resolution, self.channels, self.resize, self.crop_px, self.max_pixels)
        return self._checked(FileSet(source, names, self._numbers(path, names), framing))

    def _source(self, path: Path) -> Source:
        if path not in self._sources:
            source = open_source(path)
            if isinstance(source, Folder) and source.links:
                rank_zero_warn(f"{source.links} symbolic links in {path} lead out of it or to folders: not followed")
            self._sources[path] = source
        return self._sources[path]

    def _labels_at(self, path: Path) -> dict[str, str] | dict[str, int] | None:
        """{name: class} where this data set is labelled."""
        if path not in self._labels:
            source = self._source(path)
            labels: dict[str, str] | dict[str, int] | None = None
            if self.labels in ("auto", "json"):
                labels = source.read_labels()
            if self.labels == "folders" or (self.labels == "auto" and labels is None and has_class_folders(source)):
                labels = folder_labels(source)
            if labels is None and self.labels == "json":
                raise ValueError(
                    f"labels='json', but {path} has no dataset.json with labels: "
                    f"use labels='folders' or 'none', or pack it with its labels"
                )
            self._labels[path] = labels
        return self._labels[path]

    def _numbers(self, path: Path, names: Sequence[str]) -> Tensor | None:
        """Class numbers int64 [N] of these files, numbered as in the training split."""
        labels = self._labels_at(path)
        if labels is None:
            return None
        known = {name: number for number, name in enumerate(self.class_names)}
        unknown = sorted({str(labels[name]) for name in names} - set(known))
        if unknown:
            raise ValueError(
                f"{path} has the class {unknown[0]!r}, {self.path} only {', '.join(known)}: use the same in both"
            )
        return torch.tensor([known[str(labels[name])] for name in names], dtype=torch.int64)

    def _checked(self, files: FileSet) -> FileSet:
        """The files that can be read, decoded into memory where they fit."""
        cached = files.nbytes <= self.cache_mb * 2**20
        if cached:
            shape = (len(files), self.channels, self.resolution, self.resolution)
            files.pixels = torch.zeros(shape, dtype=torch.uint8)
        failed = _failures(len(files), self._trial(files), f"checking {files.source.path}")
        if not failed:
            return files
        first = "; ".join(f"{files.names[i]}: {failed[i]}" for i in list(failed)[:_NAMED])
        more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        found = f"{len(failed)} of {len(files)} files in {files.source.path} cannot be read: {first}{more}"
        if self.on_error == "fail" or len(failed) == len(files):
            raise ValueError(f"{found}. Mend or remove them" + ", or use on_error='skip'" * (self.on_error == "fail"))
        rank_zero_warn(f"{found}. They are left out")
        return files.only([i for i in range(len(files)) if i not in failed])

    def _trial(self, files: FileSet) -> Callable[[int], object]:
        """What is tried on every file before training: its header, or decoding it where that is kept or decisive."""
        if files.pixels is None:
            return files.decode if self.on_error == "skip" else files.check
        kept = files.pixels.numpy()

        def keep(index: int) -> None:
            kept[index] = files.decode(index)

        return keep


def has_class_folders(source: Source) -> bool:
    """Whether every picture lies in one of two first-level folders or more that are not mere numbered shards."""
    if not all("/" in name for name in source.names):
        return False
    folders = {name.split("/", 1)[0] for name in source.names}
    return len(folders) > 1 and not all(len(folder) == 5 and folder.isdecimal() for folder in folders)


def folder_labels(source: Source) -> dict[str, str]:
    """{name: folder of the first level}. ValueError where a picture lies outside of such folders."""
    bare = next((name for name in source.names if "/" not in name), None)
    if bare is not None:
        raise ValueError(
            f"labels='folders', but {bare} lies in {source.path} itself: "
            f"put every picture into the folder of its class, or use labels='none'"
        )
    return {name: name.split("/", 1)[0] for name in source.names}
