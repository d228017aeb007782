"""Tensors of a TorchScript archive, which is how some weights are published; its code is never run."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gans.official.machine import Budget, Function, HostilePickle, Machine, Unbuilt, of_type
from lit_gans.official.pickles import MAX_DEPTH, STORAGES, dictionary, rebuilt_tensor, storage_id


def is_torchscript(path: Path) -> bool:
    """By the record that torch.jit.save writes and torch.save does not."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by the names that `state_dict()` of the module would give them.

    HostilePickle, a ValueError, where it holds anything but modules of tensors and plain values, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next((n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")), None)
            if root is None:
                raise HostilePickle("it has no data.pkl")
            records = _Records(archive, root.removesuffix("data.pkl"), Budget(4 * path.stat().st_size))
            module = _Machine(io.BytesIO(records.read("data.pkl")), _globals(records.budget), records.storage).run()
            return dict(_tensors(of_type(module, _Object, "the archive's content")))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, LookupError) as error:
        raise HostilePickle(f"it is damaged: {error}") from error


@dataclass
class _Object(Unbuilt):
    """A module or another object of a class whose code the archive holds: its attributes and nothing more."""

    attributes: dict[str, Any] = field(default_factory=dict)

    def build(self, state: Any) -> _Object:
        self.attributes = of_type(state, dict, "an object's state")
        return self


class _Machine(Machine):
    """Knows beside its globals every class of the archive's own code."""

    def find(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return Function(f"{module}.{name}", _Object, new=True)
        return super().find(module, name)


@dataclass
class _Records:
    archive: zipfile.ZipFile
    root: str
    budget: Budget

    def read(self, name: str) -> bytes:
        """What a record holds; one that swells beyond the file is refused before it is read."""
        self.budget.spend(self.archive.getinfo(self.root + name).file_size)
        return self.archive.read(self.root + name)

    def storage(self, given: Any) -> Tensor:
        found = storage_id(given)
        data = self.read(f"data/{found.key}")
        if len(data) != found.count * found.dtype.itemsize:
            raise HostilePickle(f"a storage claims {found.count} elements of {found.dtype}, and has {len(data)} bytes")
        return torch.frombuffer(bytearray(data), dtype=found.dtype) if data else torch.empty(0, dtype=found.dtype)


def _globals(budget: Budget) -> dict[tuple[str, str], Any]:
    functions = {
        ("torch._utils", "_rebuild_tensor_v2"): functools.partial(rebuilt_tensor, budget=budget),
        ("collections", "OrderedDict"): functools.partial(dictionary, budget=budget),
        **{("torch.jit._pickle", f"build_{kind}list"): _list for kind in ("int", "double", "bool", "tensor")},
    }
    known: dict[tuple[str, str], Any] = {key: Function(".".join(key), make) for key, make in functions.items()}
    return known | {("torch", name): dtype for name, dtype in STORAGES.items()}


def _list(items: Any) -> list:
    return of_type(items, list, "a list's items")


def _tensors(module: _Object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if depth > MAX_DEPTH:
        raise HostilePickle(f"its modules lie more than {MAX_DEPTH} deep")
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Object):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)
