"""Files of weights and checkpoints, read without running anything in them."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_gans.base.files import check_regular
from lit_gans.base.machine import HostilePickle
from lit_gans.base.torch_files import read_torch_file


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or from a .pth or .pt file without running any code in it; floats as float32.

    FileNotFoundError where there is none; ValueError where it holds anything but named tensors.
    """
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}: give the path of a .safetensors or .pth file")
    check_regular(path, "give the path of a .safetensors or .pth file")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else read_pth(path)
    named = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not isinstance(state, dict) or not named:
        raise ValueError(f"{path} holds {type(state).__name__}, expected a state dict: names and tensors, nothing else")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file ({error}): fetch it again") from error


def read_pth(path: Path) -> object:
    """What a .pth file holds, if that is tensors and plain containers; ValueError otherwise. Nothing in it is run."""
    try:
        return read_torch_file(path)
    except HostilePickle as error:
        raise ValueError(f"{path} is damaged or holds more than tensors, and is not read: {error}") from error


CHECKPOINT_NAME = re.compile(r"kimg(\d+\.\d{3})(-interrupted)?\.ckpt")
BEST = "best.ckpt"


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest on the image clock first."""
    return [path for path in _by_clock(run) if path.is_file() and zipfile.is_zipfile(path)]


def _by_clock(run: Path) -> list[Path]:
    found = [(m, p) for p in (run / "checkpoints").glob("*.ckpt") if (m := CHECKPOINT_NAME.fullmatch(p.name))]
    # An interrupted step comes before the same moment reached again in whole steps.
    return [p for m, p in sorted(found, key=lambda mp: (float(mp[0][1]), mp[0][2] is None))]


def _newest_first(run: Path) -> list[Path]:
    """The best comes last: it may be of any moment."""
    return [*reversed(_by_clock(run)), *filter(None, [best_checkpoint(run)])]


def best_checkpoint(run: Path) -> Path | None:
    """The run's best.ckpt, if there is one and it is complete."""
    path = run / "checkpoints" / BEST
    return path if path.is_file() and zipfile.is_zipfile(path) else None


def find_checkpoint(path: str | os.PathLike) -> Path:
    """The checkpoint that `path` means: itself, or the newest of a run folder that can be read; see `open_checkpoint`.

    Raises:
        FileNotFoundError: nothing there, naming what was looked for.
        ValueError: none of the folder's can be read.
    """
    path = Path(path)
    return path if path.is_file() else open_checkpoint(path)[0]


def open_checkpoint(path: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    """A checkpoint and its contents: the file at `path`, or of a run folder the newest that is whole.

    A damaged one is passed over for the one before, with a warning; the file that was asked for by name never is.

    Raises:
        FileNotFoundError: nothing there, naming what was looked for.
        ValueError: as `read_checkpoint`; of a folder, where none can be read.
    """
    path = Path(path)
    if not path.is_dir():
        return path, read_checkpoint(path)
    found = next(readable_checkpoints(path), None)
    if found is None and (damaged := _newest_first(path)):
        raise ValueError(f"none of the checkpoints in {path} can be read, the newest being {damaged[0]}: start anew")
    if found is None:
        raise FileNotFoundError(f"no checkpoint in {path / 'checkpoints'}: is {path} a run folder?")
    return found


def readable_checkpoints(run: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Checkpoints of a run and their contents, the newest first and last the best; those that cannot be read are named
    in warnings."""
    for path in _newest_first(run):
        try:
            yield path, read_checkpoint(path)
        except ValueError as error:
            warnings.warn(f"{error}; the one before it is taken", stacklevel=3)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint's plain contents, each part compared with its checksum; nothing in the file is run.

    Raises:
        ValueError: it is no checkpoint, is damaged, holds objects beyond tensors and plain values, or is not ours.
    """
    path = Path(path)
    check_regular(path, "give a run folder or a .ckpt file")
    try:
        checkpoint = read_torch_file(path)
    except HostilePickle as error:
        raise ValueError(f"{path} is not a checkpoint that can be read safely, or is damaged: {error}") from error
    if not isinstance(checkpoint, dict) or "lit_gans" not in checkpoint:
        raise ValueError(f"{path} was not written by lit_gans (it has no 'lit_gans' entry)")
    ours = checkpoint["lit_gans"] if isinstance(checkpoint["lit_gans"], dict) else {}
    kinds = {"class_path": str, "images_seen": int, "batches_seen": int}
    wrong = [f"lit_gans.{name}" for name, kind in kinds.items() if not isinstance(ours.get(name), kind)]
    wrong += [name for name, kind in _PARTS.items() if not _maps(checkpoint.get(name, {}), kind)]
    if wrong:
        raise ValueError(f"{path} was not written by lit_gans: {', '.join(wrong)} are missing or of a wrong type")
    return checkpoint


_PARTS = {"state_dict": Tensor, "hyper_parameters": object}


def _maps(part: object, kind: type) -> bool:
    """Whether it is a dictionary from names to values of a kind."""
    return isinstance(part, dict) and all(isinstance(k, str) and isinstance(v, kind) for k, v in part.items())
