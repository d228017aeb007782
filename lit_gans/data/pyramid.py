"""One set of pictures at all smaller sizes, for training that grows: made once, each size a mean of the pixels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import get_worker_info

from lit_gans.base.files import replacing
from lit_gans.data.sets import ImageSet
from lit_gans.data.stream import Stream

IN_MEMORY_BYTES = 2**30
_CHUNK, _THREADS = 64, 8

Progress = Callable[[int, int], None]
"""progress(pictures done, pictures in all)."""


class Plan(Protocol):
    """What the clock says of batches. It is sent to loader workers, and so must be picklable."""

    def batch_at(self, images_seen: int) -> tuple[int, int]:
        """(size in pixels, global number of images) of the batch that begins at this moment."""
        ...


class Reduced(ImageSet):
    """The pictures of `source` [R x R] at `size` pixels, a divisor of R: means of squares of pixels, rounded."""

    def __init__(self, source: ImageSet, *, factor: int) -> None:
        self.source, self.factor, self.labels = source, factor, source.labels

    def __len__(self) -> int:
        return len(self.source)

    def images(self, indices: Tensor) -> Tensor:
        return reduced(self.source.images(indices), self.factor)

    def digest(self) -> str:
        return f"{self.source.digest()} / {self.factor}"


class Stored(ImageSet):
    """Pictures uint8 [N, C, H, W] in memory or mapped from a file, with the labels of `source`."""

    def __init__(self, pixels: np.ndarray, source: ImageSet) -> None:
        self.pixels, self.source, self.labels = pixels, source, source.labels

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(self.pixels[indices.numpy()])

    def digest(self) -> str:
        return f"{self.source.digest()} at {self.pixels.shape[-1]}"


def reduced(pixels: Tensor, factor: int) -> Tensor:
    """uint8 [N, C, H, W] -> uint8 [N, C, H / factor, W / factor], as the published multi-resolution data are made."""
    return pixels if factor == 1 else avg_pool2d(pixels.float(), factor).round().to(torch.uint8)


class Pyramid:
    """`source` [R x R] and the smaller `sizes` of it.

    Together under 1 GiB they are made and kept in memory, else in files of `folder`, made once by `build`. Sizes above
    `cache_px` are made anew for each batch.
    """

    def __init__(
        self, source: ImageSet, resolution: int, sizes: Sequence[int], *, folder: Path, cache_px: int | None = None
    ) -> None:
        self.source, self.resolution, self.folder = source, resolution, folder
        self.sizes = sorted({size for size in sizes if size < resolution})
        self.kept = [size for size in self.sizes if cache_px is None or size <= cache_px]
        self._levels: dict[int, ImageSet] = {}

    def __len__(self) -> int:
        return len(self.source)

    def level(self, size: int) -> ImageSet:
        """The pictures at `size` pixels; after `build`."""
        if size == self.resolution:
            return self.source
        if size not in self._levels:
            file = self._file(size)
            if size in self.kept and file.is_file():
                self._levels[size] = Stored(np.load(file, mmap_mode="r"), self.source)
            else:
                self._levels[size] = Reduced(self.source, factor=self.resolution // size)
        return self._levels[size]

    def build(self, *, write: bool, progress: Progress | None = None) -> None:
        """Makes what is to be kept and is not there. Of several processes that share a disk one has to `write`.

        Raises:
            OSError: the disk has no room for it.
        """
        missing = [size for size in self.kept if not self._file(size).is_file()]
        if not missing:
            return
        if self.bytes(self.kept) <= IN_MEMORY_BYTES:
            kept = {size: np.empty(self._shape(size), np.uint8) for size in self.kept}
            self._fill(kept, progress)
            self._levels = {size: Stored(pixels, self.source) for size, pixels in kept.items()}
        elif write:
            self._check_space(missing)
            self._write(missing, progress)

    def bytes(self, sizes: Sequence[int]) -> int:
        return sum(int(np.prod(self._shape(size))) for size in sizes)

    def _shape(self, size: int) -> tuple[int, int, int, int]:
        return len(self.source), self.source.images(torch.tensor([0])).shape[1], size, size

    def _file(self, size: int) -> Path:
        return self.folder / f"{size}.npy"

    def _check_space(self, sizes: Sequence[int]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, free = self.bytes(sizes), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                f"the pictures at {', '.join(map(str, sizes))} px take {needed / 2**30:.1f} GiB, and {self.folder} has "
                f"{free / 2**30:.1f} GiB free: set LIT_GANS_CACHE to another disk, or cache_px to a smaller size, "
                "above which pictures are made smaller again for each batch"
            )

    def _write(self, sizes: Sequence[int], progress: Progress | None) -> None:
        """All files in one pass, renamed when they are whole."""
        with ExitStack() as stack:
            unfinished = {size: stack.enter_context(replacing(self._file(size))) for size in sizes}
            files = {
                size: np.lib.format.open_memmap(path, "w+", np.uint8, self._shape(size))
                for size, path in unfinished.items()
            }
            self._fill(files, progress)
            for pixels in files.values():
                pixels.flush()

    def _fill(self, kept: dict[int, np.ndarray], progress: Progress | None) -> None:
        chunks = torch.arange(len(self.source)).split(_CHUNK)

        def work(indices: Tensor) -> None:
            pixels = self.source.images(indices)
            for size, target in kept.items():
                target[indices.numpy()] = reduced(pixels, self.resolution // size).numpy()

        with ThreadPoolExecutor(_THREADS) as threads:
            for done, _ in enumerate(threads.map(work, chunks), start=1):
                if progress is not None:
                    progress(min(done * _CHUNK, len(self.source)), len(self.source))


class GrowingStream(Stream):
    """Endless batches whose sizes and numbers of images follow a plan; sample p is the same picture at every size."""

    def __init__(
        self,
        pyramid: Pyramid,
        plan: Plan,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        mirror: bool = False,
    ) -> None:
        place = {"seed": seed, "start": start, "rank": rank, "world": world, "mirror": mirror}
        super().__init__(pyramid.source, plan.batch_at(start)[1], **place)
        self.pyramid, self.plan, self.world = pyramid, plan, world

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        own, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first, k = self.start, 0
        while True:
            size, count = self.plan.batch_at(first)
            if k % workers == own:
                local = count // self.world
                begin = first + self.rank * local
                yield self.rows(self.pyramid.level(size), np.arange(begin, begin + local))
            first, k = first + count, k + 1
