"""PGGAN's networks against recorded values of genforce's port of the official TensorFlow code."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lit_gans.adversarial.progressive import enlarged, stage_at
from lit_gans.official import apply_keys, dropped_keys, invert
from lit_gans.papers.pggan import OFFICIAL_KEYS, Discriminator, Generator
from tests.parity.genforce import SOURCE, check_gradients, published, translated
from tests.parity.golden import Golden, assert_close, cases

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


def ours(config: dict[str, Any]) -> dict[str, Any]:
    found = translated(config, ARGUMENTS, FIXED)
    return found | {"fused_scale": bool(found.get("fused_scale", False))}  # the port takes any text for true


def loaded(cls: type[nn.Module], golden: Golden) -> nn.Module:
    """The network with the recorded weights; strict both ways."""
    default = {"minibatch_std_group_size": 16} if cls is Discriminator else {}  # of the port
    network = cls(**ours(default | golden.config))
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS, ours=network.state_dict()))
    return network.eval()


@pytest.mark.parametrize("golden", cases("PGGANGenerator", SOURCE))
def test_generator(golden: Golden) -> None:
    network, call = loaded(Generator, golden), golden.call
    z, labels = golden.inputs["z"].requires_grad_(), golden.inputs.get("label")

    def image_at(lod: float) -> Tensor:
        network.set_progress(*stage_at(lod, network.resolution))
        return enlarged(network(z, labels), network.resolution)

    for lod in call["lods"]:
        expected = golden.outputs[f"image/lod{lod}"]
        assert_close(image_at(lod), expected, golden.tolerance["forward"], f"lod {lod}")
    check_gradients(golden, network, image_at(call["grad_lod"]), {"z": z}, keys=OFFICIAL_KEYS)


@pytest.mark.parametrize("golden", cases("PGGANDiscriminator", SOURCE))
def test_discriminator(golden: Golden) -> None:
    network, call = loaded(Discriminator, golden), golden.call
    image = golden.inputs["image"].requires_grad_()

    def outputs_at(lod: float) -> Tensor:
        network.set_progress(*stage_at(lod, network.resolution))
        return network.analysed(avg_pool2d(image, network.resolution // network.stage))

    for lod in call["lods"]:
        expected = golden.outputs[f"logits/lod{lod}"]
        assert_close(outputs_at(lod), expected, golden.tolerance["forward"], f"lod {lod}")
    check_gradients(golden, network, outputs_at(call["grad_lod"]), {"image": image}, keys=OFFICIAL_KEYS)


CLASSES = {"PGGANGenerator": Generator, "PGGANDiscriminator": Discriminator}


@pytest.mark.parametrize("golden", [p for name in CLASSES for p in cases(name, SOURCE)])
def test_names_go_both_ways(golden: Golden) -> None:
    network = loaded(CLASSES[golden.official_class.rsplit(".", 1)[-1]], golden)
    dropped = dropped_keys(golden.state, OFFICIAL_KEYS)
    back = invert(network.state_dict(), OFFICIAL_KEYS, official=golden.state, dropped=dropped)
    assert back.keys() == golden.state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())


@pytest.mark.parametrize("case", published("pggan"))
def test_parameter_counts(case: tuple[str, dict[str, int]]) -> None:
    name, expected = case
    with torch.device("meta"):
        networks = {"generator": Generator, "discriminator": Discriminator}
        built = {k: cls(resolution=int(name.rsplit("_", 1)[-1])) for k, cls in networks.items()}
    assert all(sum(p.numel() for p in network.parameters()) == expected[k] for k, network in built.items())
