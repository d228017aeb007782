"""pix2pix and CycleGAN: networks, losses and steps against recorded values of pytorch-CycleGAN-and-pix2pix."""

import json
import os
import re
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

from lit_gans.adversarial import Game, learning_rate_factor
from lit_gans.adversarial.losses import least_squares, non_saturating, wasserstein
from lit_gans.adversarial.penalties import gradient_penalty, input_gradient
from lit_gans.official.names import apply_keys, dropped_keys, invert
from lit_gans.papers import cyclegan, pix2pix
from lit_gans.papers.cyclegan import CycleGAN, ResNet, squared
from lit_gans.papers.pix2pix import PatchGAN, Pix2Pix, PixelGAN, UNet
from tests.parity.golden import FOLDER, Golden, absent, assert_close, cases

SOURCE = "pytorch-CycleGAN-and-pix2pix"
NETWORKS = {
    "UnetGenerator": UNet,
    "ResnetGenerator": ResNet,
    "NLayerDiscriminator": PatchGAN,
    "PixelDiscriminator": PixelGAN,
}
# Official constructor arguments -> ours, the positional ones first.
ARGUMENTS = {
    "UnetGenerator": {"input_nc": "in_channels", "output_nc": "out_channels", "num_downs": "levels", "ngf": "width"},
    "ResnetGenerator": {"input_nc": "in_channels", "output_nc": "out_channels", "ngf": "width", "n_blocks": "blocks"},
    "NLayerDiscriminator": {"input_nc": "channels", "ndf": "width", "n_layers": "layers"},
    "PixelDiscriminator": {"input_nc": "channels", "ndf": "width"},
}
SAME = {"norm": "norm", "use_dropout": "dropout", "padding_type": "padding"}


def keys(official: str, norm: str) -> dict[str, str | None]:
    if official != "ResnetGenerator":
        return pix2pix.OFFICIAL_KEYS
    return cyclegan.OFFICIAL_KEYS if norm == "instance" else cyclegan.RESNET_KEYS


def built(official: str, config: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """Our network of an official class and configuration, with the official weights; strict both ways."""
    names = ARGUMENTS[official] | SAME
    network = NETWORKS[official](**{names[name]: value for name, value in config.items()})
    network.load_state_dict(apply_keys(state, keys(official, config["norm"]), ours=network.state_dict()))
    return network


def described(text: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """`NLayerDiscriminator(6,ndf=4,norm=batch)`, or the same as a mapping, -> the class and its arguments."""
    if isinstance(text, dict):
        return text["class_"], {name: value for name, value in text.items() if name != "class_"}
    official, inside = re.fullmatch(r"(\w+)\((.*)\)", text).groups()
    config = {"norm": "batch"} | ({"use_dropout": False} if official.endswith("Generator") else {})
    positional = iter(ARGUMENTS[official])
    for part in (part.strip() for part in inside.split(",")):
        name, _, value = part.rpartition("=")
        if part in ("dropout", "no dropout"):
            config["use_dropout"] = part == "dropout"
        else:
            config[name or next(positional)] = int(value) if value.isdigit() else value
    return official, config


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def single_networks() -> list:
    found = cases("models.networks.", SOURCE)
    return [p for p in found if p.id == "absent" or p.values[0].official_class.rsplit(".", 1)[-1] in NETWORKS]


@pytest.mark.parametrize("golden", single_networks())
def test_network(golden: Golden) -> None:
    """Both modes, the buffers that one training pass changes, and gradients."""
    official, config, tolerance = golden.official_class.rsplit(".", 1)[-1], golden.config, golden.tolerance
    network, outputs, table = built(official, config, golden.state), golden.outputs, keys(official, config["norm"])
    x = golden.inputs["x"].requires_grad_()
    assert_close(network.eval()(x), outputs["eval/y"], tolerance["forward"], "eval/y")
    y = network.train()(x)
    assert_close(y, outputs["train/y"], tolerance["forward"], "train/y")
    buffers, changed = dict(network.named_buffers()), apply_keys(under(outputs, "train_state/"), table)
    assert changed.keys() == buffers.keys()
    for name, expected in changed.items():
        assert_close(buffers[name], expected, tolerance["forward"], name)
    (y * golden.inputs["w_y"]).sum().backward()
    expected = under(outputs, "grad/")
    assert_close(x.grad, expected.pop("x"), tolerance["gradient"], "x")
    for name, gradient in apply_keys(expected, table).items():
        assert_close(network.get_parameter(name).grad, gradient, tolerance["gradient"], name)


@pytest.mark.parametrize("golden", single_networks())
def test_names_go_both_ways(golden: Golden) -> None:
    official, state = golden.official_class.rsplit(".", 1)[-1], golden.state
    network, table = built(official, golden.config, state), keys(official, golden.config["norm"])
    back = invert(network.state_dict(), table, official=state, dropped=dropped_keys(state, table))
    assert list(back) == list(state) and all(torch.equal(back[name], t) for name, t in state.items())


def test_statistics_that_old_instance_norms_kept_are_dropped() -> None:
    network = ResNet(width=1, blocks=1)
    official = {re.sub("layers", "model", name, count=1): t for name, t in network.state_dict().items()}
    official = {re.sub("layers", "conv_block", name): t for name, t in official.items()}
    old = official | {"model.2.running_mean": torch.zeros(1), "model.2.running_var": torch.ones(1)}
    assert apply_keys(old, cyclegan.OFFICIAL_KEYS, ours=network.state_dict()).keys() == network.state_dict().keys()


@pytest.mark.parametrize("golden", cases("models.networks.GANLoss", SOURCE))
def test_losses_and_gradient_penalty(golden: Golden) -> None:
    inputs, outputs, tolerance = golden.inputs, golden.outputs, golden.tolerance
    pred, zeros = inputs["pred"], torch.zeros_like(inputs["pred"])
    vanilla, critic = non_saturating(pred, pred), wasserstein(zeros, pred)
    found = {"vanilla_real": vanilla[1], "vanilla_fake": vanilla[0] - vanilla[1]}
    found |= {"wgangp_real": critic[1], "wgangp_fake": critic[0]}
    found |= {"lsgan_real": squared(pred, 1), "lsgan_fake": squared(pred, 0)}
    for name, value in found.items():
        assert_close(value, outputs[name], tolerance["forward"], name)
    assert_close(2 * least_squares(zeros, pred)[1], outputs["lsgan_real"], tolerance["forward"], "ours is half of it")

    official, config = described(golden.config["netD"])
    network, weight = built(official, config, under(golden.state, "netD.")), golden.config["lambda_gp"]
    real, fake, table = inputs["real"], inputs["fake"], keys(official, config["norm"])
    shares = {"real": torch.ones(len(real)), "fake": torch.zeros(len(real)), "mixed": inputs["alpha"].flatten()}
    for kind, mix in shares.items():
        norms = input_gradient(network, fake.lerp(real, mix.view(-1, 1, 1, 1))).flatten(1).norm(dim=1)
        assert_close(norms, outputs[f"gp_{kind}_gradnorm"], tolerance["forward"], kind)
        if golden.config["constant"] != 1:
            continue  # ours is the paper's, about 1
        penalty = weight * gradient_penalty(network, real, fake, mix=mix)
        assert_close(penalty, outputs[f"gp_{kind}"], tolerance["forward"], kind)
        network.zero_grad()
        penalty.backward()
        for name, expected in apply_keys(under(outputs, f"grad/gp_{kind}/netD."), table).items():
            assert_close(network.get_parameter(name).grad, expected, tolerance["gradient"], f"{kind} {name}")


# ---- a step of each, with learning rate 0 ----------------------------------------------------------------------------


class Noted:
    """Mixed into a translator: keeps the gradients of all steps and what each network returned."""

    def watch(self, names: list[str]) -> None:
        self.gradients: dict[str, Tensor] = {}
        self.returned: dict[str, list[Tensor]] = {name: [] for name in names}
        for name, outputs in self.returned.items():
            self.get_submodule(name).register_forward_hook(lambda _, x, y, outputs=outputs: outputs.append(y.detach()))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.gradients |= {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}


class NotedPix2Pix(Noted, Pix2Pix):
    pass


class NotedCycleGAN(Noted, CycleGAN):
    pass


def one_step(game: Game, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the game reports after one batch."""
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(game, DataLoader([batch], batch_size=None))
    return game.reports.means()


Placed = dict[str, tuple[str, dict[str, str | None]]]


def place(game: Noted, golden: Golden, slots: dict[str, str]) -> Placed:
    """Puts the recorded networks into the game; official name -> (attribute, table of names)."""
    placed = {}
    for official_name, attribute in slots.items():
        official, config = described(golden.config[official_name[:4]])
        setattr(game, attribute, built(official, config, under(golden.state, f"{official_name}.")))
        placed[official_name] = (attribute, keys(official, config["norm"]))
    game.watch(list(slots.values()))
    return placed


def ours(tensors: dict[str, Tensor], placed: Placed) -> dict[str, Tensor]:
    """Tensors by official network and name -> by our game's."""
    found = {}
    for official_name, (attribute, table) in placed.items():
        own = apply_keys(under(tensors, f"{official_name}."), table)
        found |= {f"{attribute}.{name}": tensor for name, tensor in own.items()}
    assert len(found) == len(tensors)
    return found


def check_step(golden: Golden, game: Noted, placed: Placed, losses: dict[str, Tensor]) -> None:
    """Every recorded loss, gradient and buffer."""
    outputs, tolerance = golden.outputs, golden.tolerance
    assert {name for name in outputs if name.startswith("loss_")} <= losses.keys()
    for name, value in losses.items():
        assert_close(value, outputs[name], tolerance["forward"], name)
    for name, expected in ours(under(outputs, "grad/"), placed).items():
        assert_close(game.gradients[name], expected, tolerance["gradient"], name)
    for name, expected in ours(under(outputs, "state_after/"), placed).items():
        assert_close(game.state_dict()[name], expected, tolerance["forward"], name)


@pytest.mark.parametrize("golden", cases("models.pix2pix_model.Pix2PixModel", SOURCE))
def test_a_step_of_pix2pix(golden: Golden) -> None:
    config, inputs = golden.config, golden.inputs
    assert config["gan_mode"] == "vanilla" and config["pool_size"] == 0, "the paper's form alone"
    game = NotedPix2Pix(levels=2, width=1, discriminator_width=1, l1_weight=config["lambda_L1"], lr=0.0)
    placed = place(game, golden, {"netG": "generator", "netD": "discriminator"})
    reports = one_step(game, {"a": inputs["real_A"], "b": inputs["real_B"]})

    assert_close(game.returned["generator"][0], golden.outputs["fake_B"], golden.tolerance["forward"], "fake_B")
    fake_logits, real_logits, fake_again = game.returned["discriminator"]
    assert torch.equal(fake_logits, fake_again), "the discriminator changed in between"
    losses = {"loss_D": reports["loss_d"], "loss_G": reports["loss_g"], "loss_G_GAN": reports["adversarial"]}
    losses |= {"loss_G_L1": game.l1_weight * reports["l1"]}
    losses |= {"loss_D_fake": non_saturating(fake_logits, -fake_logits)[1]}
    losses |= {"loss_D_real": non_saturating(real_logits, real_logits)[1]}
    check_step(golden, game, placed, losses)


@pytest.mark.parametrize("golden", cases("models.cycle_gan_model.CycleGANModel", SOURCE))
def test_a_step_of_cyclegan(golden: Golden) -> None:
    config, outputs, tolerance = golden.config, golden.outputs, golden.tolerance["forward"]
    assert config["gan_mode"] == "lsgan", "the paper's form alone"
    weights = {"cycle_weight": (config["lambda_A"], config["lambda_B"]), "identity_weight": config["lambda_identity"]}
    game = NotedCycleGAN(width=1, blocks=1, discriminator_width=1, lr=0.0, **weights)
    placed = place(game, golden, {f"net{letters}": name for letters, name in cyclegan.OFFICIAL_NETWORKS.items()})
    a, b = golden.inputs["real_A"], golden.inputs["real_B"]
    reports = one_step(game, {"a": a, "b": b})

    (fake_b, rec_b, *same_b), (_, rec_a, *same_a) = (game.returned[f"generator_{way}"] for way in ("ab", "ba"))
    assert_close(fake_b, outputs["fake_B"], tolerance, "fake_B")
    assert_close(rec_a, outputs["rec_A"], tolerance, "rec_A")
    (weight_a, weight_b), identity = game.cycle_weights, game.identity_weight
    judged = {"A": game.returned["discriminator_b"][0], "B": game.returned["discriminator_a"][0]}
    losses = {f"loss_G_{letter}": mse_loss(logits, torch.ones_like(logits)) for letter, logits in judged.items()}
    losses |= {"loss_cycle_A": weight_a * (rec_a - a).abs().mean(), "loss_cycle_B": weight_b * (rec_b - b).abs().mean()}
    identities = {"loss_idt_A": (same_b, b, weight_b), "loss_idt_B": (same_a, a, weight_a)}
    for name, (same, real, weight) in identities.items():
        losses[name] = identity * weight * (same[0] - real).abs().mean() if identity else torch.zeros(())
    losses |= {"loss_G": reports["loss_g"], "loss_D_A": reports["loss_d_b"], "loss_D_B": reports["loss_d_a"]}
    check_step(golden, game, placed, {name: value for name, value in losses.items() if name in outputs})
    both = outputs["loss_cycle_A"] / weight_a + outputs["loss_cycle_B"] / weight_b
    for found, expected in {
        reports["adversarial"]: outputs["loss_G_A"] + outputs["loss_G_B"], reports["cycle"]: both
    }.items():  # fmt: skip
        assert_close(found, expected, tolerance, "reports")


# ---- counts and schedule ---------------------------------------------------------------------------------------------

COUNTS, FACTS = FOLDER / "param_counts_other.json", FOLDER / "facts_other.json"


def published() -> list:
    """(description, count) of every recorded pix2pix and CycleGAN network."""
    if not COUNTS.is_file():
        return absent(f"no {COUNTS}")
    counts = json.loads(COUNTS.read_text())["counts"]
    return [pytest.param(case, id=case[0]) for case in counts.items() if re.match("(pix2pix|cyclegan)/", case[0])]


def from_description(text: str) -> nn.Module:
    """`pix2pix/unet_256 (3->3, ngf 64, batch norm)` -> the network."""
    kind, inside = re.fullmatch(r"\w+/(.+) \((.+)\)", text).groups()
    common = {"norm": re.search(r"(\w+) norm", inside)[1], "width": int(re.search(r"n[gd]f (\d+)", inside)[1])}
    if "gan" in kind:
        channels = int(re.search(r"(\d+) input", inside)[1])
        return pix2pix.patch_discriminator(int(re.search(r"(\d+)x\d+", kind)[1]), channels=channels, **common)
    fan_in, fan_out = map(int, re.search(r"(\d+)->(\d+)", inside).groups())
    common |= {"in_channels": fan_in, "out_channels": fan_out}
    size = int(re.search(r"_(\d+)", kind)[1])
    return UNet(levels=size.bit_length() - 1, **common) if "unet" in kind else ResNet(blocks=size, **common)


@pytest.mark.parametrize("case", published())
def test_parameter_counts(case: tuple[str, int]) -> None:
    with torch.device("meta"):
        network = from_description(case[0])
    assert sum(p.numel() for p in network.parameters()) == case[1]


@pytest.mark.skipif(not FACTS.is_file() and os.environ.get("LIT_GANS_REQUIRE_GOLDEN") != "1", reason=f"no {FACTS}")
@pytest.mark.parametrize("build", [lambda: Pix2Pix(levels=2, width=1), lambda: CycleGAN(blocks=1, width=1)])
def test_learning_rate_falls_as_published(build: Any) -> None:
    """The official rate is constant within an epoch, of which there are 200; ours falls past it in each."""
    game, facts = build(), json.loads(FACTS.read_text())
    (official,) = (v for k, v in facts.items() if k.startswith("pix2pix/cyclegan") and isinstance(v, dict))

    def factor(epoch: float) -> float:
        plan = {"schedule": game.schedule, "total_kimg": game.total_kimg, "decay_from_kimg": game.decay_from_kimg}
        return learning_rate_factor(epoch / 200 * game.total_kimg, **plan)

    for epoch, expected in official.items():
        assert factor(int(epoch) + 0.5) == pytest.approx(expected, abs=0.006), epoch
