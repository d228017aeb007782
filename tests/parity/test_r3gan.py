"""R3GAN's networks, losses and schedules against recorded values of brownvc/R3GAN."""

import re
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader

from lit_gans.adversarial.losses import relativistic
from lit_gans.adversarial.penalties import input_gradient
from lit_gans.callbacks.ema import ema_weight
from lit_gans.official import OfficialNetwork, apply_keys, dropped_keys, invert
from lit_gans.papers import R3GAN
from lit_gans.papers.r3gan import OFFICIAL_KEYS, Discriminator, Generator, from_official_config, told
from tests.parity.golden import Golden, cases, count_parameters, facts, our_name, published, under

SOURCE = "brownvc/R3GAN"
NETWORKS = {"Generator": Generator, "Discriminator": Discriminator}
GENERATORS = cases("Generator", SOURCE)
DISCRIMINATORS = cases("Discriminator", SOURCE)
on = pytest.mark.parametrize


def loaded(cls: type[nn.Module], config: dict[str, Any], state: dict[str, Tensor]) -> Any:
    """The network with the official weights; strict both ways."""
    network = cls(**from_official_config(config))
    network.load_state_dict(apply_keys(state, OFFICIAL_KEYS, ours=network.state_dict()))
    return network


def compare(golden: Golden, network: nn.Module, given: str, made: str) -> None:
    """The output, the recorded scalar of it, and gradients; there are no layers that training would change."""
    leaves = golden.leaves
    output = network(leaves[given], leaves.get("c", leaves.get("y")))
    scalar = (output * leaves[f"w_{made}"]).sum()
    found = {made: output, f"train/{made}": output, f"eval/{made}": output, "scalar": scalar}
    golden.compare(found | golden.gradients(scalar, leaves, network, keys=OFFICIAL_KEYS))


@on("golden", GENERATORS)
def test_generator(golden: Golden) -> None:
    compare(golden, loaded(Generator, golden.config, golden.state), "z", "img")


@on("golden", DISCRIMINATORS)
def test_discriminator(golden: Golden) -> None:
    compare(golden, loaded(Discriminator, golden.config, golden.state), "x", "logit")


@on("golden", [*GENERATORS, *DISCRIMINATORS])
def test_names_go_both_ways_and_say_what_the_network_is(golden: Golden) -> None:
    kind, state = golden.official_class.rpartition(".")[2], golden.state
    network = loaded(NETWORKS[kind], golden.config, state)
    back = invert(network.state_dict(), OFFICIAL_KEYS, official=state, dropped=dropped_keys(state, OFFICIAL_KEYS))
    assert list(back) == list(state) and all(torch.equal(back[name], tensor) for name, tensor in state.items())
    for name, kernel in dropped_keys(state, OFFICIAL_KEYS).items():
        i, n = re.findall(r"\d+", name)
        own = network.get_buffer(f"stages.{i}.{n}.resample_filter")
        torch.testing.assert_close(own if own.dim() == 2 else own.outer(own), kernel)
    said = told(OfficialNetwork(kind, (), {}, {f"Model.{name}": t for name, t in state.items()}, frozenset(), {}, ""))
    said.pop("FP16Stages")  # of which names and shapes say nothing
    again = loaded(NETWORKS[kind], said, state)
    inputs = golden.inputs
    arguments = inputs.get("z", inputs.get("x")), inputs.get("c", inputs.get("y"))
    torch.testing.assert_close(again(*arguments), network(*arguments))


# ---- losses ----------------------------------------------------------------------------------------------------------


@on("golden", cases("AdversarialTraining", SOURCE))
def test_the_loss_of_each_sample(golden: Golden) -> None:
    """By its pair: sample i of the reals and sample i of the fakes."""
    config, leaves = golden.config, golden.leaves
    generator = loaded(Generator, config["G"], under(golden.state, "G."))
    discriminator = loaded(Discriminator, config["D"], under(golden.state, "D."))
    c = leaves.get("c", leaves.get("y"))
    fake = generator(leaves["z"], c).detach()
    logits = {name: discriminator(x, c) for name, x in {"real": leaves["real"], "fake": fake}.items()}
    of_pairs = [relativistic(r, f) for r, f in zip(logits["real"], logits["fake"], strict=True)]
    d_loss, g_loss = (torch.stack(losses) for losses in zip(*of_pairs, strict=True))
    gap = logits["real"] - logits["fake"]
    torch.testing.assert_close(d_loss, softplus(-gap))
    found = {"D_adversarial": d_loss, "D_relativistic": gap, "G_adversarial": g_loss, "G_relativistic": -gap}
    for name, images in {"R1": leaves["real"], "R2": fake}.items():
        gradient = input_gradient(lambda x: discriminator(x, c), images)
        found[name] = gradient.square().flatten(1).sum(1)
    found["D_loss_mean"] = (d_loss + config["Gamma"] / 2 * (found["R1"] + found["R2"])).mean()
    golden.compare(found, recorded={name: t for name, t in golden.outputs.items() if not name.startswith("grad")})


class Replayed(R3GAN):
    """Both players' steps of a recorded case: on its reals and latents, from its weights, which stay."""

    def start(self, golden: Golden) -> None:
        self.recorded, self.steps, self.losses = golden.inputs, list[dict[str, Tensor]](), list[Tensor]()

    def share(self, batch: dict[str, Tensor], player: str) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.recorded["real"], self.recorded["z"], self.recorded.get("c", self.recorded.get("y"))

    def accumulate(self, loss: Tensor) -> None:
        self.losses.append(loss.detach())
        super().accumulate(loss)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.steps.append({name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None})


@on("golden", cases("AdversarialTraining", SOURCE))
def test_the_steps_of_both_players(golden: Golden) -> None:
    config = golden.config
    widths = config["G"]["WidthPerStage"]
    sizes = {"resolution": 4 * 2 ** (len(widths) - 1), "widths": [1] * len(widths), "z_dim": 1, "expansion": 1}
    sizes |= {"cardinalities": [1] * len(widths), "num_blocks": [1] * len(widths)}  # these make way for the recorded
    gamma = {"gamma": config["Gamma"], "gamma_end": 0.0}
    gan = Replayed(**sizes, **gamma, num_classes=config["G"].get("ConditionDimension") or 0, lr=0.0, lr_end=0.0)
    gan.generator = loaded(Generator, config["G"], under(golden.state, "G."))
    gan.discriminator = loaded(Discriminator, config["D"], under(golden.state, "D."))
    gan.start(golden)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(gan, DataLoader([{"image": gan.recorded["real"]}], batch_size=None))

    reports, (of_d, of_g) = gan.reports.means(), gan.steps
    found = {"D_adversarial": reports["loss_d"], "D_loss_mean": gan.losses[0], "G_adversarial": reports["loss_g"]}
    found |= {"D_relativistic": reports["real_logits"] - reports["fake_logits"]}
    found |= {"R1": reports["r1"], "R2": reports["r2"], "G_relativistic": -found["D_relativistic"]}
    for prefix, player, step in (("grad_D/", "discriminator.", of_d), ("grad_G/", "generator.", of_g)):
        recorded = under(golden.outputs, prefix)
        found |= {prefix + name: step[player + our_name(name, t, OFFICIAL_KEYS)] for name, t in recorded.items()}
    means = {n: t if n.startswith("grad") else t.mean() for n, t in golden.outputs.items()}
    golden.compare(found, recorded=means)
    assert len(gan.losses) == 2 and torch.equal(gan.losses[1], reports["loss_g"])


# ---- numbers ---------------------------------------------------------------------------------------------------------

# PRESETS of train.py: widths in 256ths, groups in 3rds; the number of classes.
WIDTHS = {"CIFAR10": [4] * 4, "FFHQ-64": [4] * 4 + [2], "FFHQ-256": [4] * 4 + [2, 1, 0.5], "ImageNet-32": [8] * 4}
WIDTHS["ImageNet-64"] = [8] * 5


@on("case", published("param_counts_other.json", "r3gan/"))
def test_parameter_counts(case: tuple[str, int]) -> None:
    name, expected = case
    player, preset = re.match(r"r3gan/([GD]) ([\w-]+)", name).groups()
    widths = [round(192 * w) for w in WIDTHS[preset]]
    groups = [w // (16 if "ImageNet" in preset else 8) for w in widths]
    classes = 1000 if "ImageNet" in preset else 10 if "conditional" in name else 0
    gan = {"resolution": 4 * 2 ** (len(widths) - 1), "num_classes": classes, "widths": widths, "cardinalities": groups}
    with torch.device("meta"):
        whole = R3GAN(**gan, num_blocks=[2] * len(widths))
    assert count_parameters(whole.generator if player == "G" else whole.discriminator) == expected


def test_the_schedules_of_ffhq256() -> None:
    """On the authors' clock, which counts one player's images; ours counts both players', twice as many."""
    recorded = facts("facts_other.json")["r3gan FFHQ-256 schedule"]
    gan = R3GAN(
        resolution=8, widths=[1, 1], cardinalities=[1, 1], num_blocks=[1, 1], gamma=150, gamma_end=15, decay_kimg=40_000
    )
    ends = {"lr": (gan.lr, gan.lr_end), "gamma": (gan.gamma, gan.gamma_end), "beta2": (gan.betas[1], gan.beta2_end)}
    ends |= {"aug_p": (0.0, 0.3), "ema_nimg": (0.0, 500e3)}
    for i, images in enumerate(recorded["cur_nimg"]):
        gan.images_seen = int(2 * images)
        for name, (start, end) in ends.items():
            assert gan.now(start, end) == pytest.approx(recorded["values"][name][i], rel=1e-12, abs=1e-9), name
        found = ema_weight(512, gan.images_seen, half_life_kimg=1000, ramp_up=None, rise_kimg=40_000)
        assert found == pytest.approx(recorded["ema_beta_batch256"][i], rel=1e-12)
