"""StackGAN's networks and losses against recorded values of the official code, and its parameter counts."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial.losses import divergence, is_fake, is_real
from lit_gans.official import apply_keys, invert
from lit_gans.papers.stackgan import (
    DISCRIMINATOR_KEYS,
    OFFICIAL_KEYS,
    STAGE1_KEYS,
    ConditioningAugmentation,
    Discriminator,
    Generator,
    Stage1Generator,
    Stage2Generator,
    augmented,
    discriminator_loss,
    generator_loss,
)
from tests.parity.golden import Golden, cases, count_parameters, published, translated
from tests.parity.recorded_images import as_recorded, enlarged_to, weighted_terms

SOURCE = "StackGAN-Pytorch"
AUGMENT_KEYS = {r"fc\.(weight|bias)": r"fc.\1"}
# Values of the official configuration, with its defaults.
DEFAULTS = {"Z_DIM": 100, "TEXT_DIMENSION": 1024, "CONDITION_DIM": 128, "GF_DIM": 128, "DF_DIM": 64, "R_NUM": 4}
SIZES = {"TEXT_DIMENSION": "sentence_dim", "CONDITION_DIM": "condition_dim", "Z_DIM": "z_dim", "GF_DIM": "width"}
SIZES |= {"R_NUM": "residuals", "DF_DIM": "judge"}


def sizes(config: dict[str, Any], *names: str) -> dict[str, int]:
    """Our arguments of these names."""
    ours = translated(DEFAULTS | config, SIZES)
    return {name: ours[name] for name in names}


def stage1(config: dict[str, Any]) -> Stage1Generator:
    size = sizes(config, "sentence_dim", "condition_dim", "z_dim", "width")
    return Stage1Generator(resolution=64, channels=3, **size)


def generator(config: dict[str, Any]) -> Generator:
    size = sizes(config, "sentence_dim", "condition_dim", "z_dim", "width", "residuals")
    return Generator(resolution=256, channels=3, **size)


def discriminator(config: dict[str, Any], stage: str) -> Discriminator:
    size, width = sizes(config, "condition_dim"), sizes(config, "judge")["judge"]
    resolution = {"stage1": 64, "stage2": 256}[stage]
    return Discriminator(resolution=resolution, base_px=64, channels=3, alone=stage == "stage2", width=width, **size)


def filled(network: nn.Module, golden: Golden, keys: dict[str, str]) -> nn.Module:
    """The network with the official weights, strict both ways; back again they are what they were."""
    network.load_state_dict(apply_keys(golden.state, keys, ours=network.state_dict()))
    back = invert(network.state_dict(), keys, official=golden.state, dropped={})
    assert back.keys() == golden.state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())
    return network


@pytest.mark.parametrize("golden", cases("model.CA_NET", SOURCE))
def test_conditioning_augmentation(golden: Golden) -> None:
    network, leaves = ConditioningAugmentation(**sizes(golden.config, "sentence_dim", "condition_dim")), golden.leaves
    mu, logvar = filled(network, golden, AUGMENT_KEYS)(leaves["text"])
    found = {"mu": mu, "logvar": logvar, "c_code": augmented(mu, logvar, leaves["eps"]), "kl": divergence(mu, logvar)}
    scalar = weighted_terms(found, leaves).sum()
    golden.compare(found | golden.gradients(scalar, leaves, network, keys=AUGMENT_KEYS))


def check_generator(golden: Golden, network: nn.Module, keys: dict[str, str], *, noise: Tensor) -> None:
    """Both modes, first evaluation with the buffers as they were; buffers and gradients of training."""
    leaves = golden.leaves
    found: dict[str, Tensor] = {}
    for mode in ("eval", "train"):
        drawn = network.train(mode == "train")(leaves["z"], leaves["text"], noise)
        sketch, image = (drawn, drawn) if isinstance(network, Stage1Generator) else drawn
        whole = {"img": image.image, "mu": image.mu, "logvar": image.logvar, "stage1_img": sketch.image}
        found |= as_recorded(whole, golden, f"{mode}/")
    found |= golden.buffers(network, keys)
    scales = {}
    if any(name.startswith("w_") for name in leaves):
        terms = weighted_terms(whole, leaves)
        found |= {"scalar": terms.sum()} | golden.gradients(terms.sum(), leaves, network, keys=keys)
        scales = {"scalar": terms.norm()}
    golden.compare(found, scales=scales)


@pytest.mark.parametrize("golden", cases("model.STAGE1_G", SOURCE, without="STAGE2_G"))
def test_stage_1_generator(golden: Golden) -> None:
    network = filled(stage1(golden.config), golden, STAGE1_KEYS)
    check_generator(golden, network, STAGE1_KEYS, noise=golden.inputs["eps"])


@pytest.mark.parametrize("golden", cases("model.STAGE2_G", SOURCE))
def test_both_stages(golden: Golden) -> None:
    network, inputs = filled(generator(golden.config), golden, OFFICIAL_KEYS), golden.inputs
    check_generator(golden, network, OFFICIAL_KEYS, noise=torch.cat([inputs["eps_stage1"], inputs["eps"]], 1))


JUDGES = [
    pytest.param(case.values[0], stage, id=f"{case.id}-{stage}", marks=case.marks)
    for stage in ("stage1", "stage2")
    for case in cases(f"model.{stage.upper()}_D", SOURCE)
]


def pictures(leaves: dict[str, Tensor], side: int, *, kind: str = "real|fake|wrong") -> dict[str, Tensor]:
    """in/real_32, in/fake_32, ... enlarged, by the names without sizes."""
    found = {name: re.fullmatch(rf"({kind})(_\d+)?", name) for name in leaves}
    return {match[1]: enlarged_to(leaves[name], side) for name, match in found.items() if match}


@pytest.mark.parametrize(("golden", "stage"), JUDGES)
def test_discriminator_and_losses(golden: Golden, stage: str) -> None:
    keys, leaves = DISCRIMINATOR_KEYS[stage], golden.leaves
    images, mu = pictures(leaves, {"stage1": 64, "stage2": 256}[stage]), golden.inputs["mu"]

    def fresh() -> Discriminator:
        return filled(discriminator(golden.config, stage), golden, keys).train()

    network, found = fresh(), {}
    for mode in ("eval", "train"):
        h = network.train(mode == "train")(images["real"])
        found |= {f"{mode}/features": h, f"{mode}/cond_logits": network.conditional(h, mu).sigmoid()}
        if (alone := network.unconditional(h)) is not None:
            found[f"{mode}/uncond_logits"] = alone.sigmoid()
    found |= golden.buffers(network, keys)

    network = fresh()
    with torch.no_grad():
        found |= terms(network, images, mu)
    network = fresh()
    found["errD"] = discriminator_loss(network, images["real"], images["fake"], mu).loss
    found |= golden.gradients(found["errD"], leaves, network, keys=keys, prefix="grad_D/")
    network = fresh()
    found["errG"] = generator_loss(network, images["fake"], mu)
    golden.compare(found | golden.gradients(found["errG"], leaves, network, keys=keys, prefix="grad_G/"))


def terms(network: Discriminator, images: dict[str, Tensor], mu: Tensor) -> dict[str, Tensor]:
    """What the official discriminator's loss also reports."""
    real, fake = network(images["real"]), network(images["fake"])
    found = {"errD_real": is_real(network.conditional(real, mu)), "errD_fake": is_fake(network.conditional(fake, mu))}
    if network.alone is not None:
        found["errD_real"] = (found["errD_real"] + is_real(network.unconditional(real))) / 2
        found["errD_fake"] = (found["errD_fake"] + is_fake(network.unconditional(fake))) / 2
    return found | {"errD_wrong": is_fake(network.conditional(real[:-1], mu[1:]))}


@pytest.mark.parametrize("case", published("param_counts_other.json", "stackgan/"))
def test_parameter_counts(case: tuple[str, int]) -> None:
    name, expected = case
    numbers = re.search(r"GF (\d+), DF (\d+), R_NUM (\d+)", name).groups()
    config = dict(zip(("GF_DIM", "DF_DIM", "R_NUM"), map(int, numbers), strict=True))
    with torch.device("meta"):
        if name.startswith("stackgan/stage1 G"):
            network: nn.Module = stage1(config)
        elif "trainable part only" in name:
            own = sizes(config, "sentence_dim", "condition_dim", "width", "residuals")
            network = Stage2Generator(channels=3, **own)
        elif name.startswith("stackgan/stage2 G"):
            network = generator(config)
        else:
            network = discriminator(config, re.match(r"stackgan/(stage\d) D", name)[1])
    assert count_parameters(network) == expected
