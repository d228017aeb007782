"""A run is a folder: which one a start writes to, alone, and nowhere else."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_gans.base.checkpoints import best_checkpoint, checkpoints

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
PATIENCE_S, PATIENCE_ELSEWHERE_S = 5.0, 120.0  # a file server keeps the locks of a dead machine for a while
FROM_THE_START = {"config.yaml", "run.json", "data.json", "index.html", "checkpoints", LOCK}
WRITTEN_TO = ("checkpoints", "samples", "csv", "tensorboard")


def new_run_folder(wanted: Path) -> Path:
    """`wanted`, or `wanted-2`, `wanted-3`, ...: the first that is not there, or empty. `RunFolder.new` takes it."""
    return next(p for p in _numbered(wanted) if not os.path.lexists(p) or (p.is_dir() and not any(p.iterdir())))


def last_run_folder(wanted: Path) -> Path:
    """The newest of `wanted`, `wanted-2`, ... that holds a checkpoint.

    Raises:
        FileNotFoundError: there is none.
    """
    last = None
    for folder in _numbered(wanted):
        if not folder.is_dir():
            break
        last = folder if has_checkpoint(folder) else last
    return last or same_run_folder(wanted)


def same_run_folder(wanted: Path) -> Path:
    """`wanted` itself, which holds a checkpoint; FileNotFoundError otherwise."""
    if has_checkpoint(wanted):
        return wanted
    raise FileNotFoundError(
        f"no checkpoint in {wanted / 'checkpoints'}: nothing to resume; start the run without --ckpt_path=last, or "
        "with --ckpt_path=auto, which starts it where there is nothing to go on from"
    )


def has_checkpoint(run: Path) -> bool:
    """Whether a run can go on from something."""
    return bool(checkpoints(run)) or best_checkpoint(run) is not None


def _numbered(wanted: Path) -> Iterator[Path]:
    wanted = wanted if wanted.name.strip(".") else wanted.resolve()  # `.` has no name to put a number behind
    yield wanted
    number = 2
    while True:
        yield wanted.with_name(f"{wanted.name}-{number}")
        number += 1


class RunFolder:
    """A run folder that belongs to this process alone, from its first moment until `leave`, or the process's end.

    The lock is the system's and ends with the process, whatever ends it. Two machines see each other's if their file
    system has locks.

    Raises:
        ValueError: another process writes to the folder, or a link in it leads out of it.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        path.mkdir(parents=True, exist_ok=True)
        check_links(path)
        self.path, self.fresh = path, fresh
        self._lock = _lock(path / LOCK)
        for place in (path, path / "samples"):
            for unfinished in place.glob(f".*.{'?' * 12}.*.tmp"):  # of `replacing`, in a process that was killed
                unfinished.unlink()

    @classmethod
    def new(cls, wanted: Path) -> RunFolder:
        """`wanted`, or the first of `wanted-2`, ... that is not there, or empty; it is made."""
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for path in _numbered(wanted):
            if not _claimed(path):
                continue
            if path.resolve() != wanted.resolve():
                print(f"{wanted} is there already: this start writes to {path}", file=sys.stderr)
            return cls(path, fresh=True)
        raise AssertionError

    def leave(self, *, trained: bool) -> None:
        """Unlocks it. A new one in which nothing was trained, and nothing else was written, is gone."""
        nothing = self.fresh and not trained and not any(self.path.glob("checkpoints/*"))
        if nothing and {p.name for p in self.path.iterdir()} <= FROM_THE_START:
            shutil.rmtree(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _claimed(path: Path) -> bool:
    """Whether an empty folder, made if it is not there, is this start's: whoever first makes a file in it has it."""
    try:
        path.mkdir(exist_ok=True)
        if any(path.iterdir()):
            return False
        os.close(os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
    except (FileExistsError, NotADirectoryError):
        return False
    return True


def _lock(path: Path) -> int | None:
    """The open file whose lock this process holds; None where the system has no locks."""
    if sys.platform == "win32":
        return None
    file, started = os.open(path, os.O_RDWR | os.O_CREAT, 0o666), time.monotonic()
    here = socket.gethostname()
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                warnings.warn(f"{path.parent} cannot be locked ({error}): let one start at a time use it", stacklevel=2)
                break
        holder = os.pread(file, 200, 0).decode(errors="replace").strip()
        patience = PATIENCE_S if holder.startswith(f"{here} ") else PATIENCE_ELSEWHERE_S
        if time.monotonic() - started > patience:
            os.close(file)
            raise ValueError(
                f"another process ({holder or 'starting'}) writes to {path.parent}: wait for it or end it, or choose "
                f"another --run_folder (in an array job one for each task); if its machine is gone, remove {path}"
            )
        time.sleep(0.2)
    os.ftruncate(file, 0)
    os.pwrite(file, f"{here} process {os.getpid()}\n".encode(), 0)
    return file


def is_taken(run: Path) -> bool:
    """Whether another process holds the run folder now. False where the system has no locks.

    A process that asks it of a folder of its own loses its lock.
    """
    path = run / LOCK
    if sys.platform == "win32" or not path.is_file():
        return False
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    return False


# ---- links -----------------------------------------------------------------------------------------------------------


def check_links(run: Path) -> None:
    """ValueError where a link in a run folder leads out of it: what is written there would be written elsewhere."""
    for place in (run, *(run / name for name in WRITTEN_TO)):
        for path in place.iterdir() if place.is_dir() else ():
            check_inside(path, run)


def check_inside(path: Path, folder: Path) -> None:
    """ValueError where `path`, a name in `folder`, leads out of it by a link."""
    found, home = os.path.realpath(path), os.path.realpath(folder)
    if os.path.commonpath([found, home]) != home:
        raise ValueError(
            f"{path} leads by a link to {found}, out of {folder}: nothing is written there; remove the link, or write "
            "to another folder"
        )


def check_output(*outputs: str | os.PathLike | None) -> None:
    """ValueError where an output in a run folder, which may be a stranger's, leads out of it by a link; or a file."""
    for path in (Path(output).absolute() for output in outputs if output is not None):
        if path.is_symlink() and not path.is_dir():
            check_inside(path, path.parent)
        for folder in path.parents:
            if is_pretrained(folder) or (folder / "config.yaml").is_file() or (folder / "checkpoints").is_dir():
                check_inside(path, folder)


def is_pretrained(path: str | os.PathLike) -> bool:
    """Whether it is a folder of `lit_gans.runs.pretrained`: a model as files, without a run."""
    return all((Path(path) / name).is_file() for name in ("config.json", "model.safetensors"))


def run_config(path: str | os.PathLike) -> dict[str, Any]:
    """The resolved config of a run folder, or of the run that a checkpoint lies in.

    Raises:
        FileNotFoundError: there is no config.yaml.
    """
    import yaml

    path = Path(path)
    run = path if path.is_dir() else path.absolute().parent.parent
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"no config.yaml in {run}: is it a run folder?")
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
