"""Files as the official code writes them: the layout of its pickles, with classes of the tests' own."""

import pickle
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor, nn

from lit_gans.nn.resample import fir_filter
from lit_gans.papers import stylegan3, stylegan_xl

SOURCE = "class Generator: pass\n"


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("the reader called a global of the file")


class EasyDict(dict):
    """As `dnnlib.EasyDict` is to pickle."""


class Persistent(nn.Module):
    """Pickled as the official decorator does: a call with the source and the attributes."""

    source = SOURCE
    class_name = property(lambda self: type(self).__name__)

    def __reduce__(self) -> tuple:
        state = self.__dict__
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self.class_name}
        return _reconstruct_persistent_obj, ({**meta, "state": state},)


class Named(Persistent):
    """A module that says it is of another class."""

    def __init__(self, class_name: str, arguments: dict) -> None:
        super().__init__()
        self.named, self._init_args, self._init_kwargs = class_name, (), EasyDict(arguments)

    class_name = property(lambda self: self.named)


def tree(
    class_name: str, state: dict, *, buffers: Callable[[str], bool], arguments: dict, parts: dict | None = None
) -> Named:
    """Modules in modules with the tensors of `state`, whose names are dotted paths; `parts`: arguments of some."""
    root = Named(class_name, arguments)
    for name, tensor in state.items():
        module = root
        for part in name.split(".")[:-1]:
            if part not in module._modules:
                module.add_module(part, Named("Layer", (parts or {}).get(part, {})))
            module = module._modules[part]
        own = name.rpartition(".")[2]
        if buffers(own):
            module.register_buffer(own, tensor)
        else:
            module.register_parameter(own, nn.Parameter(tensor))
    return root


class Network:
    """A TensorFlow network's pickle: its variables by name."""

    def __init__(self, state: dict) -> None:
        self.state = state

    def __getstate__(self) -> dict:
        return self.state


@contextmanager
def modules_of_pickles(*others: tuple[str, type]) -> Iterator[None]:
    """With the modules that the official pickles name, and `others`, so that pickle can write them."""
    with pytest.MonkeyPatch.context() as patch:
        for module, entry in (
            ("torch_utils.persistence", _reconstruct_persistent_obj),
            ("dnnlib.util", EasyDict),
            ("dnnlib.tflib.network", Network),
            *others,
        ):
            parts = module.split(".")
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                patch.setitem(sys.modules, name, sys.modules.get(name) or types.ModuleType(name))
            patch.setattr(sys.modules[module], entry.__name__, entry, raising=False)
            patch.setattr(entry, "__module__", module)
        yield


@pytest.fixture
def official_modules() -> Iterator[None]:
    with modules_of_pickles():
        yield


def stylegan2_state(ours: dict[str, Tensor], *, resample_filter: Sequence[float] = (1, 3, 3, 1)) -> dict[str, Tensor]:
    """Our tensors of a StyleGAN2 network under the names of stylegan2-ada-pytorch, with the filters that it keeps.

    Layers that do not resample keep the default filter in the official networks, and never use it.
    """
    official, names = {}, {r"\blayers\.(\d+)": r"fc\1", r"\bblocks\.(\d+)": r"b\1", r"\bepilogue\b": "b4"}
    for name, tensor in ours.items():
        for pattern, theirs in (names | {r"\b(to|from)_rgb": r"\1rgb"}).items():
            name = re.sub(pattern, theirs, name)
        official[name] = tensor
    layers = [m[1] for name in official if (m := re.fullmatch(r"(.+\.(?:conv[01]?|skip|fromrgb))\.weight", name))]
    blocks = [layer.removesuffix(".conv1") for layer in layers if layer.endswith(".conv1")]
    filters = {f"{block}.resample_filter": fir_filter(resample_filter) for block in blocks}
    for layer in layers:
        resamples = layer.endswith((".skip", ".conv0" if layer.startswith("synthesis.") else ".conv1"))
        filters[f"{layer}.resample_filter"] = fir_filter(resample_filter if resamples else (1, 3, 3, 1))
    return official | filters


def stylegan3_state(generator: stylegan3.Generator | stylegan_xl.Generator) -> dict[str, Tensor]:
    """Our tensors of a StyleGAN3 generator under the names of NVlabs/stylegan3, with the filters that it keeps.

    StyleGAN-XL's have the same.
    """
    state, network = dict(generator.state_dict()), generator.synthesis
    for i, layer in network.layers.named_children():
        filters = {name: f for name, f in layer.named_buffers() if name.endswith("_filter")}
        state |= {f"synthesis.layers.{i}.{name}": f for name, f in filters.items()}
    numbers = [name for name, _ in network.layers.named_children()]
    named = {i: f"L{i}_{s.size}_{s.channels}" for i, s in zip(numbers, network.signals, strict=True)}
    state = {re.sub(r"^mapping\.layers\.(\d+)", r"mapping.fc\1", name): tensor for name, tensor in state.items()}
    return {
        re.sub(r"^synthesis\.layers\.(\d+)", lambda m: f"synthesis.{named[m[1]]}", name): tensor
        for name, tensor in state.items()
    }


def written(path: Path, contents: object, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(contents, protocol=protocol))
    return path
