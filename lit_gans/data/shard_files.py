"""The files of shards: an index, raw pixels, labels; written whole, compared with their checksums when read.

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

import numpy as np
import torch
from torch import Tensor

from lit_gans.base.cache import cache_folder, key_of
from lit_gans.base.files import replacing

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
        if known.get(path.name) != found[path.name] and not is_whole(path, shard, index.shape):
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


def is_whole(path: Path, shard: Shard, shape: tuple[int, int, int]) -> bool:
    """Whether the file has the size and the bytes that were written."""
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
