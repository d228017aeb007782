"""Files that are whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def user_path(path: str | os.PathLike) -> Path:
    """A path as a user writes it, with `~`, `$HOME` and other variables in it, which in a config no shell has seen."""
    return Path(os.path.expandvars(path)).expanduser()


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
