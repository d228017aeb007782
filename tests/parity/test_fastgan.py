"""FastGAN's generator against recorded values of Projected GAN's code, which has it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.official import apply_keys, invert
from lit_gans.papers.fastgan import OFFICIAL_KEYS, Generator, from_official_config
from tests.parity.golden import Golden, assert_close, cases, count_parameters, our_name, published, under

GENERATORS = cases("networks_fastgan.Generator", "projected-gan")
on = pytest.mark.parametrize


def loaded(golden: Golden) -> Generator:
    """With the official weights; strict both ways."""
    network = Generator(**from_official_config(golden.config))
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS, ours=network.state_dict()))
    return network.eval()


def keep_noise(network: nn.Module, maps: dict[str, Tensor]) -> None:
    """The recorded maps in the layers' place of their own."""
    for name, noise in maps.items():
        layer = our_name(f"{name}.weight", noise, OFFICIAL_KEYS).rpartition(".")[0]
        network.get_submodule(layer).noise_const.copy_(noise[0, 0])


@on("golden", GENERATORS)
def test_generator(golden: Golden) -> None:
    network, leaves = loaded(golden), golden.leaves
    keep_noise(network, under(golden.inputs, "noise/"))
    z, c = leaves["z"], leaves.get("c")
    found = {"img_eval": network(z, c)}
    found["img_train"] = network.train()(z, c, noise="const")
    found |= golden.gradients(golden.scalar(found["img_train"]), leaves, network, keys=OFFICIAL_KEYS)
    golden.compare(found | golden.buffers(network, OFFICIAL_KEYS))


@on("golden", GENERATORS)
def test_names_go_both_ways(golden: Golden) -> None:
    back = invert(loaded(golden).state_dict(), OFFICIAL_KEYS, official=golden.state, dropped={})
    assert list(back) == list(golden.state)
    for name, tensor in golden.state.items():
        assert_close(back[name], tensor, 0.0, name)


@on("case", published("param_counts.json", "fastgan"))
def test_parameter_counts(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    kind, resolution, *cond = name.split("_")
    classes = int(cond[0].removeprefix("cond")) if cond else 0
    with torch.device("meta"):
        network = Generator(resolution=int(resolution), num_classes=classes, lite=kind.endswith("lite"))
    assert count_parameters(network) == expected["generator"]
