"""Small files of what was found: tensors, and in their metadata what they are and how they were made."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_gans.base.cache import read_tensors, write_tensors
from lit_gans.base.files import check_regular


def write_found(path: str | Path, kind: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Writes a .safetensors file; settings: plain values."""
    said = {"kind": kind, **settings}
    write_tensors(Path(path), tensors, {name: json.dumps(value) for name, value in said.items()})


def read_found(
    path: str | Path, kind: str, *, way_out: str, unmarked: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, settings) of a file from `write_found`; unmarked: or of one that does not say what it holds.

    FileNotFoundError without one; ValueError for a damaged file, or one of another kind.
    """
    path = Path(path)
    check_regular(path, way_out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is made again, as files in the cache are
        found = read_tensors(path)
    if found is None:
        raise ValueError(f"{path} is damaged, or no file of this package: {way_out}")
    tensors, said = found
    if (other := said.get("kind", "")) != json.dumps(kind) and not (unmarked and not other):
        raise ValueError(f"{path} holds {json.loads(other) if other else 'something else'}, expected {kind}: {way_out}")
    settings = {name: json.loads(value) for name, value in said.items() if name not in ("kind", "sha256")}
    # Copies: how products are rounded may depend on where in memory a factor lies.
    return {name: one.clone() for name, one in tensors.items()}, settings
