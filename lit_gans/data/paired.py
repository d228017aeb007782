"""Pictures in pairs: side by side in one file, in parallel folders, or label maps with instances and photographs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lit_gans.base.files import user_path
from lit_gans.data.checks import _one_of, _whole
from lit_gans.data.decode import MAX_PIXELS
from lit_gans.data.described import Description, warn_of_left
from lit_gans.data.labels import check_no_splits
from lit_gans.data.layouts import LABEL_MAPS, SPLITS, Layout, Place
from lit_gans.data.sides import FRAMINGS, SampleSet, Side, described
from lit_gans.data.sources import Source, open_source
from lit_gans.data.translation import TranslationData

LAYOUTS = ("auto", "side_by_side", "folders", "labels")
_NAMED = 5
# What Cityscapes adds to the name of a scene in each of its folders.
_CITYSCAPES = re.compile(r"_(gt(Fine|Coarse)_(labelIds|instanceIds)|leftImg8bit)$")


class Paired(TranslationData):
    """Pictures of two domains that show the same thing, or label and instance maps with their photographs.

    Layouts of `path`, "auto" taking the one that is there, and refusing any other and several:

    - "labels": `train_label` (8-bit label ids below `num_labels`), `train_inst` (instance ids of up to 16 bits, unless
      `instances` is False) and `train_img`, as pix2pixHD has them: batches {"label", "instance", "b"};
    - "folders": files of equal names in `trainA` and `trainB`, `A/train` and `B/train`, `train_A` and `train_B`,
      `train/A` and `train/B`, or `A` and `B`; or `path` and `path_b` themselves, or the folders `train` in them;
    - "side_by_side": a in the left half of each file, b in the right, in the folder `train` or in `path` itself. With
      "auto" each file must be twice as wide as high, or show a seam in its middle.

    Splits "val" and "test" likewise, or "test" by `test_path` and `test_path_b`. Files of one sample have one name,
    whatever the ending (Cityscapes' own additions to its names aside). `direction` "ba" swaps a and b.

    `resize`: "stretch" scales to `load_px` and ignores the aspect ratio, as pix2pix does; "crop" keeps it and cuts off
    what is too much; "none" cuts crops from the pictures as they are. Every file is checked before training, and where
    all take less than `cache_mb` they stay in memory.

    Raises:
        ValueError, FileNotFoundError: an option, a folder, partners that are missing, or files that cannot be used.
    """

    splits = SPLITS

    def __init__(
        self,
        path: str,
        *,
        path_b: str | None = None,
        test_path: str | None = None,
        test_path_b: str | None = None,
        layout: Literal["auto", "side_by_side", "folders", "labels"] = "auto",
        direction: Literal["ab", "ba"] = "ab",
        load_px: int | None = None,
        resize: Literal["stretch", "crop", "none"] = "stretch",
        a_channels: int = 3,
        b_channels: int = 3,
        num_labels: int = 0,
        instances: bool = True,
        cache_mb: int = 1024,
        max_pixels: int = MAX_PIXELS,
        follow_links: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(load_px=load_px, **options)
        _one_of("layout", layout, LAYOUTS)
        check_options(direction, resize, load_px, a_channels=a_channels, b_channels=b_channels)
        if _whole("num_labels", num_labels, 0) > 256:
            raise ValueError(f"num_labels is {num_labels}; 8-bit label maps tell at most 256 apart")
        if test_path is not None and (test_path_b is None) != (path_b is None):
            raise ValueError("test_path_b goes with path_b: give both of them, or neither")
        self.path, self.path_b = user_path(path), None if path_b is None else user_path(path_b)
        self.test_path, self.test_path_b = (
            None if p is None else user_path(p) for p in (test_path, test_path_b)
        )
        self.layout, self.direction, self.resize = layout, direction, resize
        self.a_channels, self.b_channels = a_channels, b_channels
        self.num_labels, self.instances = num_labels, instances
        self.cache_mb, self.max_pixels, self.follow_links = cache_mb, max_pixels, follow_links

    @property
    def preview_split(self) -> str:  # type: ignore[override]
        """Where pictures that training does not see are taken from; "train" where there are no others."""
        return next((split for split in ("test", "val") if self._there(split)), "train")

    def transform(self) -> dict[str, object]:
        return {"height": self.height, "resize": self.resize, "direction": self.direction}

    def describe(self, split: str | None = None) -> Description:
        split = split or self.train_split
        return described(super().describe(split), self.dataset(split), layout=self._layout(split).name)

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
        root, root_b = self._roots(split)
        if self._itself(split):
            return True
        if root_b is not None:
            return (root / split).is_dir()
        return bool(Place(root, split, itself=False, follow_links=self.follow_links).within().layouts())

    def _itself(self, split: str) -> bool:
        """Whether the path is given for this split alone."""
        return split == "train" or (split == "test" and self.test_path is not None)

    def _roots(self, split: str) -> tuple[Path, Path | None]:
        if split == "test" and self.test_path is not None:
            return self.test_path, self.test_path_b
        return self.path, self.path_b

    def _layout(self, split: str) -> Layout:
        root, root_b = self._roots(split)
        if root_b is None:
            return Place(root, split, self._itself(split), self.follow_links).layout(self.layout)
        a, b = (place / split if (place / split).is_dir() else place for place in (root, root_b))
        return Layout("folders", f"{a} + {b}", a, b)

    def _sides(self, split: str) -> dict[str, Side]:
        layout = self._layout(split)
        if layout.kind == "labels":
            return self._labels(layout.a, split)
        if layout.b is not None:
            sides = self._matched({"a": layout.a, "b": layout.b})
        else:
            source = self._open(layout.a)
            whole = Side(source, source.names, guessed=self.layout == "auto", max_pixels=self.max_pixels)
            sides = {"a": replace(whole, half="left"), "b": replace(whole, half="right")}
        if self.direction == "ba":
            sides = {"a": sides["b"], "b": sides["a"]}
        return {"a": replace(sides["a"], channels=self.a_channels), "b": replace(sides["b"], channels=self.b_channels)}

    def _open(self, place: Path) -> Source:
        source = open_source(place, follow_links=self.follow_links)
        warn_of_left(source)
        check_no_splits(source, otherwise="")
        return source

    def _labels(self, root: Path, split: str) -> dict[str, Side]:
        if self.num_labels == 0:
            raise ValueError(f"{root / f'{split}_label'} holds label maps: set num_labels to how many labels there are")
        if self.direction == "ba":
            raise ValueError("direction 'ba' would make label maps from photographs, which is segmentation: use 'ab'")
        wanted = {side: root / name.format(split=split) for side, name in LABEL_MAPS.items()}
        sides = self._matched({side: place for side, place in wanted.items() if side != "instance" or self.instances})
        sides["label"] = replace(sides["label"], kind="label", num_labels=self.num_labels)
        if self.instances:
            sides["instance"] = replace(sides["instance"], kind="instance")
        return {**sides, "b": replace(sides["b"], channels=self.b_channels)}

    def _matched(self, places: dict[str, Path]) -> dict[str, Side]:
        sources = {side: self._open(place) for side, place in places.items()}
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
