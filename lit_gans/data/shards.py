"""Shards: pictures as raw bytes in memory-mapped files, read without decoding. `lit-gans prepare` writes them.

A folder with `index.json`, `shard-00000.bin`, ... (uint8 [n, C, R, R] each, nothing else in the file) and, with
classes, `labels.npy` (int64 [N]).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lit_gans.base.cache import cache_folder, key_of
from lit_gans.base.files import replacing, user_path
from lit_gans.data.base import ImageData
from lit_gans.data.checks import _whole
from lit_gans.data.sets import ImageSet, resize

FORMAT = "lit-gans shards 1"
INDEX, LABELS_FILE = "index.json", "labels.npy"
_MAX_BYTES = 2**28


def shard_name(number: int) -> str:
    """The name of a shard's file."""
    return f"shard-{number:05d}.bin"


@dataclass(frozen=True)
class Shard:
    """One file: its pictures, the SHA-256 of its bytes and of what it was made from, how many were enlarged, which
    pictures were left out and why."""

    images: int
    sha256: str
    source: str
    enlarged: int = 0
    skipped: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, entry: object) -> Shard:
        """Back from JSON; ValueError for anything else."""
        match entry:
            case {"images": int(n), "sha256": str(own), "source": str(made), "enlarged": int(m), "skipped": list(out)}:
                if n >= 0 and all(isinstance(s, list) and len(s) == 2 for s in out):
                    return cls(n, own, made, m, tuple((str(name), str(why)) for name, why in out))
        raise ValueError(f"the shard {str(entry)[:80]} lacks images, sha256, source, enlarged or skipped")


@dataclass(frozen=True)
class Index:
    """What `index.json` says: shape [C, R, R] of every picture, how they were framed, the classes, the shards."""

    shape: tuple[int, int, int]
    settings: Mapping[str, object]
    class_names: tuple[str, ...]
    labels_sha256: str | None
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        return sum(shard.images for shard in self.shards)

    @property
    def source(self) -> str:
        """16 hex digits of the pictures that the shards were made from, with their labels."""
        return hashlib.sha256("".join(shard.source for shard in self.shards).encode()).hexdigest()[:16]

    def digest(self) -> str:
        """Hex digits of all pixels and labels in their order, from their recorded checksums."""
        content = [self.shape, [[shard.images, shard.sha256] for shard in self.shards], self.labels_sha256]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def dumps(self) -> str:
        """The text of `index.json`."""
        channels, resolution, _ = self.shape
        table = {
            "format": FORMAT, "count": self.count, "shape": self.shape, "resolution": resolution, "channels": channels,
            "settings": dict(self.settings), "classes": list(self.class_names) or None,
            "labels_sha256": self.labels_sha256, "source": self.source,
            "shards": [{"file": shard_name(i), **asdict(shard)} for i, shard in enumerate(self.shards)],
        }  # fmt: skip
        return json.dumps(table, indent=1) + "\n"

    @classmethod
    def parse(cls, content: bytes) -> Index:
        """Back from `index.json`; ValueError says what is wrong in it."""
        try:
            table = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is no JSON ({error})") from error
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise ValueError(f"it does not say that its format is {FORMAT!r}")
        match table:
            case {"shape": [int(c), int(h), int(w)], "settings": dict(settings), "shards": list(shards)} if c in (1, 3):
                names, labels = table.get("classes") or [], table.get("labels_sha256")
                index = cls((c, h, w), settings, tuple(map(str, names)), labels, tuple(map(Shard.parse, shards)))
                if h == w >= 1 and index.count == table.get("count") and bool(names) == isinstance(labels, str):
                    return index
        raise ValueError("its shape, settings, count, classes or shards are missing or do not fit together")


def read_index(folder: Path) -> Index:
    """The index of a folder of shards. FileNotFoundError or ValueError, with the file's name."""
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"no {INDEX} in {folder}, so it is no finished folder of shards: make one with `lit-gans prepare SOURCE "
            f"{folder} --resolution 256`"
        )
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {_MAX_BYTES}: refused")
    try:
        return Index.parse(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no index of shards: {error}; run `lit-gans prepare` again") from error


def check_sizes(folder: Path, index: Index) -> None:
    """Raises ValueError naming the shard that is missing, cut or too long; reads no content."""
    for number, shard in enumerate(index.shards):
        path, wanted = folder / shard_name(number), shard.images * prod(index.shape)
        found = path.stat().st_size if path.is_file() else None
        if found != wanted:
            held = "is missing" if found is None else f"has {found} bytes"
            raise ValueError(
                f"{path} {held}, and the index says {wanted} ({shard.images} pictures {list(index.shape)}): "
                f"run the same `lit-gans prepare` again, which mends it"
            )


def check_contents(folder: Path, index: Index) -> None:
    """Raises ValueError naming the shard whose bytes are not those whose SHA-256 the index holds.

    Each is read once, at the speed of the disk or at about 1 GB/s, and again when its size, its times or its place on
    the disk have changed since, which is kept in the cache folder.
    """
    kept = cache_folder() / "shards" / f"{key_of(folder=str(folder.resolve()), index=index.digest())}.json"
    known, found = _stamps(kept), {}
    for number, shard in enumerate(index.shards):
        path = folder / shard_name(number)
        status = path.stat()
        found[path.name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if known.get(path.name) != found[path.name] and not is_whole(folder, number, shard, index.shape):
            raise ValueError(
                f"{path} is damaged: its SHA-256 is not the one in the index; run the same `lit-gans prepare` again, "
                "which mends it"
            )
    if found != known:
        with suppress(OSError):  # where nothing can be kept they are read again next time
            replace_file(kept, json.dumps(found).encode())


def _stamps(kept: Path) -> dict[str, object]:
    try:
        known = json.loads(kept.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def replace_file(path: Path, content: bytes) -> None:
    """Writes beside and renames, so that no reader sees half a file."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def write_shard(folder: Path, number: int, pictures: Iterable[np.ndarray]) -> tuple[int, str]:
    """Pictures uint8 [C, R, R] -> a file that is there when whole; (how many, SHA-256 of the bytes)."""
    content, count = hashlib.sha256(), 0
    with replacing(folder / shard_name(number)) as unfinished, unfinished.open("wb") as file:
        for picture in pictures:
            file.write(picture)
            content.update(picture)
            count += 1
    return count, content.hexdigest()


def is_whole(folder: Path, number: int, shard: Shard, shape: tuple[int, int, int]) -> bool:
    """Whether the file has the size and the bytes that were written."""
    path = folder / shard_name(number)
    if not path.is_file() or path.stat().st_size != shard.images * prod(shape):
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256


def pack_labels(labels: Sequence[int]) -> bytes:
    """int64 [N] -> the bytes of `labels.npy`, which holds no objects."""
    out = io.BytesIO()
    np.save(out, np.asarray(labels, "<i8"), allow_pickle=False)
    return out.getvalue()


def read_labels(folder: Path, index: Index) -> Tensor | None:
    """int64 [N], or None without classes. ValueError names the file where it is not the one that was written."""
    if index.labels_sha256 is None:
        return None
    path = folder / LABELS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, and the index says there are labels: run `lit-gans prepare` again")
    content = path.read_bytes() if path.stat().st_size < 2**7 + 8 * (index.count + 1) else b""
    if hashlib.sha256(content).hexdigest() != index.labels_sha256:
        raise ValueError(f"{path} is not the file that the index describes: run the same `lit-gans prepare` again")
    labels = np.load(io.BytesIO(content), allow_pickle=False)
    if labels.dtype != np.int64 or labels.shape != (index.count,) or not _within(labels, len(index.class_names)):
        raise ValueError(f"{path} does not hold {index.count} labels from 0 to {len(index.class_names) - 1}")
    return torch.from_numpy(labels)


def _within(labels: np.ndarray, classes: int) -> bool:
    return len(labels) == 0 or bool(labels.min() >= 0 and labels.max() < classes)


class ShardSet(ImageSet):
    """The pictures `members` int64 [N] (default: all) of a folder of shards, copied straight into their batch.

    Each process maps the files for itself, at the first picture that it takes from them.
    """

    def __init__(
        self, folder: Path, index: Index, *, resolution: int | None = None, members: np.ndarray | None = None
    ) -> None:
        check_sizes(folder, index)
        check_contents(folder, index)
        labels = read_labels(folder, index)
        self.folder, self.index, self.resolution = folder, index, resolution or index.shape[1]
        self.members = np.arange(index.count) if members is None else members
        self.labels = None if labels is None else labels[torch.from_numpy(self.members)]
        self._starts = np.cumsum([0, *(shard.images for shard in index.shards[:-1])])
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.members)

    def images(self, indices: Tensor) -> Tensor:
        chosen = self.members[indices.numpy()]
        shards = np.searchsorted(self._starts, chosen, side="right") - 1
        places = chosen - self._starts[shards]
        batch = np.empty((len(chosen), *self.index.shape), np.uint8)
        for row, (shard, place) in enumerate(zip(shards.tolist(), places.tolist(), strict=True)):
            batch[row] = self._map(shard)[place]
        return resize(torch.from_numpy(batch), self.resolution)

    def digest(self) -> str:
        return hashlib.sha256(self.index.digest().encode() + self.members.tobytes()).hexdigest()

    def _map(self, shard: int) -> np.ndarray:
        """uint8 [n, C, R, R] that lies in the file."""
        if shard not in self._maps:
            shape = (self.index.shards[shard].images, *self.index.shape)
            # A plain array over the map: indexing numpy's own class makes an object of it, at twice the time.
            self._maps[shard] = np.asarray(np.memmap(self.folder / shard_name(shard), np.uint8, "r", shape=shape))
        return self._maps[shard]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_maps": {}}  # a map sent to another process would be a copy of all its pixels


class Shards(ImageData):
    """The pictures of a folder that `lit-gans prepare` has written, at the resolution that it has, or scaled from it.

    Of them `held_out` are split "test", the rest "train"; "all" is both. They are taken evenly from the whole order, so
    from every class; `held_out_at` "end" takes the last instead, which with 10,000 of FFHQ is its published split.
    Training uses `train_split`. Batches, order and labels are those that `Images` gives for the same pictures at the
    resolution of the shards; another resolution is scaled bicubically, per batch.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test", "all")

    def __init__(
        self,
        path: str,
        *,
        held_out: int = 0,
        held_out_at: Literal["spread", "end"] = "spread",
        train_split: str = "train",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for name, value, allowed in (
            ("held_out_at", held_out_at, ("spread", "end")), ("train_split", train_split, self.splits),
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
        self.path, self.held_out_at, self.train_split = user_path(path), held_out_at, train_split
        self.held_out = _whole("held_out", held_out, 0)
        self._index: Index | None = None

    @property
    def index(self) -> Index:
        """What the folder holds; read at the first use."""
        if self._index is None:
            self._index = read_index(self.path)
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
        return ShardSet(self.path, self.index, resolution=self.resolution, members=members)

    def _test_members(self) -> np.ndarray:
        """bool [N], true for the pictures held out. ValueError where there are not as many."""
        count, held_out = self.index.count, self.held_out
        if held_out > count:
            raise ValueError(f"held_out is {held_out}, but {self.path} has only {count} pictures: hold out fewer")
        chosen = np.zeros(count, bool)
        numbers = np.arange(held_out)
        chosen[(2 * numbers + 1) * count // (2 * held_out) if self.held_out_at == "spread" else count - 1 - numbers] = 1
        return chosen
