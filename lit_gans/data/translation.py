"""What translators learn from: samples of several pictures, cropped and flipped alike, on the image clock."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_gans.base.images import from_uint8
from lit_gans.data.base import ImageData
from lit_gans.data.checks import _whole
from lit_gans.data.sets import ImageSet
from lit_gans.data.stream import Stream, uniform


class TranslationSet(ImageSet):
    """Samples of the pictures `sides`: ("a", "b"), or label maps and photographs ("label", "instance", "b").

    Photographs are uint8 [N, C, H, W], label maps uint8 [N, H, W], instance maps int32 [N, H, W].
    """

    sides: tuple[str, ...] = ("a", "b")

    @abstractmethod
    def fetch(self, indices: Tensor) -> dict[str, Tensor]:
        """indices int64 [N] -> whole pictures by side, as evaluation sees them."""

    @abstractmethod
    def windows(self, indices: Tensor, *, across: np.ndarray, down: np.ndarray) -> dict[str, Tensor]:
        """indices int64 [N] -> crops by side, as training sees them.

        across, down float64 [N] in [0, 1): where in its margin each sample's crop lies, the same for all its sides.
        """

    @abstractmethod
    def side(self, name: str) -> ImageSet:
        """The pictures of one side alone, each once: its `fetch` gives {"image": uint8 [N, C, H, W]}."""

    def images(self, indices: Tensor) -> Tensor:
        """The targets, uint8 [N, C, H, W]."""
        return self.fetch(indices)["b"]


class OneSide(ImageSet):
    """The side `name` of a set of samples as single images."""

    def __init__(self, samples: TranslationSet, name: str) -> None:
        if name not in samples.sides:
            raise ValueError(f"there is no side {name!r} in these data; there are {', '.join(samples.sides)}")
        self.samples, self.name = samples, name

    def __len__(self) -> int:
        return len(self.samples)

    def images(self, indices: Tensor) -> Tensor:
        return self.samples.fetch(indices)[self.name]

    def digest(self) -> str:
        return hashlib.sha256(f"{self.name} {self.samples.digest()}".encode()).hexdigest()


class CropStream(Stream):
    """A stream whose samples are cropped and flipped by (seed, their number) alone, all sides of a sample alike."""

    images: TranslationSet

    def batch(self, k: int) -> dict[str, Tensor]:
        """This process's rows of batch k, by side."""
        positions = self.positions(k)
        places = {name: uniform(self.seed, f"crop {name}", positions) for name in ("across", "down")}
        batch = self.images.windows(torch.from_numpy(self.indices(positions)), **places)
        if not self.mirror:
            return batch
        flips = torch.from_numpy(self.mirrored(positions))
        return {name: _flipped(pictures, flips) for name, pictures in batch.items()}


def _flipped(pictures: Tensor, flips: Tensor) -> Tensor:
    """[N, ..., W], bool [N] -> the chosen ones mirrored left to right."""
    if len(flips) == 1:  # a copy less, where a batch is one picture
        return pictures.flip(-1) if flips else pictures
    return torch.where(flips.view(-1, *[1] * (pictures.ndim - 1)), pictures.flip(-1), pictures)


class TranslationData(ImageData):
    """Batches for a translator: {"a": [N, A, H, W], "b": [N, B, H, W]}, or "label" and "instance" [N, H, W] and "b".

    On the device photographs become float32 in [-1, 1], label and instance maps int64. Pictures are `resolution` wide
    and `height` high (default: square). Training scales them to `load_px` in width, and in height by the same factor,
    and cuts a crop of that size at random; evaluation scales the whole picture to that size.
    """

    gives = "pictures to translate"
    a_channels: int = 3
    b_channels: int = 3
    num_labels: int = 0  # of label maps; 0 where there are none
    preview_split: str = "test"

    def __init__(
        self,
        *,
        resolution: int = 256,
        height: int | None = None,
        load_px: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(resolution=resolution, **options)
        self.height = resolution if height is None else _whole("height", height, 1)
        self.load_px = resolution if load_px is None else _whole("load_px", load_px, 1)
        if self.load_px < resolution:
            raise ValueError(
                f"load_px {load_px} is smaller than resolution {resolution}, which is cut out of it: use {resolution} "
                "(no margin) or more, such as 286 for crops of 256"
            )

    @property
    def channels(self) -> int:  # type: ignore[override]
        return self.b_channels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what the networks see."""
        return self.height, self.resolution

    @property
    def load_size(self) -> tuple[int, int]:
        """(height, width) from which training's crops are cut."""
        return round(self.height * self.load_px / self.resolution), self.load_px

    def transform(self) -> dict[str, object]:
        return {"height": self.height}

    def domain(self, name: str) -> Domain:
        """One side as data of single images, for metrics of images."""
        return Domain(self, name)

    def stream(self, *, start: int = 0, rank: int = 0, world: int = 1) -> Stream:
        images = self.dataset(self.train_split)
        return CropStream(
            images, self.batch_size, seed=self.seed, start=start, rank=rank, world=world, mirror=self.mirror
        )

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Photographs uint8 -> float32 in [-1, 1], maps -> int64, on the device."""
        return {name: _on_device(name, pictures) for name, pictures in batch.items()}


def _on_device(name: str, pictures: Tensor) -> Tensor:
    if name in ("label", "instance"):
        return pictures.long()
    return from_uint8(pictures) if pictures.dtype == torch.uint8 else pictures


class Domain:
    """One side of translation data: what `lit_gans.metrics.reals` asks of a data module."""

    num_classes = 0
    class_names: Sequence[str] = ()

    def __init__(self, data: TranslationData, name: str) -> None:
        if name not in ("a", "b"):
            raise ValueError(f"a domain is 'a' or 'b', not {name!r}")
        self.data, self.name = data, name
        self.resolution, self.channels = data.resolution, data.a_channels if name == "a" else data.b_channels

    def dataset(self, split: str = "train") -> ImageSet:
        """The pictures of this side of a split, each once."""
        samples = self.data.dataset(split)
        assert isinstance(samples, TranslationSet)
        return samples.side(self.name)

    def fingerprint(self, split: str = "train") -> str:
        """16 hex digits that change with the pictures of this side, their size and their framing."""
        text = f"{self.name} {self.data.size} {self.data.transform()} {self.dataset(split).digest()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def batches(
        self, split: str = "train", batch_size: int = 64, *, indices: Tensor | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """{"image": uint8 [N, C, H, W]} in the order of `indices` (default: all)."""
        images = self.dataset(split)
        chosen = torch.arange(len(images)) if indices is None else indices
        for part in chosen.split(batch_size) if len(chosen) else ():
            yield images.fetch(part)
