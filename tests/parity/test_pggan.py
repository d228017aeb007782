"""PGGAN's networks against recorded values of genforce's port of the official TensorFlow code."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lit_gans.adversarial.progressive import enlarged, stage_at
from lit_gans.papers.pggan import OFFICIAL_KEYS, Discriminator, Generator
from tests.parity import genforce
from tests.parity.genforce import SOURCE, check_at_every_lod, check_names, label, with_groups
from tests.parity.golden import Golden, cases, count_parameters, published, translated

# Constructor arguments of the port -> ours; None: accepted at the value of FIXED alone.
ARGUMENTS = {
    "resolution": "resolution",
    "z_space_dim": "z_dim",
    "image_channels": "channels",
    "label_size": "num_classes",
    "fmaps_base": "channel_base",
    "fmaps_max": "channel_max",
    "fused_scale": "fused_scale",
    "minibatch_std_group_size": "mbstd_group_size",
    "final_tanh": None,
    "use_wscale": None,
}
FIXED = {"final_tanh": False, "use_wscale": True}
CLASSES = {"PGGANGenerator": Generator, "PGGANDiscriminator": Discriminator}


def our_class(golden: Golden) -> type[nn.Module]:
    return CLASSES[golden.official_class.rsplit(".", 1)[-1]]


def our_arguments(golden: Golden) -> dict[str, Any]:
    default = {"minibatch_std_group_size": 16} if our_class(golden) is Discriminator else {}  # of the port
    ours = with_groups(translated(default | golden.config, ARGUMENTS, FIXED))
    return ours | {"fused_scale": bool(ours.get("fused_scale", False))}  # the port takes any text for true


def loaded(golden: Golden) -> nn.Module:
    return genforce.loaded(our_class(golden)(**our_arguments(golden)), golden, OFFICIAL_KEYS)


@pytest.mark.parametrize("golden", cases("PGGANGenerator", SOURCE))
def test_generator(golden: Golden) -> None:
    network, leaves = loaded(golden), golden.leaves

    def image_at(lod: float) -> Tensor:
        network.set_progress(*stage_at(lod, network.resolution))
        return enlarged(network(leaves["z"], label(leaves)), network.resolution)

    check_at_every_lod(golden, network, image_at, kind="image", leaves=leaves, keys=OFFICIAL_KEYS)


@pytest.mark.parametrize("golden", cases("PGGANDiscriminator", SOURCE))
def test_discriminator(golden: Golden) -> None:
    network, leaves = loaded(golden), golden.leaves

    def outputs_at(lod: float) -> Tensor:
        network.set_progress(*stage_at(lod, network.resolution))
        return network.analysed(avg_pool2d(leaves["image"], network.resolution // network.stage))

    check_at_every_lod(golden, network, outputs_at, kind="logits", leaves=leaves, keys=OFFICIAL_KEYS)


@pytest.mark.parametrize("golden", [p for name in CLASSES for p in cases(name, SOURCE)])
def test_names_go_both_ways(golden: Golden) -> None:
    assert not check_names(golden, loaded(golden), OFFICIAL_KEYS)


@pytest.mark.parametrize("case", published("param_counts.json", "pggan"))
def test_parameter_counts(case: tuple[str, dict[str, int]]) -> None:
    name, expected = case
    with torch.device("meta"):
        networks = {"generator": Generator, "discriminator": Discriminator}
        built = {k: cls(resolution=int(name.rsplit("_", 1)[-1])) for k, cls in networks.items()}
    assert all(count_parameters(network) == expected[k] for k, network in built.items())
