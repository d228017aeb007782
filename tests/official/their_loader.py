"""A process of the official code's, which knows nothing of lit_gans: written from the description of its pickles.

`python their_loader.py FOLDER FILE...` opens each file with `pickle.load` alone, and does to its networks what the
official code and the tools built on it do. It saves images and logits by name, in FOLDER.
"""

import copy
import io
import pickle
import sys
import types
import uuid
from pathlib import Path

import torch


class EasyDict(dict):
    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value


EasyDict.__module__ = "dnnlib.util"
persistence = types.ModuleType("torch_utils.persistence")
modules, sources, persistent = {}, {}, set()


def reconstruct(meta):
    meta = EasyDict(meta)
    assert meta.type == "class" and meta.version == 6
    if meta.module_src not in modules:
        module = types.ModuleType(f"_imported_module_{uuid.uuid4().hex}")
        modules[meta.module_src] = sys.modules[module.__name__] = module
        sources[module.__name__] = meta.module_src
        exec(meta.module_src, module.__dict__)
    cls = persistence.persistent_class(modules[meta.module_src].__dict__[meta.class_name])
    made = cls.__new__(cls)
    made.__setstate__(EasyDict(meta.state))
    return made


def persistent_class(cls):
    """The class with what the official decorator adds: arguments, and pickling with the source."""
    if cls in persistent:
        return cls
    source = sources[cls.__module__]

    class Decorated(cls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._init_args, self._init_kwargs = copy.deepcopy(args), copy.deepcopy(kwargs)
            pickle.dumps(vars(self))

        init_args = property(lambda self: copy.deepcopy(self._init_args))
        init_kwargs = property(lambda self: EasyDict(copy.deepcopy(self._init_kwargs)))

        def __reduce__(self):
            meta = {"type": "class", "version": 6, "module_src": source, "class_name": cls.__name__}
            return reconstruct, ({**meta, "state": vars(self)},)

    Decorated.__name__ = cls.__name__
    persistent.add(Decorated)
    return Decorated


reconstruct.__module__, reconstruct.__qualname__ = persistence.__name__, "_reconstruct_persistent_obj"
reconstruct.__name__ = "_reconstruct_persistent_obj"
persistence._reconstruct_persistent_obj, persistence.persistent_class = reconstruct, persistent_class
dnnlib, util, torch_utils = (types.ModuleType(name) for name in ("dnnlib", "dnnlib.util", "torch_utils"))
dnnlib.EasyDict = util.EasyDict = EasyDict
dnnlib.util, torch_utils.persistence = util, persistence
sys.modules |= {module.__name__: module for module in (dnnlib, util, torch_utils, persistence)}


def named_tensors(module):
    return dict([*module.named_parameters(), *module.named_buffers()])


def copied(source, target):
    """As `misc.copy_params_and_buffers(require_all=True)`."""
    found = named_tensors(source)
    with torch.no_grad():
        for name, tensor in named_tensors(target).items():
            tensor.copy_(found[name])
    return target


def run(G, z, c):
    ws = G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=3)
    torch.manual_seed(0)
    return {
        "const": G(z, c, noise_mode="const"),
        "psi": G(z, c, truncation_psi=0.5, noise_mode="const", force_fp32=True),
        "none": G.synthesis(ws, noise_mode="none", update_emas=False),
        "random": G(z, c, truncation_psi=0.7, truncation_cutoff=3, update_emas=False),
    }


def main(path, output):
    with open(path, "rb") as file:
        data = pickle.load(file)
    assert set(data) >= {"G", "D", "G_ema", "training_set_kwargs", "augment_pipe"}
    assert all(isinstance(data[name], torch.nn.Module) for name in ("G", "D", "G_ema"))
    G, D = copy.deepcopy(data["G_ema"]).eval().requires_grad_(False).cpu(), data["D"]
    torch.manual_seed(1)
    z = torch.randn(4, G.z_dim)
    c = torch.eye(G.c_dim)[torch.arange(4) % G.c_dim] if G.c_dim else None
    out = {"z": z, **({} if c is None else {"c": c})}
    out |= {f"G_ema/{name}": image for name, image in run(G, z, c).items()}
    out["G/const"] = data["G"](z, c, noise_mode="const")
    out["D/logits"] = D(out["G_ema/const"], c)
    assert out["G_ema/const"].shape == (4, G.img_channels, G.img_resolution, G.img_resolution)
    assert G.mapping.num_ws == G.num_ws == G.synthesis.num_ws and G.mapping.w_avg.shape == (G.w_dim,)
    assert not hasattr(G.synthesis, "input") and G.mapping.fc0.weight.dim() == 2
    last = getattr(G.synthesis, f"b{G.synthesis.block_resolutions[-1]}")
    assert last.conv1.noise_const.shape == (G.img_resolution,) * 2 and last.torgb.weight_gain > 0
    assert f"{last.conv0.affine.init_kwargs.bias_init:g}" == "1"

    # As `--resume` and `force_fp16` do it: built again from the arguments, with attributes of nested ones set.
    kwargs = G.init_kwargs
    kwargs.synthesis_kwargs.conv_clamp = 256
    again = copied(G, type(G)(*G.init_args, **kwargs).eval().requires_grad_(False))
    torch.testing.assert_close(again(z, c, noise_mode="const"), out["G_ema/const"])
    copied(D, type(D)(**D.init_kwargs))
    again.register_forward_hook(lambda *_: None).remove()

    # Saved as a snapshot is, after training in this process, and opened again where the source has not run yet.
    stream = io.BytesIO()
    pickle.dump(again, stream)
    modules.clear()
    stream.seek(0)
    torch.testing.assert_close(pickle.load(stream)(z, c, noise_mode="const"), out["G_ema/const"])

    ws = G.mapping(z, c).requires_grad_(True)
    (grad,) = torch.autograd.grad(G.synthesis(ws, noise_mode="const").square().mean(), ws)
    assert grad.isfinite().all() and grad.abs().max() > 0
    before = again.mapping.w_avg.clone()
    again.train().mapping(z, c, update_emas=False)
    assert torch.equal(before, again.mapping.w_avg)
    again.mapping(z, c)
    assert not torch.equal(before, again.mapping.w_avg)
    assert not any(name.startswith("lit_gans") for name in sys.modules)
    torch.save({name: tensor.detach() for name, tensor in out.items()}, output)


if __name__ == "__main__":
    for path in map(Path, sys.argv[2:]):
        main(path, Path(sys.argv[1]) / f"{path.name}.pt")
