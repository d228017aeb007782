"""Network pickles: what the official layout holds is read whole, and nothing that a file says is run."""

import io
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lit_gans.official import HostilePickle, OfficialNetwork, fingerprint, read_official, write_official
from lit_gans.official.writer import storage_bytes

from . import hostile
from .layout import EasyDict, Network, Persistent, official_modules, written

__all__ = ["official_modules"]


class Layer(Persistent):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, 3))
        self.register_buffer("resample_filter", torch.rand(4, 4))
        self.register_buffer("scratch", torch.zeros(7), persistent=False)
        self.bias = None
        self._init_args, self._init_kwargs = (features,), EasyDict()


class Generator(Persistent):
    def __init__(self, **arguments: object) -> None:
        super().__init__()
        self.b4 = Layer(5)
        self.mapping = Layer(2)
        self.register_buffer("w_avg", torch.randn(6).half())
        self.register_buffer("steps", torch.tensor(12))
        self._init_args, self._init_kwargs = (), EasyDict(arguments)


def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(z_dim=4, mapping_kwargs=EasyDict(num_layers=2), conv_clamp=None, half=torch.half, lr=np.float32(2))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_the_official_code_writes(tmp_path: Path, official_modules: None, protocol: int) -> None:
    g = generator()
    contents = {"G_ema": g, "training_set_kwargs": EasyDict(path="ffhq.zip", sizes=(1, 2)), "augment_pipe": None}
    file = read_official(written(tmp_path / "g.pkl", contents, protocol))
    network = file.networks["G_ema"]
    assert file.extra == {"training_set_kwargs": {"path": "ffhq.zip", "sizes": [1, 2]}, "augment_pipe": None}
    assert network.init_kwargs == {
        "z_dim": 4, "mapping_kwargs": {"num_layers": 2}, "conv_clamp": None, "half": "torch.float16", "lr": 2.0,
    }  # fmt: skip
    expected = g.state_dict()
    assert list(network.state) == list(expected)
    for name, value in expected.items():
        assert network.state[name].dtype == value.dtype and torch.equal(network.state[name], value), name
    assert network.buffers == {"w_avg", "steps", "b4.resample_filter", "mapping.resample_filter"}
    assert network.modules == {"": "Generator", "b4": "Layer", "mapping": "Layer"}
    assert network.num_parameters == 21 == sum(p.numel() for p in g.parameters())
    assert network.fingerprint == fingerprint(expected) and len(network.source_sha256) == 64


def test_tensors_are_read_as_they_lie(tmp_path: Path, official_modules: None) -> None:
    g = generator()
    whole = torch.randn(6, 8)
    g.w_avg = whole.t()[1:5, ::2]
    g.steps = torch.empty(0, 3)
    network = read_official(written(tmp_path / "g.pkl", {"G": g})).networks["G"]
    assert torch.equal(network.state["w_avg"], g.w_avg) and network.state["w_avg"].is_contiguous()
    assert network.state["steps"].shape == (0, 3)


@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_tensorflow_networks(tmp_path: Path, official_modules: None, protocol: int) -> None:
    rng = np.random.default_rng(0)
    weight, wide = rng.normal(size=(3, 2)).astype(np.float32), np.asfortranarray(rng.normal(size=(2, 3)).astype(">f8"))
    state = {"version": 4, "name": "G", "static_kwargs": EasyDict(resolution=8), "build_module_src": "import os"}
    part = Network({**state, "components": {}, "build_func_name": "G_part", "variables": [("b", wide), ("c", weight)]})
    variables = [("a", weight), ("lod", np.float32(1.5))]
    whole = Network({**state, "components": {"part": part}, "build_func_name": "G_main", "variables": variables})
    file = read_official(written(tmp_path / "tf.pkl", (whole, part, whole), protocol))
    assert list(file.networks) == ["G", "D", "G_ema"]
    network = file.networks["G_ema"]
    assert network.class_name == "G_main" and network.init_kwargs == {"resolution": 8}
    assert network.modules == {"": "G_main", "part": "G_part"}
    found = {name: tensor.numpy() for name, tensor in network.state.items()}
    assert list(found) == ["a", "lod", "part/b", "part/c"] and found["lod"] == 1.5
    assert np.array_equal(found["a"], weight) and np.array_equal(found["part/b"], wide)
    assert np.array_equal(found["part/c"], weight)


def test_writes_what_it_reads(tmp_path: Path, official_modules: None) -> None:
    first = read_official(written(tmp_path / "g.pkl", {"G": generator(), "augment_pipe": None}))
    write_official(tmp_path / "again.pkl", first.networks, extra=first.extra)
    again = read_official(tmp_path / "again.pkl")
    network, expected = again.networks["G"], first.networks["G"]
    assert again.extra == first.extra == {"augment_pipe": None}
    assert network.fingerprint == expected.fingerprint and network.modules == expected.modules
    assert network.init_kwargs == expected.init_kwargs and network.buffers == expected.buffers
    assert network.source_sha256 != expected.source_sha256  # the official source is not ours to write


def test_storages_are_what_torch_reads() -> None:
    for tensor in (torch.randn(2, 3), torch.arange(5), torch.rand(4).half(), torch.ones(2, dtype=torch.bool)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's typed storages are deprecated
            stored = torch.load(io.BytesIO(storage_bytes(tensor)), weights_only=True)
            assert list(stored) == tensor.flatten().tolist() and stored.dtype == tensor.dtype


def test_shared_arrays_types_and_texts_are_kept_apart(tmp_path: Path, official_modules: None) -> None:
    value = np.arange(3, dtype=np.float32)
    network = Network({"version": 1, "name": "G", "variables": [("a", value), ("b", value), ("c", value[:2] + 1)]})
    state = read_official(written(tmp_path / "tf.pkl", network)).networks["network"].state
    assert torch.equal(state["a"], state["b"]) and state["c"].tolist() == [1, 2]


# ---- hostile files ---------------------------------------------------------------------------------------------------

NAMES = list(hostile.attacks(Path("sentinel")))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_files_are_refused_by_name(name: str, tmp_path: Path) -> None:
    sentinel, file = tmp_path / "sentinel", tmp_path / "g.pkl"
    data, message = hostile.attacks(sentinel)[name]
    file.write_bytes(data)
    with pytest.raises(HostilePickle) as error:
        read_official(file)
    assert message in str(error.value) and str(file) in str(error.value)
    assert not sentinel.exists()


@pytest.mark.parametrize("name", ["os.system", "posix.system", "builtins.exec", "builtins.open", "INST"])
def test_the_attacks_are_real(name: str, tmp_path: Path) -> None:
    """What these files do to a reader that trusts them."""
    sentinel = tmp_path / "sentinel"
    pickle.loads(hostile.attacks(sentinel)[name][0])
    assert sentinel.exists()


def test_source_in_a_file_is_not_run(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    source = f"open({str(sentinel)!r}, 'w').close()"
    (tmp_path / "g.pkl").write_bytes(hostile.release(hostile.module(b"}", source=source)))
    network = read_official(tmp_path / "g.pkl").networks["G_ema"]
    assert network.class_name == "Generator" and not sentinel.exists()


def test_what_dill_writes_of_functions_is_read_and_not_run(tmp_path: Path) -> None:
    """A method bound to the module itself, a hook with a closure, and a set as dill writes it before protocol 4."""
    sentinel = tmp_path / "sentinel"
    text, call = hostile.text, hostile.call
    types = {name: call("dill._dill", "_load_type", text(name)) for name in ("MethodType", "set", "CodeType")}
    code = call("dill._dill", "_create_code", b"K\x01", hostile.binary(b"d\x00S\x00"), text(str(sentinel)))
    cell = call("dill._dill", "_create_cell", text("1"))
    hook = call(
        "dill._dill", "_create_function", code, b"cfeature_networks.vit\n__dict__\n", text("hook"), b"N", cell + b"\x85"
    )
    state = {
        "_parameters": b"}", "_modules": b"}", "training": b"\x89",
        "_buffers": b"}(" + b"".join(text(n) + hostile.tensor(hostile.storage(storage_bytes(torch.ones(4))), 4)
                                    for n in ("kept", "scratch")) + b"u",
        "_non_persistent_buffers_set": types["set"] + b"(](" + text("scratch") + b"etR",
        "_forward_hooks": call("collections", "OrderedDict") + b"K\x07" + hook + b"s",
        "forward_flex": types["MethodType"] + b"cfeature_networks.vit\nforward_flex\nh\x01\x86R",
        "code": types["CodeType"] + b"(" + code + b"tR", "patch_size": b"K\x10",
    }  # fmt: skip
    entries = b"".join(text(name) + value for name, value in state.items())
    vit = b"ctimm.models.vision_transformer\nVisionTransformer\n)\x81q\x01}(" + entries + b"ub"
    (tmp_path / "g.pkl").write_bytes(hostile.release(vit))
    network = read_official(tmp_path / "g.pkl").networks["G_ema"]
    assert network.class_name == "VisionTransformer" and network.init_kwargs == {"patch_size": 16}
    assert list(network.state) == ["kept"] and network.state["kept"].equal(torch.ones(4))
    assert not sentinel.exists()


def test_modules_in_themselves_are_refused(tmp_path: Path) -> None:
    # The state is kept as value 1, and its own module put into it afterwards.
    state = b"}q\x01" + hostile.text("_modules") + b"}q\x02s"
    looped = hostile.module(state) + b"q\x03" + b"0h\x02" + hostile.text("m") + b"h\x03s0h\x03"
    (tmp_path / "g.pkl").write_bytes(hostile.release(looped))
    with pytest.raises(HostilePickle, match="or in themselves"):
        read_official(tmp_path / "g.pkl")


def test_sizes_are_limited(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_official(tmp_path / "g.pkl")
    (tmp_path / "g.pkl").write_bytes(bytes(100))
    with pytest.raises(HostilePickle, match="100 bytes, more than the 99"):
        read_official(tmp_path / "g.pkl", max_bytes=99)


def test_only_plain_values_are_written(tmp_path: Path) -> None:
    network = OfficialNetwork("Generator", (), {"a": OrderedDict}, {}, frozenset(), {"": "Generator"}, "")
    with pytest.raises(ValueError, match="a type cannot be written"):
        write_official(tmp_path / "g.pkl", {"G": network})
    assert not (tmp_path / "g.pkl").exists()
