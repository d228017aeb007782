"""A run is a folder: which one a start writes to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lit_gans.base.checkpoints import checkpoints


def new_run_folder(wanted: Path) -> Path:
    """`wanted`, or `wanted-2`, `wanted-3`, ...: the first that holds no checkpoint yet.

    Every process of a launch decides the same, since checkpoints appear only after all have decided.
    """
    return next(p for p in _numbered(wanted) if not checkpoints(p))


def last_run_folder(wanted: Path) -> Path:
    """The newest of `wanted`, `wanted-2`, ... that holds a checkpoint.

    Raises:
        FileNotFoundError: there is none.
    """
    last = None
    for folder in _numbered(wanted):
        if not folder.is_dir():
            break
        last = folder if checkpoints(folder) else last
    if last is None:
        raise FileNotFoundError(
            f"no checkpoint in {wanted / 'checkpoints'}: nothing to resume; start the run without --ckpt_path=last"
        )
    return last


def _numbered(wanted: Path) -> Any:
    yield wanted
    number = 2
    while True:
        yield wanted.with_name(f"{wanted.name}-{number}")
        number += 1


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
    return yaml.safe_load((run / "config.yaml").read_text())
