"""StyleGAN's networks against recorded values of genforce's port of the official TensorFlow code."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lit_gans.adversarial.progressive import enlarged, stage_at
from lit_gans.papers.stylegan1 import OFFICIAL_KEYS, BlurredDownConv, Discriminator, Generator, StyledUpConv
from tests.parity import genforce
from tests.parity.genforce import SOURCE, check_at_every_lod, check_names, label, with_groups
from tests.parity.golden import Golden, cases, count_parameters, published, translated

# Constructor arguments of the port -> ours; None: accepted at the value of FIXED alone.
ARGUMENTS = {
    "resolution": "resolution",
    "z_space_dim": "z_dim",
    "w_space_dim": "w_dim",
    "image_channels": "channels",
    "label_size": "num_classes",
    "mapping_layers": "num_layers",
    "mapping_fmaps": "hidden_dim",
    "mapping_lr_mul": "lr_multiplier",
    "fmaps_base": "channel_base",
    "fmaps_max": "channel_max",
    "fused_scale": "fused_scale",
    "minibatch_std_group_size": "mbstd_group_size",
    "minibatch_std_channels": "mbstd_channels",
    "repeat_w": None,
    "final_tanh": None,
    "const_input": None,
    "use_wscale": None,
    "noise_type": None,
}
FIXED = {"repeat_w": True, "final_tanh": False, "const_input": True, "use_wscale": True, "noise_type": "spatial"}
CALL = {"trunc_psi": "psi", "trunc_layers": "cutoff", "randomize_noise": None}
CLASSES = {"StyleGANGenerator": Generator, "StyleGANDiscriminator": Discriminator}


def our_class(golden: Golden) -> type[nn.Module]:
    return CLASSES[golden.official_class.rsplit(".", 1)[-1]]


def our_arguments(golden: Golden) -> dict[str, Any]:
    default = {"mapping_fmaps": 512} if our_class(golden) is Generator else {}  # of the port
    return with_groups(translated(default | golden.config, ARGUMENTS, FIXED))


def truncation(golden: Golden) -> dict[str, Any]:
    """The port truncates, and never does the opposite; without a number of layers it does nothing."""
    call = translated(golden.call.get("kwargs", {}), CALL, {"randomize_noise": False})
    return {"psi": min(call.get("psi") or 1.0, 1.0), "cutoff": call.get("cutoff") or 0}


def loaded(golden: Golden) -> nn.Module:
    return genforce.loaded(our_class(golden)(**our_arguments(golden)), golden, OFFICIAL_KEYS)


@pytest.mark.parametrize("golden", cases("StyleGANGenerator", SOURCE))
def test_generator(golden: Golden) -> None:
    network, leaves = loaded(golden), golden.leaves
    z, labels = leaves["z"], label(leaves)
    ws = network.mapping(z, labels)
    assert torch.equal(ws, ws[:, :1].expand_as(ws))

    def image_at(lod: float) -> Tensor:
        network.set_progress(*stage_at(lod, network.synthesis.resolution))
        return enlarged(network(z, labels, noise="const", **truncation(golden)), network.synthesis.resolution)

    also = {"w": ws[:, 0], "wp": network.mapping(z, labels, **truncation(golden))}
    check_at_every_lod(golden, network, image_at, kind="image", leaves=leaves, keys=OFFICIAL_KEYS, also=also)


@pytest.mark.parametrize("golden", cases("StyleGANDiscriminator", SOURCE))
def test_discriminator(golden: Golden) -> None:
    network, leaves = loaded(golden), golden.leaves

    def logits_at(lod: float) -> Tensor:
        network.set_progress(*stage_at(lod, network.resolution))
        images = avg_pool2d(leaves["image"], network.resolution // network.stage)
        return network(images, label(leaves))[:, None]

    check_at_every_lod(golden, network, logits_at, kind="logits", leaves=leaves, keys=OFFICIAL_KEYS)


@pytest.mark.parametrize("golden", [p for name in CLASSES for p in cases(name, SOURCE)])
def test_names_go_both_ways(golden: Golden) -> None:
    network = loaded(golden)
    for name, kernel in check_names(golden, network, OFFICIAL_KEYS).items():
        assert name.endswith("blur.kernel")  # the constant that our constructors make
        blur = next(layer.blur for layer in network.modules() if isinstance(layer, (StyledUpConv, BlurredDownConv)))
        assert torch.equal(kernel, blur.expand_as(kernel))


@pytest.mark.parametrize("case", published("param_counts.json", "stylegan1"))
def test_parameter_counts(case: tuple[str, dict[str, int]]) -> None:
    name, expected = case
    resolution = int(name.rsplit("_", 1)[-1])
    with torch.device("meta"):
        generator, discriminator = Generator(resolution=resolution), Discriminator(resolution=resolution)
    parts = {"generator": generator, "mapping": generator.mapping, "synthesis": generator.synthesis}
    found = {k: count_parameters(m) for k, m in (parts | {"discriminator": discriminator}).items()}
    assert found == {k: v for k, v in expected.items() if k in found}
