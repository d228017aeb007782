"""Pictures in pairs: side by side in one file, in parallel folders, or label maps with instances and photographs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lit_gans.data.checks import _one_of, _whole
from lit_gans.data.decode import MAX_PIXELS
from lit_gans.data.sides import FRAMINGS, SampleSet, Side
from lit_gans.data.sources import Source, open_source
from lit_gans.data.translation import TranslationData

Layout = Literal["auto", "side_by_side", "folders", "labels"]
LAYOUTS = ("auto", "side_by_side", "folders", "labels")
_NAMED = 5
# What Cityscapes adds to the name of a scene in each of its folders.
_CITYSCAPES = re.compile(r"_(gt(Fine|Coarse)_(labelIds|instanceIds)|leftImg8bit)$")


class Paired(TranslationData):
    """Pictures of two domains that show the same thing, or label and instance maps with their photographs.

    Layouts of `path`, "auto" taking the one of which there is a folder:

    - "labels": `train_label` (8-bit label ids below `num_labels`), `train_inst` (instance ids of up to 16 bits, unless
      `instances` is False) and `train_img`, as pix2pixHD has them: batches {"label", "instance", "b"};
    - "folders": `trainA` and `trainB`; or `path` and `path_b` themselves, or the folders `train` in them;
    - "side_by_side": a in the left half of each file, b in the right, in the folder `train` or in `path` itself.

    Splits "val" and "test" likewise, or "test" by `test_path` and `test_path_b`. Files of one sample have one name,
    whatever the ending (Cityscapes' own additions to its names aside). `direction` "ba" swaps a and b.

    `resize`: "stretch" scales to `load_px` and ignores the aspect ratio, as pix2pix does; "crop" keeps it and cuts off
    what is too much; "none" cuts crops from the pictures as they are. Every file is checked before training, and where
    all take less than `cache_mb` they stay in memory.

    Raises:
        ValueError, FileNotFoundError: an option, a folder, partners that are missing, or files that cannot be used.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        path: str,
        *,
        path_b: str | None = None,
        test_path: str | None = None,
        test_path_b: str | None = None,
        layout: Layout = "auto",
        direction: Literal["ab", "ba"] = "ab",
        load_px: int | None = None,
        resize: Literal["stretch", "crop", "none"] = "stretch",
        a_channels: int = 3,
        b_channels: int = 3,
        num_labels: int = 0,
        instances: bool = True,
        cache_mb: int = 1024,
        max_pixels: int = MAX_PIXELS,
        **options: Any,
    ) -> None:
        super().__init__(load_px=load_px, **options)
        _one_of("layout", layout, LAYOUTS)
        check_options(direction, resize, load_px, a_channels=a_channels, b_channels=b_channels)
        if _whole("num_labels", num_labels, 0) > 256:
            raise ValueError(f"num_labels is {num_labels}; 8-bit label maps tell at most 256 apart")
        if test_path is not None and (test_path_b is None) != (path_b is None):
            raise ValueError("test_path_b goes with path_b: give both of them, or neither")
        self.path, self.path_b = Path(path), None if path_b is None else Path(path_b)
        self.test_path, self.test_path_b = (None if p is None else Path(p) for p in (test_path, test_path_b))
        self.layout, self.direction, self.resize = layout, direction, resize
        self.a_channels, self.b_channels = a_channels, b_channels
        self.num_labels, self.instances = num_labels, instances
        self.cache_mb, self.max_pixels = cache_mb, max_pixels

    @property
    def preview_split(self) -> str:  # type: ignore[override]
        """Where pictures that training does not see are taken from; "train" where there are no others."""
        return next((split for split in ("test", "val") if self._there(split)), "train")

    def transform(self) -> dict[str, object]:
        return {"height": self.height, "resize": self.resize, "direction": self.direction}

    def load(self, split: str) -> SampleSet:
        """Raises FileNotFoundError or ValueError naming the folders or the files."""
        if not self._there(split):
            found = ", ".join(name for name in self.splits if self._there(name))
            raise FileNotFoundError(f"{self.path} has no split {split!r}; it has {found}")
        samples = SampleSet(self._sides(split), size=self.size, load_size=self.load_size, resize=self.resize)
        samples.prepare(cache_mb=self.cache_mb)
        return samples

    # ---- where the files lie -----------------------------------------------------------------------------------------

    def _there(self, split: str) -> bool:
        """Whether the split has a place of its own; the training split always has one, in which to look."""
        root, _ = self._roots(split)
        given = split == "train" or (split == "test" and self.test_path is not None)
        return given or any((root / name).is_dir() for name in (split, f"{split}A", f"{split}_label"))

    def _roots(self, split: str) -> tuple[Path, Path | None]:
        if split == "test" and self.test_path is not None:
            return self.test_path, self.test_path_b
        return self.path, self.path_b

    def _kind(self, split: str) -> str:
        root, root_b = self._roots(split)
        if self.layout != "auto":
            return self.layout
        if root_b is not None or (root / f"{split}A").is_dir():
            return "folders"
        return "labels" if (root / f"{split}_label").is_dir() else "side_by_side"

    def _sides(self, split: str) -> dict[str, Side]:
        kind, (root, root_b) = self._kind(split), self._roots(split)
        if kind == "labels":
            return self._labels(root, split)
        if kind == "folders":
            places = (root / f"{split}A", root / f"{split}B") if root_b is None else (root, root_b)
            a, b = (place / split if (place / split).is_dir() else place for place in places)
            sides = self._matched({"a": a, "b": b})
        else:
            source = open_source(root / split if (root / split).is_dir() else root)
            whole = Side(source, source.names, max_pixels=self.max_pixels)
            sides = {"a": replace(whole, half="left"), "b": replace(whole, half="right")}
        if self.direction == "ba":
            sides = {"a": sides["b"], "b": sides["a"]}
        return {"a": replace(sides["a"], channels=self.a_channels), "b": replace(sides["b"], channels=self.b_channels)}

    def _labels(self, root: Path, split: str) -> dict[str, Side]:
        if self.num_labels == 0:
            raise ValueError(f"{root / f'{split}_label'} holds label maps: set num_labels to how many labels there are")
        if self.direction == "ba":
            raise ValueError("direction 'ba' would make label maps from photographs, which is segmentation: use 'ab'")
        folders = {"label": "label", "instance": "inst", "b": "img"}
        wanted = {side: root / f"{split}_{name}" for side, name in folders.items()}
        sides = self._matched({side: place for side, place in wanted.items() if side != "instance" or self.instances})
        sides["label"] = replace(sides["label"], kind="label", num_labels=self.num_labels)
        if self.instances:
            sides["instance"] = replace(sides["instance"], kind="instance")
        return {**sides, "b": replace(sides["b"], channels=self.b_channels)}

    def _matched(self, places: dict[str, Path]) -> dict[str, Side]:
        sources = {side: open_source(place) for side, place in places.items()}
        names = partners(list(sources.values()))
        return {
            side: Side(source, of_side, max_pixels=self.max_pixels)
            for (side, source), of_side in zip(sources.items(), names, strict=True)
        }


def check_options(direction: str, resize: str, load_px: int | None, *, a_channels: int, b_channels: int) -> None:
    """Raises ValueError where an option of files in two domains is none that there is."""
    _one_of("direction", direction, ("ab", "ba"))
    _one_of("resize", resize, FRAMINGS)
    _one_of("a_channels", a_channels, (1, 3))
    _one_of("b_channels", b_channels, (1, 3))
    if resize == "none" and load_px is not None:
        raise ValueError(f"resize='none' scales nothing, so load_px {load_px} has no meaning: leave it out")


def partners(sources: list[Source]) -> list[tuple[str, ...]]:
    """For each source its names in the common order of the samples.

    Raises:
        ValueError: files without a partner, the first five of each folder by name.
    """
    keyed = [_by_key(source) for source in sources]
    everywhere = set.intersection(*(set(names) for names in keyed))
    lonely = [[names[key] for key in names if key not in everywhere] for names in keyed]
    if any(lonely):
        told = "; ".join(f"{len(n)} in {s.path} ({_listed(n)})" for s, n in zip(sources, lonely, strict=True) if n)
        raise ValueError(
            f"files without a partner of the same name: {told}. Each sample needs one file in each of "
            f"{', '.join(str(source.path) for source in sources)}"
        )
    return [tuple(names[key] for key in sorted(everywhere)) for names in keyed]


def _by_key(source: Source) -> dict[str, str]:
    """{what partners have in common: name}."""
    keyed: dict[str, str] = {}
    for name in source.names:
        key = _CITYSCAPES.sub("", name.rsplit(".", 1)[0])
        if key in keyed:
            raise ValueError(f"{keyed[key]} and {name} in {source.path} are the same sample: keep one of them")
        keyed[key] = name
    return keyed


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
