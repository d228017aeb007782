"""The layouts in which pairs of pictures are published, and which of them lies at a place. Any other is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from lit_gans.data.decode import to_mode
from lit_gans.data.sources import is_hidden, open_source

SPLITS = ("train", "val", "test")
# Two folders whose files have equal names: of CycleGAN; of pix2pix's combine_A_and_B.py; of pix2pixHD without labels.
TWO_FOLDERS = (
    ("{split}A", "{split}B"), ("A/{split}", "B/{split}"), ("{split}_A", "{split}_B"), ("{split}/A", "{split}/B"),
)  # fmt: skip
WITHOUT_SPLITS = ("A", "B")
SIDE_BY_SIDE = "side by side in each file, a left and b right"
LABEL_MAPS = {"label": "{split}_label", "instance": "{split}_inst", "b": "{split}_img"}  # of pix2pixHD
ASPECT, TOLERANCE = 2.0, 0.05  # width to height of two squares side by side, as pix2pix publishes its pairs
_LISTED = 8


@dataclass(frozen=True)
class Layout:
    """A layout found at a place: `kind` as Paired's option names it, and the folders of a and b, or of whole files."""

    kind: str
    name: str
    a: Path
    b: Path | None = None


@dataclass(frozen=True)
class Place:
    """Where pairs of a split are looked for; with `itself`, files that lie in `root` are of the split too."""

    root: Path
    split: str
    itself: bool
    follow_links: bool = False

    def layouts(self) -> list[Layout]:
        """Those of which there is a folder for this split."""
        pairs = [tuple(name.format(split=self.split) for name in pair) for pair in TWO_FOLDERS]
        if self.itself and not any((self.root / x / split).is_dir() for x in WITHOUT_SPLITS for split in SPLITS):
            pairs.append(WITHOUT_SPLITS)
        found = [
            Layout("folders", f"{a} + {b}", self.root / a, self.root / b)
            for a, b in pairs
            if all((self.root / name).is_dir() for name in (a, b)) or self._lacks(a, b)
        ]
        if (self.root / LABEL_MAPS["label"].format(split=self.split)).is_dir():
            names = (name.format(split=self.split) for name in LABEL_MAPS.values())
            found.append(Layout("labels", " + ".join(names), self.root))
        whole = self._whole()
        if whole != self.root or (self.itself and not found and not self._has_splits()):
            found += [Layout("side_by_side", f"{SIDE_BY_SIDE}, in {whole}", whole)] if self._is_flat(whole) else []
        return found

    def layout(self, wanted: str) -> Layout:
        """The one that there is, of the kind `wanted` unless that is "auto"; ValueError for none, and for several.

        A lone folder in `root` is stepped into where `root` itself holds nothing known.
        """
        if wanted == "side_by_side":
            return Layout(wanted, f"{SIDE_BY_SIDE}, in {self._whole()}", self._whole())
        place = self.within()
        found = [layout for layout in place.layouts() if wanted in ("auto", layout.kind)]
        if wanted == "labels" and not found:
            return Layout(wanted, "label maps", place.root)
        if len(found) > 1:
            raise ValueError(
                f"{place.root} holds pairs of split {self.split!r} in several layouts: "
                f"{'; '.join(each.name for each in found)}. Set layout, give path and path_b, or move away what is not "
                "meant"
            )
        if not found:
            asked = "" if wanted == "auto" else f" {wanted!r}"
            raise ValueError(
                f"{self.root} holds {self._told()}: no known layout{asked} of pairs for split {self.split!r}. "
                f"{known_layouts(self.split)}"
            )
        return found[0]

    def within(self) -> Place:
        """This place, or the lone folder in it, and so on, where that holds a layout."""
        place = self
        while place.root.is_dir() and not place.layouts():
            inside = [entry for entry in place.root.iterdir() if not is_hidden(entry.name) and entry.is_dir()]
            if len(inside) != 1 or inside[0].name in SPLITS or (inside[0].is_symlink() and not self.follow_links):
                return self
            place = replace(place, root=inside[0])
        return place

    def _lacks(self, a: str, b: str) -> bool:
        """Whether one of two folders is there whose names tell that they are a pair of this split."""
        return len(a) > 1 and (self.root / a).is_dir() != (self.root / b).is_dir()

    def _whole(self) -> Path:
        """Where files of two pictures would lie."""
        return self.root / self.split if (self.root / self.split).is_dir() else self.root

    def _has_splits(self) -> bool:
        return any((self.root / split).is_dir() for split in SPLITS)

    def _is_flat(self, path: Path) -> bool:
        """Whether all pictures lie in one folder, as files of two pictures do."""
        try:
            source = open_source(path, follow_links=self.follow_links)
        except FileNotFoundError:
            return False
        return len({name.rpartition("/")[0] for name in source.names}) == 1

    def _told(self) -> str:
        """The folders here, and how many pictures each has, itself included; FileNotFoundError for no picture."""
        names = open_source(self.root, follow_links=self.follow_links).names
        counts = Counter(name.rpartition("/")[0] for name in names)
        own = [f"{counts.pop('')} pictures"] if "" in counts else []
        told = [f"{folder} ({count} pictures)" for folder, count in sorted(counts.items())]
        more = [f"{len(told) - _LISTED} more folders"] if len(told) > _LISTED else []
        return ", ".join([*own, *told[:_LISTED], *more])


def known_layouts(split: str) -> str:
    """What is known, in words."""
    pairs = [" + ".join(pair).format(split=split) for pair in (*TWO_FOLDERS, WITHOUT_SPLITS)]
    maps = " + ".join(LABEL_MAPS.values()).format(split=split)
    return (
        f"Known are two folders with files of equal names, {', '.join(pairs)}; label maps, {maps}; and files of two "
        f"pictures side by side, in the folder {split} or in path itself. Rename the folders, name the two by path and "
        "path_b, or set layout='side_by_side' if every file holds both pictures"
    )


def looks_side_by_side(image: Image.Image, width: int, height: int) -> bool:
    """Whether a file of this upright size looks like two pictures side by side.

    About twice as wide as high; or with a seam in the middle, a step between two columns that few others have.
    """
    if abs(width - ASPECT * height) <= TOLERANCE * ASPECT * height:
        return True
    pixels = np.asarray(to_mode(image, "RGB")).astype(np.float32)
    steps = np.abs(np.diff(pixels, axis=1)).mean(axis=(0, 2))  # [width - 1]
    if len(steps) < 3:
        return False
    seam = steps[width // 2 - 1]
    return bool(seam > 2 * np.median(steps) and seam >= np.quantile(steps, 0.95))
