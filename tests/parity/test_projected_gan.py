"""Projected GAN's losses, projections and discriminators against recorded values of autonomousvision/projected-gan."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gans.adversarial.losses import hinge
from lit_gans.official import OfficialNetwork, apply_keys, invert
from lit_gans.papers.projected_gan import Condition, MultiScale, Projector
from lit_gans.papers.projected_gan.features import TokenMaps, as_maps
from lit_gans.papers.projected_gan.official import HEAD_KEYS, PROJECTOR_KEYS, TOKEN_KEYS, told
from tests.parity.golden import Golden, cases, count_parameters, published, weighted_sum

SOURCE = "autonomousvision/projected-gan"
HEADS = cases("pg_modules.discriminator.MultiScaleD", SOURCE)
on = pytest.mark.parametrize


@on("golden", cases("training.loss.ProjectedGANLoss", SOURCE))
def test_losses(golden: Golden) -> None:
    leaves = golden.leaves
    losses = dict(zip(("Dmain", "Gmain"), hinge(leaves["real_logits"], leaves["fake_logits"]), strict=True))
    found = {f"{phase}/loss": loss for phase, loss in losses.items()}
    for phase, loss in losses.items():
        found |= golden.gradients(loss, leaves, prefix=f"grad/{phase}/")
    golden.compare(found)


# ---- projections -----------------------------------------------------------------------------------------------------


def ordered(leaves: dict[str, Tensor], kind: str) -> list[Tensor]:
    """Inputs such as feat0, feat1, ... by their numbers."""
    numbers = sorted(int(name.removeprefix(kind)) for name in leaves if name.startswith(kind))
    return [leaves[f"{kind}{number}"] for number in numbers]


def projector(golden: Golden) -> Projector:
    config = golden.config
    network = Projector(
        config["in_channels"],
        out_channels=config["cout"],
        expand=config["expand"],
        mixing=("none", "channels", "scales")[config["proj_type"]],
    )
    network.load_state_dict(apply_keys(golden.state, PROJECTOR_KEYS, ours=network.state_dict()))
    return network


@on("golden", cases("pg_modules.projector.F_RandomProj", SOURCE))
def test_projector(golden: Golden) -> None:
    network, leaves = projector(golden), golden.leaves
    levels = network(ordered(leaves, "feat"))
    assert network.sizes(golden.config["res"]) == [x.shape[-1] for x in levels]
    assert network.channels == [x.shape[1] for x in levels]
    found = {f"level{k}": x for k, x in enumerate(levels)}
    golden.compare(found | golden.gradients(sum(map(weighted_sum, levels)), leaves))
    back = invert(network.state_dict(), PROJECTOR_KEYS, official=golden.state, dropped={})
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())


@on("golden", cases("feature_networks.vit.forward_vit"))
def test_maps_of_tokens(golden: Golden) -> None:
    config, leaves = golden.config, golden.leaves
    network = TokenMaps(config["vit_features"], tuple(config["features"]))
    network.load_state_dict(apply_keys(golden.state, TOKEN_KEYS, ours=network.state_dict()))
    maps = network([as_maps(t, prefix=config["start_index"]) for t in ordered(leaves, "tokens")])
    found = {f"feat{k}": x for k, x in enumerate(maps)}
    golden.compare(found | golden.gradients(sum(map(weighted_sum, maps)), leaves))


# ---- discriminators --------------------------------------------------------------------------------------------------


def heads(config: dict[str, Any]) -> MultiScale:
    config, count = dict(config), config["num_discs"]
    conditional, options = config.pop("cond", 0), {}
    if conditional:
        sizes = {"num_classes": config.get("c_dim", 1000), "out_dim": config.get("cmap_dim", 64)}
        options["condition"] = lambda: Condition(embed_dim=config.get("embedding_dim", 128), **sizes)
        options["condition_dim"] = sizes["out_dim"]
    return MultiScale(
        config["channels"][:count],
        nominal_px=config["resolutions"][:count],
        width=config.get("ndf"),
        separable=config.get("separable", False),
        patch=config.get("patch", False),
        **options,
    )


def loaded(golden: Golden) -> MultiScale:
    network = heads(golden.config)
    network.load_state_dict(apply_keys(golden.state, HEAD_KEYS, ours=network.state_dict()))
    return network


@on("golden", HEADS)
def test_discriminators(golden: Golden) -> None:
    leaves = golden.leaves
    found: dict[str, Tensor] = {}
    for mode in ("eval", "train"):
        network = loaded(golden).train(mode == "train")
        logits = network(ordered(leaves, "feat"), leaves.get("c"))
        found[f"logits_{mode}"] = logits
        found |= golden.gradients(weighted_sum(logits), leaves, network, keys=HEAD_KEYS, prefix=f"grad/{mode}/")
    golden.compare(found | golden.buffers(network, HEAD_KEYS, prefix="after/"))


@on("golden", HEADS)
def test_names_go_both_ways(golden: Golden) -> None:
    back = invert(loaded(golden).state_dict(), HEAD_KEYS, official=golden.state, dropped={})
    assert list(back) == list(golden.state)
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())


def told_by(state: dict[str, Tensor]) -> dict[str, Any]:
    """What a pickle's discriminator with these tensors says of itself."""
    return told(OfficialNetwork("ProjectedDiscriminator", (), {}, state, frozenset(), {}, ""))


@on("golden", HEADS)
def test_names_say_what_heads_are(golden: Golden) -> None:
    found, config = told_by({f"discriminator.{name}": t for name, t in golden.state.items()}), golden.config
    classes = config.get("c_dim", 1000) if config.get("cond") else 0
    assert (found["num_discs"], found["c_dim"], found["proj_type"]) == (config["num_discs"], classes, 0)
    if any(".main.0.main." in name for name in golden.state):  # a head of 8 px has no blocks that would tell
        expected = tuple(config.get(form, False) for form in ("separable", "patch"))
        assert (found["separable"], found["patch"]) == expected


@on("golden", cases("pg_modules.projector.F_RandomProj", SOURCE))
def test_shapes_say_what_the_projection_is(golden: Golden) -> None:
    found = told_by({f"feature_network.{name}": t for name, t in golden.state.items()})
    expected = {name: golden.config[name] for name in ("proj_type", "cout", "expand")}
    assert {name: found.get(name, expected[name]) for name in expected} == expected


# ---- numbers ---------------------------------------------------------------------------------------------------------


@on("case", published("param_counts.json", "projectedgan_multiscaled"))
def test_parameter_counts(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    config = {"channels": [64, 64, 128, 256], "resolutions": [128, 64, 32, 16], "num_discs": 4}
    config |= {"separable": "separable" in name, "cond": "cond" in name}
    if "cond" in name:
        config["c_dim"] = int(name.rpartition("cond")[2])
    with torch.device("meta"):
        network = heads(config)
    assert count_parameters(network) == expected["discriminator"]
    assert [count_parameters(head) for head in network.heads] == expected["per_scale"]


@on("case", published("param_counts.json", "projectedgan_random_projection"))
def test_counts_of_projections(case: tuple[str, dict[str, Any]]) -> None:
    _, expected = case
    channels = [24, 40, 112, 320]
    network, mixed = Projector(channels, mixing="scales"), Projector(channels, mixing="channels")
    assert not list(network.parameters())
    counts = [sum(t.numel() for t in n.state_dict().values()) for n in (mixed, network)]
    assert counts == [expected["ccm"], expected["ccm_plus_csm"]]
    assert network.channels == expected["out_channels"]
