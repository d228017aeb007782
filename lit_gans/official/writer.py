"""Network pickles in the layout of the PyTorch releases, written without the classes that they name."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gans.base.files import replacing
from lit_gans.base.pickles import STORAGES
from lit_gans.base.torch_files import LEGACY_MAGIC, LEGACY_PROTOCOL
from lit_gans.official.pickles import PERSISTENCE_VERSION, OfficialNetwork

SOURCE = "# Weights and names alone: the classes are those of the official code, whose source is not in this file.\n"


def write_official(
    path: str | Path, networks: Mapping[str, OfficialNetwork], *, extra: Mapping[str, Any] | None = None
) -> Path:
    """The file, which `read_official` reads to the same tensors, names and arguments.

    The official code rebuilds a network from the Python source in its pickle, which is not ours to write: of this file
    it can take the tensors by their names (with `read_official`, into a network that it has built itself), but
    `pickle.load` there fails for want of the class.
    """
    contents = {**{name: _network(network) for name, network in networks.items()}, **(extra or {})}
    with replacing(path) as unfinished:
        unfinished.write_bytes(b"".join((pickle.PROTO, b"\x04", *_Writer().parts_of(contents), pickle.STOP)))
    return Path(path)


@dataclass(frozen=True)
class _Call:
    """A call of a global by its name, with entries that are set in its result."""

    module: str
    name: str
    arguments: tuple
    entries: dict | None = None


def _ordered(entries: Mapping[str, Any]) -> _Call:
    return _Call("collections", "OrderedDict", (), dict(entries))


def _network(network: OfficialNetwork) -> _Call:
    """The tree of modules from paths; tensors lie in the module that their name's last dot ends."""
    tensors: dict[str, dict[str, Tensor]] = {path: {} for path in ("", *network.modules)}
    for name, tensor in network.state.items():
        path, _, own = name.rpartition(".")
        for end in (i for i, letter in enumerate(path) if letter == "."):
            tensors.setdefault(path[:end], {})
        tensors.setdefault(path, {})[own] = tensor
    children: dict[str, list[str]] = {path: [] for path in tensors}
    for path in tensors:
        if path:
            children[path.rpartition(".")[0]].append(path)

    def module(path: str) -> _Call:
        prefix = f"{path}." if path else ""
        own = tensors[path]
        buffers = {name: tensor for name, tensor in own.items() if prefix + name in network.buffers}
        state: dict[str, Any] = {
            "training": False,
            "_parameters": _ordered({name: _parameter(t) for name, t in own.items() if name not in buffers}),
            "_buffers": _ordered({name: _tensor(t) for name, t in buffers.items()}),
            "_modules": _ordered({child.rpartition(".")[2]: module(child) for child in children[path]}),
        }
        if not path:
            state |= {"_init_args": network.init_args, "_init_kwargs": network.init_kwargs}
        elif path in network.parts:
            state |= {"_init_args": (), "_init_kwargs": network.parts[path]}
        name = network.class_name if not path else network.modules.get(path, "Module")
        meta = {"type": "class", "version": PERSISTENCE_VERSION, "module_src": SOURCE, "class_name": name}
        meta["state"] = state
        return _Call("torch_utils.persistence", "_reconstruct_persistent_obj", (meta,))

    return module("")


def _parameter(tensor: Tensor) -> _Call:
    return _Call("torch._utils", "_rebuild_parameter", (_tensor(tensor), True, _ordered({})))


def _tensor(tensor: Tensor) -> _Call:
    tensor = tensor.detach().cpu().contiguous()
    storage = _Call("torch.storage", "_load_from_bytes", (storage_bytes(tensor),))
    arguments = (storage, 0, tuple(tensor.shape), tensor.stride(), False, _ordered({}))
    return _Call("torch._utils", "_rebuild_tensor_v2", arguments)


def storage_bytes(tensor: Tensor) -> bytes:
    """The tensor's elements as torch.save wrote a storage before it wrote archives; torch.load still reads it."""
    name = next(name for name, dtype in STORAGES.items() if dtype == tensor.dtype)
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": LEGACY_PROTOCOL, "little_endian": True, "type_sizes": sizes}
    parts = [pickle.dumps(each, 2) for each in (LEGACY_MAGIC, LEGACY_PROTOCOL, system)]
    # The storage's class must be the instruction GLOBAL: torch.load's own safe reader knows no other.
    id_ = [pickle.dumps(each, 2)[2:-1] for each in ("storage", "0", "cpu", tensor.numel(), None)]
    id_.insert(1, pickle.GLOBAL + f"torch\n{name}\n".encode())
    parts += [pickle.PROTO, b"\x02", pickle.MARK, *id_, pickle.TUPLE, pickle.BINPERSID, pickle.STOP]
    raw = tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return b"".join((*parts, pickle.dumps(["0"], 2), struct.pack("<q", tensor.numel()), raw))


@dataclass
class _Writer:
    """Turns plain values and calls into instructions; texts are written once and then referred to."""

    kept: dict[str, int] = field(default_factory=dict)

    def parts_of(self, value: Any) -> list[bytes]:
        if value is None or isinstance(value, (bool, int, float, bytes)):
            return [_atom(value)]
        if isinstance(value, str):
            return [self._text(value)]
        if isinstance(value, list):
            return [pickle.EMPTY_LIST, pickle.MARK, *self._all(value), pickle.APPENDS]
        if isinstance(value, tuple):
            return [pickle.MARK, *self._all(value), pickle.TUPLE]
        if isinstance(value, dict):
            return [pickle.EMPTY_DICT, *self._entries(value)]
        if isinstance(value, _Call):
            called = [self._text(value.module), self._text(value.name), pickle.STACK_GLOBAL]
            called += [*self.parts_of(value.arguments), pickle.REDUCE]
            return called + (self._entries(value.entries) if value.entries else [])
        raise ValueError(f"a {type(value).__name__} cannot be written: give plain values")

    def _all(self, values: Any) -> list[bytes]:
        return [part for value in values for part in self.parts_of(value)]

    def _entries(self, entries: dict) -> list[bytes]:
        return [pickle.MARK, *self._all(each for pair in entries.items() for each in pair), pickle.SETITEMS]

    def _text(self, text: str) -> bytes:
        if text in self.kept:
            return pickle.LONG_BINGET + struct.pack("<I", self.kept[text])
        self.kept[text] = len(self.kept)
        data = text.encode("utf-8", "surrogatepass")
        return pickle.BINUNICODE + struct.pack("<I", len(data)) + data + pickle.MEMOIZE


def _atom(value: None | bool | int | float | bytes) -> bytes:
    """A value without parts: what the standard library writes, without its first and last instruction."""
    if isinstance(value, bytes):
        return pickle.BINBYTES8 + struct.pack("<Q", len(value)) + value
    return pickle.dumps(value, 2)[2:-1]
