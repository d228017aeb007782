"""What every data set of pictures is: a LightningDataModule whose batches depend on the image clock alone."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from lightning import LightningDataModule
from lightning.fabric.utilities.data import suggested_max_num_workers
from torch import Tensor
from torch.utils.data import DataLoader

from lit_gans.data.checks import _whole
from lit_gans.data.described import Description
from lit_gans.data.pyramid import GrowingStream
from lit_gans.data.sets import ImageSet, TensorSet
from lit_gans.data.stream import Stream

if TYPE_CHECKING:
    from lit_gans.data.pyramid import Plan, Pyramid

MOST_WORKERS = 8


class ImageData(LightningDataModule, ABC):
    """Batches of pictures for a GAN: {"image": [N, C, R, R], "label": int64 [N] where there are labels}.

    `batch_size` is global and is divided by the number of processes. The loader gives uint8; on the device it becomes
    float32 in [-1, 1]. Training starts at `trainer.lightning_module.images_seen`, so a resumed run sees the batches
    that an unbroken one would have seen. Without a Trainer use `dataset` and `batches`. num_workers: see `workers`.
    """

    gives: ClassVar[Literal["pictures", "pictures with captions", "pictures to translate"]] = "pictures"
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    train_split: str = "train"
    channels: int = 3
    class_names: tuple[str, ...] = ()

    def __init__(
        self, *, batch_size: int, resolution: int, mirror: bool = False, num_workers: int | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.batch_size = _whole("batch_size", batch_size, 1)
        self.resolution = _whole("resolution", resolution, 1)
        self.num_workers = None if num_workers is None else _whole("num_workers", num_workers, 0)
        self.seed = _whole("seed", seed, 0)
        self.mirror = mirror
        self._growing: tuple[Plan, Pyramid] | None = None
        self._sets: dict[tuple[str, int], ImageSet] = {}
        self._fingerprints: dict[tuple[str, int], str] = {}

    @abstractmethod
    def load(self, split: str) -> ImageSet:
        """The images of one split at `self.resolution`. Raises FileNotFoundError or ValueError, saying the way out."""

    def transform(self) -> dict[str, object]:
        """The plain values, beside split and resolution, that decide how a stored picture becomes pixels."""
        return {}

    @property
    def num_classes(self) -> int:
        """How many classes the labels tell apart; 0 without labels."""
        return len(self.class_names)

    def dataset(self, split: str = "train") -> ImageSet:
        """The images of a split at the present resolution; loaded at the first call after `prepare_data`, then kept."""
        if split not in self.splits:
            raise ValueError(f"{type(self).__name__} has no split {split!r}; it has {', '.join(self.splits)}")
        key = (split, self.resolution)
        if key not in self._sets:
            # A change of resolution leaves the sets of the former one behind.
            self._sets = {old: images for old, images in self._sets.items() if old[1] == self.resolution}
            self._sets[key] = self.load(split)
        return self._sets[key]

    def describe(self, split: str | None = None) -> Description:
        """What was understood of the data: of a split, by default that of training."""
        split = split or self.train_split
        images, classes = self.dataset(split), self.class_names
        counts = () if images.labels is None else tuple(images.labels.bincount(minlength=len(classes)).tolist())
        return Description(
            what=type(self).__name__, used=f"{len(images):,} pictures", split=split, classes=classes,
            counts=counts if len(counts) == len(classes) else (), framing=f"{self.resolution} x {self.resolution}",
        )  # fmt: skip

    def glance(self) -> tuple[int, int]:
        """(pictures to train on, median of their shorter sides in px), before all are read; zeros where it is costly.

        For presets; pictures that cannot be read still count.
        """
        return 0, 0

    def fingerprint(self, split: str = "train") -> str:
        """16 hex digits of content, split, resolution and transform: the key under which statistics may be kept."""
        key = (split, self.resolution)
        if key not in self._fingerprints:
            parts = [type(self).__name__, split, self.resolution, self.channels, self.transform()]
            text = json.dumps([*parts, self.dataset(split).digest()], sort_keys=True)
            self._fingerprints[key] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._fingerprints[key]

    def batches(
        self, split: str = "train", batch_size: int = 64, *, indices: Tensor | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """The images of a split once, unmirrored, in the order of `indices` (default: all), as uint8 batches."""
        images = self.dataset(split)
        chosen = torch.arange(len(images)) if indices is None else indices
        for part in chosen.split(batch_size) if len(chosen) else ():
            yield images.fetch(part)

    def setup(self, stage: str | None = None) -> None:
        """Raises before training starts what would stop it: a batch that does not divide, files missing or broken."""
        self._check_batch_size()
        self.dataset(self.train_split)

    def train_dataloader(self) -> Iterable[dict[str, Tensor]]:
        """Lightning calls this after it restored the checkpoint, so `images_seen` is the clock to go on from.

        Without workers and pinned memory it is the stream itself: a DataLoader around it would only cost time.
        """
        self._check_batch_size()
        trainer = self.trainer
        start = 0 if trainer is None else int(trainer.lightning_module.images_seen)
        rank, world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        stream = self.stream(start=start, rank=rank, world=world)
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        workers = self.workers(device, devices=1 if trainer is None else trainer.num_devices)
        pin = device.type == "cuda"
        if workers == 0 and not pin:
            return stream
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            generator=torch.Generator(),  # else its iterator draws a seed from torch's global one
        )

    def workers(self, device: torch.device, *, devices: int = 1) -> int:
        """How many processes load for each of `devices`: `num_workers`, or as many as there are cores for, up to 8.

        Of themselves none where pictures lie in memory, and where a CPU trains: its cores are at work.
        """
        if self.num_workers is not None:
            return self.num_workers
        if device.type != "cuda" or isinstance(self.dataset(self.train_split), TensorSet):
            return 0
        return min(suggested_max_num_workers(devices), MOST_WORKERS)

    def stream(self, *, start: int = 0, rank: int = 0, world: int = 1) -> Stream:
        """The batches of process `rank` of `world` from image `start` on."""
        place = {"seed": self.seed, "start": start, "rank": rank, "world": world, "mirror": self.mirror}
        if self._growing is not None:
            plan, pyramid = self._growing
            return GrowingStream(pyramid, plan, **place)
        return Stream(self.dataset(self.train_split), self.batch_size, **place)

    def grow(self, plan: Plan, pyramid: Pyramid) -> None:
        """From the next `train_dataloader` on, batches are of the sizes that the plan gives at each moment."""
        self._growing = plan, pyramid

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """image uint8 [N, C, R, R] -> float32 in [-1, 1], on the device."""
        if batch["image"].dtype != torch.uint8:
            return batch
        return {**batch, "image": batch["image"].float() / 127.5 - 1}

    def _check_batch_size(self) -> None:
        world = 1 if self.trainer is None else self.trainer.world_size
        if self.batch_size % world:
            raise ValueError(
                f"batch_size {self.batch_size} is the global one and does not divide into {world} processes: "
                f"use a multiple of {world}, such as {-(-self.batch_size // world) * world}"
            )
