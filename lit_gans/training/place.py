"""Where a start of `fit` writes, and from what it goes on: decided and taken by process 0, and told to all others."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from lit_gans.base.checkpoints import find_checkpoint
from lit_gans.base.files import user_path
from lit_gans.runs.folder import RunFolder, has_checkpoint, last_run_folder, new_run_folder, same_run_folder

TOLD = "LIT_GANS_PLACE"


class Place(NamedTuple):
    """A run folder; the checkpoint to go on from; whether the folder is a new one, or the next by number."""

    run: Path
    checkpoint: Path | None = None
    is_new: bool = False


def place_of(run_folder: str | None, ckpt_path: str | None, *, default: Path) -> Place:
    """What the two options mean. A folder that is named is meant itself, unless a new start finds it there.

    Raises:
        FileNotFoundError: there is nothing to go on from.
    """
    wanted = user_path(run_folder) if run_folder else default
    if ckpt_path == "auto":
        return _as_it_stands(wanted)
    if ckpt_path == "last":
        return _as_it_stands(same_run_folder(wanted) if run_folder else last_run_folder(wanted))
    if not ckpt_path:
        return Place(wanted, is_new=True)
    checkpoint = find_checkpoint(user_path(ckpt_path))
    own = checkpoint.parent.parent
    if checkpoint.parent.name == "checkpoints" and (not run_folder or own.resolve() == wanted.resolve()):
        return Place(own, checkpoint)
    return Place(wanted, checkpoint, is_new=True)


def _as_it_stands(run: Path) -> Place:
    return Place(run, find_checkpoint(run) if has_checkpoint(run) else None)


def likely_folder(place: Place) -> Path:
    """The folder that `take_folder` will find, if no other start comes first."""
    return new_run_folder(place.run) if place.is_new else place.run


def take_folder(place: Place, *, ckpt_path: str | None) -> tuple[RunFolder, Place]:
    """The folder, this process's alone; and the place, of which another process may have made more until now."""
    if place.is_new:
        folder = RunFolder.new(place.run)
        return folder, place._replace(run=folder.path)
    folder = RunFolder(place.run)
    place = _as_it_stands(place.run) if ckpt_path in ("last", "auto") else place
    if ckpt_path == "auto":
        found = (
            f"goes on from {place.checkpoint}" if place.checkpoint else f"no checkpoint in {place.run}, starts there"
        )
        print(f"--ckpt_path=auto: {found}", file=sys.stderr)
    return folder, place


def as_process_zero_says(trainer: Trainer, decide: Callable[[], Place]) -> Place:
    """decide() of process 0, on all; where it fails, it fails on all.

    Processes that Lightning starts later are told by their environment; those that torchrun or SLURM has started, and
    those of several machines, meet first.
    """
    if TOLD in os.environ and not trainer.is_global_zero:
        return _place(json.loads(os.environ[TOLD]))
    together, told = _meet(trainer), dict[str, Any]()
    if trainer.is_global_zero:
        try:
            place = decide()
            told = {"run": str(place.run), "checkpoint": place.checkpoint and str(place.checkpoint)}
        except (ValueError, OSError) as error:
            if not together:
                raise
            told = {"error": str(error)}
    told = trainer.strategy.broadcast(told) if together else told
    os.environ[TOLD] = json.dumps(told)
    return _place(told)


def _place(told: dict[str, Any]) -> Place:
    if "error" in told:
        raise ValueError(told["error"])
    return Place(Path(told["run"]), told["checkpoint"] and Path(told["checkpoint"]))


def _meet(trainer: Trainer) -> bool:
    """Whether the processes can speak to each other now: not where Lightning starts them after this, on one machine."""
    strategy, launcher = trainer.strategy, trainer.strategy.launcher
    if trainer.world_size == 1:
        return False
    if isinstance(launcher, _SubprocessScriptLauncher):
        started = launcher.cluster_environment.creates_processes_externally  # by torchrun, SLURM, or Lightning before
        if not started and trainer.num_nodes == 1:
            return False
        launcher.launch(lambda: None, trainer=trainer)  # of a machine of several, the others
        strategy._launcher = None  # it has done its work
    elif launcher is not None:
        return False
    strategy.setup_environment()
    return True
