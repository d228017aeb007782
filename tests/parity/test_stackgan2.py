"""StackGAN++'s networks and losses against recorded values of the official code, and its parameter counts."""

import json
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
from tests.parity.golden import FOLDER, Golden, absent, assert_close, cases
from tests.parity.recorded_images import check_buffers, check_gradients, check_outputs, enlarged_to
from tests.parity.test_stackgan import filled, official, our_names

SOURCE = "StackGAN-v2"
POOLED_PX = 16  # what the recorded gradients of the generator pool every branch to


def generator(config: dict[str, Any]) -> Generator:
    branches, captions = config["BRANCH_NUM"], config["B_CONDITION"]
    return Generator(
        resolution=64 << (branches - 1), branches=branches, channels=3, z_dim=config["Z_DIM"], width=config["GF_DIM"],
        sentence_dim=config["TEXT_DIMENSION"] if captions else 0, condition_dim=config["EMBEDDING_DIM"],
        residuals=config["R_NUM"],
    )  # fmt: skip


def discriminator(config: dict[str, Any], resolution: int) -> Discriminator:
    condition_dim = config["EMBEDDING_DIM"] if config["B_CONDITION"] else 0
    size = {"condition_dim": condition_dim, "width": config["DF_DIM"]}
    return Discriminator(resolution=resolution, base_px=64, channels=3, **size)


# ---- generator -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", cases("model.G_NET", SOURCE))
def test_generator(golden: Golden) -> None:
    network, inputs = filled(generator(golden.config), golden, OFFICIAL_KEYS), golden.inputs
    z = inputs["z"].requires_grad_()

    def run() -> dict[str, Tensor]:
        drawn = network(z, inputs.get("text"), inputs.get("eps"))
        found = {f"img{k}": image for k, image in enumerate(drawn.images)}
        if drawn.mu is None:
            return found
        return {**found, "mu": drawn.mu, "logvar": drawn.logvar, "kl": divergence(drawn.mu, drawn.logvar)}

    network.eval()
    with torch.no_grad():
        check_outputs(run(), golden, "eval")
    network.train()
    found = run()
    check_outputs(found, golden, "train")
    check_buffers(official(network, golden, OFFICIAL_KEYS), golden)
    pooled = {k: adaptive_avg_pool2d(x, POOLED_PX) for k, x in found.items() if k.startswith("img")}
    weights = {k.removeprefix("w_"): w for k, w in inputs.items() if k.startswith("w_img")}
    if "sum over branches" in golden.call["grad"]:
        (weight,) = weights.values()
        scalar = (torch.stack([*pooled.values()]).sum(0) * weight).sum()
    else:
        scalar = torch.stack([(pooled[k] * w).sum() for k, w in weights.items()]).sum()
    assert_close(scalar, golden.outputs["scalar"], golden.tolerance["forward"], "scalar")
    names = our_names(golden, OFFICIAL_KEYS)
    check_gradients(scalar, golden, prefix="grad/", inputs={"z": z}, network=network, names=names)


# ---- discriminators --------------------------------------------------------------------------------------------------

JUDGES = cases("model.D_NET", SOURCE)


def side(golden: Golden) -> int:
    """Of "model.D_NET128 and ..."."""
    return int(re.search(r"D_NET(\d+)", golden.official_class)[1])


def judge(golden: Golden) -> Discriminator:
    return filled(discriminator(golden.config, side(golden)), golden, DISCRIMINATOR_KEYS)


def judged_images(golden: Golden) -> dict[str, Tensor]:
    """real, fake and, with captions, wrong, enlarged."""
    found = {k: re.fullmatch(r"(real|fake|wrong)(_\d+)?", k) for k in golden.inputs}
    return {m[1]: enlarged_to(golden.inputs[k], side(golden)) for k, m in found.items() if m}


@pytest.mark.parametrize("golden", JUDGES)
def test_discriminator(golden: Golden) -> None:
    network = judge(golden)
    for mode in ("eval", "train"):
        with torch.no_grad():
            logits = network.train(mode == "train")(judged_images(golden)["real"], golden.inputs.get("mu"))
        found = {"logits": logits.pair.sigmoid()}
        found |= {} if logits.alone is None else {"uncond_logits": logits.alone.sigmoid()}
        check_outputs(found, golden, mode)
    check_buffers(official(network, golden, DISCRIMINATOR_KEYS), golden)


def loss_of(network: Discriminator, golden: Golden, *, alone_weight: float) -> Tensor:
    pictures, mu = judged_images(golden), golden.inputs.get("mu")
    logits = {name: network(pictures[name], mu) for name in ("real", "wrong", "fake") if name in pictures}
    return discriminator_loss(logits["real"], logits.get("wrong"), logits["fake"], alone_weight=alone_weight)


@pytest.mark.parametrize("golden", JUDGES)
def test_discriminator_loss(golden: Golden) -> None:
    outputs, tolerance = golden.outputs, golden.tolerance["forward"]
    network = judge(golden).train()
    loss = loss_of(network, golden, alone_weight=golden.config.get("UNCOND_LOSS", 0))
    assert_close(loss, outputs["errD"], tolerance, "errD")
    names = our_names(golden, DISCRIMINATOR_KEYS)
    check_gradients(loss, golden, prefix="grad/", inputs={}, network=network, names=names)
    if (expected := outputs.get("errD_uncond_loss_0")) is not None:
        assert_close(loss_of(judge(golden).train(), golden, alone_weight=0), expected, tolerance, "without JCU")


# ---- the generator's loss --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", cases("train_Gnet", SOURCE))
def test_generator_loss(golden: Golden) -> None:
    config, outputs, tolerance = golden.config, golden.outputs, golden.tolerance
    state = golden.state
    leaves = {k: t.requires_grad_() for k, t in golden.inputs.items()}
    found = {int(m[1]): k for k in leaves if (m := re.fullmatch(r"fake(\d+)(_\d+)?", k))}
    assert sorted(found) == list(range(config["BRANCH_NUM"]))
    fakes = [enlarged_to(leaves[found[k]], 64 << k) for k in sorted(found)]
    losses = []
    for k, fake in enumerate(fakes):
        own = {n.removeprefix(f"netD{k}."): t for n, t in state.items() if n.startswith(f"netD{k}.")}
        network = discriminator(config, 64 << k)
        network.load_state_dict(apply_keys(own, DISCRIMINATOR_KEYS, ours=network.state_dict()))
        logits = network.train()(fake, leaves.get("mu"))
        losses.append(generator_loss(logits, alone_weight=config.get("UNCOND_LOSS", 0)))
    total = torch.stack(losses).sum()
    if config["COLOR_LOSS"]:
        total = total + config["COLOR_LOSS"] * colour_consistency(fakes)
    if "mu" in leaves:
        kl = config["KL"] * divergence(leaves["mu"], leaves["logvar"])
        assert_close(kl, outputs["kl_loss"], tolerance["forward"], "kl_loss")
        total = total + kl
    assert_close(total, outputs["errG_total"], tolerance["forward"], "errG_total")
    for k, fake in enumerate(fakes):
        mean, covariance = colour_statistics(fake)
        assert_close(mean, outputs[f"mean{k}"], tolerance["forward"], f"mean{k}")
        assert_close(covariance, outputs[f"cov{k}"], tolerance["forward"], f"cov{k}")
    check_gradients(total, golden, prefix="grad/", inputs=leaves, network=torch.nn.Identity(), names={})


# ---- parameter counts ------------------------------------------------------------------------------------------------

COUNTS = FOLDER / "param_counts_other.json"


def published() -> list:
    if not COUNTS.is_file():
        return absent(f"no {COUNTS}")
    counts: dict[str, int] = json.loads(COUNTS.read_text())["counts"]
    return [pytest.param((name, counts[name]), id=name) for name in counts if name.startswith("stackgan2/")]


@pytest.mark.parametrize("case", published())
def test_parameter_counts(case: Any) -> None:
    name, expected = case
    config = {"Z_DIM": 100, "TEXT_DIMENSION": 1024, "EMBEDDING_DIM": 128, "GF_DIM": 64, "DF_DIM": 64, "R_NUM": 2}
    config["B_CONDITION"] = "unconditional" not in name
    with torch.device("meta"):
        if match := re.search(r"G (\d+) branches", name):
            network: torch.nn.Module = generator(config | {"BRANCH_NUM": int(match[1])})
        else:
            network = discriminator(config, int(re.search(r"D_NET(\d+)", name)[1]))
    assert sum(p.numel() for p in network.parameters()) == expected
