"""pix2pixHD's networks, losses, edges and schedule against recorded values of the official code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial import learning_rate_factor
from lit_gans.official import COUNTERPARTS, apply_keys, invert
from lit_gans.papers import pix2pixhd
from lit_gans.papers.pix2pixhd import OFFICIAL_KEYS, Encoder, MultiscaleDiscriminator
from lit_gans.papers.pix2pixhd.instances import edges
from lit_gans.papers.pix2pixhd.losses import feature_matching, least_squares
from tests.parity.golden import FOLDER, Golden, absent, assert_close, cases

SOURCE = "NVIDIA/pix2pixHD"
TOLERANCE = 3e-5  # of the largest value; these files state none


def class_name(golden: Golden) -> str:
    """The network's: the official class may be followed by what else was recorded."""
    return golden.official_class.split(" ")[0].rsplit(".", 1)[-1]


def loaded(golden: Golden) -> nn.Module:
    """Our network of the recorded configuration with the recorded weights; strict both ways."""
    arguments = COUNTERPARTS[class_name(golden)].arguments
    network = getattr(pix2pixhd, class_name(golden))(
        **{ours: golden.config[name] for name, ours in arguments.items() if name in golden.config}
    )
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS, ours=network.state_dict()))
    return network.train()


def our_name(official: str) -> str:
    return next(iter(apply_keys({official: torch.zeros(())}, OFFICIAL_KEYS)))


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def check_gradients(golden: Golden, network: nn.Module, scalar: Tensor, inputs: dict[str, Tensor]) -> None:
    """With respect to all inputs and parameters that the file has gradients of."""
    expected = under(golden.outputs, "grad/")
    assert expected, "the file has no gradients"
    of = [inputs[name] if name in inputs else network.get_parameter(our_name(name)) for name in expected]
    for name, found in zip(expected, torch.autograd.grad(scalar, of), strict=True):
        assert_close(found, expected[name], TOLERANCE, name)


GENERATORS = [p for c in ("GlobalGenerator", "LocalEnhancer") for p in cases(f"models.networks.{c}", SOURCE)]


@pytest.mark.parametrize("golden", GENERATORS)
def test_generators(golden: Golden) -> None:
    network, inputs, outputs = loaded(golden), golden.inputs, golden.outputs
    x = inputs["x"].requires_grad_()
    with torch.no_grad():
        assert_close(network.eval()(x), outputs["eval/y"], TOLERANCE, "eval/y")
    y = network.train()(x)
    assert_close(y, outputs["train/y"], TOLERANCE, "train/y")
    scalar = (y * inputs["w_y"]).sum()
    assert_close(scalar, outputs["scalar"], 1e-4, "scalar")  # a sum with cancellation
    check_gradients(golden, network, scalar, {"x": x})
    for name, expected in under(outputs, "train_state/").items():
        assert_close(network.state_dict()[our_name(name)], expected, TOLERANCE, name)


@pytest.mark.parametrize("golden", cases("models.networks.Encoder", SOURCE))
def test_encoder(golden: Golden) -> None:
    network, inputs, outputs = loaded(golden), golden.inputs, golden.outputs
    assert isinstance(network, Encoder)
    image = inputs["image"].requires_grad_()
    assert_close(network.layers(image), outputs["y_before_pooling"], TOLERANCE, "y_before_pooling")
    y = network(image, inputs["inst"][:, 0])
    assert_close(y, outputs["y"], TOLERANCE, "y")
    check_gradients(golden, network, (y * inputs["w_y"]).sum(), {"image": image})


@pytest.mark.parametrize("golden", cases("models.networks.MultiscaleDiscriminator", SOURCE))
def test_discriminator_and_losses(golden: Golden) -> None:
    network, inputs, outputs = loaded(golden), golden.inputs, golden.outputs
    given = inputs["fake"].requires_grad_()
    fake, real = network(given), network(inputs["real"])
    recorded = under(outputs, "real/")
    for i, scale in enumerate(real):
        for j, features in enumerate(scale):
            if f"scale{i}/feat{j}" in recorded:
                assert_close(features, recorded.pop(f"scale{i}/feat{j}"), TOLERANCE, f"scale {i}, features {j}")
    assert not recorded, f"no counterpart of {list(recorded)}"
    losses = {"D_fake": least_squares(fake, 0), "D_real": least_squares(real, 1), "G_GAN": least_squares(fake, 1)}
    if "G_GAN_Feat" in outputs:
        losses["G_GAN_Feat"] = golden.config["lambda_feat"] * feature_matching(fake, real)
    for name, found in losses.items():
        assert_close(found, outputs[name], TOLERANCE, name)
    check_gradients(golden, network, losses["G_GAN"] + losses.get("G_GAN_Feat", 0), {"fake": given})


@pytest.mark.parametrize("golden", cases("get_edges", SOURCE))
def test_edges(golden: Golden) -> None:
    assert torch.equal(edges(golden.inputs["inst"][:, 0]), golden.outputs["edges"])


@pytest.mark.parametrize("golden", cases("models.networks", SOURCE))
def test_names_go_both_ways(golden: Golden) -> None:
    ours = loaded(golden).state_dict()
    back = invert(ours, OFFICIAL_KEYS, official=golden.state, dropped={})
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())


def test_every_file_of_the_repository_is_compared() -> None:
    names = {class_name(p.values[0]) for p in cases("", SOURCE) if p.values[0].path is not None}
    assert names <= {*COUNTERPARTS, "get_edges"}


@pytest.mark.parametrize("features", [True, False])
def test_discriminators_without_intermediate_features_have_their_names(features: bool) -> None:
    network = MultiscaleDiscriminator(channels=4, width=2, layers=3, scales=2, norm="batch")
    ours, official = network.state_dict(), {}
    place = {0: {0: 0}, 1: {0: 2, 1: 3}, 2: {0: 5, 1: 6}, 3: {0: 8, 1: 9}, 4: {0: 11}}
    for name, tensor in ours.items():
        _, scale, _, group, part, own = name.split(".")
        flat = f"layer{scale}.{place[int(group)][int(part)]}.{own}"
        official[f"scale{scale}_layer{group}.{part}.{own}" if features else flat] = tensor
    found = apply_keys(official, OFFICIAL_KEYS, ours=ours)
    assert found.keys() == ours.keys() and all(found[name] is ours[name] for name in ours)


COUNTS, FACTS = FOLDER / "param_counts_other.json", FOLDER / "facts_other.json"
CITYSCAPES: dict[str, tuple[str, dict[str, Any]]] = {  # by what a recorded name says
    "global 1024x512 Cityscapes (36 input": ("GlobalGenerator", {"in_channels": 36}),
    "global with instance features (39 input": ("GlobalGenerator", {"in_channels": 39}),
    "local enhancer 2048x1024 (36 input": ("LocalEnhancer", {"in_channels": 36}),
    "multiscale D num_D 2 (39 input": ("MultiscaleDiscriminator", {"channels": 39, "scales": 2}),
    "multiscale D num_D 3 (39 input": ("MultiscaleDiscriminator", {"channels": 39, "scales": 3}),
    "encoder (3->3, nef 16, 4": ("Encoder", {}),
}


def recorded(path: Path, prefix: str) -> list:
    """(name, value) of every entry of a JSON file whose name begins so."""
    if not path.is_file():
        return absent(f"no {path}")
    content = json.loads(path.read_text())
    entries = content.get("counts", content)
    found = [pytest.param((name, value), id=name) for name, value in entries.items() if name.startswith(prefix)]
    return found or absent(f"nothing of {prefix} in {path}")


@pytest.mark.parametrize("case", recorded(COUNTS, "pix2pixhd"))
def test_parameter_counts(case: tuple[str, int]) -> None:
    name, expected = case
    cls, arguments = next(v for k, v in CITYSCAPES.items() if k in name)
    with torch.device("meta"):
        network = getattr(pix2pixhd, cls)(**arguments)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("case", recorded(FACTS, "pix2pixhd lr"))
def test_learning_rate_at_the_beginning_of_epochs(case: tuple[str, dict[str, float]]) -> None:
    """niter 100, niter_decay 100; the official steps are the values of our line at epochs' beginnings."""
    for epoch, expected in case[1].items():
        factor = learning_rate_factor(int(epoch) - 1, schedule="linear", total_kimg=200, decay_from_kimg=100)
        assert 2e-4 * factor == pytest.approx(expected, rel=1e-9), epoch
