"""Files that are whole or not there, and the paths that users write."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def user_path(path: str | os.PathLike) -> Path:
    """A path as a user writes it, with `~` and environment variables in it replaced.

    A shell leaves them as they are behind a `=`, and nothing replaces them in YAML. What exists as it is written is
    taken so.

    Raises:
        ValueError: there is no such variable, or no such user.
    """
    path = Path(path)
    if os.path.lexists(path):
        return path
    expanded = os.path.expandvars(path)
    if unset := re.search(r"\$(?:([A-Za-z_]\w*)|\{([^}]*)\})", expanded):
        name = unset[1] or unset[2]
        raise ValueError(f"path {path}: the environment has no variable {name}: set it, or write the path out")
    try:
        return Path(expanded).expanduser()
    except RuntimeError as error:
        raise ValueError(f"path {path}: no home folder is known for it: write the path out") from error


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


@contextmanager
def lasting(path: str | os.PathLike) -> Iterator[Path]:
    """As `replacing`, and on the disk when it ends: after a loss of power too the old file is there, or the new one."""
    with replacing(path) as unfinished:
        yield unfinished
        flush_to_disk(unfinished)
    flush_folder(Path(path).parent)


def flush_to_disk(path: Path) -> None:
    with open(path, "r+b") as f:  # Windows flushes what is open for writing only
        os.fsync(f.fileno())


def flush_folder(path: Path) -> None:
    """Makes names in a folder last; Windows has no way to."""
    if os.name == "nt":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError:  # some network file systems do not know it of folders, and keep names by themselves
        pass
    finally:
        os.close(folder)


def check_regular(path: Path, way_out: str = "give a file") -> None:
    """Raises FileNotFoundError where there is nothing, ValueError for a folder and what a reader would wait for."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {way_out}")
    if not path.is_file():
        kinds = {"a folder": path.is_dir, "a pipe (FIFO)": path.is_fifo, "a socket": path.is_socket}
        kind = next((kind for kind, is_one in kinds.items() if is_one()), "a device")
        raise ValueError(f"{path} is {kind}, not a file: {way_out}")
