"""Files of tensors that are kept between runs: written beside and renamed, checked when read, never pickled."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lit_gans.base.files import replacing

_CHECKSUM = "sha256"


def cache_folder() -> Path:
    """Where derived files are kept: $LIT_GANS_CACHE, else ~/.cache/lit_gans. Not created here."""
    return Path(os.environ.get("LIT_GANS_CACHE") or Path.home() / ".cache" / "lit_gans").expanduser()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """64 hex digits of SHA-256 over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def key_of(**parts: object) -> str:
    """16 hex digits that change with any part; parts are plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file under another name and renames it, so that no reader ever sees half of one."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as unfinished:
        save_file(whole, unfinished, {**metadata, _CHECKSUM: digest(whole)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """(tensors, metadata) of a file from `write_tensors`; None where it is absent or, with a warning, damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        _damaged(path, str(error))
        return None
    if digest(tensors) != metadata.get(_CHECKSUM):
        _damaged(path, "its checksum does not fit its content")
        return None
    return tensors, metadata


def _damaged(path: Path, reason: str) -> None:
    warnings.warn(f"{path} is damaged ({reason}) and is made again", stacklevel=3)
