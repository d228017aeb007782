"""Picture files with captions: a folder of name.jpg and name.txt, and COCO's JSON file of captions."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_gans.base.files import user_path
from lit_gans.data.captioned import CaptionedSet, TextData
from lit_gans.data.captions import Captions, Encoding, _listed
from lit_gans.data.checks import _one_of
from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, Header
from lit_gans.data.described import Description, Survey, told_endings, told_left, told_sizes, warn_of_left
from lit_gans.data.images import _surveyed
from lit_gans.data.labels import Labels, labels_of
from lit_gans.data.sides import Side
from lit_gans.data.sources import Source, open_source

RESIZES = ("shorter", "stretch")
_MAX_TEXT_BYTES, _MAX_TABLE_BYTES = 2**20, 2**30
_OUTSIDE_PX = 1.0  # of a box beyond its picture that rounding may account for
_NAMED = 5


@dataclass(frozen=True)
class BoxCrop:
    """The square around each box that StackGAN cuts out: 1.5 times as wide as the box's longer side, cut at the border.

    boxes float64 [N, 4]: left, top, width, height in pixels, of which the published code takes the whole parts.
    """

    boxes: np.ndarray

    def check(self, index: int, size: tuple[int, int]) -> None:
        """ValueError where the box is not inside the picture of `size` (width, height)."""
        x, y, w, h = self.boxes[index].tolist()
        width, height = size
        outside = max(-x, -y, x + w - width, y + h - height)
        if not np.isfinite(self.boxes[index]).all() or min(w, h) < 1 or max(w, h) < 2 or outside > _OUTSIDE_PX:
            raise ValueError(
                f"has the box x {x:g}, y {y:g}, width {w:g}, height {h:g}, which does not lie in its "
                f"{width} x {height} pixels: mend bounding_boxes.txt, or use crop='none'"
            )

    def cut(self, pixels: np.ndarray, index: int) -> np.ndarray:
        """[H, W, C] -> the same of fewer rows and columns."""
        x, y, w, h = (int(value) for value in self.boxes[index])
        half = int(max(w, h) * 0.75)
        middle_x, middle_y = int((2 * x + w) / 2), int((2 * y + h) / 2)
        top, left = max(0, middle_y - half), max(0, middle_x - half)
        return pixels[top : middle_y + half, left : middle_x + half]


def scaled(pixels: np.ndarray, px: int, *, resize: str) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [h, w, 3] by Pillow's bilinear filter, as StackGAN's code and torchvision's `Resize` do.

    "stretch" gives px x px; with "shorter" the shorter side is px and the aspect ratio stays.
    """
    height, width = pixels.shape[:2]
    if resize == "stretch":
        size = (px, px)
    else:
        size = (px * width // min(height, width), px * height // min(height, width))
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


class CaptionedFiles(CaptionedSet):
    """Pictures of files, with or without boxes. After `prepare`, checked, and in memory where they fit."""

    def __init__(
        self,
        captions: Captions,
        encoding: Encoding,
        groups: Tensor,
        labels: Tensor | None,
        *,
        side: Side,
        boxes: BoxCrop | None,
        resolution: int,
        load_px: int,
        resize: str,
    ) -> None:
        super().__init__(captions, encoding, groups, labels)
        assert len(side.names) == len(captions)
        self.side, self.boxes, self.resolution, self.load_px, self.resize = side, boxes, resolution, load_px, resize
        self.kept: list[Tensor] | None = None
        self.survey = Survey()

    def images(self, indices: Tensor) -> Tensor:
        """Whole pictures at `resolution`; with resize "shorter", of each the middle."""
        wholes = [torch.from_numpy(self._read(i, self.resolution)) for i in indices.tolist()]
        return torch.stack([_window(whole, self.resolution, across=0.5, down=0.5) for whole in wholes])

    def windows(self, indices: Tensor, *, across: np.ndarray, down: np.ndarray) -> Tensor:
        loaded = [self._loaded(i) for i in indices.tolist()]
        places = zip(loaded, across.tolist(), down.tolist(), strict=True)
        return torch.stack([_window(whole, self.resolution, across=x, down=y) for whole, x, y in places])

    def pictures_digest(self) -> str:
        boxes = b"" if self.boxes is None else self.boxes.boxes.tobytes()
        return hashlib.sha256(f"{self.side.digest()} {self.resize}".encode() + boxes).hexdigest()

    def prepare(self, *, cache_mb: float) -> None:
        """Checks every file, and keeps all in memory where they take less than `cache_mb` (were they square).

        Raises:
            ValueError: files or boxes that cannot be used, with their names and what is wrong with each.
        """
        keep = len(self) * 3 * self.load_px**2 <= cache_mb * 2**20
        kept: list[Tensor] = [torch.empty(0)] * len(self)

        def attempt(index: int) -> Header:
            header = self.side.header(index)
            if self.boxes is not None:
                self.boxes.check(index, header[:2])
            if keep:
                kept[index] = torch.from_numpy(self._decoded(index, self.load_px))
            return header

        failed, self.survey = _surveyed(
            len(self), attempt, f"checking {self.side.source.path}", enlarges=lambda h: min(h[:2]) < self.load_px
        )
        if failed:
            first = "; ".join(f"{self.side.names[i]} {failed[i]}" for i in list(failed)[:_NAMED])
            more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            raise ValueError(
                f"{len(failed)} of {len(self)} pictures in {self.side.source.path} cannot be used: {first}{more}"
            )
        self.kept = kept if keep else None

    def _loaded(self, index: int) -> Tensor:
        return torch.from_numpy(self._read(index, self.load_px)) if self.kept is None else self.kept[index]

    def _read(self, index: int, px: int) -> np.ndarray:
        try:
            return self._decoded(index, px)
        except UNREADABLE as error:
            where = f"{self.side.names[index]} in {self.side.source.path}"
            raise ValueError(f"{where} cannot be used: {error}") from error

    def _decoded(self, index: int, px: int) -> np.ndarray:
        """uint8 [3, h, w], no side shorter than px."""
        pixels = self.side.read(index)
        pixels = pixels if self.boxes is None else self.boxes.cut(pixels, index)
        # A copy: Pillow's own memory is read-only.
        return np.array(scaled(pixels, px, resize=self.resize).transpose(2, 0, 1), order="C")


def _window(whole: Tensor, px: int, *, across: float, down: float) -> Tensor:
    """[3, h, w] -> [3, px, px] at these shares of the margins."""
    top, left = (int(share * (side - px + 1)) for share, side in zip((down, across), whole.shape[1:], strict=True))
    return whole[:, top : top + px, left : left + px]


class CaptionedFileData(TextData):
    """Text data whose pictures are files: see `TextData` for captions, `resize` and the cache.

    `resize` "shorter" scales the shorter side to `load_px`, as StackGAN++ and AttnGAN do, "stretch" both, as StackGAN
    does. Every file is checked before training, and where all take less than `cache_mb` they stay in memory.
    """

    def __init__(
        self,
        *,
        resize: Literal["shorter", "stretch"] = "shorter",
        cache_mb: int = 1024,
        max_pixels: int = MAX_PIXELS,
        follow_links: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        _one_of("resize", resize, RESIZES)
        self.resize, self.cache_mb, self.max_pixels, self.follow_links = resize, cache_mb, max_pixels, follow_links

    def transform(self) -> dict[str, object]:
        return {**super().transform(), "resize": self.resize}

    @abstractmethod
    def files(self, split: str) -> tuple[Source, tuple[str, ...]]:
        """Where the pictures of a split lie, and their names in order."""

    def boxes(self, split: str) -> BoxCrop | None:
        """What is cut out of each picture; None: all of it."""
        return None

    def classes(self, split: str) -> Tensor | None:
        """Class numbers int64 [N]; None where there are no classes: then any other picture is a wrong partner."""
        return None

    def describe(self, split: str | None = None) -> Description:
        split = split or self.train_split
        images = self.dataset(split)
        assert isinstance(images, CaptionedFiles)
        source, names = images.side.source, images.side.names
        return replace(
            super().describe(split),
            what=f"{type(self).__name__}, {source.path}",
            used=f"{len(images):,} pictures with captions ({told_endings(names)})",
            left=told_left([source], images.survey, known=(".txt",)),
            sizes=told_sizes(images.survey, to=f"{self.load_px} px"),
            framing=f"{'each' if self.resize == 'stretch' else 'the shorter'} side scaled to {self.load_px}, "
            f"crops of {self.resolution} x {self.resolution}",
        )

    def captioned(self, split: str, captions: Captions, encoding: Encoding) -> CaptionedFiles:
        source, names = self.files(split)
        labels = self.classes(split)
        pictures = CaptionedFiles(
            captions, encoding, torch.arange(len(names)) if labels is None else labels, labels,
            side=Side(source, names, max_pixels=self.max_pixels), boxes=self.boxes(split),
            resolution=self.resolution, load_px=self.load_px, resize=self.resize,
        )  # fmt: skip
        pictures.prepare(cache_mb=self.cache_mb)
        return pictures


def read_text(source: Source, name: str) -> list[str]:
    """The captions of the picture `name`, one a line of the .txt file of its name; none where there is no such file."""
    text_name = f"{name.rsplit('.', 1)[0]}.txt"
    if not source.has(text_name):
        return []
    return caption_lines(source.read(text_name, _MAX_TEXT_BYTES), f"{source.path}/{text_name}")


def caption_lines(content: bytes, where: str) -> list[str]:
    """The lines that are not blank. ValueError for a file of another kind, or with no such line."""
    if len(content) > _MAX_TEXT_BYTES:
        raise ValueError(f"{where} has more than {_MAX_TEXT_BYTES} bytes: a file of captions has one on each line")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 ({error}): save it as such") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{where} is empty, expected one caption on each line")
    return lines


class CaptionFolder(CaptionedFileData):
    """Pictures with their captions beside them: name.jpg and name.txt, one caption on each line; a folder or a zip.

    `path` holds split "train", `test_path` split "test". `labels` "folders" takes the folders of the first level as
    classes, "auto" does so where every picture lies in one of two or more, "none" takes none. What else there is to
    set: `CaptionedFileData`.

    Raises:
        ValueError, FileNotFoundError: an option, a folder, pictures without captions, or files that cannot be used.
    """

    def __init__(
        self,
        path: str,
        *,
        test_path: str | None = None,
        labels: Literal["auto", "none", "folders"] = "auto",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        _one_of("labels", labels, ("auto", "none", "folders"))
        self.path, self.labels = user_path(path), labels
        self.test_path = None if test_path is None else user_path(test_path)
        self._sources: dict[str, Source] = {}

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The folders of split "train"."""
        labels = self._labels("train")
        return () if labels is None else labels.classes

    def _labels(self, split: str) -> Labels | None:
        wanted = "folders" if self.labels == "folders" or split != "train" else self.labels
        return labels_of(self.files(split)[0], wanted, known=() if split == "train" else self.class_names)

    def files(self, split: str) -> tuple[Source, tuple[str, ...]]:
        if split not in self._sources:
            path = self.path if split == "train" else self.test_path
            if path is None:
                raise ValueError(f"no test pictures: {self.path} is split 'train'; set test_path for split 'test'")
            self._sources[split] = open_source(path, follow_links=self.follow_links)
            warn_of_left(self._sources[split])
        return self._sources[split], self._sources[split].names

    def classes(self, split: str) -> Tensor | None:
        if not self.class_names:
            return None
        labels, (source, names) = self._labels(split), self.files(split)
        assert labels is not None
        unknown = sorted(set(labels.classes) - set(self.class_names))
        if unknown:
            raise ValueError(
                f"{source.path} has the class {unknown[0]!r}, {self.path} only {_listed(list(self.class_names))}: use "
                "the same in both, or labels='none'"
            )
        return labels.numbers(names, self.class_names)

    def read_captions(self, split: str) -> Captions:
        source, names = self.files(split)
        return Captions([read_text(source, name) for name in names], names)


class CocoCaptions(CaptionedFileData):
    """The pictures of a folder that a JSON file in COCO's format has captions of: `captions_train2014.json` and so on.

    `path` and `annotations` hold split "train", `test_path` and `test_annotations` split "test". There are no classes:
    any other picture is a wrong partner. What else there is to set: `CaptionedFileData`.

    Raises:
        ValueError, FileNotFoundError: an option, a file that is missing or of another kind, pictures without captions.
    """

    def __init__(
        self,
        path: str,
        annotations: str,
        *,
        test_path: str | None = None,
        test_annotations: str | None = None,
        max_words: int = 12,
        **options: Any,
    ) -> None:
        super().__init__(max_words=max_words, **options)
        if (test_path is None) != (test_annotations is None):
            raise ValueError("test_path goes with test_annotations: give both of them, or neither")
        self.places = {"train": (user_path(path), user_path(annotations))}
        if test_path is not None and test_annotations is not None:
            self.places["test"] = (user_path(test_path), user_path(test_annotations))
        self._tables: dict[str, dict[str, list[str]]] = {}

    def files(self, split: str) -> tuple[Source, tuple[str, ...]]:
        source, table = open_source(self._place(split)[0], follow_links=self.follow_links), self._table(split)
        there = set(source.names)
        missing = [name for name in table if name not in there]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(table)} pictures of {self._place(split)[1]} are not in {source.path}: "
                f"{_listed(missing)}"
            )
        return source, tuple(table)

    def read_captions(self, split: str) -> Captions:
        table = self._table(split)
        return Captions(list(table.values()), list(table))

    def _place(self, split: str) -> tuple[Path, Path]:
        if split not in self.places:
            raise ValueError("no test pictures: set test_path and test_annotations for split 'test'")
        return self.places[split]

    def _table(self, split: str) -> dict[str, list[str]]:
        if split not in self._tables:
            self._tables[split] = read_coco(self._place(split)[1])
        return self._tables[split]


def read_coco(path: Path) -> dict[str, list[str]]:
    """{file name: its captions} in the order of the file names. FileNotFoundError; ValueError for another format."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: give COCO's file of captions, such as captions_train2014.json")
    if path.stat().st_size > _MAX_TABLE_BYTES:
        raise ValueError(f"{path} has more than {_MAX_TABLE_BYTES} bytes: refused")
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error})") from error
    match table:
        case {"images": list(images), "annotations": list(annotations)}:
            pass
        case _:
            raise ValueError(
                f'{path} must read {{"images": [...], "annotations": [...]}}, as COCO\'s files of captions do'
            )
    names, found = {}, {}
    for image in images:
        match image:
            case {"id": int(number), "file_name": str(name)} if abs(number) < 2**60:  # of larger ones hashes collide
                names[number], found[name] = name, []
            case _:
                raise ValueError(f'{path} has the image {image!r:.80}, expected {{"id": 3, "file_name": "x.jpg", ...}}')
    for entry in annotations:
        match entry:
            case {"image_id": int(number), "caption": str(caption)} if number in names:
                found[names[number]].append(" ".join(caption.split()))
            case _:
                raise ValueError(
                    f'{path} has the annotation {entry!r:.80}, expected {{"image_id": of an image, "caption": ...}}'
                )
    return dict(sorted(found.items()))
