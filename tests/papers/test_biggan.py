"""BigGAN: what its layers, its training, its sampling and its configs promise beyond battery and recorded values."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, max_pool2d, one_hot

from lit_gans.adversarial.priors import Normal
from lit_gans.callbacks import EMA
from lit_gans.convert import convert
from lit_gans.official import write_state_dict
from lit_gans.official.names import Change
from lit_gans.papers import BigGAN, BigGANDeep
from lit_gans.papers.biggan import (
    HUB_KEYS,
    DeepDiscriminator,
    DeepGenerator,
    Discriminator,
    Generator,
)
from lit_gans.papers.biggan.layers import (
    BatchStatistics,
    Layers,
    PowerIteration,
    StatisticsTable,
    gather,
    norms_of,
    standing_in,
    vectors_kept,
)
from lit_gans.papers.biggan.networks import discriminator_sides, generator_sides
from lit_gans.papers.biggan.official import generator_arguments
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained
from tests.callbacks.common import fit, tiny_gan
from tests.cases import BATCH, CASES, largest_difference, state, train
from tests.papers.games import GANS
from tests.papers.replay import Replay, heard, moved, replayed, watched

SMALL = {"width": 2, "num_classes": 3, "attention": []}


def generator(**arguments: Any) -> Generator:
    torch.manual_seed(0)
    return Generator(**{"resolution": 32, "z_dim": 8, "shared_dim": 6, **SMALL, **arguments})


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [32, 64, 128, pytest.param(512, marks=pytest.mark.slow)])
@pytest.mark.parametrize("deep", [False, True])
def test_networks_are_built_at_every_size(deep: bool, resolution: int) -> None:
    players = (DeepGenerator, DeepDiscriminator) if deep else (Generator, Discriminator)
    torch.manual_seed(0)
    network, judge = (cls(**{**SMALL, "resolution": resolution, "channels": 1}) for cls in players)
    labels = torch.tensor([0, 2])
    images = network(torch.randn(2, network.z_dim), labels)
    assert images.shape == (2, 1, resolution, resolution) and images.abs().max() <= 1
    assert judge(images, labels).shape == (2,)


@pytest.mark.parametrize("deep", [False, True])
def test_unconditional_networks_take_no_classes(deep: bool) -> None:
    gan = (BigGANDeep if deep else BigGAN)(resolution=32, width=2, attention=[], num_classes=0, standing_passes=2)
    assert gan.sample([1, 2]).shape == (2, 3, 32, 32) and gan.discriminator(torch.zeros(2, 3, 32, 32)).shape == (2,)
    assert gan.drawn(4, "g")[1] is None


def test_attention_stands_where_the_official_code_has_it() -> None:
    """At 32 px all four blocks of the discriminator are said to end at 16."""
    assert generator_sides(128) == [8, 16, 32, 64, 128]
    assert discriminator_sides(32) == [16] * 4 and discriminator_sides(128) == [64, 32, 16, 8, 4, 4]
    judge = Discriminator(resolution=32, **{**SMALL, "attention": [16]})
    assert [len(stage) for stage in judge.blocks] == [2, 2, 2, 2]
    assert [len(stage) for stage in generator(attention=[16]).blocks] == [1, 2, 1]


def test_a_latent_is_cut_to_equal_parts() -> None:
    assert (generator(z_dim=11).z_dim, generator(z_dim=11).part) == (8, 2)
    assert generator(z_dim=11, hierarchical=False).z_dim == 11
    assert BigGAN(resolution=32, **SMALL, z_dim=11).z_dim == 8


def test_mixtures_of_classes_are_drawn() -> None:
    network, z = generator().eval(), torch.randn(3, 8)
    labels = torch.tensor([0, 2, 1])
    assert torch.allclose(network(z, labels), network(z, one_hot(labels, 3).float()), atol=1e-6)
    half = network(z[:1], torch.tensor([[0.5, 0.5, 0.0]]))
    assert half.isfinite().all() and not torch.allclose(half, network(z[:1], labels[:1]), atol=1e-4)
    with pytest.raises(ValueError, match="mixtures of classes need an embedding that all norms share"):
        generator(shared=False, hierarchical=False)(z, one_hot(labels, 3).float())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: generator(resolution=48), "resolution 48 is not one of 32, 64, 128, 256, 512"),
        (lambda: generator(width=0), "width 0 is below 1"),
        (lambda: generator(attention=[64]), "attention at 64 px, and the blocks end at 8, 16, 32 px"),
        (lambda: generator(width=1, attention=[16]), "attention over 4 channels: its keys have an eighth"),
        (lambda: generator(z_dim=3), "z_dim 3 does not give each of 4 parts a number"),
        (lambda: generator(shared=False), "hierarchical latents go into norms beside the shared embedding"),
        (lambda: generator(norm="group"), "norm 'group' is not one of batch, instance, none"),
        (lambda: generator(weight_norm="weight"), "weight_norm 'weight' is not one of spectral, stored, none"),
        (lambda: generator(init="he"), "init 'he' is not one of orthogonal, normal, xavier"),
        (lambda: generator(sn_steps=0), "sn_steps 0: power iteration needs 1 or more"),
        (lambda: generator()(torch.zeros(1, 8)), r"conditional: give labels \[N\] of its 3 classes"),
        (lambda: Discriminator(resolution=32, **SMALL)(torch.zeros(1, 3, 32, 32)), "discriminator is conditional"),
        (lambda: DeepGenerator(resolution=32, depth=0, **SMALL), "depth 0 leaves no block"),
        (lambda: BigGAN(d_steps=0, **SMALL), "d_steps 0 is below 1"),
        (lambda: BigGAN(standing_images=1, **SMALL), "statistics are of 2 images or more"),
        (lambda: BigGAN(truncation="clipped", **SMALL), "truncation 'clipped' is not one of scaled, resampled, hub"),
        (lambda: generator_arguments({"G_depht": 2}), "'depht' is no argument of the official network"),
        (lambda: generator_arguments({"D_ch": 2}), "'D_ch' is of the other player"),
        (lambda: generator_arguments({"norm_style": "gn"}), "norm_style is 'gn', not one of bn, in, nonorm"),
    ],
)
def test_bad_arguments_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_unknown_arguments_fail() -> None:
    for cls in (BigGAN, BigGANDeep):
        with pytest.raises(TypeError, match="widht"):
            cls(widht=3, **SMALL)


# ---- spectral normalisation ------------------------------------------------------------------------------------------


def test_power_iteration_finds_the_largest_singular_values_one_after_the_other() -> None:
    torch.manual_seed(0)
    layer = Layers("spectral", 1e-12, vectors=3).conv(4, 6)
    for _ in range(300):
        weight = layer.normalised()
    values = torch.linalg.svdvals(layer.weight.flatten(1))[:3]
    assert torch.allclose(torch.cat([layer.sv0, layer.sv1, layer.sv2]), values, rtol=1e-4)
    assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, rel=1e-4)


def test_evaluation_makes_a_step_and_keeps_nothing_of_it() -> None:
    torch.manual_seed(0)
    layer = Layers("spectral", steps=4).linear(5, 7).eval()
    before = copy.deepcopy(layer.state_dict())
    once = layer.normalised()
    assert torch.equal(once, layer.normalised()) and largest_difference(before, dict(layer.state_dict())) == 0
    v = nn.functional.normalize(before["u0"] @ layer.weight, dim=1)
    u = nn.functional.normalize(v @ layer.weight.T, dim=1)
    assert torch.allclose(once, layer.weight / (v @ layer.weight.T @ u.T))
    layer.train().normalised()
    assert not torch.equal(layer.u0, before["u0"])


# ---- training --------------------------------------------------------------------------------------------------------


def test_each_step_of_the_discriminator_has_reals_of_its_own_and_fakes_of_even_classes(tmp_path: Path) -> None:
    def look(game: BigGAN, batch: dict[str, Tensor]) -> None:
        with watched(game, "generator", "discriminator") as calls:
            run = Replay(game, batch).fresh()
        assert run.steps == [1, 1, 0]
        judged = [call for call in calls if (call.network, call.step) == ("discriminator", 1)]
        drawn = [call for call in calls if call.network == "generator"]
        half = BATCH // 2
        for step, call in enumerate(judged):
            images, labels = call.args
            assert torch.equal(images[half:], batch["image"][step::2]), "fakes first, then this step's reals"
            assert torch.equal(labels[half:], batch["label"][step::2])
            assert torch.equal(labels[:half], drawn[step].args[1]) and torch.equal(images[:half], drawn[step].out)
            assert not drawn[step].out.requires_grad
        assert len({tuple(call.args[0].flatten().tolist()) for call in drawn}) == 3
        (own,) = [call for call in calls if (call.network, call.step) == ("discriminator", 0)]
        assert torch.equal(own.args[1], drawn[2].args[1]) and len(own.args[0]) == half
        many = game.drawn(5000, "d0")[1]
        assert many.bincount(minlength=10).float().div(5000).sub(0.1).abs().max() < 0.02

    replayed(CASES["biggan-sngan"](), GANS["biggan-sngan"][1](tmp_path), tmp_path, look)


def test_steps_must_divide_the_batch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size 16 \(global\) is not divisible by 3 d_steps x 1 processes x 1"):
        train(CASES["biggan"](d_steps=3), tmp_path, batches=1)


def without_statistics(gan: BigGAN) -> BigGAN:
    """Each image on its own, and vectors of power iteration where they stay."""
    for network in (gan.generator, gan.generator_ema):
        network.norm.norm = nn.Identity()
    for layer in gan.modules():
        if isinstance(layer, PowerIteration):
            for _ in range(100):
                layer.normalised()
    return gan


def test_micro_batches_add_up_to_the_whole_batch(tmp_path: Path) -> None:
    """Steps of the discriminator and orthogonal regularisation included; Adam's steps in proportion to gradients."""
    ways = {"norm": "none", "d_steps": 2, "ortho_g": 1e-2, "ortho_d": 1e-2, "attention": [], "adam_eps": 1.0}
    ways |= {"lr_g": 1e-3, "lr_d": 1e-3, "init": "xavier"}  # singular values of orthogonal weights are all alike
    whole, parts = (without_statistics(CASES["biggan"](micro_batches=n, **ways)) for n in (1, 4))
    before = {name: t.clone() for name, t in whole.state_dict().items()}
    one = state(whole, train(whole, tmp_path / "a", batches=1))["state"]
    two = state(parts, train(parts, tmp_path / "b", batches=1))["state"]
    for player in ("generator.", "discriminator."):
        weights = [n for n in one if n.startswith(player) and n.endswith(("weight", "bias"))]
        after, split, start = ([of[n] for n in weights] for of in (one, two, before))
        assert largest_difference(after, split) < 0.01 * largest_difference(after, start)


def test_biases_before_norms_do_nothing_and_get_nothing(tmp_path: Path) -> None:
    for name in ("biggan", "biggan-deep", "biggan-sngan"):
        network = CASES[name]().generator.double().train()
        moved_away = torch.Generator().manual_seed(5)
        for p in network.parameters():
            p.data.add_(0.1 * torch.randn(p.shape, generator=moved_away).double())
        z, labels = torch.randn(6, network.z_dim, dtype=torch.float64, generator=moved_away), torch.arange(6)
        network(z, labels).sin().sum().backward()
        idle = {id(p) for p in network.idle_biases()}
        biases = {n: p for n, p in network.named_parameters() if ".bias" in n and p.dim() == 1}
        assert idle <= {id(p) for p in biases.values()}
        for full_name, p in biases.items():
            assert (p.grad.abs().max() < 1e-9) == (id(p) in idle), full_name

    gan = CASES["biggan"]()
    before = [p.detach().clone() for p in gan.generator.idle_biases()]
    train(gan, tmp_path, batches=2)
    assert largest_difference(before, [p.detach() for p in gan.generator.idle_biases()]) == 0


def test_orthogonal_regularisation_is_in_proportion_and_leaves_the_shared_embedding(tmp_path: Path) -> None:
    def look(game: BigGAN, batch: dict[str, Tensor]) -> None:
        moved(game)
        replay, runs = Replay(game, batch), []
        for game.ortho_g, game.ortho_d in ((0.0, 0.0), (0.3, 0.0), (0.6, 0.0), (0.0, 0.3)):
            runs.append(replay.fresh())
        none, once, twice, of_d = runs
        assert "ortho_g" not in none.reports and twice.reports["ortho_g"] > 0 and of_d.reports["ortho_d"] > 0
        added = once.gradients[0] - none.gradients[0]
        assert added.norm() > 1e-3 and torch.allclose(twice.gradients[0] - none.gradients[0], 2 * added, atol=1e-5)
        assert torch.equal(once.gradients[1], none.gradients[1]) and torch.equal(of_d.gradients[0], none.gradients[0])
        assert not torch.equal(of_d.gradients[1], none.gradients[1])
        place = 0
        for name, p in game.generator.named_parameters():
            part = added[place : place + p.numel()]
            assert (part.abs().max() > 1e-7) == (p.dim() > 1 and len(p) > 1 and name != "shared.weight"), name
            place += p.numel()

    replayed(CASES["biggan"](), GANS["biggan"][1](tmp_path), tmp_path, look)


@pytest.mark.parametrize(("start_kimg", "same"), [(0.064, False), (1.0, True)])
def test_the_average_is_a_copy_until_it_starts(start_kimg: float, same: bool, tmp_path: Path) -> None:
    gan = tiny_gan(total_kimg=0.064)
    fit(tmp_path, gan, EMA(0.1, None, start_kimg=start_kimg))
    live, average = gan.generator.parameters(), gan.generator_ema.parameters()
    assert all(torch.equal(a, b) for a, b in zip(live, average, strict=True)) == same
    with pytest.raises(ValueError, match=r"ema\.start_kimg -1 is negative"):
        EMA(start_kimg=-1)


# ---- sampling --------------------------------------------------------------------------------------------------------


def trained(folder: Path, name: str = "biggan", **options: Any) -> BigGAN:
    gan = CASES[name](**options)
    train(gan, folder, batches=2)
    return gan


def test_standing_statistics_are_gathered_once_and_leave_the_network_as_it_was(tmp_path: Path) -> None:
    gan = trained(tmp_path)
    for ema in (True, False):
        network, passes = gan.generator_ema if ema else gan.generator, []
        network.train(not ema)
        before = copy.deepcopy(network.state_dict())
        with heard(network, "forward", lambda z, labels, passes=passes: passes.append(len(z))):
            first = gan.sample([1, 2], ema=ema)
            assert passes == [8, 8, 2], "two passes of eight, then the images"
            assert torch.equal(gan.sample([1, 2], ema=ema), first) and passes == [8, 8, 2, 2]
            assert not torch.equal(gan.sample([1, 2], ema=ema, psi=0.5), first) and passes[4:] == [8, 8, 2]
            gan.sample([1, 2], ema=ema)
            assert passes[7:] == [2], "those of each psi are kept"
        assert largest_difference(dict(before), dict(network.state_dict())) == 0
        assert network.training == (not ema)
        assert all(norm.gathered is None and norm.standing is None for norm in norms_of(network))
        inputs = [gan._standing_inputs(number, 1.0) for number in range(2)]
        with vectors_kept(network):
            statistics = gather(network, inputs)
        network.eval()
        with standing_in(network, statistics):
            assert torch.equal(network(gan.seeded_latents([1, 2]), torch.tensor([1, 2])), first)
        with torch.no_grad():
            network.linear.weight.mul_(1.5)
        assert not torch.equal(gan.sample([1, 2], ema=ema), first)


def test_without_passes_running_statistics_are_taken(tmp_path: Path) -> None:
    gan = trained(tmp_path)
    standing = gan.sample([1, 2])
    gan.standing_passes = 0
    expected = gan.generator_ema.eval()(gan.seeded_latents([1, 2]), torch.tensor([1, 2]))
    assert torch.equal(gan.sample([1, 2]), expected) and not torch.equal(standing, expected)


def test_sampling_changes_nothing_of_training(tmp_path: Path) -> None:
    class Sampling(EMA):
        def on_train_batch_end(self, trainer: Any, pl_module: BigGAN, *args: Any) -> None:
            pl_module.sample([3], ema=False)
            pl_module.sample([3], psi=0.5)

    gan, other = CASES["biggan"](), CASES["biggan"]()
    one = state(gan, train(gan, tmp_path / "a", batches=3, callbacks=[Sampling()]))
    assert largest_difference(one, state(other, train(other, tmp_path / "b", batches=3))) == 0


def test_statistics_of_batches_are_biased_or_not() -> None:
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    for biased in (False, True):
        norm = BatchStatistics(2, eps=1e-5, biased=biased).train()
        norm(x)
        assert torch.allclose(norm.running_var, 0.9 + 0.1 * x.var((0, 2, 3), unbiased=not biased))


def test_each_way_to_truncate() -> None:
    gan, z = BigGAN(resolution=32, **SMALL), torch.randn(2000, 3)
    assert gan.truncation == "scaled" and torch.equal(gan.truncate(z, 0.5), 0.5 * z)
    assert torch.equal(gan.truncate(z, 1), z)
    gan.truncation = "resampled"
    assert 0.49 < gan.truncate(z, 0.5).abs().max() <= 0.5
    gan.truncation = "hub"
    assert 0.9 < gan.truncate(z, 0.5).abs().max() <= 1.0
    censored = BigGAN(resolution=32, **SMALL, prior="censored", truncation="resampled")
    assert (censored.latents(5, "g") >= 0).all() and not isinstance(censored.prior, Normal)
    with pytest.raises(ValueError, match=r"truncation 'resampled' is of N\(0, 1\), and the prior is CensoredNormal"):
        censored.sample([1], psi=0.5)


# ---- released weights ------------------------------------------------------------------------------------------------


def released(network: DeepGenerator) -> dict[str, Tensor]:
    """Our tensors under the names and in the layout of the released modules' port."""
    state: dict[str, Tensor] = {}

    def layer(theirs: str, module: nn.Module) -> None:
        for own, tensor in module.state_dict().items():
            state[f"{theirs}.{dict(weight='weight_orig', u='weight_u', v='weight_v').get(own, own)}"] = tensor.clone()

    def norm(theirs: str, module: nn.Module, dim: int) -> None:
        state[f"{theirs}.running_means"], state[f"{theirs}.running_vars"] = module.norm.means, module.norm.variances
        if isinstance(module.gain, nn.Parameter):
            state[f"{theirs}.weight"], state[f"{theirs}.bias"] = module.gain.detach(), module.shift.detach()
            return
        for name, part in (("scale", module.gain), ("offset", module.shift)):
            layer(f"{theirs}.{name}", part)
            for kind in ("weight_orig", "weight_v"):  # the latent first
                t = state[f"{theirs}.{name}.{kind}"]
                state[f"{theirs}.{name}.{kind}"] = torch.cat([t[..., dim:], t[..., :dim]], dim=-1)

    dim = network.z_dim
    state["embeddings.weight"] = network.shared.weight.detach().T.clone()
    layer("generator.gen_z", network.linear)
    rows = torch.arange(len(network.linear.weight)).view(-1, 4, 4).permute(1, 2, 0).flatten()  # channels last
    for name in ("weight_orig", "bias", "weight_u"):
        state[f"generator.gen_z.{name}"] = state[f"generator.gen_z.{name}"][rows]
    for name in ("weight_orig", "weight_v"):
        t = state[f"generator.gen_z.{name}"]
        state[f"generator.gen_z.{name}"] = torch.cat([t[..., dim:], t[..., :dim]], dim=-1)
    number = 0
    for stage in network.blocks:
        for k in range(4):
            norm(f"generator.layers.{number}.bn_{k}", stage[0].get_submodule(f"norm{k + 1}"), dim)
            layer(f"generator.layers.{number}.conv_{k}", stage[0].get_submodule(f"conv{k + 1}"))
        number += 1
        if len(stage) > 1:
            for name, theirs in (("theta", "theta"), ("phi", "phi"), ("g", "g"), ("o", "o_conv")):
                layer(f"generator.layers.{number}.snconv1x1_{theirs}", stage[1].get_submodule(name))
            state[f"generator.layers.{number}.gamma"] = stage[1].gamma.detach().view(1)
            number += 1
    norm("generator.bn", network.norm, dim)
    layer("generator.conv_to_rgb", network.to_rgb)
    return {name: t.detach().contiguous() for name, t in state.items()}


def drawn_by_names(state: dict[str, Tensor], z: Tensor, labels: Tensor, psi: float, layers: list[Any]) -> Tensor:
    """The released generator from its tensors alone: layers [(doubles, in, out), ...], None for attention."""

    def weight(name: str) -> Tensor:
        w, u, v = (state[f"{name}.weight_{part}"] for part in ("orig", "u", "v"))
        return w / (u @ w.flatten(1) @ v)

    def conv(name: str, x: Tensor) -> Tensor:
        w = weight(name)
        return conv2d(x, w, state.get(f"{name}.bias"), padding=w.shape[-1] // 2)

    def norm(name: str, x: Tensor) -> Tensor:
        row = round(psi * (len(state[f"{name}.running_means"]) - 1))
        mean, var = (state[f"{name}.running_{what}"][row][:, None, None] for what in ("means", "vars"))
        x = (x - mean) / (var + 1e-4).sqrt()
        if f"{name}.weight" in state:
            return (x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]).relu()
        gain, shift = (c @ weight(f"{name}.{part}").T for part in ("scale", "offset"))
        return (x * (1 + gain)[:, :, None, None] + shift[:, :, None, None]).relu()

    c = torch.cat([z, state["embeddings.weight"].T[labels]], 1)
    x = (c @ weight("generator.gen_z").T + state["generator.gen_z.bias"]).view(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    for number, layer in enumerate(layers):
        name = f"generator.layers.{number}"
        if layer is None:
            n, _, h, w = x.shape
            query, key, value = (conv(f"{name}.snconv1x1_{part}", x) for part in ("theta", "phi", "g"))
            key, value = max_pool2d(key, 2).flatten(2), max_pool2d(value, 2).flatten(2)
            seen = torch.softmax(torch.einsum("ncq,nck->nqk", query.flatten(2), key), -1)
            found = torch.einsum("nck,nqk->ncq", value, seen).view(n, -1, h, w)
            x = x + state[f"{name}.gamma"] * conv(f"{name}.snconv1x1_o_conv", found)
            continue
        doubles, _, out = layer
        y = norm(f"{name}.bn_1", conv(f"{name}.conv_0", norm(f"{name}.bn_0", x)))
        x = x[:, :out]
        if doubles:
            y, x = interpolate(y, scale_factor=2), interpolate(x, scale_factor=2)
        y = conv(f"{name}.conv_2", norm(f"{name}.bn_2", conv(f"{name}.conv_1", y)))
        x = x + conv(f"{name}.conv_3", norm(f"{name}.bn_3", y))
    return torch.tanh(conv("generator.conv_to_rgb", norm("generator.bn", x))[:, :3])


def hub_generator() -> DeepGenerator:
    torch.manual_seed(0)
    sizes = {"resolution": 128, "width": 4, "z_dim": 6, "shared_dim": 6, "num_classes": 5, "attention": [64]}
    network = DeepGenerator(
        **sizes, weight_norm="stored", rgb_maps=4, statistics=11, bn_eps=1e-4, out_eps=1e-4, sn_eps=1e-4
    ).eval()
    for name, tensor in network.state_dict().items():
        if tensor.dim() == 1 and not name.endswith((".u", ".v")):
            tensor.add_(0.2 * torch.randn(tensor.shape))
        elif name.endswith("means"):
            tensor.normal_(std=0.3)
        elif name.endswith("variances"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("gamma"):
            tensor.fill_(0.7)
    return network


def test_released_deep_weights_go_both_ways_and_draw_what_they_say(tmp_path: Path) -> None:
    network = hub_generator()
    theirs = released(network)
    write_state_dict(tmp_path / "pytorch_model.bin", theirs)
    convert(tmp_path / "pytorch_model.bin", tmp_path / "ours")
    ours = from_pretrained(tmp_path / "ours")
    assert largest_difference(dict(network.state_dict()), dict(ours.state_dict())) == 0
    convert(tmp_path / "ours", tmp_path / "again.bin", to="official")
    again = torch.load(tmp_path / "again.bin", weights_only=True)
    assert list(again) == list(theirs) and all(torch.equal(again[name], t) for name, t in theirs.items())

    gan = load_run(tmp_path / "ours")
    assert isinstance(gan, BigGANDeep) and (gan.truncation, gan.z_dim, gan.num_classes) == ("hub", 6, 5)
    widths = [16, 16, 8, 4, 2, 1]
    layers: list[Any] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [(False, 4 * a, 4 * a), (True, 4 * a, 4 * b)]
    layers.insert(8, None)
    z, labels = torch.randn(2, 6), torch.tensor([4, 1])
    for psi in (0.3, 1.0):
        expected = drawn_by_names(theirs, gan.truncate(z, psi), labels, psi, layers)
        assert torch.allclose(gan.generate(z, labels=labels, psi=psi), expected, atol=2e-5)
    assert not torch.allclose(gan.sample([3], psi=0.3), gan.sample([3], psi=0.8), atol=1e-3)
    with pytest.raises(ValueError, match=r"psi 1\.2: the released statistics are of truncations from 0 to 1"):
        gan.sample([3], psi=1.2)


def test_statistics_between_two_truncations_are_between_theirs() -> None:
    table = StatisticsTable(1, 51, eps=0.0)
    table.means.copy_(torch.arange(51.0)[:, None])
    for psi, mean in ((0.0, 0.0), (0.58, 29.0), (0.59, 29.5), (1.0, 50.0)):
        table.psi = psi
        assert -table(torch.zeros(1, 1, 1, 1)).item() == pytest.approx(mean)


def test_the_table_of_names_changes_tensors_back_exactly() -> None:
    for entry in HUB_KEYS.values():
        if isinstance(entry, Change):
            tensor = torch.randn(1) if "gamma" in entry.name else torch.randn(32, 6)
            assert torch.equal(entry.backward(entry.forward(tensor)), tensor)


@pytest.mark.parametrize("name", ["biggan", "biggan-deep", "biggan-sngan"])
def test_state_dicts_of_an_official_training_go_both_ways(name: str, tmp_path: Path) -> None:
    """The generator and the discriminator each alone, as the official code saves them; and the generator samples."""
    gan = CASES[name](channels=3)
    for player, network in (("G", gan.generator), ("D", gan.discriminator)):
        state = official_state(network)
        write_state_dict(tmp_path / f"{player}.pth", state)
        convert(tmp_path / f"{player}.pth", tmp_path / player)
        ours = from_pretrained(tmp_path / player)
        assert largest_difference(dict(network.state_dict()), dict(ours.state_dict())) == 0
        convert(tmp_path / player, tmp_path / f"{player}-again.pth", to="official")
        again = torch.load(tmp_path / f"{player}-again.pth", weights_only=True)
        assert list(again) == list(state) and all(torch.equal(again[key], t) for key, t in state.items())
    loaded = load_run(tmp_path / "G")
    z, labels = loaded.seeded_latents([4]), torch.tensor([4])
    assert torch.equal(loaded.sample([4]), gan.generator.eval()(z, labels)) and loaded.standing_passes == 0


def official_state(network: nn.Module) -> dict[str, Tensor]:
    """Our tensors under the names of BigGAN-PyTorch, in an order of ours."""
    names = {"shortcut": "conv_sc", "shift": "bias", "from_rgb": "input_conv"}
    state = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[0] == "norm":
            parts = ["output_layer", "0", *parts[1:]]
        elif parts[0] == "to_rgb":
            parts = ["output_layer", "2", *parts[1:]]
        parts = [names.get(part, part.replace("running_", "stored_")) for part in parts if part != "norm"]
        parts = [f"bn{part[4:]}" if part.startswith("norm") else part for part in parts]
        state[".".join(parts)] = tensor.clone()
    return state


# ---- experiments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "batch", "steps", "start"),
    [
        ("imagenet128", 2048, 1, 20000),
        ("imagenet256", 2048, 1, 20000),
        ("imagenet512", 2048, 1, 20000),
        ("deep_imagenet128", 2048, 1, 20000),
        ("deep_imagenet256", 2048, 1, 20000),
        ("deep_imagenet512", 2048, 1, 20000),
        ("cifar10", 50, 4, 1000),
        ("sagan_imagenet128", 256, 1, 2000),
    ],
)
def test_experiments_have_the_published_numbers(name: str, batch: int, steps: int, start: int) -> None:
    """Batches of the data are of all steps of the discriminator; averages keep 0.9999 a batch, once they start."""
    plan = yaml.safe_load(shipped_configs()[f"biggan/{name}"].read_text(encoding="utf-8"))
    model, data, ema = plan["model"]["init_args"], plan["data"]["init_args"], plan["ema"]
    assert data["batch_size"] == batch * steps and model.get("d_steps", 1) == steps
    assert model["resolution"] == data["resolution"]
    kimg = data["batch_size"] / 1000
    assert 0.5 ** (kimg / ema["half_life_kimg"]) == pytest.approx(0.9999, abs=1e-6)
    assert ema["start_kimg"] == pytest.approx(start * kimg) and ema["average_buffers"] and ema["ramp_up"] is None
    assert data["batch_size"] % (model.get("micro_batches", 1) * steps) == 0


def test_the_ancestors_are_configs() -> None:
    plans = {n: yaml.safe_load(shipped_configs()[f"biggan/{n}"].read_text(encoding="utf-8"))["model"]["init_args"]
             for n in ("sngan_cifar10", "sagan_imagenet128")}  # fmt: skip
    sn, sa = plans["sngan_cifar10"], plans["sagan_imagenet128"]
    assert (sn["d_steps"], sn["lr_g"], sn["lr_d"], sn["betas"]) == (5, 2e-4, 2e-4, [0.0, 0.9])
    assert (sn["wide"], sn["generator_norm"], sn["attention"], sn["schedule"]) == (False, "none", [], "linear")
    assert (sa["lr_g"], sa["lr_d"], sa["sn_eps"], sa["adam_eps"], sa["init"]) == (1e-4, 4e-4, 1e-8, 1e-8, "xavier")
    assert sa["attention"] == [64] and not sa["hierarchical"]


@pytest.mark.parametrize("name", ["biggan/cifar32", "biggan/imagenet128"])
def test_configs_build_their_models(name: str) -> None:
    plan = yaml.safe_load(shipped_configs()[name].read_text(encoding="utf-8"))
    with torch.device("meta"):
        gan = {"BigGAN": BigGAN}[plan["model"]["class_path"].rpartition(".")[2]](**plan["model"]["init_args"])
    assert gan.generator.resolution == plan["data"]["init_args"]["resolution"]
