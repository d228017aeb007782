"""StyleGAN2's networks, losses and training loop against recorded values of stylegan2-ada-pytorch."""

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
from lit_gans.official import apply_keys
from lit_gans.papers import stylegan2
from lit_gans.papers.stylegan2 import (
    OFFICIAL,
    OFFICIAL_KEYS,
    Discriminator,
    Generator,
    MappingNetwork,
    StyleGAN2,
    from_official_config,
)
from lit_gans.runs.configs import shipped_configs
from tests.official.layout import stylegan2_state
from tests.parity.golden import (
    Golden,
    assert_close,
    cases,
    count_parameters,
    facts,
    our_name,
    published,
    translated,
    under,
)

SOURCE = "stylegan2-ada-pytorch"
CALL = OFFICIAL[0].call
TRUNCATION = ("psi", "cutoff")
on = pytest.mark.parametrize


def loaded(cls: type[nn.Module], config: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """The network with the official weights; strict both ways."""
    network = cls(**from_official_config(config))
    network.load_state_dict(apply_keys(state, OFFICIAL_KEYS))
    return network


def our_calls(golden: Golden) -> dict[str, dict[str, Any]]:
    """Our arguments of the recorded call, under "", and of its variants, under "_<name>"."""
    call = golden.call.get("kwargs", {})
    variants = {f"_{name}": call | changes for name, changes in golden.call.get("variants", {}).items()}
    return {name: translated(arguments, CALL) for name, arguments in ({"": call} | variants).items()}


@on("golden", cases("training.networks.Generator", SOURCE))
def test_generator(golden: Golden) -> None:
    network, leaves, found = loaded(Generator, golden.config, golden.state).eval(), golden.leaves, {}
    z, c = leaves["z"], leaves.get("c")
    for name, call in our_calls(golden).items():
        found[f"img{name}"] = network(z, c, **{"noise": "const"} | call)
        found[f"ws{name}"] = network.mapping(z, c, **{k: call[k] for k in TRUNCATION if k in call})
    golden.compare(found | golden.gradients(golden.scalar(found["img"]), leaves, network, keys=OFFICIAL_KEYS))


@on("golden", cases("training.networks.Discriminator", SOURCE))
def test_discriminator(golden: Golden) -> None:
    network, leaves, found = loaded(Discriminator, golden.config, golden.state).eval(), golden.leaves, {}
    for name, call in our_calls(golden).items():
        found[f"logits{name}"] = network(leaves["img"], leaves.get("c"), **call)[:, None]
    golden.compare(found | golden.gradients(golden.scalar(found["logits"]), leaves, network, keys=OFFICIAL_KEYS))


@on("golden", cases("training.networks.MappingNetwork", SOURCE))
def test_mapping_and_its_average(golden: Golden) -> None:
    network, leaves, found = loaded(MappingNetwork, golden.config, golden.state), golden.leaves, {}
    given = leaves.get("z"), leaves.get("c")
    if golden.mode == "train":  # the average moves first, and only then are styles truncated to it
        ws = network(*given).detach()
        network.track((ws if network.num_ws is None else ws[:, 0]).mean(0))
        found |= {"w_avg_after": network.w_avg, "w_avg_after_skip": network.w_avg}
    for name, call in our_calls(golden).items():
        found[f"ws{name}"] = network(*given, **call)
    found["ws_skip"] = found["ws"]
    golden.compare(found | golden.gradients(golden.scalar(found["ws"]), leaves, network, keys=OFFICIAL_KEYS))


NETWORKS = [Generator, Discriminator, MappingNetwork]


@on("golden", [p for n in NETWORKS for p in cases(f"training.networks.{n.__name__}", SOURCE)])
def test_names_go_both_ways(golden: Golden) -> None:
    cls, ours = getattr(stylegan2, golden.official_class.rsplit(".", 1)[-1]), from_official_config(golden.config)
    state = loaded(cls, golden.config, golden.state).state_dict()
    back = stylegan2_state(state, resample_filter=ours.get("resample_filter", (1, 3, 3, 1)))
    assert back.keys() == golden.state.keys()
    for name, tensor in golden.state.items():
        assert_close(back[name], tensor, 1e-6, name)


# ---- the loss and the loop -------------------------------------------------------------------------------------------

PHASES = {"g": "Gmain", "pl": "Greg", "d": "Dmain"}  # by the purposes for which our game draws latents
# Arguments of the official loss and loop -> of our game; None: of no consequence, or at the value of FIXED alone.
TRAINING = {
    "r1_gamma": "r1_gamma",
    "pl_batch_shrink": "pl_shrink",
    "pl_decay": "pl_decay",
    "pl_weight": "pl_weight",
    "style_mixing_prob": None,
    "lr": "lr",
    "betas": "betas",
    "eps": None,
    **{"G_reg_interval": "pl_interval", "D_reg_interval": "r1_interval"},
    **{"Greg": "pl_interval", "Dreg": "r1_interval", "Gmain": None, "Dmain": None},  # the gains of the phases
    **dict.fromkeys(("batch", "pl_mean_before", "iters", "cur_nimg", "ema_kimg", "ema_rampup")),
}
FIXED = {"style_mixing_prob": 0, "eps": 1e-8, "Gmain": 1, "Dmain": 1}


class Replayed(StyleGAN2):
    """Trains on the recorded latents, conditions and path-length noise; notes each step's gradients, and logits."""

    recorded: dict[str, Tensor]

    def start(self, golden: Golden) -> None:
        self.recorded, self.steps, self.logits, self.waiting = golden.inputs, [], [], []
        self.discriminator.register_forward_pre_hook(self._judged_by)
        self.discriminator.register_forward_hook(lambda _, inputs, logits: self.logits.append(logits.detach()))

    def of_phase(self, name: str, phase: str) -> Tensor:
        """in/<name>_<batch>_<phase>, or what else the file has for all batches or phases."""
        i, other = self.batches_seen, "c" if name == "gen_c" else name
        names = (f"{name}_{i}_{phase}", f"{name}_{i}", f"{name}_{phase}", name, other)
        found = [self.recorded[name] for name in names if name in self.recorded]
        assert found, f"no in/{name} is recorded for {phase}"
        return found[0]

    def latents(self, n: int, purpose: str) -> Tensor:
        return self.of_phase("gen_z", PHASES[purpose])[:n]

    def mixed_styles(self, z: Tensor, c: Tensor | None, purpose: str) -> Tensor:
        """Fakes have recorded conditions, where our game takes those of the batch's reals."""
        c = None if c is None else self.of_phase("gen_c", PHASES[purpose])[: len(z)]
        self.waiting = [] if purpose == "pl" else [c]
        return super().mixed_styles(z, c, purpose)

    def _judged_by(self, _: nn.Module, inputs: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """What is judged next after styles were drawn is a fake, and has their condition."""
        return inputs[0], self.waiting.pop() if self.waiting else inputs[1]

    def draws(self, *purpose: int | str) -> Any:
        return self if purpose == ("pl-noise",) else super().draws(*purpose)

    def normal(self, *shape: int) -> Tensor:
        noise = self.of_phase("pl_noise", "Greg")
        assert noise.shape == shape
        return noise

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.steps.append({name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None})


def replayed(golden: Golden, **more: Any) -> Replayed:
    config = {name: value for name, value in golden.config.items() if not name.endswith("seed")}
    g, d, loss = config.pop("G"), config.pop("D"), config.pop("loss", {})
    gains = dict(golden.call.get("phases", []))
    loss = translated(config | loss | gains | more, TRAINING, FIXED)
    sizes = {"resolution": g["img_resolution"], "channels": g["img_channels"], "num_classes": g.get("c_dim", 0)}
    sizes |= {"z_dim": g["z_dim"], "w_dim": 8, "channel_max": 4}  # these networks make way for the recorded ones
    gan = Replayed(**sizes, style_mixing=0, noise="const", total_kimg=1e6, **loss)
    gan.generator = loaded(Generator, g, under(golden.state, "G."))
    gan.generator_ema = loaded(Generator, g, under(golden.state, "G.")).requires_grad_(False)
    gan.discriminator = loaded(Discriminator, d, under(golden.state, "D."))
    gan.start(golden)
    return gan


def fit(gan: Replayed, suffixes: list[str], *callbacks: pl.Callback) -> None:
    """On in/real_img<suffix> and their conditions."""
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    batches = [{"image": gan.recorded[f"real_img{suffix}"]} for suffix in suffixes]
    for batch, suffix in zip(batches, suffixes, strict=True):
        if gan.num_classes:
            batch["label"] = gan.recorded[f"real_c{suffix}" if f"real_c{suffix}" in gan.recorded else "c"]
    trainer.fit(gan, DataLoader(batches, batch_size=None))


@on("golden", cases("training.loss.StyleGAN2Loss", SOURCE, without="training_loop"))
def test_losses_and_their_gradients(golden: Golden) -> None:
    """With learning rate 0, each of the four steps starts from the recorded weights."""
    gan, means = replayed(golden, lr=0.0), []
    gan.pl_mean.copy_(golden.inputs.get("pl_mean_before", torch.zeros(())))
    mapping = gan.generator.mapping
    w_avg, mapping.track = mapping.w_avg.clone(), means.append
    fit(gan, [""])

    found = values(gan) | {f"{phase}/w_avg_after": w_avg for phase in ("Gmain", "Greg", "Dmain", "Dreg")}
    for phase, mean in zip(phases(gan, of_means=True), means, strict=True):
        found[f"{phase}/w_avg_after"] = w_avg.lerp(mean, 1 - mapping.w_avg_decay)
    for phase, step in zip(phases(gan), gan.steps, strict=True):
        for name, recorded in under(golden.outputs, f"grad/{phase}/").items():
            player = {"G": "generator.", "D": "discriminator."}[name[0]]
            found[f"grad/{phase}/{name}"] = step[player + our_name(name[2:], recorded, OFFICIAL_KEYS)]
    # Where the official values are those of each sample, ours may be their mean.
    means_of = {name for name, value in found.items() if "/Loss/" in name and value.dim() == 0}
    golden.compare(found, recorded={name: t.mean() if name in means_of else t for name, t in golden.outputs.items()})


def phases(gan: Replayed, *, of_means: bool = False) -> list[str]:
    """The steps that the game makes; `of_means`: those in which it averages w."""
    made = {"Gmain": True, "Greg": gan.pl_weight > 0, "Dmain": True, "Dreg": gan.r1_gamma > 0 and not of_means}
    return [phase for phase, happens in made.items() if happens]


def values(gan: Replayed) -> dict[str, Tensor]:
    """What the game reported and the discriminator said, by official names."""
    reports, (fake, fake_again, real) = gan.reports.means(), gan.logits
    names = {
        "Gmain/Loss/G/loss": ("loss_g", 1),
        "Greg/Loss/pl_penalty": ("path_length", 1),
        "Greg/Loss/G/reg": ("path_length", gan.pl_weight),
        "Dmain/Loss/D/loss": ("loss_d", 1),
        "Dreg/Loss/r1_penalty": ("r1", 1),
        "Dreg/Loss/D/reg": ("r1", gan.r1_gamma / 2),
    }
    found = {name: weight * reports[ours] for name, (ours, weight) in names.items() if ours in reports}
    for name, logits in {"Gmain/{}/fake": fake, "Dmain/{}/fake": fake_again, "Dmain/{}/real": real}.items():
        found |= {name.format("Loss/scores"): logits[:, None], name.format("Loss/signs"): logits[:, None].sign()}
    again = {name.replace("Dmain", "Dreg"): value for name, value in found.items() if name.endswith("/real")}
    return found | again | {"Greg/pl_mean_after": gan.pl_mean}


@on("golden", cases("training.training_loop", SOURCE))
def test_whole_training_iterations(golden: Golden) -> None:
    config = golden.config
    gan = replayed(golden)
    gan.images_seen = config.get("cur_nimg", 0)
    average = EMA(config.get("ema_kimg", 10), config.get("ema_rampup"))
    fit(gan, [f"_{i}" for i in range(config["iters"])], average)

    found = {"after/pl_mean": gan.pl_mean}
    for name, network in {"G": gan.generator, "G_ema": gan.generator_ema, "D": gan.discriminator}.items():
        found |= golden.buffers(network, OFFICIAL_KEYS, prefix=f"after/{name}.")
    golden.compare(found)


@on("case", published("param_counts.json", "stylegan2"))
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
    found = {k: count_parameters(m) for k, m in (parts | {"discriminator": discriminator}).items()}
    assert found | {"num_ws": generator.mapping.num_ws} == expected


FORMULAS = "stylegan-training-formulas.json"


def test_the_average_ramps_up_as_published() -> None:
    for case in facts(FORMULAS)["G_ema"]["examples"]:
        found = ema_weight(case["batch"], case["cur_nimg"], half_life_kimg=case["ema_kimg"], ramp_up=case["rampup"])
        assert found == pytest.approx(case["beta"], rel=1e-9), case


def test_adam_is_corrected_as_published() -> None:
    for case in (v for k, v in facts(FORMULAS)["lazy_regularization"].items() if k in "GD"):
        adam = lazy_adam([nn.Parameter(torch.zeros(1))], lr=0.0025, betas=(0.0, 0.99), interval=case["k"])
        assert adam.param_groups[0]["lr"] == pytest.approx(case["lr_from_0_0025"])
        assert adam.param_groups[0]["betas"] == pytest.approx((0.0, case["beta2_from_0_99"]))


@on(
    ("experiment", "name"),
    [(name, name) for name in ("stylegan2", "paper256", "paper512", "paper1024")]
    + [("cifar10", "cifar"), ("ffhq256_auto", "auto")],
)
def test_experiments_have_the_published_numbers(experiment: str, name: str) -> None:
    plan = yaml.safe_load(shipped_configs()[f"stylegan2/{experiment}"].read_text())
    model, resolution = plan["model"]["init_args"], plan["data"]["init_args"]["resolution"]
    formulas = facts(FORMULAS)
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
