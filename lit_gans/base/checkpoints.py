"""Files of weights and checkpoints, read without running anything in them."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or from a .pth or .pt file without running any code in it; floats as float32.

    FileNotFoundError where there is none; ValueError where it holds anything but named tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: give the path of a .safetensors or .pth file")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else read_pth(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
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
    import pickle

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged or holds more than tensors, and is not read: {error}") from error


CHECKPOINT_NAME = re.compile(r"kimg(\d+\.\d{3})(-interrupted)?\.ckpt")


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest on the image clock first."""
    found = [(m, p) for p in (run / "checkpoints").glob("*.ckpt") if (m := CHECKPOINT_NAME.fullmatch(p.name))]
    # An interrupted step comes before the same moment reached again in whole steps.
    return [p for m, p in sorted(found, key=lambda mp: (float(mp[0][1]), mp[0][2] is None)) if zipfile.is_zipfile(p)]


def best_checkpoint(run: Path) -> Path | None:
    """The run's best.ckpt, if there is one and it is complete."""
    path = run / "checkpoints" / "best.ckpt"
    return path if path.is_file() and zipfile.is_zipfile(path) else None


def find_checkpoint(path: str | os.PathLike) -> Path:
    """The checkpoint that `path` means: itself, or the newest of a run folder; of one that has no other its best.

    Raises:
        FileNotFoundError: nothing there, naming what was looked for.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a run folder or a .ckpt file")
    found = checkpoints(path) or list(filter(None, [best_checkpoint(path)]))
    if not found:
        raise FileNotFoundError(f"no checkpoint in {path / 'checkpoints'}: is {path} a run folder?")
    return found[-1]


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint's plain contents; nothing in the file is run.

    Raises:
        ValueError: it is no checkpoint, is damaged, holds objects beyond tensors and plain values, or is not ours.
    """
    import pickle

    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a checkpoint that can be read safely, or is damaged: {reason}") from error
    if not isinstance(checkpoint, dict) or "lit_gans" not in checkpoint:
        raise ValueError(f"{path} was not written by lit_gans (it has no 'lit_gans' entry)")
    return checkpoint
