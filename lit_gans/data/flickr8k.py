"""Flickr8k (Hodosh, Young and Hockenmaier, 2013) as it is distributed: photographs with five captions each."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lit_gans.base.files import user_path
from lit_gans.data.captioned_files import CaptionedFileData
from lit_gans.data.captions import Captions, _listed
from lit_gans.data.checks import _whole
from lit_gans.data.sources import Source, open_source

IMAGES, TABLE = "Images", "captions.txt"
_MAX_TABLE_BYTES = 2**28


class Flickr8k(CaptionedFileData):
    """Pictures of everyday scenes, mostly people and dogs: a folder with `Images` and `captions.txt`.

    The table has the header "image,caption" and a line for each caption. The last `test_images` pictures by name are
    split "test", all others split "train"; the published split, whose lists are not part of the distribution, is
    another. There are no classes: any other picture is a wrong partner. What else there is to set:
    `CaptionedFileData`.

    Raises:
        ValueError, FileNotFoundError: an option, or a file that is missing or of another kind.
    """

    def __init__(self, root: str = "data/flickr8k", *, test_images: int = 1000, **options: Any) -> None:
        super().__init__(**options)
        self.root, self.test_images = user_path(root), _whole("test_images", test_images, 1)
        self._table: dict[str, list[str]] = {}

    def transform(self) -> dict[str, object]:
        return {**super().transform(), "test_images": self.test_images}

    def files(self, split: str) -> tuple[Source, tuple[str, ...]]:
        if not (self.root / IMAGES).is_dir():
            raise FileNotFoundError(f"there is no folder {self.root / IMAGES}: set root to the folder of Flickr8k")
        source, names = open_source(self.root / IMAGES, follow_links=self.follow_links), self._names(split)
        if missing := sorted(set(names) - set(source.names)):
            raise FileNotFoundError(
                f"{len(missing)} of {len(names)} pictures of {TABLE} are not in {source.path}: {_listed(missing)}"
            )
        return source, names

    def read_captions(self, split: str) -> Captions:
        names = self._names(split)
        return Captions([self._table[name] for name in names], names)

    def _names(self, split: str) -> tuple[str, ...]:
        self._table = self._table or read_table(self.root / TABLE)
        names = tuple(self._table)
        if len(names) <= self.test_images:
            raise ValueError(
                f"{self.root / TABLE} has captions of {len(names)} pictures, and test_images is {self.test_images}: "
                "give fewer, so that some are left to train with"
            )
        return names[-self.test_images :] if split == "test" else names[: -self.test_images]


def read_table(path: Path) -> dict[str, list[str]]:
    """{file name: its captions} in the order of the file names. FileNotFoundError; ValueError for another format."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: give Flickr8k's table of captions, with the header image,caption")
    if path.stat().st_size > _MAX_TABLE_BYTES:
        raise ValueError(f"{path} has more than {_MAX_TABLE_BYTES} bytes: refused")
    try:
        rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        if (header := next(rows, [])) != ["image", "caption"]:
            raise ValueError(f"{path} begins with {','.join(header)!r:.80}, expected the header image,caption")
        found: dict[str, list[str]] = {}
        for row in rows:
            if not row:
                continue
            if len(row) != 2:
                raise ValueError(f"line {rows.line_num} of {path} has {len(row)} columns, expected image,caption")
            found.setdefault(row[0], []).append(" ".join(row[1].split()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of captions in UTF-8 ({error}): save it as such") from error
    return dict(sorted(found.items()))
