"""Tensors of a TorchScript archive, which is how some weights are published; its code is never run."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_gans.base.machine import Budget, Function, HostilePickle, Machine, Unbuilt, of_type
from lit_gans.base.pickles import MAX_DEPTH, MAX_VALUES, STORAGES, dictionary, named, own_tensor
from lit_gans.base.torch_files import records


def is_torchscript(path: Path) -> bool:
    """By the record that torch.jit.save writes and torch.save does not."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with records(path) as found:
            return any(name.endswith("/constants.pkl") for name in found.archive.namelist())
    except HostilePickle:
        return False  # whoever reads it says what is wrong with it


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by the names that `state_dict()` of the module would give them.

    HostilePickle, a ValueError, where it holds anything but modules of tensors and plain values, or is damaged.
    """
    with records(path) as found:
        machine = _Machine(io.BytesIO(found.read("data.pkl")), _globals(found.budget), found.storage)
        return dict(_tensors(of_type(machine.run(), _Object, "the archive's content")))


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
            return Function(f"{module}.{name}", lambda: _Object(), new=True)
        return super().find(module, name)


def _globals(budget: Budget) -> dict[tuple[str, str], Any]:
    functions = {
        ("torch._utils", "_rebuild_tensor_v2"): functools.partial(own_tensor, budget=budget),
        ("collections", "OrderedDict"): functools.partial(dictionary, budget=budget),
        **{("torch.jit._pickle", f"build_{kind}list"): _list for kind in ("int", "double", "bool", "tensor")},
    }
    return named(functions) | {("torch", name): dtype for name, dtype in STORAGES.items()}


def _list(items: Any) -> list:
    return of_type(items, list, "a list's items")


def _tensors(root: _Object) -> Iterator[tuple[str, Tensor]]:
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    for _ in range(MAX_VALUES):
        if not waiting:
            return
        name, value, depth = waiting.pop()
        if depth > MAX_DEPTH or len(waiting) > MAX_VALUES:
            raise HostilePickle(f"its modules lie more than {MAX_DEPTH} deep, or are too many")
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, _Object):
            inner = [(f"{name}.{own}" if name else str(own), each, depth + 1) for own, each in value.attributes.items()]
            waiting += reversed(inner)
    raise HostilePickle(f"it has more than {MAX_VALUES} modules and values")
