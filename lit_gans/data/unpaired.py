"""Pictures of two domains without partners, each in an order of its own."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from lit_gans.base.files import user_path
from lit_gans.base.random import derive_seed
from lit_gans.data.decode import MAX_PIXELS
from lit_gans.data.described import Description, warn_of_left
from lit_gans.data.paired import check_options
from lit_gans.data.sets import ImageSet
from lit_gans.data.sides import SampleSet, Side, described
from lit_gans.data.sources import open_source
from lit_gans.data.stream import Stream
from lit_gans.data.translation import CropStream, OneSide, TranslationData, TranslationSet


class TwoSets(TranslationSet):
    """Sample i is picture i of each domain, counted round the smaller one: for looking at, not for training."""

    def __init__(self, a: TranslationSet, b: TranslationSet) -> None:
        self.a, self.b = a, b

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    def fetch(self, indices: Tensor) -> dict[str, Tensor]:
        return {**self.a.fetch(indices % len(self.a)), **self.b.fetch(indices % len(self.b))}

    def windows(self, indices: Tensor, *, across: np.ndarray, down: np.ndarray) -> dict[str, Tensor]:
        place = {"across": across, "down": down}
        return {**self.a.windows(indices % len(self.a), **place), **self.b.windows(indices % len(self.b), **place)}

    def side(self, name: str) -> ImageSet:
        if name not in self.sides:
            return OneSide(self, name)  # says what there is
        return (self.a if name == "a" else self.b).side(name)

    def digest(self) -> str:
        return hashlib.sha256(f"{self.a.digest()} {self.b.digest()}".encode()).hexdigest()


class TwoStreams(CropStream):
    """Both domains at once, of one batch size; orders, crops and flips of each are its own."""

    def __init__(
        self,
        images: TwoSets,
        batch_size: int,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        mirror: bool = False,
    ) -> None:
        place = {"start": start, "rank": rank, "world": world, "mirror": mirror}
        super().__init__(images, batch_size, seed=seed, **place)
        self.domains = [
            CropStream(domain, batch_size, seed=derive_seed(seed, "domain", name), **place)
            for name, domain in (("a", images.a), ("b", images.b))
        ]

    def batch(self, k: int) -> dict[str, Tensor]:
        """This process's rows of batch k: "a" and "b", which have nothing to do with each other."""
        a, b = (domain.batch(k) for domain in self.domains)
        return {**a, **b}


class UnpairedData(TranslationData):
    """Translation data whose sets are `TwoSets`."""

    def stream(self, *, start: int = 0, rank: int = 0, world: int = 1) -> Stream:
        images = self.dataset(self.train_split)
        assert isinstance(images, TwoSets)
        return TwoStreams(
            images, self.batch_size, seed=self.seed, start=start, rank=rank, world=world, mirror=self.mirror
        )


class Unpaired(UnpairedData):
    """Pictures of two domains in the folders `trainA`, `trainB`, `testA`, `testB` of `path`, of any numbers.

    `resize`: "stretch" scales to `load_px` and ignores the aspect ratio, as CycleGAN does; "crop" keeps it and cuts off
    what is too much; "none" cuts crops from the pictures as they are. Every file is checked before training, and a
    domain that takes less than half of `cache_mb` stays in memory. `direction` "ba" swaps a and b.

    An epoch of one domain is over when all its pictures were shown; the other goes on for itself.

    Raises:
        ValueError, FileNotFoundError: an option, a folder that is missing, or files that cannot be used.
    """

    def __init__(
        self,
        path: str,
        *,
        direction: Literal["ab", "ba"] = "ab",
        load_px: int | None = None,
        resize: Literal["stretch", "crop", "none"] = "stretch",
        a_channels: int = 3,
        b_channels: int = 3,
        cache_mb: int = 1024,
        max_pixels: int = MAX_PIXELS,
        follow_links: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(load_px=load_px, **options)
        check_options(direction, resize, load_px, a_channels=a_channels, b_channels=b_channels)
        self.path, self.direction, self.resize = user_path(path), direction, resize
        self.a_channels, self.b_channels = a_channels, b_channels
        self.cache_mb, self.max_pixels, self.follow_links = cache_mb, max_pixels, follow_links

    @property
    def preview_split(self) -> str:  # type: ignore[override]
        """Where pictures that training does not see are taken from; "train" where there are no others."""
        return "test" if all((self.path / f"test{letter}").is_dir() for letter in "AB") else "train"

    def transform(self) -> dict[str, object]:
        return {"height": self.height, "resize": self.resize, "direction": self.direction}

    def describe(self, split: str | None = None) -> Description:
        basic = super().describe(split)
        domains = self.dataset(basic.split)
        assert isinstance(domains, TwoSets)
        a, b = (described(basic, domain, layout="") for domain in (domains.a, domains.b))
        return replace(
            a, what=f"{type(self).__name__}, {self.path}", used=f"{a.used}; {b.used}",
            layout="two folders without partners", left=_both(a.left, b.left), sizes=_both(a.sizes, b.sizes),
        )  # fmt: skip

    def load(self, split: str) -> TwoSets:
        """Raises FileNotFoundError or ValueError naming the folders or the files."""
        a, b = ("A", "B") if self.direction == "ab" else ("B", "A")
        first = self._domain("a", f"{split}{a}", channels=self.a_channels)
        return TwoSets(first, self._domain("b", f"{split}{b}", channels=self.b_channels))

    def _domain(self, side: str, folder: str, *, channels: int) -> SampleSet:
        if not (self.path / folder).is_dir():
            raise FileNotFoundError(
                f"there is no folder {self.path / folder}: unpaired pictures lie in trainA and trainB, those of the "
                "test split in testA and testB"
            )
        source = open_source(self.path / folder, follow_links=self.follow_links)
        warn_of_left(source)
        files = {side: Side(source, source.names, channels=channels, max_pixels=self.max_pixels)}
        samples = SampleSet(files, size=self.size, load_size=self.load_size, resize=self.resize)
        samples.prepare(cache_mb=self.cache_mb / 2)
        return samples


def _both(a: str, b: str) -> str:
    """What is said of each domain, and which one it is said of."""
    return "; ".join(f"{name}: {text}" for name, text in (("a", a), ("b", b)) if text)
