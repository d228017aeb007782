"""StackGAN++'s networks and losses against recorded values of the official code, and its parameter counts."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from lit_gans.adversarial.losses import divergence
from lit_gans.official import apply_keys
from lit_gans.papers.stackgan2 import (
    DISCRIMINATOR_KEYS,
    OFFICIAL_KEYS,
    Discriminator,
    Generator,
    colour_consistency,
    colour_statistics,
    discriminator_loss,
    generator_loss,
)
from tests.parity.golden import Golden, cases, count_parameters, published, translated, under
from tests.parity.recorded_images import as_recorded, weighted_terms
from tests.parity.test_stackgan import filled, pictures

SOURCE = "StackGAN-v2"
POOLED_PX = 16  # what the recorded gradients of the generator pool every branch to
# Values of the official configuration -> our arguments, and its defaults.
VALUES = {"BRANCH_NUM": "branches", "Z_DIM": "z_dim", "GF_DIM": "width", "R_NUM": "residuals", "DF_DIM": "judge"}
VALUES |= {"TEXT_DIMENSION": "sentence_dim", "EMBEDDING_DIM": "condition_dim", "B_CONDITION": "captions"}
VALUES |= {"KL": "kl_weight", "UNCOND_LOSS": "alone_weight", "COLOR_LOSS": "colour_weight"}
DEFAULTS = {"BRANCH_NUM": 3, "Z_DIM": 100, "GF_DIM": 64, "R_NUM": 2, "DF_DIM": 64, "TEXT_DIMENSION": 1024}
DEFAULTS |= {"EMBEDDING_DIM": 128, "B_CONDITION": False, "KL": 2.0, "UNCOND_LOSS": 0.0, "COLOR_LOSS": 0.0}


def values(config: dict[str, Any]) -> dict[str, Any]:
    return translated(DEFAULTS | config, VALUES)


def generator(config: dict[str, Any]) -> Generator:
    v = values(config)
    size = {name: v[name] for name in ("branches", "z_dim", "width", "condition_dim", "residuals")}
    size["sentence_dim"] = v["sentence_dim"] if v["captions"] else 0
    return Generator(resolution=64 << (v["branches"] - 1), channels=3, **size)


def discriminator(config: dict[str, Any], resolution: int) -> Discriminator:
    v = values(config)
    size = {"condition_dim": v["condition_dim"] if v["captions"] else 0, "width": v["judge"]}
    return Discriminator(resolution=resolution, base_px=64, channels=3, **size)


@pytest.mark.parametrize("golden", cases("model.G_NET", SOURCE))
def test_generator(golden: Golden) -> None:
    network, leaves = filled(generator(golden.config), golden, OFFICIAL_KEYS), golden.leaves
    found: dict[str, Tensor] = {}
    for mode in ("eval", "train"):  # evaluation has the buffers as they were
        drawn = network.train(mode == "train")(leaves["z"], leaves.get("text"), leaves.get("eps"))
        whole = {f"img{k}": image for k, image in enumerate(drawn.images)}
        if drawn.mu is not None:
            whole |= {"mu": drawn.mu, "logvar": drawn.logvar, "kl": divergence(drawn.mu, drawn.logvar)}
        found |= as_recorded(whole, golden, f"{mode}/")
    found |= golden.buffers(network, OFFICIAL_KEYS)
    scales = {}
    if under(leaves, "w_"):
        pooled = {name: adaptive_avg_pool2d(x, POOLED_PX) for name, x in whole.items() if name.startswith("img")}
        if "sum over branches" in golden.call.get("grad", ""):
            pooled = {"img0": torch.stack([*pooled.values()]).sum(0)}
        terms = weighted_terms(whole | pooled, leaves)
        found |= {"scalar": terms.sum()} | golden.gradients(terms.sum(), leaves, network, keys=OFFICIAL_KEYS)
        scales = {"scalar": terms.norm()}
    golden.compare(found, scales=scales)


@pytest.mark.parametrize("golden", cases("model.D_NET", SOURCE))
def test_discriminator_and_loss(golden: Golden) -> None:
    """Of "model.D_NET128 and ..."; besides the loss of the configuration, one of another weight by its name."""
    side, leaves, found = int(re.search(r"D_NET(\d+)", golden.official_class)[1]), golden.leaves, {}
    images, c = pictures(leaves, side), leaves.get("mu")

    def fresh() -> Discriminator:
        return filled(discriminator(golden.config, side), golden, DISCRIMINATOR_KEYS).train()

    def loss_of(network: Discriminator, alone_weight: float) -> Tensor:
        logits = {name: network(images[name], c) for name in ("real", "wrong", "fake") if name in images}
        return discriminator_loss(logits["real"], logits.get("wrong"), logits["fake"], alone_weight=alone_weight)

    network = fresh()
    for mode in ("eval", "train"):
        logits = network.train(mode == "train")(images["real"], c)
        found[f"{mode}/logits"] = logits.pair.sigmoid()
        found |= {} if logits.alone is None else {f"{mode}/uncond_logits": logits.alone.sigmoid()}
    found |= golden.buffers(network, DISCRIMINATOR_KEYS)
    for name in golden.outputs:
        if match := re.fullmatch(r"errD_uncond_loss_([\d.]+)", name):
            found[name] = loss_of(fresh(), float(match[1]))
    network = fresh()
    found["errD"] = loss_of(network, values(golden.config)["alone_weight"])
    golden.compare(found | golden.gradients(found["errD"], leaves, network, keys=DISCRIMINATOR_KEYS))


@pytest.mark.parametrize("golden", cases("train_Gnet", SOURCE))
def test_generator_loss(golden: Golden) -> None:
    v, leaves, losses, found = values(golden.config), golden.leaves, [], {}
    fakes = [pictures(leaves, 64 << k, kind=f"fake{k}")[f"fake{k}"] for k in range(v["branches"])]
    for k, fake in enumerate(fakes):
        network = discriminator(golden.config, 64 << k)
        own = under(golden.state, f"netD{k}.")
        network.load_state_dict(apply_keys(own, DISCRIMINATOR_KEYS, ours=network.state_dict()))
        losses.append(generator_loss(network.train()(fake, leaves.get("mu")), alone_weight=v["alone_weight"]))
        found[f"mean{k}"], found[f"cov{k}"] = colour_statistics(fake)
    total = torch.stack(losses).sum()
    if v["colour_weight"] and len(fakes) > 1:
        total = total + v["colour_weight"] * colour_consistency(fakes)
    if "logvar" in leaves:
        found["kl_loss"] = v["kl_weight"] * divergence(leaves["mu"], leaves["logvar"])
        total = total + found["kl_loss"]
    golden.compare(found | {"errG_total": total} | golden.gradients(total, leaves))


@pytest.mark.parametrize("case", published("param_counts_other.json", "stackgan2/"))
def test_parameter_counts(case: tuple[str, int]) -> None:
    name, expected = case
    config = {"B_CONDITION": "unconditional" not in name}
    with torch.device("meta"):
        if match := re.search(r"G (\d+) branches", name):
            network: torch.nn.Module = generator(config | {"BRANCH_NUM": int(match[1])})
        else:
            network = discriminator(config, int(re.search(r"D_NET(\d+)", name)[1]))
    assert count_parameters(network) == expected
