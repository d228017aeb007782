"""Caltech-UCSD Birds 200-2011 (Wah et al., 2011) with the captions of Reed et al. (2016), as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_gans.data.captioned_files import BoxCrop, CaptionedFileData, caption_lines
from lit_gans.data.captions import Captions, _listed
from lit_gans.data.checks import _one_of
from lit_gans.data.embeddings import NAMES, read_names
from lit_gans.data.sources import Folder, Source

TEST_CLASSES = "testclasses.txt"  # of Reed et al.: a class folder on each line
_TEXT_FOLDERS = ("text", "text_c10")
_MAX_TABLE_BYTES = 2**26


class CUB(CaptionedFileData):
    """200 kinds of birds, 11,788 pictures with a box and 10 captions each.

    `root` is the published folder, with `images`, `images.txt`, `classes.txt`, `image_class_labels.txt` and
    `bounding_boxes.txt`; the captions are in `text`, else in the folder `text` or `text_c10` of `root` or beside it:
    <class>/<image>.txt, one on each line.

    `division` "disjoint" keeps the classes of split "test" out of training, as all text-to-image papers do (150 and
    50). Which they are is taken from StackGAN's `test/filenames.pickle` or from `testclasses.txt` of Reed et al.,
    looked for in `split_files`, else in `root` and beside it; where there are none, the last quarter of `classes.txt`
    is the test split, which numbers in papers were not measured on. "official" takes `train_test_split.txt`, whose
    splits share all classes. `crop` "box" cuts the square around the bird out (see `BoxCrop`), "none" takes
    whole pictures.

    What else there is to set: `CaptionedFileData`.

    Raises:
        ValueError, FileNotFoundError: an option, a table or a file that is missing or does not fit the others.
    """

    def __init__(
        self,
        root: str = "data/CUB_200_2011",
        *,
        text: str | None = None,
        division: Literal["disjoint", "official"] = "disjoint",
        split_files: str | None = None,
        crop: Literal["box", "none"] = "box",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        _one_of("division", division, ("disjoint", "official"))
        _one_of("crop", crop, ("box", "none"))
        self.root, self.division, self.crop = Path(root), division, crop
        self.text = None if text is None else Path(text)
        self.split_files = None if split_files is None else Path(split_files)
        self._chosen: dict[str, list[int]] = {}
        self._tables: dict[str, dict[int, list[str]]] = {}

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """All classes of `classes.txt`, in its order: "001.Black_footed_Albatross" and so on, those of both splits."""
        return tuple(self._names("classes.txt").values())

    def transform(self) -> dict[str, object]:
        return {**super().transform(), "crop": self.crop, "division": self.division}

    def files(self, split: str) -> tuple[Source, tuple[str, ...]]:
        if not (self.root / "images").is_dir():
            raise FileNotFoundError(f"there is no folder {self.root / 'images'}: set root to the folder CUB_200_2011")
        source, names = Folder(self.root / "images"), self._split_names(split)
        missing = sorted(set(names) - set(source.names))
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(names)} pictures of images.txt are not in {source.path}: {_listed(missing)}"
            )
        return source, names

    def boxes(self, split: str) -> BoxCrop | None:
        if self.crop == "none":
            return None
        table = self._table("bounding_boxes.txt", 4)
        rows = [self._row(table, number, "bounding_boxes.txt") for number in self._split(split)]
        return BoxCrop(np.array([[_number(value, "bounding_boxes.txt") for value in row] for row in rows]))

    def classes(self, split: str) -> Tensor:
        numbers = {number: place for place, number in enumerate(self._names("classes.txt"))}
        return torch.tensor([numbers[self._class(number)] for number in self._split(split)], dtype=torch.int64)

    def read_captions(self, split: str) -> Captions:
        names = self._split_names(split)
        folder = self._text_folder()
        return Captions([_read_lines(folder, name) for name in names], names)

    # Which pictures

    def _split(self, split: str) -> list[int]:
        """The ids of the pictures of a split, in the order of images.txt."""
        if split not in self._chosen:
            test = self._test_ids()
            chosen = [number for number in self._names("images.txt") if (number in test) == (split == "test")]
            if not chosen:
                raise ValueError(
                    f"split {split!r} of {self.root} by division {self.division!r} has no picture: use the other"
                )
            self._chosen[split] = chosen
        return self._chosen[split]

    def _split_names(self, split: str) -> tuple[str, ...]:
        names = self._names("images.txt")
        return tuple(names[number] for number in self._split(split))

    def _test_ids(self) -> set[int]:
        """Ids of the test split's pictures."""
        ids = self._names("images.txt")
        if self.division == "official":
            table = self._table("train_test_split.txt", 1)
            return {number for number in ids if self._row(table, number, "train_test_split.txt") == ["0"]}
        classes = {name: number for number, name in self._names("classes.txt").items()}
        test = self._published_test_classes()
        if test is None:
            names = list(classes)
            test = set(names[len(names) - len(names) // 4 :])
        return {number for number in ids if self._names("classes.txt")[self._class(number)] in test}

    def _published_test_classes(self) -> set[str] | None:
        """The class folders of the test split, where a file that says so is found."""
        for place in (self.root, self.root.parent) if self.split_files is None else (self.split_files,):
            if (place / "test" / NAMES).is_file():
                return {name.split("/", 1)[0] for name in read_names(place / "test" / NAMES)}
            if (place / TEST_CLASSES).is_file():
                return set((place / TEST_CLASSES).read_text(encoding="utf-8").split())
        if self.split_files is not None:
            raise FileNotFoundError(f"neither test/{NAMES} nor {TEST_CLASSES} is in {self.split_files}")
        return None

    def _class(self, number: int) -> int:
        """The class id of a picture."""
        value = self._row(self._table("image_class_labels.txt", 1), number, "image_class_labels.txt")[0]
        known = self._names("classes.txt")
        if not value.isdecimal() or int(value) not in known:
            raise ValueError(f"{self.root}/image_class_labels.txt has class {value!r}, which classes.txt does not have")
        return int(value)

    # The tables

    def _names(self, file: str) -> dict[int, str]:
        """{id: name}."""
        return {number: values[0] for number, values in self._table(file, 1).items()}

    def _row(self, table: dict[int, list[str]], number: int, file: str) -> list[str]:
        if number not in table:
            raise ValueError(f"{self.root / file} has no line for picture {number} of images.txt: fetch it again")
        return table[number]

    def _table(self, file: str, values: int) -> dict[int, list[str]]:
        """{id: values} of a published table, read once."""
        if file not in self._tables:
            path = self.root / file
            if not path.is_file():
                raise FileNotFoundError(f"there is no {path}: set root to the folder CUB_200_2011, with all its tables")
            self._tables[file] = _read_table(path, values)
        return self._tables[file]

    def _text_folder(self) -> Path:
        if self.text is not None:
            if not self.text.is_dir():
                raise FileNotFoundError(f"there is no folder {self.text}: set text to the folder of the captions")
            return self.text
        places = [root / name for root in (self.root, self.root.parent) for name in _TEXT_FOLDERS]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise FileNotFoundError(
                f"no captions at {', '.join(map(str, places))}: set text to the folder of <class>/<image>.txt"
            )
        return found


def _read_table(path: Path, values: int) -> dict[int, list[str]]:
    """Lines "<id> <value> ..." -> {id: its values}. ValueError with the number of a line that is another."""
    if path.stat().st_size > _MAX_TABLE_BYTES:
        raise ValueError(f"{path} has more than {_MAX_TABLE_BYTES} bytes, and is no table of CUB")
    table: dict[int, list[str]] = {}
    for place, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        number, *rest = line.split()
        if len(rest) != values or not number.isdecimal():
            raise ValueError(f"line {place} of {path} is {line!r:.80}, expected an id and {values} values")
        if int(number) in table:
            raise ValueError(f"line {place} of {path} has id {number} a second time")
        table[int(number)] = rest
    return table


def _number(value: str, file: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise ValueError(f"{file} has {value!r} where a number should stand") from error


def _read_lines(folder: Path, name: str) -> list[str]:
    """The captions of a picture; none where their file is missing."""
    path = folder / f"{name.rsplit('.', 1)[0]}.txt"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the captions of {name!r} would lie outside of {folder}: refused")
    return caption_lines(path.read_bytes(), str(path)) if path.is_file() else []
