"""Shards: pictures as raw bytes in memory-mapped files, read without decoding. `lit-gans prepare` writes them."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lit_gans.data.base import ImageData
from lit_gans.data.checks import _whole
from lit_gans.data.described import Description
from lit_gans.data.remote import fetch, is_remote, kept_folder, newest, user_place
from lit_gans.data.sets import ImageSet, resize
from lit_gans.data.shard_files import (
    INDEX,
    LABELS_FILE,
    Index,
    check_contents,
    check_sizes,
    is_whole,
    read_index,
    read_labels,
    shard_name,
)
from lit_gans.data.stream import windowed

_TRANSFERS = 8  # at once


class ShardSet(ImageSet):
    """The pictures `members` int64 [N] (default: all) of a folder of shards, copied straight into their batch.

    Each process maps the files for itself, at the first picture that it takes from them. `window`: of how many shards
    at a time training sees the pictures; None mixes all.
    """

    def __init__(
        self,
        folder: Path,
        index: Index,
        *,
        resolution: int | None = None,
        members: np.ndarray | None = None,
        window: int | None = None,
    ) -> None:
        self.folder, self.index, self.resolution, self.window = folder, index, resolution or index.shape[1], window
        labels = self._check()
        self.members = np.arange(index.count) if members is None else members
        self.labels = None if labels is None else labels[torch.from_numpy(self.members)]
        self._starts = np.cumsum([0, *(shard.images for shard in index.shards[:-1])])
        self._maps: dict[int, np.ndarray] = {}

    def _check(self) -> Tensor | None:
        """The labels of all pictures. Raises FileNotFoundError or ValueError for files that are not as indexed."""
        check_sizes(self.folder, self.index)
        check_contents(self.folder, self.index)
        return read_labels(self.folder, self.index)

    def __len__(self) -> int:
        return len(self.members)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        if self.window is None:
            return super().order(seed, epoch)
        return windowed(seed, epoch, self._shards_of(self.members), self.window)

    def images(self, indices: Tensor) -> Tensor:
        chosen = self.members[indices.numpy()]
        shards = self._shards_of(chosen)
        places = chosen - self._starts[shards]
        batch = np.empty((len(chosen), *self.index.shape), np.uint8)
        for row, (shard, place) in enumerate(zip(shards.tolist(), places.tolist(), strict=True)):
            batch[row] = self._map(shard)[place]
        return resize(torch.from_numpy(batch), self.resolution)

    def digest(self) -> str:
        return hashlib.sha256(self.index.digest().encode() + self.members.tobytes()).hexdigest()

    def _shards_of(self, pictures: np.ndarray) -> np.ndarray:
        """The number of the shard in which each of these pictures of the folder is."""
        return np.searchsorted(self._starts, pictures, side="right") - 1

    def _map(self, shard: int) -> np.ndarray:
        """uint8 [n, C, R, R] that lies in the file."""
        if shard not in self._maps:
            shape = (self.index.shards[shard].images, *self.index.shape)
            # A plain array over the map: indexing numpy's own class makes an object of it, at twice the time.
            self._maps[shard] = np.asarray(np.memmap(self.folder / shard_name(shard), np.uint8, "r", shape=shape))
        return self._maps[shard]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_maps": {}}  # a map sent to another process would be a copy of all its pixels


class RemoteShardSet(ShardSet):
    """As `ShardSet` of a URL: each shard is fetched when its first picture is asked for, compared with its SHA-256 and
    kept in `folder`. With a window the shards of the next one are fetched meanwhile.

    `keep_bytes` is how much is kept on the disk: the shards used longest ago go first.
    """

    def __init__(self, url: str, index: Index, *, keep_bytes: int | None = None, **options: Any) -> None:
        self.url, self.keep_bytes = url.rstrip("/"), keep_bytes
        self._ahead: set[int] = set()  # whose fetching has been begun
        self._coming: list[int] = []  # the shards of the epoch, in the order in which they are used
        super().__init__(kept_folder(url) / index.digest()[:16], index, **options)

    def _check(self) -> Tensor | None:
        sizes = [shard.images * prod(self.index.shape) for shard in self.index.shards]
        if self.keep_bytes is None:
            self._check_space(sum(sizes))
        elif self.window is None and self.keep_bytes < sum(sizes):
            raise ValueError(
                f"keep_gb {self.keep_bytes / 1e9:g} is less than the {sum(sizes) / 1e9:g} GB of {self.url}, and "
                "every batch takes from all shards: set window_shards, and so many at a time are mixed"
            )
        elif self.window is not None and self.keep_bytes < (least := (2 * self.window + 1) * max(sizes)):
            raise ValueError(
                f"keep_gb {self.keep_bytes / 1e9:g} holds less than two windows of {self.window} shards and one shard: "
                f"{least / 1e9:g} GB are needed; or mix fewer by window_shards"
            )
        if self.index.labels_sha256 is not None:
            wanted = self.index.labels_sha256
            fetch(
                f"{self.url}/{LABELS_FILE}", self.folder / LABELS_FILE,
                check=lambda path: hashlib.sha256(path.read_bytes()).hexdigest() == wanted,
            )  # fmt: skip
        return read_labels(self.folder, self.index)

    def _check_space(self, total: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        here = sum(file.stat().st_size for file in self.folder.glob("shard-*.bin"))
        free = shutil.disk_usage(self.folder).free
        if total - here > free:
            raise OSError(
                f"the shards of {self.url} take {total / 1e9:.1f} GB, and {self.folder} has {free / 1e9:.1f} GB free: "
                "set LIT_GANS_CACHE to another disk, or keep_gb and window_shards to keep a part of them"
            )

    def order(self, seed: int, epoch: int) -> np.ndarray:
        order = super().order(seed, epoch)
        if self.window is not None:
            _, first = np.unique(shards := self._shards_of(self.members[order]), return_index=True)
            self._coming = shards[np.sort(first)].tolist()
        return order

    def images(self, indices: Tensor) -> Tensor:
        wanted = np.unique(self._shards_of(self.members[indices.numpy()])).tolist()
        if missing := [shard for shard in wanted if shard not in self._maps]:
            with ThreadPoolExecutor(_TRANSFERS) as pool:
                list(pool.map(self._fetch, missing))
            for shard in missing:
                self._map_fetched(shard)
            self._make_room(wanted)
        self._fetch_ahead(wanted)
        return super().images(indices)

    def _fetch(self, number: int) -> None:
        path, shard = self.folder / shard_name(number), self.index.shards[number]
        fetch(f"{self.url}/{path.name}", path, check=lambda path: is_whole(path, shard, self.index.shape))

    def _map_fetched(self, number: int) -> None:
        path = self.folder / shard_name(number)
        try:
            os.utime(path)  # those used longest ago go first
            self._map(number)
        except FileNotFoundError:  # another process has made room meanwhile
            self._fetch(number)
            self._map(number)

    def _fetch_ahead(self, now: list[int]) -> None:
        """Begins to fetch the next window's shards, once, beside what goes on."""
        begun = max((self._coming.index(shard) for shard in now if shard in self._coming), default=None)
        if begun is None or self.window is None:
            return
        start = (begun // self.window + 1) * self.window
        ahead = [s for s in self._coming[start : start + self.window] if s not in self._ahead and s not in self._maps]
        if ahead:
            self._ahead = set(ahead)
            threading.Thread(target=self._try, args=(ahead,), daemon=True).start()

    def _try(self, shards: list[int]) -> None:
        with suppress(OSError, ValueError):  # told when they are needed
            for shard in shards:
                self._fetch(shard)

    def _make_room(self, now: list[int]) -> None:
        """Lets go of maps and files that were used longest ago."""
        if self.keep_bytes is None:
            return
        for shard in now:
            self._maps[shard] = self._maps.pop(shard)  # the last used are the last
        for shard in list(self._maps)[: -max(len(now), self.window or 0)]:
            del self._maps[shard]
        files = [self.folder / shard_name(shard) for shard in range(len(self.index.shards))]
        by_age = sorted((f.stat().st_mtime_ns, f.stat().st_size, f) for f in files if f.is_file())
        total, needed = sum(size for _, size, _ in by_age), {shard_name(s) for s in {*self._maps, *self._ahead}}
        for _, size, file in by_age:
            if total > self.keep_bytes and file.name not in needed:
                with suppress(OSError):  # another process has let go of it already
                    file.unlink()
                total -= size


class Shards(ImageData):
    """The pictures of a folder that `lit-gans prepare` has written, at the resolution that it has, or scaled from it.

    Of them `held_out` are split "test", the rest "train"; "all" is both. They are taken evenly from the whole order, so
    from every class; `held_out_at` "end" takes the last instead, which with 10,000 of FFHQ is its published split.
    Training uses `train_split`. Batches, order and labels are those that `Images` gives for the same pictures at the
    resolution of the shards; another resolution is scaled bicubically, per batch.

    `path` may be the URL of such a folder, in whatever fsspec reads: s3://bucket/photos256, https://host/photos256.
    Batches are then the same, and shards are fetched when they are first needed. As every batch takes from all shards,
    that is soon: with `window_shards` training sees the pictures of so many shards at a time, mixed, and the next are
    fetched meanwhile. `keep_gb` bounds what is kept of them on the disk, in the cache folder.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test", "all")

    def __init__(
        self,
        path: str,
        *,
        held_out: int = 0,
        held_out_at: Literal["spread", "end"] = "spread",
        train_split: str = "train",
        window_shards: int | None = None,
        keep_gb: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for name, value, allowed in (
            ("held_out_at", held_out_at, ("spread", "end")), ("train_split", train_split, self.splits),
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
        if keep_gb is not None and (keep_gb <= 0 or not is_remote(path)):
            raise ValueError(f"keep_gb is {keep_gb} for {path}: it is more than 0, and of a URL alone")
        self.path, self.held_out_at, self.train_split = user_place(path), held_out_at, train_split
        self.window_shards = None if window_shards is None else _whole("window_shards", window_shards, 1)
        self.keep_gb = keep_gb
        self.held_out = _whole("held_out", held_out, 0)
        self._index: Index | None = None

    @property
    def index(self) -> Index:
        """What the folder holds; read at the first use."""
        if self._index is None:
            here = self.path if isinstance(self.path, Path) else newest(self.path, INDEX).parent
            self._index = read_index(here)
        return self._index

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.index.class_names

    @property
    def channels(self) -> int:  # type: ignore[override]
        return self.index.shape[0]

    def transform(self) -> dict[str, object]:
        return {"held_out": self.held_out, "held_out_at": self.held_out_at}

    def load(self, split: str) -> ShardSet:
        """Raises FileNotFoundError or ValueError, with the name of the file that is missing, cut or changed."""
        members = np.flatnonzero(self._test_members() == (split == "test")) if split != "all" else None
        if members is not None and len(members) == 0:
            raise ValueError(
                f"split {split!r} of {self.path} is empty: held_out is {self.held_out} of {self.index.count} pictures; "
                + ("set it to the number to keep for 'test'" if split == "test" else "hold out fewer")
            )
        options: dict[str, Any] = {"resolution": self.resolution, "members": members, "window": self.window_shards}
        if isinstance(self.path, Path):
            return ShardSet(self.path, self.index, **options)
        keep_bytes = None if self.keep_gb is None else int(self.keep_gb * 1e9)
        return RemoteShardSet(self.path, self.index, keep_bytes=keep_bytes, **options)

    def describe(self, split: str | None = None) -> Description:
        found = replace(super().describe(split), what=f"{type(self).__name__}, {self.path}")
        count = len(self.index.shards)
        if isinstance(self.path, Path):
            return replace(found, layout=f"{count} shards")
        kept = kept_folder(self.path) / self.index.digest()[:16]
        here = len(list(kept.glob("shard-*.bin")))
        return replace(found, layout=f"{count} shards, fetched when needed; {here} of them are in {kept} already")

    def _test_members(self) -> np.ndarray:
        """bool [N], true for the pictures held out. ValueError where there are not as many."""
        count, held_out = self.index.count, self.held_out
        if held_out > count:
            raise ValueError(f"held_out is {held_out}, but {self.path} has only {count} pictures: hold out fewer")
        chosen = np.zeros(count, bool)
        numbers = np.arange(held_out)
        chosen[(2 * numbers + 1) * count // (2 * held_out) if self.held_out_at == "spread" else count - 1 - numbers] = 1
        return chosen
