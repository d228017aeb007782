"""StyleGAN2's networks, losses and training loop against recorded values of stylegan2-ada-pytorch."""

import json
import os
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_gans.adversarial import lazy_adam
from lit_gans.callbacks import EMA
from lit_gans.callbacks.ema import ema_weight
from lit_gans.papers import stylegan2
from lit_gans.papers.stylegan2 import (
    Discriminator,
    Generator,
    MappingNetwork,
    StyleGAN2,
    from_official,
    from_official_config,
    our_key,
    to_official,
)
from lit_gans.runs.configs import shipped_configs
from tests.parity.golden import FOLDER, Golden, absent, assert_close, cases

SOURCE = "stylegan2-ada-pytorch"
# Arguments of the official forward -> ours; None: both forms of the convolution are one function here.
CALL = {
    "noise_mode": "noise",
    "force_fp32": "force_fp32",
    "truncation_psi": "psi",
    "truncation_cutoff": "cutoff",
    "fused_modconv": None,
}


def our_call(official: dict[str, Any]) -> dict[str, Any]:
    return {CALL[name]: value for name, value in official.items() if CALL[name] is not None}


def loaded(cls: type[nn.Module], config: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """The network with the official weights; strict both ways."""
    network = cls(**from_official_config(config))
    network.load_state_dict(from_official(state))
    return network


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def check_gradients(golden: Golden, network: nn.Module, output: Tensor, inputs: dict[str, Tensor]) -> None:
    """Of (output * grad_weight).sum(), with respect to whatever the file has gradients of."""
    expected = under(golden.outputs, "grad/")
    if not expected:
        return
    assert {*expected} - {*inputs} == {*golden.call["grads"]}
    of = [inputs[name] if name in inputs else network.get_parameter(our_key(name)) for name in expected]
    found = torch.autograd.grad((output * golden.inputs["grad_weight"].view_as(output)).sum(), of)
    for name, gradient in zip(expected, found, strict=True):
        assert_close(gradient, expected[name], golden.tolerance["gradient"], name)


@pytest.mark.parametrize("golden", cases("training.networks.Generator", SOURCE))
def test_generator(golden: Golden) -> None:
    network = loaded(Generator, golden.config, golden.state).eval()
    inputs, outputs, tolerance = golden.inputs, golden.outputs, golden.tolerance["forward"]
    z, c, call = inputs["z"].requires_grad_(), inputs.get("c"), our_call(golden.call["kwargs"])
    truncation = {name: call[name] for name in ("psi", "cutoff") if name in call}
    assert_close(network.mapping(z, c, **truncation), outputs["ws"], tolerance, "ws")
    image = network(z, c, **call)
    assert_close(image, outputs["img"], tolerance, "img")
    check_gradients(golden, network, image, {"z": z})
    variants = golden.call.get("variants", {})
    assert {f"img_{name}" for name in variants} == {name for name in outputs if name.startswith("img_")}
    for name, changes in variants.items():
        assert_close(network(z, c, **call | our_call(changes)), outputs[f"img_{name}"], tolerance, name)


@pytest.mark.parametrize("golden", cases("training.networks.Discriminator", SOURCE))
def test_discriminator(golden: Golden) -> None:
    network = loaded(Discriminator, golden.config, golden.state).eval()
    image = golden.inputs["img"].requires_grad_()
    logits = network(image, golden.inputs.get("c"), **our_call(golden.call["kwargs"]))
    assert_close(logits[:, None], golden.outputs["logits"], golden.tolerance["forward"], "logits")
    check_gradients(golden, network, logits, {"img": image})


@pytest.mark.parametrize("golden", cases("training.networks.MappingNetwork", SOURCE))
def test_mapping_and_its_average(golden: Golden) -> None:
    network, outputs = loaded(MappingNetwork, golden.config, golden.state), golden.outputs
    ws = network(golden.inputs["z"], golden.inputs.get("c"))
    tolerance = golden.tolerance["forward"]
    assert_close(ws, outputs["ws"], tolerance, "ws")
    assert_close(ws, outputs["ws_skip"], tolerance, "ws_skip")
    network.track(ws[:, 0].detach().mean(0))
    assert_close(network.w_avg, outputs["w_avg_after"], tolerance, "w_avg")
    assert_close(network.w_avg, outputs["w_avg_after_skip"], tolerance, "w_avg after a call that leaves it")


NETWORKS = [Generator, Discriminator, MappingNetwork]


@pytest.mark.parametrize("golden", [p for n in NETWORKS for p in cases(f"training.networks.{n.__name__}", SOURCE)])
def test_names_go_both_ways(golden: Golden) -> None:
    cls = getattr(stylegan2, golden.official_class.rsplit(".", 1)[-1])
    ours = loaded(cls, golden.config, golden.state).state_dict()
    filters = next((t for name, t in golden.state.items() if name.endswith("resample_filter")), None)
    taps = (1, 3, 3, 1) if filters is None else (filters.sum(0) / filters.sum()).tolist()
    back = to_official(ours, resample_filter=taps)
    assert back.keys() == golden.state.keys()
    for name, tensor in golden.state.items():
        assert_close(back[name], tensor, 1e-6, name)


class Replayed(StyleGAN2):
    """Trains on the recorded latents and path-length noise; notes the gradients of each step and the means of w."""

    recorded: dict[str, Tensor]

    def latents(self, n: int, purpose: str) -> Tensor:
        phase = {"g": "Gmain", "pl": "Greg", "d": "Dmain"}[purpose]
        by_phase = f"gen_z_{self.batches_seen}_{phase}"
        return self.recorded[by_phase if by_phase in self.recorded else "gen_z"][:n]

    def draws(self, *purpose: int | str) -> Any:
        return self if purpose == ("pl-noise",) else super().draws(*purpose)

    def normal(self, *shape: int) -> Tensor:
        assert self.recorded["pl_noise"].shape == shape
        return self.recorded["pl_noise"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.steps.append({name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None})


def replayed(golden: Golden, *, lr: float, loss: dict[str, Any]) -> Replayed:
    g, d = golden.config["G"], golden.config["D"]
    sizes = {"resolution": g["img_resolution"], "channels": g["img_channels"], "z_dim": g["z_dim"], "channel_max": 4}
    gan = Replayed(**sizes, w_dim=8, lr=lr, style_mixing=0, noise="const", total_kimg=1e6, **loss)
    gan.generator = loaded(Generator, g, under(golden.state, "G."))
    gan.generator_ema = loaded(Generator, g, under(golden.state, "G.")).requires_grad_(False)
    gan.discriminator = loaded(Discriminator, d, under(golden.state, "D."))
    gan.recorded, gan.steps = golden.inputs, []
    return gan


def fit(gan: StyleGAN2, batches: list[Tensor], *callbacks: pl.Callback) -> None:
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(gan, DataLoader([{"image": real} for real in batches], batch_size=None))


LOSSES = [p for p in cases("training.loss.StyleGAN2Loss", SOURCE) if "training_loop" not in p.values[0].official_class]


@pytest.mark.parametrize("golden", LOSSES)
def test_losses_and_their_gradients(golden: Golden) -> None:
    """With learning rate 0, each of the four steps starts from the recorded weights."""
    names = {"r1_gamma": "r1_gamma", "pl_batch_shrink": "pl_shrink", "pl_decay": "pl_decay", "pl_weight": "pl_weight"}
    intervals = {"pl_interval": dict(golden.call["phases"])["Greg"], "r1_interval": dict(golden.call["phases"])["Dreg"]}
    gan = replayed(golden, lr=0.0, loss={names[k]: v for k, v in golden.config["loss"].items()} | intervals)
    gan.pl_mean.copy_(golden.inputs["pl_mean_before"])
    means: list[Tensor] = []
    gan.generator.mapping.track = means.append
    w_avg = gan.generator.mapping.w_avg.clone()
    fit(gan, [golden.inputs["real_img"]])

    outputs, tolerance = golden.outputs, golden.tolerance
    decay = gan.generator.mapping.w_avg_decay
    for phase, mean in zip(["Gmain", "Greg", "Dmain"], means, strict=True):
        after = w_avg.lerp(mean, 1 - decay)
        assert_close(after, outputs[f"{phase}/w_avg_after"], tolerance["forward"], f"w_avg after {phase}")
    assert_close(w_avg, outputs["Dreg/w_avg_after"], tolerance["forward"], "w_avg after Dreg")
    assert_close(gan.pl_mean, outputs["Greg/pl_mean_after"], tolerance["forward"], "pl_mean")
    found = gan.reports.means()
    for ours, theirs in {
        "loss_g": "Gmain/Loss/G/loss",
        "path_length": "Greg/Loss/pl_penalty",
        "loss_d": "Dmain/Loss/D/loss",
        "fake_logits": "Dmain/Loss/scores/fake",
        "real_logits": "Dmain/Loss/scores/real",
        "r1": "Dreg/Loss/r1_penalty",
    }.items():
        assert_close(found[ours], outputs[theirs].mean(), tolerance["forward"], ours)
    for name, expected in under(outputs, "grad/").items():
        phase, key = name.split("/")
        step = gan.steps[["Gmain", "Greg", "Dmain", "Dreg"].index(phase)]
        ours = {"G": "generator.", "D": "discriminator."}[key[0]] + our_key(key[2:])
        assert_close(step[ours], expected, tolerance["gradient"], name)


@pytest.mark.parametrize("golden", cases("training.training_loop", SOURCE))
def test_whole_training_iterations(golden: Golden) -> None:
    config, inputs = golden.config, golden.inputs
    gan = replayed(golden, lr=config["lr"], loss={"r1_gamma": config["r1_gamma"]})
    gan.images_seen = config["cur_nimg"]
    batches = [inputs[f"real_img_{i}"] for i in range(config["iters"])]
    fit(gan, batches, EMA(config["ema_kimg"], config["ema_rampup"]))

    networks = {"G": gan.generator, "G_ema": gan.generator_ema, "D": gan.discriminator}
    for name, expected in under(golden.outputs, "after/").items():
        network, _, key = name.partition(".")
        found = gan.pl_mean if name == "pl_mean" else networks[network].state_dict()[our_key(key)]
        assert_close(found, expected, golden.tolerance["forward"], name)
    assert len(gan.steps) == 6  # the second iteration has no regularisation


COUNTS = FOLDER / "param_counts.json"


def published() -> list:
    """(name, counts) of every recorded StyleGAN2 configuration."""
    if not COUNTS.is_file():
        return absent(f"no {COUNTS}")
    counts = json.loads(COUNTS.read_text())
    return [pytest.param((name, counts[name]), id=name) for name in counts if name.startswith("stylegan2")]


@pytest.mark.parametrize("case", published())
def test_parameter_counts(case: tuple[str, dict[str, int]]) -> None:
    name, expected = case
    cifar, size = "cifar" in name, int("".join(c for c in name.rsplit("_", 1)[-1] if c.isdigit()) or 32)
    half_width = size < 512 and ("auto" in name or "paper" in name) and not cifar
    shared = {"resolution": size, "channel_base": 16384 if half_width else 32768}
    shared["c_dim"] = 10 if name.endswith("_cond") else 0
    with torch.device("meta"):
        generator = Generator(num_layers=2 if cifar or "auto" in name else 8, **shared)
        discriminator = Discriminator(architecture="orig" if cifar else "resnet", **shared)
    parts = {"generator": generator, "mapping": generator.mapping, "synthesis": generator.synthesis}
    found = {k: sum(p.numel() for p in m.parameters()) for k, m in (parts | {"discriminator": discriminator}).items()}
    assert found | {"num_ws": generator.mapping.num_ws} == expected


FORMULAS = FOLDER / "stylegan-training-formulas.json"
needs_formulas = pytest.mark.skipif(
    not FORMULAS.is_file() and os.environ.get("LIT_GANS_REQUIRE_GOLDEN") != "1", reason=f"no {FORMULAS}"
)


@needs_formulas
def test_the_average_ramps_up_as_published() -> None:
    for case in json.loads(FORMULAS.read_text())["G_ema"]["examples"]:
        found = ema_weight(case["batch"], case["cur_nimg"], half_life_kimg=case["ema_kimg"], ramp_up=case["rampup"])
        assert found == pytest.approx(case["beta"], rel=1e-9), case


@needs_formulas
def test_adam_is_corrected_as_published() -> None:
    for case in (v for k, v in json.loads(FORMULAS.read_text())["lazy_regularization"].items() if k in "GD"):
        adam = lazy_adam([nn.Parameter(torch.zeros(1))], lr=0.0025, betas=(0.0, 0.99), interval=case["k"])
        assert adam.param_groups[0]["lr"] == pytest.approx(case["lr_from_0_0025"])
        assert adam.param_groups[0]["betas"] == pytest.approx((0.0, case["beta2_from_0_99"]))


@needs_formulas
@pytest.mark.parametrize(
    ("experiment", "name"),
    [(name, name) for name in ("stylegan2", "paper256", "paper512", "paper1024")]
    + [("cifar10", "cifar"), ("ffhq256_auto", "auto")],
)
def test_experiments_have_the_published_numbers(experiment: str, name: str) -> None:
    plan = yaml.safe_load(shipped_configs()[f"stylegan2/{experiment}"].read_text())
    model, resolution = plan["model"]["init_args"], plan["data"]["init_args"]["resolution"]
    formulas = json.loads(FORMULAS.read_text())
    automatic = (c for c in formulas["stylegan2_ada_auto"] if (c["gpus"], c["res"]) == (1, resolution))
    expected = next(automatic) if name == "auto" else formulas["stylegan2_ada_cfg"][name]
    assert model["resolution"] == resolution and model["channel_base"] == 32768 * expected["fmaps"]
    assert plan["data"]["init_args"]["batch_size"] == expected["batch"]
    found = {"mbstd": "mbstd_group_size", "lr": "lr", "gamma": "r1_gamma", "map": "num_layers", "kimg": "total_kimg"}
    found |= {"map_layers": "num_layers", "pl_weight": "pl_weight", "style_mixing": "style_mixing"}
    found |= {"d_architecture": "discriminator_architecture"}
    for official, ours in found.items():
        if official in expected:
            assert model[ours] == pytest.approx(expected[official]), ours
    assert plan["ema"]["half_life_kimg"] == expected["ema_kimg"]
    assert plan["ema"]["ramp_up"] == expected["ramp" if "ramp" in expected else "ema_rampup"]
