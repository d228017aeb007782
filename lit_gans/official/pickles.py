"""Released network pickles, read without running anything that they say.

The few globals that releases name stand for small functions of ours in a closed table (`_globals`), and classes of the
packages that networks are made of for `_Object`, which keeps its state and does nothing. Python source in a file stays
text: its digest is kept, to tell versions of the official code apart, and it is neither compiled nor run.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gans.base.cache import digest as fingerprint
from lit_gans.base.files import check_regular
from lit_gans.base.machine import Budget, Function, HostilePickle, Machine, Unbuilt, of_type
from lit_gans.base.pickles import MAX_DEPTH, MAX_VALUES, dictionary, known_globals, named, own_tensor
from lit_gans.base.torch_files import read_legacy

MAX_BYTES = 8 * 2**30
PERSISTENCE_VERSION = 6
# Names of classes that networks are made of, and what `dill` writes of a function that has no name to find it by.
_BY_REFERENCE = re.compile(
    r"(torch(\.ao)?\.nn|timm|open_clip|torchvision\.(models|ops|transforms)|pg_modules|(feature_)?networks|training"
    r"|R3GAN|BaselineGAN)"
    r"(\.\w+)* \w+"
    r"|dill\._?dill _create_(function|code|cell|ftype)"
)
MAX_NAME = 200  # characters of such a name
MAX_MODULES = 100_000  # of a network; those of releases have some hundreds
_TF_STATE = {"version", "name", "static_kwargs", "components", "build_module_src", "build_func_name", "variables"}


@dataclass(frozen=True)
class OfficialNetwork:
    """One network of a release: what it was built from and its tensors, under the official names.

    `state` is in the order of `state_dict()`, and `buffers` names those of it that are no parameters. `modules` is the
    class name of every module by its path ("" is the network itself). `source_sha256` is that of the Python source in
    the file. `parts` is what the network's own parts, such as "synthesis", were built from. Of a network that was
    pickled by reference files have neither source nor arguments: `init_kwargs` and `parts` are its plain attributes.
    """

    class_name: str
    init_args: tuple
    init_kwargs: dict[str, Any]
    state: dict[str, Tensor]
    buffers: frozenset[str]
    modules: dict[str, str]
    source_sha256: str
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.state)

    @property
    def num_parameters(self) -> int:
        return sum(tensor.numel() for name, tensor in self.state.items() if name not in self.buffers)


@dataclass(frozen=True)
class OfficialFile:
    """A release: networks by name ("G", "D", "G_ema", ...), and its other entries as plain values.

    `left_out` names the states of optimisers that training snapshots hold besides: they are read and not kept.
    """

    sha256: str
    networks: dict[str, OfficialNetwork]
    extra: dict[str, Any]
    left_out: tuple[str, ...] = ()


def read_official(path: str | Path, *, max_bytes: int = MAX_BYTES) -> OfficialFile:
    """What a network pickle of the PyTorch (StyleGAN2-ADA to StyleGAN-XL) or TensorFlow (to StyleGAN2) releases holds.

    FileNotFoundError where there is none; HostilePickle, a ValueError, for whatever is not such a file.
    """
    path = Path(path)
    check_regular(path, "give the .pkl file of a release")
    if (size := path.stat().st_size) > max_bytes:
        raise HostilePickle(f"{path} has {size} bytes, more than the {max_bytes} that are read: pass max_bytes=")
    data = path.read_bytes()
    try:
        networks, extra, left_out = _contents(loads(data))
    except HostilePickle as error:
        raise HostilePickle(f"{path} is not read: {error}") from error
    return OfficialFile(hashlib.sha256(data).hexdigest(), networks, extra, left_out)


# ---- what a release is made of ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    """A module pickled with its source (`torch_utils.persistence`)."""

    class_name: str
    source: str
    state: dict


class _Object(Unbuilt):
    """An object by reference, such as a module of torch's: its class's name and its state, of which nothing runs."""

    def __init__(self, class_name: str) -> None:
        self.class_name, self.state = class_name, {}

    def build(self, state: Any) -> _Object:
        self.state = state  # in place: what holds this object may lie in its state
        return self


@dataclass(frozen=True)
class _Parameter:
    data: Tensor


@dataclass
class _TfNetwork(Unbuilt):
    state: dict | None = None

    def build(self, state: Any) -> _TfNetwork:
        state = of_type(state, dict, "a network's state")
        if unknown := sorted(map(str, set(state) - _TF_STATE)):
            raise HostilePickle(f"it sets {unknown[0]!r:.80} of a network, which no release has")
        return _TfNetwork(state)


def _contents(root: Any) -> tuple[dict[str, OfficialNetwork], dict[str, Any], tuple[str, ...]]:
    if isinstance(root, (tuple, list)) and len(root) == 3 and all(isinstance(each, _TfNetwork) for each in root):
        root = dict(zip(("G", "D", "G_ema"), root, strict=True))
    elif _is_network(root):
        root = {"network": root}
    if not isinstance(root, dict) or not all(isinstance(name, str) for name in root):
        raise HostilePickle(f"it holds a {type(root).__name__}, not a dictionary of networks")
    networks = {name: _network(each) for name, each in root.items() if _is_network(each)}
    if not networks:
        raise HostilePickle("it holds no network")
    left_out = tuple(name for name, value in root.items() if _is_optimizer_state(value))
    rest = (name for name in root if name not in networks and name not in left_out)
    return networks, {name: plain(root[name]) for name in rest}, left_out


def _is_optimizer_state(value: Any) -> bool:
    """Whether it is a torch optimiser's `state_dict()`."""
    return isinstance(value, dict) and value.keys() == {"state", "param_groups"}


def _is_network(value: Any) -> bool:
    by_reference = isinstance(value, _Object) and isinstance(value.state, dict) and "_modules" in value.state
    return by_reference or isinstance(value, (_Module, _TfNetwork))


def _network(root: _Module | _Object | _TfNetwork) -> OfficialNetwork:
    if isinstance(root, _TfNetwork):
        return _tf_network(root)
    state, buffers, modules, parts = {}, set(), {}, {}
    for path, module in _walk(root):
        assert path not in modules
        modules[path] = module.class_name
        if path and "." not in path and (built_from := _built_from(module)):
            parts[path] = built_from
        prefix = f"{path}." if path else ""
        for name, tensor in _own_tensors(module.state, "_parameters"):
            state[prefix + name] = tensor
        for name, tensor in _own_tensors(module.state, "_buffers"):
            state[prefix + name] = tensor
            buffers.add(prefix + name)
    return OfficialNetwork(
        class_name=root.class_name,
        init_args=tuple(plain(root.state.get("_init_args", ()))),
        init_kwargs=_built_from(root),
        state=state,
        buffers=frozenset(buffers),
        modules=modules,
        source_sha256=_digest(root.source) if isinstance(root, _Module) else "",
        parts=parts,
    )


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def _built_from(module: _Module | _Object) -> dict[str, Any]:
    """A module's arguments; of one by reference its plain attributes."""
    if isinstance(module, _Module):
        return of_type(plain(module.state.get("_init_kwargs", {})), dict, "_init_kwargs")
    own = {name: value for name, value in module.state.items() if name != "training" and not str(name).startswith("_")}
    return {_key(name, "an attribute"): value for name, value in own.items() if isinstance(value, (int, float, str))}


def _walk(root: _Module | _Object) -> Iterator[tuple[str, _Module | _Object]]:
    """(path, module) of a module and all below it, in the order of `named_modules`."""
    waiting = [("", root, 0)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return
        path, module, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise HostilePickle(f"modules lie in modules more than {MAX_DEPTH} deep, or in themselves")
        of_type(module.state, dict, "a module's state")
        yield path, module
        children = of_type(module.state.get("_modules", {}), dict, "_modules")
        for name, child in reversed(children.items()):
            if child is not None:
                own = _key(name, "a module")
                waiting.append((f"{path}.{own}" if path else own, of_type(child, (_Module, _Object), own), depth + 1))
    raise HostilePickle(f"a network has more than {MAX_MODULES} modules")


def _own_tensors(state: dict, kind: str) -> Iterator[tuple[str, Tensor]]:
    hidden = state.get("_non_persistent_buffers_set", ()) if kind == "_buffers" else ()
    for name, value in of_type(state.get(kind, {}), dict, kind).items():
        if value is not None and name not in of_type(hidden, (set, tuple), "_non_persistent_buffers_set"):
            value = value.data if isinstance(value, _Parameter) else value
            yield _key(name, "a tensor"), of_type(value, Tensor, str(name))


def _key(name: Any, what: str) -> str:
    if not isinstance(name, str) or not name or "." in name:
        raise HostilePickle(f"{name!r:.80} is no name of {what}")
    return name


def _tf_network(network: _TfNetwork) -> OfficialNetwork:
    """The variables of a TensorFlow network; those of its components as "component/variable"."""
    state: dict[str, Tensor] = {}
    modules: dict[str, str] = {}
    sources: list[str] = []

    def visit(network: _TfNetwork, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH or len(modules) > MAX_VALUES:
            raise HostilePickle(f"components lie in components more than {MAX_DEPTH} deep, or in themselves")
        own = of_type(network.state, dict, "a network")
        modules[prefix.rstrip("/")] = of_type(own.get("build_func_name", ""), str, "build_func_name")
        sources.append(of_type(own.get("build_module_src", ""), str, "build_module_src"))
        for pair in of_type(own.get("variables", []), list, "variables"):
            name, value = (*of_type(pair, tuple, "a variable"), None, None)[:2]
            value = torch.tensor(value) if isinstance(value, (int, float)) else value  # a step or level, say
            state[prefix + of_type(name, str, "a variable's name")] = of_type(value, Tensor, name)
        for name, child in of_type(own.get("components", {}), dict, "components").items():
            visit(of_type(child, _TfNetwork, str(name)), f"{prefix}{name}/", depth + 1)

    visit(network, "", 0)
    return OfficialNetwork(
        class_name=modules[""],
        init_args=(),
        init_kwargs=of_type(plain((network.state or {}).get("static_kwargs", {})), dict, "static_kwargs"),
        state=state,
        buffers=frozenset(),  # the file does not say which are trained
        modules=modules,
        source_sha256=_digest("\n".join(sources)),
    )


def plain(value: Any) -> Any:
    """The value as None, numbers, text, lists and dictionaries, which JSON can hold; HostilePickle if it has others."""
    left = MAX_VALUES

    def convert(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if depth > MAX_DEPTH or left < 0:
            raise HostilePickle("values lie in values too deep, in themselves, or are too many")
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [convert(each, depth + 1) for each in value]
        if isinstance(value, set):
            return sorted((convert(each, depth + 1) for each in value), key=str)
        if isinstance(value, dict):
            return {of_type(key, str, "a key"): convert(each, depth + 1) for key, each in value.items()}
        if isinstance(value, Tensor) and value.numel() <= 4096:
            return value.tolist()
        if isinstance(value, (_Module, _Object)):
            return f"<{value.class_name}>"
        raise HostilePickle(f"a {type(value).__name__} stands where plain values should")

    return convert(value, 0)


# ---- what known globals make -----------------------------------------------------------------------------------------


def loads(data: bytes) -> Any:
    """The value that the bytes of a pickle describe, of plain values, tensors and the stand-ins above."""
    # A tensor is made once as a storage and once from it; no file gives more, however often it names one.
    return Machine(io.BytesIO(data), _globals(Budget(2 * len(data))), other=_by_reference).run()


def _by_reference(module: str, name: str) -> Function | None:
    """What stands for a name of `_BY_REFERENCE`; None for all others."""
    known = len(module) + len(name) <= MAX_NAME and _BY_REFERENCE.fullmatch(f"{module} {name}")
    return _inert(name) if known else None


def _inert(name: str) -> Function:
    """A class or function that makes an `_Object`, whatever it is called with."""
    return Function(name, lambda *_: _Object(name), new=True)


def _storage(data: Any, *, budget: Budget) -> Tensor:
    """The 1-D tensor that torch.save wrote before it wrote archives."""
    data = of_type(data, bytes, "a storage")
    if data[:2] == b"PK":
        raise HostilePickle("a storage is an archive; releases hold plain bytes, and archives can swell")
    budget.spend(len(data))
    return of_type(read_legacy(data), Tensor, "a storage")


def _device(kind: Any, index: Any = None) -> str:
    return of_type(kind, str, "a device") + ("" if index is None else f":{of_type(index, int, 'its index')}")


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> _Parameter:
    return _Parameter(of_type(data, Tensor, "a parameter"))


def _persistent(meta: Any) -> _Module:
    meta = of_type(meta, dict, "a module")
    kind, version = meta.get("type"), meta.get("version")
    if kind != "class" or version != PERSISTENCE_VERSION:
        raise HostilePickle(f"a module has type {kind!r:.80} and version {version!r:.80}; known is 'class' 6")
    name, source = (of_type(meta.get(key), str, key) for key in ("class_name", "module_src"))
    return _Module(name, source, of_type(meta.get("state"), dict, "a module's state"))


def _globals(budget: Budget) -> dict[tuple[str, str], Any]:
    """All that a release may name, and what stands for it here."""

    def counted(make: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(make, budget=budget)

    functions = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
        ("torch._utils", "_rebuild_tensor_v2"): counted(own_tensor),
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch.storage", "_load_from_bytes"): counted(_storage),
        ("torch", "device"): _device,
    }
    classes = {
        ("dnnlib.util", "EasyDict"): counted(dictionary),
        ("dnnlib", "EasyDict"): counted(dictionary),
        ("dnnlib.tflib.network", "Network"): _TfNetwork,
        ("tfutil", "Network"): _TfNetwork,
    }
    dtypes = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
    texts = {("torch", name): f"torch.{name}" for name in dtypes}
    table = known_globals(budget) | named(functions) | named(classes, new=True) | texts

    def builtin(name: Any) -> Any:
        return table.get(("builtins", of_type(name, str, "a type's name"))) or _inert(name)

    return table | named({(f"dill.{module}", "_load_type"): builtin for module in ("_dill", "dill")})
