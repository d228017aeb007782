"""BigGAN's and BigGAN-deep's layers, networks, losses and statistics against recorded values of BigGAN-PyTorch."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial.losses import hinge, is_fake, is_real, non_saturating
from lit_gans.adversarial.penalties import orthogonality
from lit_gans.callbacks.ema import EMA
from lit_gans.official import apply_keys, invert
from lit_gans.official.names import dropped_keys
from lit_gans.official.releases import of_state
from lit_gans.papers.biggan import OFFICIAL, OFFICIAL_KEYS, BigGAN
from lit_gans.papers.biggan.deep import DeepDiscriminator, DeepGenerator
from lit_gans.papers.biggan.layers import Layers, gather, norms_of, standing_in
from lit_gans.papers.biggan.networks import Discriminator, Generator
from lit_gans.papers.biggan.official import (
    deep_discriminator_arguments,
    deep_generator_arguments,
    discriminator_arguments,
    generator_arguments,
)
from tests.parity.golden import Golden, cases, count_parameters, facts, published, under
from tests.parity.recorded_images import as_recorded, reduced, weighted_terms

SOURCE = "BigGAN-PyTorch"
NETWORKS: dict[str, tuple[type[nn.Module], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "BigGAN.Generator": (Generator, generator_arguments),
    "BigGANdeep.Generator": (DeepGenerator, deep_generator_arguments),
    "BigGAN.Discriminator": (Discriminator, discriminator_arguments),
    "BigGANdeep.Discriminator": (DeepDiscriminator, deep_discriminator_arguments),
}
on = pytest.mark.parametrize
GENERATORS, DISCRIMINATORS = cases(".Generator", SOURCE, without="standing_stats"), cases(".Discriminator", SOURCE)
STANDING = cases("accumulate_standing_stats", SOURCE)


def built(golden: Golden) -> nn.Module:
    """The network with the official weights; strict both ways."""
    network, arguments = NETWORKS[golden.official_class.partition("(")[0].partition(",")[0].strip()]
    ours = network(**arguments(golden.config))
    ours.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS, ours=ours.state_dict()))
    return ours


def gradients(golden: Golden, scalar: Tensor, leaves: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """As recorded: of large images the gradient's centre."""
    whole = {name: name.partition("_crop")[0] for name in under(golden.outputs, "grad/")}
    inputs = {name: leaves[of] for name, of in whole.items() if of in leaves}
    found = golden.gradients(scalar, inputs, network, keys=OFFICIAL_KEYS)
    recorded = golden.outputs
    return {n: reduced(t, n, recorded[n].shape[-1]) if t.dim() == 4 and "_crop" in n else t for n, t in found.items()}


def compare(golden: Golden, draw: Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Of both modes, each from the recorded state: outputs, gradients in training, and the buffers that it moves."""
    found: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for mode in golden.call["modes"]:
        network, leaves = built(golden).train(mode == "train"), golden.leaves
        whole = draw(network, leaves)
        found |= as_recorded(whole, golden, f"{mode}/")
        if mode == "train":
            terms = weighted_terms(whole, golden.inputs)
            found |= {"scalar": terms.sum(), **gradients(golden, terms.sum(), leaves, network)}
            found |= golden.buffers(network, OFFICIAL_KEYS)
            scales = {"scalar": terms.norm()}
        else:
            before = apply_keys(golden.state, OFFICIAL_KEYS)
            assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items()), "evaluation moved it"
    golden.compare(found, scales=scales)


@on("golden", GENERATORS)
def test_generators(golden: Golden) -> None:
    compare(golden, lambda network, leaves: {"img": network(leaves["z"], leaves["y"])})


@on("golden", DISCRIMINATORS)
def test_discriminators(golden: Golden) -> None:
    compare(golden, lambda network, leaves: {"logit": network(leaves["x"], leaves["y"])[:, None]})


@on("golden", [*GENERATORS, *DISCRIMINATORS, *STANDING])
def test_names_go_both_ways_and_tell_the_network(golden: Golden) -> None:
    network, aside = built(golden), dropped_keys(golden.state, OFFICIAL_KEYS)
    back = invert(network.state_dict(), OFFICIAL_KEYS, official=golden.state, dropped=aside)
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())
    release = of_state(golden.state, OFFICIAL)
    again, _ = release.build(release.read(golden.state))
    assert type(again) is type(network)
    assert all(torch.equal(t, network.state_dict()[name]) for name, t in again.state_dict().items())


# ---- layers, losses, statistics --------------------------------------------------------------------------------------


@on("golden", cases("layers.SNConv2d", SOURCE))
def test_spectral_layers(golden: Golden) -> None:
    """One pass in evaluation, then those in training that the file has, each by what the pass before left."""
    config, inputs = golden.config, golden.inputs
    layers = Layers("spectral", config["eps"], config.get("num_svs", 1), config["num_itrs"])
    made = {
        "conv": (lambda size: layers.conv(*size), inputs["x"]),
        "linear": (lambda size: layers.linear(*size), inputs["v"]),
        "embed": (lambda size: layers.embedding(*size), inputs["y"]),
    }
    found: dict[str, Tensor] = {}
    for name, (make, x) in made.items():
        layer = make(config[name])
        layer.load_state_dict(under(golden.state, f"{name}."))
        found[f"{name}/eval"] = layer.eval()(x)
        layer.train()
        for step in range(sum(bool(re.fullmatch(rf"{name}/train\d+", each)) for each in golden.outputs)):
            found[f"{name}/train{step}"] = layer(x)
            found |= {f"{name}/{buffer}_after{step}": t.clone() for buffer, t in layer.named_buffers()}
    golden.compare(found)


@on("golden", cases("losses.loss_hinge_dis", SOURCE))
def test_losses(golden: Golden) -> None:
    """The file has both parts of the discriminators' losses, whose sum ours are."""
    real, fake = golden.inputs["d_real"], golden.inputs["d_fake"]
    found = {"dcgan_real": is_real(real), "dcgan_fake": is_fake(fake), "dcgan_gen": non_saturating(real, fake)[1]}
    found |= {"hinge_real": (1 - real).clamp(min=0).mean(), "hinge_fake": (1 + fake).clamp(min=0).mean()}
    found["hinge_gen"] = hinge(real, fake)[1]
    golden.compare(found)
    for loss, name in ((hinge, "hinge"), (non_saturating, "dcgan")):
        assert loss(real, fake)[0].item() == pytest.approx((found[f"{name}_real"] + found[f"{name}_fake"]).item())


@on("golden", cases("utils.ortho", SOURCE))
def test_orthogonal_regularisation(golden: Golden) -> None:
    """What it adds to gradients that are there."""
    weights = {n: t.requires_grad_() for n, t in golden.inputs.items() if not n.startswith("grad_")}
    found: dict[str, Tensor] = {}
    for form in ("ortho", "default_ortho"):
        regularised = [t for n, t in weights.items() if n not in golden.config["blacklist"]]
        penalty = orthogonality(regularised, norms=form == "default_ortho")
        of = torch.autograd.grad(penalty, list(weights.values()), allow_unused=True, materialize_grads=True)
        for (name, weight), gradient in zip(weights.items(), of, strict=True):
            before = golden.inputs.get(f"grad_{name}", torch.zeros_like(weight))
            found[f"{form}/grad_{name}"] = before + golden.config["strength"] * gradient
    golden.compare(found)


@on("golden", STANDING)
def test_standing_statistics(golden: Golden) -> None:
    """In the file's order: evaluation, one ordinary pass in training, and from the start the gathering of passes."""
    inputs, network = golden.inputs, built(golden).eval()
    z, y, passes = inputs["z"], inputs["y"], list(zip(inputs["zs"], inputs["ys"], strict=True))
    found = {"eval_before": network(z, y)}
    found["train_running"] = network.train()(z, y)
    found |= golden.buffers(network, OFFICIAL_KEYS, prefix="running/")
    network = built(golden).eval()
    statistics = gather(network, passes)
    with standing_in(network, statistics):
        found["eval_standing"] = network(z, y)
    kept = {n: t for n, t in golden.state.items() if n.endswith("accumulation_counter")}
    ours = {id(norm): each for norm, each in zip(norms_of(network), statistics, strict=True)}
    for name in under(golden.outputs, "state_after/"):
        if name in kept:
            found[f"state_after/{name}"] = torch.full_like(kept[name], len(passes))
        elif "stored" in name:  # there they are sums
            (own,) = apply_keys({name: torch.zeros(1)}, OFFICIAL_KEYS)
            mean, var = ours[id(network.get_submodule(own.rpartition(".")[0]))]
            found[f"state_after/{name}"] = len(passes) * (mean if name.endswith("mean") else var)
        else:  # vectors of power iteration, which passes have moved
            (own,) = apply_keys({name: torch.zeros(1)}, OFFICIAL_KEYS)
            found[f"state_after/{name}"] = network.state_dict()[own]
    golden.compare(found)


@on("psi", ["0.04", "0.1", "0.5", "1.0", "1.5", "2.0"])
def test_truncated_latents(psi: str) -> None:
    """Deviations and quantiles of both public conventions, each under its name here."""
    recorded = facts("facts_other.json")["biggan truncation"]["values"][psi]
    gan = BigGAN(resolution=32, width=2, attention=[], num_classes=2)
    z = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
    for ours, theirs in (("resampled", "resampled_at_threshold"), ("hub", "tfhub_style")):
        gan.truncation = ours
        found = gan.truncate(z, float(psi))
        assert found.std().item() == pytest.approx(recorded[f"{theirs}_std"], rel=5e-3)
        quantile = found.flatten().kthvalue(360_000).values.item()
        assert quantile == pytest.approx(recorded[f"{theirs}_quantile_0p9"], rel=1e-2)
        assert found.abs().max().item() <= recorded.get(f"{theirs}_max", float(psi)) * (1 + 1e-6)


# ---- numbers ---------------------------------------------------------------------------------------------------------


@on("case", published("param_counts_other.json", "biggan"))
def test_parameter_counts(case: tuple[str, int]) -> None:
    """Of names such as "biggan/G 128 ch96 dim_z 120 shared 128 attn 64"."""
    name, expected = case
    kind, player, resolution, said = re.fullmatch(r"(biggan(?:-deep)?)/([GD]) (\d+)\b(.*)", name).groups()
    said = said.replace("ch ", "ch")
    config = {f"{player}_ch": int(re.search(r"ch(\d+)", said)[1]), "resolution": int(resolution)}
    config[f"{player}_attn"] = re.search(r"attn (\d+)", said)[1]
    config["n_classes"] = 10 if "CIFAR-10" in said else 1000
    if depth := re.search(r"depth (\d+)", said):
        config[f"{player}_depth"] = int(depth[1])
    if player == "G":
        shared = re.search(r"(?<!no )shared (\d+)", said)
        config |= {"dim_z": int(re.search(r"dim_z (\d+)", said)[1]), "G_shared": shared is not None}
        config |= {"shared_dim": int(shared[1]) if shared else 0, "hier": "no hier" not in said}
    official = f"{'BigGANdeep' if 'deep' in kind else 'BigGAN'}.{'Generator' if player == 'G' else 'Discriminator'}"
    network, arguments = NETWORKS[official]
    with torch.device("meta"):
        built = network(**arguments(config))
    assert count_parameters(built) == expected


def test_averages_start_as_in_the_official_code() -> None:
    """A copy before the start, then the mean of what there is, of buffers too."""
    name = "biggan ema (decay 0.9, start_itr 3, itr 1..5, source 1,2,3,4,5)"
    expected = facts("facts_other.json")[name]["values"]
    decay, start = (float(re.search(rf"{what} ([\d.]+)", name)[1]) for what in ("decay", "start_itr"))

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()), requires_grad=False)
            self.register_buffer("kept", torch.zeros(()))
            self.register_buffer("count", torch.tensor(0))

    class Game:
        images_seen = 0
        average, live = Holder(), Holder()

        def averages(self) -> list[tuple[nn.Module, nn.Module]]:
            return [(self.average, self.live)]

    class Trainer:
        world_size = 1

    game, batch = Game(), {"image": torch.zeros(10, 1)}
    half_life = 0.01 * torch.log(torch.tensor(0.5)).item() / torch.log(torch.tensor(decay)).item()
    callback = EMA(half_life, None, start_kimg=start * 0.01, average_buffers=True)
    callback.on_fit_start(Trainer(), game)
    found = []
    for iteration, _ in enumerate(expected, 1):
        for tensor in (game.live.weight, game.live.kept, game.live.count):
            tensor.fill_(iteration)
        game.images_seen += 10
        callback.on_train_batch_end(Trainer(), game, None, batch, 0)
        found.append((game.average.weight.item(), game.average.kept.item(), game.average.count.item()))
    assert [weight for weight, _, _ in found] == pytest.approx(expected)
    assert [kept for _, kept, _ in found] == pytest.approx(expected)
    assert [count for _, _, count in found] == list(range(1, len(expected) + 1))
