"""Files that are whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end; so no reader ever sees half a file.

    After an error `path` is as it was and what was written is gone. The folder is made where it is missing. The name
    beside is `.<name>.<unique>.<process>.tmp`: unique among machines that share a disk too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_regular(path: Path, way_out: str = "give a file") -> None:
    """Raises FileNotFoundError where there is nothing, ValueError for a folder and what a reader would wait for."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {way_out}")
    if not path.is_file():
        kinds = {"a folder": path.is_dir, "a pipe (FIFO)": path.is_fifo, "a socket": path.is_socket}
        kind = next((kind for kind, is_one in kinds.items() if is_one()), "a device")
        raise ValueError(f"{path} is {kind}, not a file: {way_out}")
