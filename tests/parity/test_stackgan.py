"""StackGAN's networks and losses against recorded values of the official code, and its parameter counts."""

import json
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial.losses import divergence
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
from tests.parity.golden import FOLDER, Golden, absent, assert_close, cases
from tests.parity.recorded_images import check_buffers, check_gradients, check_outputs, enlarged_to, reduced

SOURCE = "StackGAN-Pytorch"
AUGMENT_KEYS = {r"fc\.(weight|bias)": r"fc.\1"}


def sizes(config: dict[str, Any]) -> dict[str, int]:
    """Official sizes that all generators have."""
    return {"sentence_dim": config["TEXT_DIMENSION"], "condition_dim": config["CONDITION_DIM"]}


def stage1(config: dict[str, Any]) -> Stage1Generator:
    return Stage1Generator(resolution=64, channels=3, z_dim=config["Z_DIM"], width=config["GF_DIM"], **sizes(config))


def generator(config: dict[str, Any]) -> Generator:
    size = sizes(config) | {"width": config["GF_DIM"], "residuals": config["R_NUM"]}
    return Generator(resolution=256, channels=3, z_dim=config["Z_DIM"], **size)


def discriminator(config: dict[str, Any], stage: str) -> Discriminator:
    size = {"condition_dim": config["CONDITION_DIM"], "width": config["DF_DIM"]}
    resolution = {"stage1": 64, "stage2": 256}[stage]
    return Discriminator(resolution=resolution, base_px=64, channels=3, alone=stage == "stage2", **size)


def filled(network: nn.Module, golden: Golden, keys: dict[str, str]) -> nn.Module:
    """The network with the official weights, strict both ways; back again they are what they were."""
    network.load_state_dict(apply_keys(golden.state, keys, ours=network.state_dict()))
    back = official(network, golden, keys)
    assert back.keys() == golden.state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())
    return network


def official(network: nn.Module, golden: Golden, keys: dict[str, str]) -> dict[str, Tensor]:
    return invert(network.state_dict(), keys, official=golden.state, dropped={})


def our_names(golden: Golden, keys: dict[str, str]) -> dict[str, str]:
    """{official name: ours}."""
    return {name: next(iter(apply_keys({name: tensor}, keys))) for name, tensor in golden.state.items()}


@pytest.mark.parametrize("golden", cases("model.CA_NET", SOURCE))
def test_conditioning_augmentation(golden: Golden) -> None:
    network = filled(ConditioningAugmentation(**sizes(golden.config)), golden, AUGMENT_KEYS)
    inputs, tolerance = golden.inputs, golden.tolerance["forward"]
    text = inputs["text"].requires_grad_()
    mu, logvar = network(text)
    found = {"mu": mu, "logvar": logvar, "c_code": augmented(mu, logvar, inputs["eps"]), "kl": divergence(mu, logvar)}
    for name in ("mu", "logvar", "c_code", "kl"):
        assert_close(found[name], golden.outputs[name], tolerance, name)
    scalar = sum((found[name] * inputs[f"w_{name}"]).sum() for name in ("c_code", "mu", "logvar"))
    check_gradients(
        scalar, golden, prefix="grad/", inputs={"text": text}, network=network, names=our_names(golden, AUGMENT_KEYS)
    )


@pytest.mark.parametrize("golden", cases("model.STAGE1_G", SOURCE))
def test_stage_1_generator(golden: Golden) -> None:
    if "STAGE2" in golden.official_class:
        pytest.skip("a stage II")
    network, inputs = filled(stage1(golden.config), golden, STAGE1_KEYS), golden.inputs
    text, z = inputs["text"].requires_grad_(), inputs["z"].requires_grad_()
    with torch.no_grad():
        sketch = network.eval()(z, text, inputs["eps"])
    check_outputs({"img": sketch.image, "mu": sketch.mu, "logvar": sketch.logvar}, golden, "eval")
    sketch = network.train()(z, text, inputs["eps"])
    found = {"img": sketch.image, "mu": sketch.mu, "logvar": sketch.logvar}
    check_outputs(found, golden, "train")
    check_buffers(official(network, golden, STAGE1_KEYS), golden)
    scalar = weighted(found, inputs)
    assert_close(scalar, golden.outputs["scalar"], golden.tolerance["forward"], "scalar")
    check_gradients(
        scalar, golden, prefix="grad/", inputs={"text": text, "z": z}, network=network,
        names=our_names(golden, STAGE1_KEYS),
    )  # fmt: skip


def weighted(found: dict[str, Tensor], inputs: dict[str, Tensor]) -> Tensor:
    """(output * in/w_<output>).sum(), over all that have weights."""
    weights = {name.removeprefix("w_"): w for name, w in inputs.items() if name.startswith("w_")}
    assert weights, "no weights are recorded"
    whole = {name: found[re.sub(r"_(pool|crop)\d+$", "", name)] for name in weights}
    return torch.stack([(reduced(whole[name], name) * w).sum() for name, w in weights.items()]).sum()


@pytest.mark.parametrize("golden", cases("model.STAGE2_G", SOURCE))
def test_both_stages(golden: Golden) -> None:
    network, inputs = filled(generator(golden.config), golden, OFFICIAL_KEYS), golden.inputs
    noise = torch.cat([inputs["eps_stage1"], inputs["eps"]], 1)
    leaves = {name: inputs[name].requires_grad_() for name in ("text", "z")}
    for mode in ("eval", "train"):
        sketch, image = network.train(mode == "train")(leaves["z"], leaves["text"], noise)
        found = {"img": image.image, "mu": image.mu, "logvar": image.logvar, "stage1_img": sketch.image}
        check_outputs(found, golden, mode)
    check_buffers(official(network, golden, OFFICIAL_KEYS), golden)
    if any(name.startswith("grad/") for name in golden.outputs):
        names = our_names(golden, OFFICIAL_KEYS)
        check_gradients(weighted(found, inputs), golden, prefix="grad/", inputs=leaves, network=network, names=names)


JUDGES = [
    pytest.param(case.values[0], stage, id=f"{case.id}-{stage}", marks=case.marks)
    for stage in ("stage1", "stage2")
    for case in cases(f"model.{stage.upper()}_D", SOURCE)
]


def images(golden: Golden, stage: str) -> dict[str, Tensor]:
    """in/real_32 and in/fake_32 as leaves, and both enlarged."""
    leaves = {k: t.requires_grad_() for k, t in golden.inputs.items() if re.fullmatch(r"(real|fake)(_\d+)?", k)}
    side = {"stage1": 64, "stage2": 256}[stage]
    return leaves | {k.split("_")[0]: enlarged_to(t, side) for k, t in leaves.items()}


@pytest.mark.parametrize(("golden", "stage"), JUDGES)
def test_discriminator(golden: Golden, stage: str) -> None:
    keys = DISCRIMINATOR_KEYS[stage]
    network, mu = filled(discriminator(golden.config, stage), golden, keys), golden.inputs["mu"]
    for mode in ("eval", "train"):
        with torch.no_grad():
            h = network.train(mode == "train")(images(golden, stage)["real"])
            found = {"features": h, "cond_logits": network.conditional(h, mu).sigmoid()}
            if (alone := network.unconditional(h)) is not None:
                found["uncond_logits"] = alone.sigmoid()
        check_outputs(found, golden, mode)
    check_buffers(official(network, golden, keys), golden)


@pytest.mark.parametrize(("golden", "stage"), JUDGES)
def test_losses(golden: Golden, stage: str) -> None:
    keys, outputs, tolerance = DISCRIMINATOR_KEYS[stage], golden.outputs, golden.tolerance["forward"]
    pictures, mu, names = images(golden, stage), golden.inputs["mu"], our_names(golden, DISCRIMINATOR_KEYS[stage])
    network = filled(discriminator(golden.config, stage), golden, keys).train()
    judged = discriminator_loss(network, pictures["real"], pictures["fake"], mu)
    assert_close(judged.loss, outputs["errD"], tolerance, "errD")
    check_gradients(judged.loss, golden, prefix="grad_D/", inputs=pictures, network=network, names=names)
    network = filled(discriminator(golden.config, stage), golden, keys).train()
    g_loss = generator_loss(network, pictures["fake"], mu)
    assert_close(g_loss, outputs["errG"], tolerance, "errG")
    check_gradients(g_loss, golden, prefix="grad_G/", inputs=pictures, network=network, names=names)


# ---- parameter counts ------------------------------------------------------------------------------------------------

COUNTS = FOLDER / "param_counts_other.json"


def published() -> list:
    if not COUNTS.is_file():
        return absent(f"no {COUNTS}")
    counts: dict[str, int] = json.loads(COUNTS.read_text())["counts"]
    return [pytest.param((name, counts[name]), id=name) for name in counts if name.startswith("stackgan/")]


@pytest.mark.parametrize("case", published())
def test_parameter_counts(case: Any) -> None:
    name, expected = case
    gf, df, residuals = map(int, re.search(r"GF (\d+), DF (\d+), R_NUM (\d+)", name).groups())
    config = {"Z_DIM": 100, "TEXT_DIMENSION": 1024, "CONDITION_DIM": 128, "GF_DIM": gf, "DF_DIM": df}
    config["R_NUM"] = residuals
    with torch.device("meta"):
        if name.startswith("stackgan/stage1 G"):
            network: nn.Module = stage1(config)
        elif "trainable part only" in name:
            network = Stage2Generator(channels=3, width=gf, residuals=residuals, **sizes(config))
        elif name.startswith("stackgan/stage2 G"):
            network = generator(config)
        else:
            network = discriminator(config, re.match(r"stackgan/(stage\d) D", name)[1])
    assert sum(p.numel() for p in network.parameters()) == expected
