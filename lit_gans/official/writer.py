"""Network pickles in the layout of the PyTorch releases, written without the classes that they name."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.base.files import replacing
from lit_gans.base.pickles import STORAGES
from lit_gans.base.torch_files import LEGACY_MAGIC, LEGACY_PROTOCOL
from lit_gans.official.pickles import PERSISTENCE_VERSION, OfficialNetwork


@dataclass(frozen=True)
class Sourced:
    """A network with the text of the Python file that its class and those of its parts stand in.

    `note` is what is to be said of it where it is written.
    """

    module: nn.Module
    source: str
    note: str = ""


def write_official(
    path: str | Path, networks: Mapping[str, OfficialNetwork | Sourced], *, extra: Mapping[str, Any] | None = None
) -> Path:
    """The file, which `read_official` reads to the same tensors, names and arguments.

    The official loader rebuilds networks from the Python source in the file, which must be ours to write. One with its
    source runs there; of all others the loader makes modules that have their tensors and names, and cannot be called.
    """
    described = {name: _network(n) if isinstance(n, OfficialNetwork) else _sourced(n) for name, n in networks.items()}
    contents = {**described, **(extra or {})}
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


def _persistent(source: str, name: str, state: Mapping[str, Any]) -> _Call:
    """A call of the official loader; its state is all that a module has, since older torch asks for what newer adds."""
    every = {**{key: _described(value, source) for key, value in vars(nn.Module()).items()}, **state}
    meta = {"type": "class", "version": PERSISTENCE_VERSION, "module_src": source, "class_name": name, "state": every}
    return _Call("torch_utils.persistence", "_reconstruct_persistent_obj", (meta,))


def _sourced(network: Sourced) -> _Call:
    return _described(network.module, network.source)


def _described(value: Any, source: str) -> Any:
    """Modules, tensors and ordered dictionaries in a value as calls; everything else as it is."""
    if isinstance(value, nn.Module):
        state = {key: _described(each, source) for key, each in vars(value).items()}
        state["_modules"] = _ordered({name: _described(each, source) for name, each in value._modules.items()})
        state["_parameters"] = _ordered({name: _described(each, source) for name, each in value._parameters.items()})
        state["_buffers"] = _ordered({name: _described(each, source) for name, each in value._buffers.items()})
        state["_init_kwargs"] = {name: _easy(each) for name, each in vars(value).get("_init_kwargs", {}).items()}
        return _persistent(source, type(value).__name__, state)
    if isinstance(value, nn.Parameter):
        return _parameter(value, value.requires_grad)
    if isinstance(value, Tensor):
        return _tensor(value)
    return _ordered(value) if isinstance(value, OrderedDict) else value


def _easy(value: Any) -> Any:
    """Dictionaries among the arguments as the official code's own, whose entries it reaches as attributes."""
    if isinstance(value, Mapping):
        return _Call("dnnlib.util", "EasyDict", (), {name: _easy(each) for name, each in value.items()})
    return value


def _names_alone(network: OfficialNetwork) -> str:
    """Source in which the network's classes are modules without a `forward`."""
    classes = sorted({network.class_name, "Module", *network.modules.values()})
    bodies = [f"class {name}(torch.nn.Module):\n    pass" for name in classes if name.isidentifier()]
    return "\n\n\n".join(["# Weights and names alone.\nimport torch", *bodies]) + "\n"


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

    source = _names_alone(network)

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
        return _persistent(source, name, state)

    return module("")


def _parameter(tensor: Tensor, requires_grad: bool = True) -> _Call:
    return _Call("torch._utils", "_rebuild_parameter", (_tensor(tensor), requires_grad, _ordered({})))


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
        if isinstance(value, set):
            return [pickle.EMPTY_SET, pickle.MARK, *self._all(sorted(value)), pickle.ADDITEMS]
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
