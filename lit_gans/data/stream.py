"""The order in which training sees its images: infinite, seeded, keyed on the image clock.

Sample number p (p = images shown before it) is image `order(seed, p // len)[p % len]`, a permutation, flipped or not by
(seed, p). Nothing else enters: the number of processes, of loader workers and of restarts change no batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from lit_gans.base.random import derive_seed

if TYPE_CHECKING:
    from lit_gans.data.sets import ImageSet

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def random_bits(seed: int, purpose: str, numbers: np.ndarray) -> np.ndarray:
    """numbers int [N] -> uint64 [N]: bits of (seed, purpose, number), the same in every version of every library.

    SplitMix64 (Steele, Lea and Flood, 2014) in counter form, its key `derive_seed(seed, purpose)`.
    """
    key = np.uint64(derive_seed(seed, purpose))
    with np.errstate(over="ignore"):
        bits = key + (numbers.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def uniform(seed: int, purpose: str, numbers: np.ndarray) -> np.ndarray:
    """numbers int [N] -> float64 [N] in [0, 1), a function of (seed, purpose, number) alone."""
    return (random_bits(seed, purpose, numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """int64 [length]: the order of the images in one epoch."""
    return np.argsort(random_bits(seed, f"order of epoch {epoch}", np.arange(length)), kind="stable")


def windowed(seed: int, epoch: int, groups: np.ndarray, window: int) -> np.ndarray:
    """groups int [N], the group of each image -> int64 [N]: the order of one epoch, in which groups come at random.

    The images of `window` groups at a time are mixed, so that no others are needed meanwhile.
    """
    present, group = np.unique(groups, return_inverse=True)
    place = np.argsort(np.argsort(random_bits(seed, f"order of groups in epoch {epoch}", present), kind="stable"))
    return np.lexsort((random_bits(seed, f"order of epoch {epoch}", np.arange(len(groups))), place[group] // window))


class Stream(IterableDataset):
    """Endless batches for `DataLoader(stream, batch_size=None)`; batch k covers samples from start + k * batch_size on.

    `batch_size` is global: process `rank` of `world` gets rows [rank * local, (rank + 1) * local) of each batch, with
    local = batch_size / world. Loader worker w of W makes the batches w, w + W, ..., which the loader puts in order.
    It has no length, so that Lightning injects no sampler of its own.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        if len(images) == 0:
            raise ValueError("the data set has 0 images; a stream needs 1 or more")
        if batch_size < 1 or batch_size % world:
            raise ValueError(
                f"global batch size {batch_size} does not divide into {world} processes: use a multiple of {world}"
            )
        assert start >= 0 and 0 <= rank < world
        self.images, self.batch_size, self.seed, self.start = images, batch_size, seed, start
        self.rank, self.local, self.mirror = rank, batch_size // world, mirror
        self._orders: dict[int, np.ndarray] = {}

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        k, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        while True:
            yield self.batch(k)
            k += step

    def batch(self, k: int) -> dict[str, Tensor]:
        """This process's rows of batch k: image uint8 [local, C, R, R] and, with labels, label int64 [local]."""
        return self.rows(self.images, self.positions(k))

    def rows(self, images: ImageSet, positions: np.ndarray) -> dict[str, Tensor]:
        """The samples of these absolute numbers from `images`, flipped where that is due."""
        batch = images.fetch(torch.from_numpy(self.indices(positions)))
        if self.mirror:
            flips = torch.from_numpy(self.mirrored(positions))
            batch["image"] = torch.where(flips[:, None, None, None], batch["image"].flip(-1), batch["image"])
        return batch

    def positions(self, k: int) -> np.ndarray:
        """int64 [local]: the absolute numbers of this process's samples in batch k."""
        first = self.start + k * self.batch_size + self.rank * self.local
        return np.arange(first, first + self.local)

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """positions int64 [N], consecutive -> indices int64 [N] into the data set."""
        length, first, end = len(self.images), int(positions[0]), int(positions[-1]) + 1
        pieces = []
        while first < end:
            epoch, place = divmod(first, length)
            pieces.append(self._order(epoch)[place : place + end - first])
            first += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def mirrored(self, positions: np.ndarray) -> np.ndarray:
        """positions int64 [N] -> bool [N], true for the samples to flip left to right (about half of them)."""
        return uniform(self.seed, "mirror", positions) < 0.5

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch; only the newest is kept, since positions never go back."""
        if epoch not in self._orders:
            self._orders = {epoch: self.images.order(self.seed, epoch)}
        return self._orders[epoch]
