"""pix2pix and CycleGAN: networks, losses and steps against recorded values of pytorch-CycleGAN-and-pix2pix."""

import re
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_gans.adversarial import Game, learning_rate_factor
from lit_gans.adversarial.losses import is_fake, is_real, least_squares, loss_by_path, wasserstein
from lit_gans.adversarial.penalties import gradient_penalty, input_gradient
from lit_gans.nn import Dropout
from lit_gans.official.names import apply_keys, dropped_keys, invert
from lit_gans.papers import cyclegan, pix2pix
from lit_gans.papers.cyclegan import CycleGAN, ResNet, distance, squared
from lit_gans.papers.pix2pix import PatchGAN, Pix2Pix, PixelGAN, UNet
from tests.parity.golden import Golden, absent, cases, count_parameters, facts, our_name, published, translated, under

SOURCE = "pytorch-CycleGAN-and-pix2pix"
NETWORKS = {
    "UnetGenerator": UNet,
    "ResnetGenerator": ResNet,
    "NLayerDiscriminator": PatchGAN,
    "PixelDiscriminator": PixelGAN,
}
# The official letters of a discriminator are those of the generator that it judges.
NETWORKS_OF_CYCLEGAN = {"netG_A": "generator_ab", "netG_B": "generator_ba", "netD_A": "discriminator_b",
                        "netD_B": "discriminator_a"}  # fmt: skip
# Official constructor arguments -> ours, the positional ones first.
IMAGES = {"input_nc": "in_channels", "output_nc": "out_channels"}
ARGUMENTS = {
    "UnetGenerator": IMAGES | {"num_downs": "levels", "ngf": "width", "use_dropout": "dropout"},
    "ResnetGenerator": IMAGES
    | {"ngf": "width", "n_blocks": "blocks", "use_dropout": "dropout", "padding_type": "padding"},
    "NLayerDiscriminator": {"input_nc": "channels", "ndf": "width", "n_layers": "layers"},
    "PixelDiscriminator": {"input_nc": "channels", "ndf": "width"},
}
DEFAULTS: dict[str, dict[str, Any]] = {  # where ours are others
    "UnetGenerator": {"use_dropout": False},
    "ResnetGenerator": {"n_blocks": 6},
    "NLayerDiscriminator": {},
    "PixelDiscriminator": {},
}
NORM = {"norm": "batch"}
MODES = ("eval", "train")  # in this order: evaluation has the buffers as they were


def keys(official: str) -> dict[str, str | None]:
    return cyclegan.OFFICIAL_KEYS if official == "ResnetGenerator" else pix2pix.OFFICIAL_KEYS


def built(official: str, config: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """Our network of an official class and configuration, with the official weights; strict both ways."""
    assert official in NETWORKS, f"{official} is no network that is known here"
    arguments = NORM | DEFAULTS[official] | config
    network = NETWORKS[official](**translated(arguments, ARGUMENTS[official] | {"norm": "norm"}))
    network.load_state_dict(apply_keys(state, keys(official), ours=network.state_dict()))
    return network


def assert_not_random(network: nn.Module) -> None:
    random = any(isinstance(layer, Dropout) and layer.p for layer in network.modules())
    assert not random, "use_dropout: in training the official code draws from torch's stream, which ours does not"


def described(text: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """`NLayerDiscriminator(6,ndf=4,norm=batch)`, or the same as a mapping, -> the class and its arguments."""
    if isinstance(text, dict):
        return text["class_"], {name: value for name, value in text.items() if name != "class_"}
    official, inside = re.fullmatch(r"(\w+)\((.*)\)", text).groups()
    config, positional = {}, iter(ARGUMENTS[official])
    for part in (part.strip() for part in inside.split(",")):
        name, _, value = part.rpartition("=")
        if part in ("dropout", "no dropout"):
            config["use_dropout"] = part == "dropout"
        else:
            words = {"True": True, "False": False}
            config[name or next(positional)] = int(value) if value.isdigit() else words.get(value, value)
    return official, config


def single_networks() -> list:
    found = [p for name in NETWORKS for p in cases(f"models.networks.{name}", SOURCE)]
    return [p for p in found if p.values[0].path is not None] or absent(f"no network of {SOURCE}")


@pytest.mark.parametrize("golden", single_networks())
def test_network(golden: Golden) -> None:
    """The modes of the call, buffers after one training pass, and gradients: in training where nothing is said."""
    official, config, leaves = golden.official_class.rsplit(".", 1)[-1], golden.config, golden.leaves
    network, table = built(official, config, golden.state), keys(official)
    modes = golden.call.get("modes", MODES)
    if "train" in modes:
        assert_not_random(network)
    found = {f"{mode}/y": network.train(mode == "train")(leaves["x"]) for mode in MODES if mode in modes}
    found |= golden.buffers(network, table)
    if "w_y" in leaves:
        mode = "eval" if "train" not in modes or "eval" in golden.call.get("grad", "") else "train"
        terms = found[f"{mode}/y"] * leaves["w_y"]
        found |= {"scalar": terms.sum()} | golden.gradients(terms.sum(), leaves, network, keys=table)
    golden.compare(found, scales={"scalar": terms.norm()} if "scalar" in found else None)


@pytest.mark.parametrize("golden", single_networks())
def test_names_go_both_ways(golden: Golden) -> None:
    official, state = golden.official_class.rsplit(".", 1)[-1], golden.state
    network, table = built(official, golden.config, state), keys(official)
    back = invert(network.state_dict(), table, official=state, dropped=dropped_keys(state, table))
    assert list(back) == list(state) and all(torch.equal(back[name], t) for name, t in state.items())


def test_statistics_that_old_instance_norms_kept_are_dropped() -> None:
    network = ResNet(width=1, blocks=1)
    official = {re.sub("layers", "model", name, count=1): t for name, t in network.state_dict().items()}
    official = {re.sub("layers", "conv_block", name): t for name, t in official.items()}
    old = official | {"model.2.running_mean": torch.zeros(1), "model.2.running_var": torch.ones(1)}
    found = apply_keys(old, cyclegan.OFFICIAL[0].table(old), ours=network.state_dict())
    assert found.keys() == network.state_dict().keys()


# ---- losses ----------------------------------------------------------------------------------------------------------


def lsgan(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Without the halves of ours, which are the paper's."""
    d_loss, g_loss = least_squares(real_logits, fake_logits)
    return 2 * d_loss, 2 * g_loss


# By the official gan_mode: the import path of both players' losses, and the terms of which they are made.
GAN_MODES = {
    "vanilla": "lit_gans.adversarial.losses.non_saturating",
    "lsgan": f"{__name__}.lsgan",
    "wgangp": "lit_gans.adversarial.losses.wasserstein",
}


def gan_mode(config: dict[str, Any], default: str) -> str:
    mode = config.get("gan_mode", default)
    assert mode in GAN_MODES, f"gan_mode is {mode!r}; known here are {', '.join(GAN_MODES)}"
    return mode


def gan_loss(mode: str, logits: Tensor, target: float) -> Tensor:
    """The official GANLoss, of logits that shall be real (1) or fake (0)."""
    if mode == "lsgan":
        return squared(logits, target)
    if mode == "wgangp":
        return wasserstein(torch.zeros_like(logits), logits)[0 if target == 0 else 1]
    return is_real(logits) if target else is_fake(logits)


PENALTY = {"netD": None, "lambda_gp": "weight", "constant": "constant", "gan_mode": None}
PENALTY |= {"target_real_label": None, "target_fake_label": None}


@pytest.mark.parametrize("golden", cases("models.networks.GANLoss", SOURCE))
def test_losses_and_gradient_penalty(golden: Golden) -> None:
    inputs, found = golden.inputs, {}
    fixed = {"target_real_label": 1, "target_fake_label": 0}
    config = {"weight": 10.0, "constant": 1.0} | translated(golden.config, PENALTY, fixed)
    for mode, path in GAN_MODES.items():
        pred = inputs["pred"]
        found |= {f"{mode}_{kind}": gan_loss(mode, pred, target) for kind, target in (("real", 1), ("fake", 0))}
        assert loss_by_path(path)(pred, pred)[0].allclose(found[f"{mode}_real"] + found[f"{mode}_fake"], atol=1e-6)
    if "netD" in golden.config:
        found |= penalties(golden, **config)
    golden.compare(found)


def penalties(golden: Golden, *, weight: float, constant: float) -> dict[str, Tensor]:
    """Of reals, of fakes and between them, with gradients. Ours is about norms of 1, the official one about any."""
    inputs, found = golden.inputs, {}
    official, arguments = described(golden.config["netD"])
    network, table = built(official, arguments, under(golden.state, "netD.")), keys(official)
    real, fake = inputs["real"], inputs["fake"]
    shares = {"real": torch.ones(len(real)), "fake": torch.zeros(len(real))}
    shares |= {"mixed": inputs["alpha"].flatten()} if "alpha" in inputs else {}
    for kind, mix in shares.items():
        norms = input_gradient(network, fake.lerp(real, mix.view(-1, 1, 1, 1))).flatten(1).norm(dim=1)
        penalty = weight * (norms - constant).square().mean()
        if constant == 1:
            penalty = weight * gradient_penalty(network, real, fake, mix=mix)
        found |= {f"gp_{kind}_gradnorm": norms, f"gp_{kind}": penalty}
        found |= golden.gradients(penalty, {}, network, keys=table, prefix=f"grad/gp_{kind}/netD.")
    return found


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
    placed, config = {}, golden.config
    for official_name, attribute in slots.items():
        official, arguments = described(config.get(official_name, config.get(official_name[:4])))
        network = built(official, arguments, under(golden.state, f"{official_name}."))
        assert_not_random(network)
        setattr(game, attribute, network)
        placed[official_name] = (attribute, keys(official))
    game.watch(list(slots.values()))
    return placed


def noted(golden: Golden, game: Noted, placed: Placed) -> dict[str, Tensor]:
    """The game's gradients and its state after the step, as the file has them."""
    found, state = {}, game.state_dict()
    for prefix, ours in (("grad/", game.gradients), ("state_after/", state)):
        for official_name, (attribute, table) in placed.items():
            own = under(ours, f"{attribute}.")
            for name, expected in under(golden.outputs, f"{prefix}{official_name}.").items():
                found[f"{prefix}{official_name}.{name}"] = own[our_name(name, expected, table)]
    return found


@pytest.mark.parametrize("golden", cases("models.pix2pix_model.Pix2PixModel", SOURCE))
def test_a_step_of_pix2pix(golden: Golden) -> None:
    # The official class makes no pool of fakes, whatever its size.
    names = {"lambda_L1": "l1_weight", **dict.fromkeys(("netG", "netD", "pool_size", "gan_mode"))}
    mode, inputs, weight = gan_mode(golden.config, "vanilla"), golden.inputs, translated(golden.config, names)
    game = NotedPix2Pix(levels=2, width=1, discriminator_width=1, lr=0.0, loss=GAN_MODES[mode], **weight)
    placed = place(game, golden, {"netG": "generator", "netD": "discriminator"})
    reports = one_step(game, {"a": inputs["real_A"], "b": inputs["real_B"]})

    fake_logits, real_logits, fake_again = game.returned["discriminator"]
    assert torch.equal(fake_logits, fake_again), "the discriminator changed in between"
    found = {"fake_B": game.returned["generator"][0], "loss_D": reports["loss_d"], "loss_G": reports["loss_g"]}
    found |= {"loss_G_GAN": reports["adversarial"], "loss_G_L1": game.l1_weight * reports["l1"]}
    found |= {"loss_D_fake": gan_loss(mode, fake_logits, 0), "loss_D_real": gan_loss(mode, real_logits, 1)}
    golden.compare(found | noted(golden, game, placed))


CYCLEGAN = {"lambda_A": "A", "lambda_B": "B", "lambda_identity": "identity_weight", "pool_size": "pool_size"}
CYCLEGAN["gan_mode"] = None
CYCLEGAN |= dict.fromkeys(f"net{kind}{letter}" for kind in "GD" for letter in ("", "_A", "_B"))


@pytest.mark.parametrize("golden", cases("models.cycle_gan_model.CycleGANModel", SOURCE))
def test_a_step_of_cyclegan(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """The game's loss is the paper's, least squares; another that was recorded takes its place."""
    config, mode = translated(golden.config, CYCLEGAN), gan_mode(golden.config, "lsgan")
    weights = {letter: config.pop(letter, 10.0) for letter in "AB"}
    monkeypatch.setattr(cyclegan, "squared", lambda logits, target: gan_loss(mode, logits.float(), target))
    cycle_weight = (weights["A"], weights["B"])
    game = NotedCycleGAN(width=1, blocks=1, discriminator_width=1, lr=0.0, cycle_weight=cycle_weight, **config)
    placed = place(game, golden, NETWORKS_OF_CYCLEGAN)
    a, b = golden.inputs["real_A"], golden.inputs["real_B"]
    reports = one_step(game, {"a": a, "b": b})

    (fake_b, rec_b, *same_b), (fake_a, rec_a, *same_a) = (game.returned[f"generator_{way}"] for way in ("ab", "ba"))
    found = {"fake_A": fake_a, "fake_B": fake_b, "rec_A": rec_a, "rec_B": rec_b}
    for letter, domain in {"A": "b", "B": "a"}.items():  # a generator has the letter of the domain that it starts from
        found[f"loss_G_{letter}"] = gan_loss(mode, game.returned[f"discriminator_{domain}"][0], 1)
        found[f"loss_D_{letter}"] = reports[f"loss_d_{domain}"]
    cycles = {"A": distance(rec_a, a), "B": distance(rec_b, b)}
    found |= {f"loss_cycle_{letter}": weights[letter] * cycle for letter, cycle in cycles.items()}
    identity = game.identity_weight  # each generator on images of its own target domain
    for letter, (same, real, weight) in {"A": (same_b, b, weights["B"]), "B": (same_a, a, weights["A"])}.items():
        found |= {f"idt_{letter}": same[0]} if identity else {}
        found[f"loss_idt_{letter}"] = identity * weight * distance(same[0], real) if identity else torch.zeros(())
    assert reports["adversarial"].allclose(found["loss_G_A"] + found["loss_G_B"])
    assert reports["cycle"].allclose(cycles["A"] + cycles["B"])
    golden.compare(found | {"loss_G": reports["loss_g"]} | noted(golden, game, placed))


# ---- counts and schedule ---------------------------------------------------------------------------------------------


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


NETWORK_COUNTS = [p for paper in ("pix2pix/", "cyclegan/") for p in published("param_counts_other.json", paper)]


@pytest.mark.parametrize("case", NETWORK_COUNTS)
def test_parameter_counts(case: tuple[str, int]) -> None:
    name, expected = case
    with torch.device("meta"):
        network = from_description(name)
    assert count_parameters(network) == expected


@pytest.mark.parametrize("build", [lambda: Pix2Pix(levels=2, width=1), lambda: CycleGAN(blocks=1, width=1)])
def test_learning_rate_falls_as_published(build: Any) -> None:
    """The official rate is constant within an epoch, of which there are 200; ours falls past it in each."""
    game, recorded = build(), facts("facts_other.json")
    (official,) = (v for k, v in recorded.items() if k.startswith("pix2pix/cyclegan") and isinstance(v, dict))

    def factor(epoch: float) -> float:
        plan = {"schedule": game.schedule, "total_kimg": game.total_kimg, "decay_from_kimg": game.decay_from_kimg}
        return learning_rate_factor(epoch / 200 * game.total_kimg, **plan)

    for epoch, expected in official.items():
        assert factor(int(epoch) + 0.5) == pytest.approx(expected, abs=0.006), epoch
