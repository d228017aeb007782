"""Files of BigGAN and BigGAN-deep."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.papers.biggan import DeepDiscriminator, DeepGenerator, Discriminator, Generator
from tests.papers.test_biggan import official_state
from tests.parity.golden import under
from tests.parity.variants import Recorder, gradient

Config = dict[str, Any]
SOURCE = "ajbrock/BigGAN-PyTorch 0000000000000000000000000000000000000000"


def write_network(r: Recorder, stem: str, official_class: str, network: nn.Module, config: Config) -> None:
    """Both modes from one state, gradients and buffers of the one in training."""
    r.source, network = SOURCE, r.filled(network)
    makes = "Generator" in official_class
    x = r.normal(3, network.z_dim) if makes else r.normal(3, 3, config["resolution"], config["resolution"])
    y, name = torch.tensor([0, 2, 1]), "img" if makes else "logit"
    training, evaluating = copy.deepcopy(network).train(), copy.deepcopy(network).eval()
    out = training(x, y) if makes else training(x, y)[:, None]
    weight = torch.randn(out.shape, generator=r.generator)
    scalar = (out * weight).sum()
    before, after = official_state(network), official_state(training)
    outputs: dict[str, Tensor] = {f"train/{name}": out, "scalar": scalar}
    outputs[f"grad/{'z' if makes else 'x'}"] = gradient(scalar, x)
    outputs[f"eval/{name}"] = evaluating(x, y) if makes else evaluating(x, y)[:, None]
    outputs |= {f"train_state/{n}": t for n, t in after.items() if not torch.equal(t, before[n])}
    assert under(outputs, "train_state/")
    inputs = {"z" if makes else "x": x, "y": y, f"w_{name}": weight}
    call = {"modes": ["train", "eval"]}
    r.write(stem, official_class, config, inputs=inputs, state=before, outputs=outputs, call=call)


def generators(r: Recorder) -> None:
    """Tables of classes in each norm and weights that are not normalised; other norms; several singular vectors."""
    small = {"num_classes": 3, "width": 2, "resolution": 64, "attention": [], "bn_eps": 1e-4, "sn_eps": 1e-8}
    config = {"G_ch": 2, "resolution": 64, "G_attn": "0", "n_classes": 3, "BN_eps": 1e-4, "SN_eps": 1e-8}
    plain = Generator(**small, z_dim=7, shared=False, hierarchical=False, weight_norm="none")
    told = {"dim_z": 7, "G_shared": False, "hier": False, "G_param": "B"}
    write_network(r, "biggan-tables", "BigGAN.Generator", plain, config | told)
    unlike = Generator(**small, z_dim=7, shared_dim=0, hierarchical=False, norm="none", sn_vectors=2, sn_steps=2)
    told = {"dim_z": 7, "hier": False, "norm_style": "nonorm", "num_G_SVs": 2, "num_G_SV_itrs": 2}
    write_network(r, "biggan-nonorm", "BigGAN.Generator", unlike, config | told)
    instance = Generator(**small, z_dim=11, shared_dim=5, norm="instance")
    told = {"dim_z": 11, "shared_dim": 5, "hier": True, "norm_style": "in"}
    write_network(r, "biggan-instance", "BigGAN.Generator", instance, config | told)
    deep = DeepGenerator(**small | {"attention": [32]}, z_dim=5, shared_dim=4, depth=2)
    told = {"dim_z": 5, "shared_dim": 4, "G_depth": 2, "hier": True, "G_attn": "32"}
    write_network(r, "biggan-deep-64", "BigGANdeep.Generator", deep, config | told)


def discriminators(r: Recorder) -> None:
    """A thin one with attention at two sides, and a deep one of another depth."""
    thin = Discriminator(resolution=64, num_classes=3, width=4, wide=False, attention=[16, 8], sn_eps=1e-8)
    config = {"D_ch": 2, "resolution": 64, "n_classes": 3, "SN_eps": 1e-8}
    told = config | {"D_ch": 4, "D_wide": False, "D_attn": "8_16"}
    write_network(r, "biggan-thin", "BigGAN.Discriminator", thin, told)
    deep = DeepDiscriminator(resolution=64, num_classes=3, width=2, depth=3, attention=[8], sn_eps=1e-8)
    told = config | {"D_depth": 3, "D_attn": "8", "D_wide": True}
    write_network(r, "biggan-deep-thrice", "BigGANdeep.Discriminator", deep, told)


FAMILIES = [generators, discriminators]
