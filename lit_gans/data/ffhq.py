"""Flickr-Faces-HQ as published: 70,000 aligned faces, numbered, the last 10,000 set apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from lit_gans.data.images import Images

# Resolution of the published folders; the "in-the-wild" pictures are not aligned and are not used.
FOLDERS = {128: "thumbnails128x128", 1024: "images1024x1024"}
TRAINING = 60_000


class FFHQ(Images):
    """FFHQ (Karras et al., 2019): the published folders, or the zip that StyleGAN's dataset tool makes of them.

    `path` is that zip, or the folder of thumbnails128x128 and/or images1024x1024 (the thumbnails serve up to 128),
    or one of these. Splits, by the number in the file name: "train" below 60,000, "test" from there on, "all".
    Training uses `train_split`: most papers report FFHQ trained on, and measured against, "all".
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test", "all")

    def __init__(
        self,
        path: str,
        *,
        batch_size: int,
        resolution: int,
        train_split: str = "train",
        cache_mb: int = 1024,
        mirror: bool = False,
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            path,
            batch_size=batch_size,
            resolution=resolution,
            labels="none",
            cache_mb=cache_mb,
            mirror=mirror,
            num_workers=num_workers,
            seed=seed,
        )
        if train_split not in self.splits:
            raise ValueError(f"train_split is {train_split!r}; it must be one of {', '.join(self.splits)}")
        self.train_split = train_split

    def location(self, split: str) -> Path | str:
        """The smallest published folder of enough pixels, or the largest there is; `path` where it holds neither."""
        if isinstance(self.path, str):
            return self.path
        there = [size for size, name in FOLDERS.items() if (self.path / name).is_dir()]
        if not there:
            return self.path
        return self.path / FOLDERS[min((size for size in there if size >= self.resolution), default=max(there))]

    def select(self, names: tuple[str, ...], split: str) -> tuple[str, ...]:
        """Raises ValueError where a name has no number, or the split no picture."""
        numbers = {name: self._number(name) for name in names}
        chosen = tuple(n for n in names if split == "all" or (numbers[n] < TRAINING) == (split == "train"))
        if not chosen:
            low, high = min(numbers.values()), max(numbers.values())
            raise ValueError(
                f"{self.path} has no picture of split {split!r}: its numbers run from {low} to {high}; "
                f"'train' is below {TRAINING}, 'test' from there on; or use 'all'"
            )
        return chosen

    def _number(self, name: str) -> int:
        found = re.search(r"(\d+)\.\w+$", name)
        if found is None:
            raise ValueError(f"{name} in {self.path} has no number, by which FFHQ is split: use Images instead")
        return int(found[1])
