"""StyleGAN2: what its networks and its training promise beyond the battery and the recorded values."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from lit_gans import fit as verb
from lit_gans.adversarial.penalties import path_length, r1
from lit_gans.augment import AdaptiveAugment
from lit_gans.base.random import Draws, current_draws, drawing
from lit_gans.papers.stylegan2 import (
    Discriminator,
    Generator,
    MappingNetwork,
    StyleGAN2,
    from_official_config,
    networks,
)
from lit_gans.papers.stylegan2.networks import as_condition, half_resolutions, resolutions, truncate
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from tests.cases import BATCH, largest_difference, state, train

SMALL = {"resolution": 16, "channel_base": 64, "channel_max": 8}


def tiny(**arguments: Any) -> StyleGAN2:
    torch.manual_seed(0)
    sizes = {"channels": 1, "z_dim": 8, "w_dim": 8, "num_layers": 2, "seed": 3, **SMALL}
    return StyleGAN2(**{**sizes, **arguments})


def generator(**arguments: Any) -> Generator:
    torch.manual_seed(0)
    network = Generator(**{"z_dim": 8, "w_dim": 8, "num_layers": 2, **SMALL, **arguments})
    for name, p in network.named_parameters():
        if name.endswith("noise_strength"):
            nn.init.constant_(p, 0.5)
    return network


def batch_of(gan: StyleGAN2, n: int = 8) -> dict[str, Tensor]:
    real = torch.rand(n, gan.channels, gan.resolution, gan.resolution, generator=torch.Generator().manual_seed(1))
    return {"image": real * 2 - 1}


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_every_architecture_gives_images_and_logits(architecture: str) -> None:
    g, d = generator(architecture=architecture), Discriminator(architecture=architecture, **SMALL)
    assert g.mapping.num_ws == 2 * int(math.log2(16)) - 2
    image = g(torch.randn(4, 8))
    assert image.shape == (4, 3, 16, 16) and d(image).shape == (4,)
    with_rgb = [name for name, block in g.synthesis.blocks.items() if block.to_rgb is not None]
    assert with_rgb == (["4", "8", "16"] if architecture == "skip" else ["16"])
    assert sum(block.skip is not None for block in g.synthesis.blocks.values()) == (
        2 if architecture == "resnet" else 0
    )


def test_labels_and_one_hot_conditions_are_the_same() -> None:
    g, d = generator(c_dim=5), Discriminator(c_dim=5, **SMALL)
    z, labels = torch.randn(4, 8), torch.tensor([0, 4, 2, 2])
    c = as_condition(labels, 5)
    assert torch.equal(g(z, labels, noise="const"), g(z, c, noise="const"))
    assert torch.equal(d(torch.ones(4, 3, 16, 16), labels), d(torch.ones(4, 3, 16, 16), c))
    assert not torch.allclose(g(z, labels.flip(0), noise="const")[1], g(z, c, noise="const")[1])


def test_noise_comes_from_the_enclosing_draws() -> None:
    g, z = generator(), torch.randn(4, 8)

    def under(*key: int, **share: int) -> Tensor:
        with drawing(Draws(*key, **share)):
            return g(z[: 4 // share.get("shares", 1)] if not share.get("share") else z[2:])

    assert current_draws() is None
    whole = under(1)
    assert torch.equal(whole, under(1)) and not torch.allclose(whole, under(2))
    halves = torch.cat([under(1, share=i, shares=2) for i in (0, 1)])
    assert torch.allclose(whole, halves, atol=1e-5)
    torch.manual_seed(7)
    ambient = g(z)
    torch.manual_seed(7)
    assert torch.equal(ambient, g(z))
    assert torch.equal(g(z, noise="const"), g(z, noise="const"))
    assert not torch.allclose(g(z, noise="const"), g(z, noise="none"))


def test_truncation() -> None:
    mapping, z = generator().mapping, torch.randn(4, 8)
    mapping.w_avg.copy_(torch.arange(8.0))
    ws = mapping(z)
    assert torch.equal(mapping(z, psi=0), mapping.w_avg.expand(4, 6, 8))
    assert torch.allclose(mapping(z, psi=0.7), mapping.w_avg + 0.7 * (ws - mapping.w_avg), atol=1e-5)
    some = truncate(ws, mapping.w_avg, psi=0.5, cutoff=2)
    assert torch.equal(some[:, 2:], ws[:, 2:]) and torch.allclose(some[:, :2], (ws[:, :2] + mapping.w_avg) / 2)


def test_mapping_layers_learn_a_hundred_times_slower_at_equal_output() -> None:
    """Weights are stored at 1 / lr_multiplier of what they count for."""
    mapping = MappingNetwork(z_dim=64, c_dim=0, w_dim=64, num_ws=2, num_layers=8)
    assert mapping.layers[0].weight.std().item() == pytest.approx(100, rel=0.05)
    assert mapping(torch.randn(64, 64)).square().mean().item() == pytest.approx(1.0, abs=0.7)


@pytest.mark.parametrize(("count", "expected"), [(0, set()), (1, {64}), (2, {32, 64}), (9, {8, 16, 32, 64})])
def test_top_resolutions_compute_in_half(count: int, expected: set[int]) -> None:
    assert half_resolutions(64, count) == expected


@pytest.mark.parametrize("half_dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_half_precision_is_near_full(architecture: str, half_dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "has_fast_half", lambda device: True)
    half = {"num_half_res": 2, "half_dtype": half_dtype, "conv_clamp": 256, "architecture": architecture}
    g, d = generator(**half), Discriminator(**half, **SMALL)
    z, seen = torch.randn(4, 8), []
    g.synthesis.blocks["16"].conv1.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    image, full = g(z, noise="const"), g(z, noise="const", force_fp32=True)
    assert seen == [getattr(torch, half_dtype), torch.float32] and image.dtype == torch.float32
    tolerance = {"float16": 0.01, "bfloat16": 0.08}[half_dtype] * full.abs().max().item()
    assert torch.allclose(image, full, atol=tolerance) and not torch.equal(image, full)
    assert torch.allclose(d(full), d(full, force_fp32=True), atol=10 * tolerance) and d(full).dtype == torch.float32


def test_a_cpu_computes_in_full_precision_whatever_is_set() -> None:
    half, dtypes = {"num_half_res": 2, "conv_clamp": 256}, set[torch.dtype]()
    g, d = generator(**half), Discriminator(**half, **SMALL)
    for module in (*g.modules(), *d.modules()):
        module.register_forward_hook(
            lambda module, args, out: dtypes.update(t.dtype for t in (out,) if torch.is_tensor(t))
        )
    d(g(torch.randn(2, 8), noise="const"))
    assert dtypes == {torch.float32}


# ---- penalties -------------------------------------------------------------------------------------------------------


def test_path_length_of_a_linear_synthesis_in_closed_form() -> None:
    torch.manual_seed(0)
    ws, a, noise = torch.randn(3, 4, 5), torch.randn(4, 5, 2 * 6 * 6), torch.randn(3, 2, 6, 6)
    lengths = path_length(lambda w: torch.einsum("nld,ldp->np", w, a).view(-1, 2, 6, 6), ws, noise=noise)
    rows = torch.einsum("ldp,np->nld", a, noise.flatten(1)) / 6  # J^T y, y = noise / sqrt(H W)
    assert torch.allclose(lengths, rows.square().sum(2).mean(1).sqrt(), rtol=1e-5)


def test_path_length_gives_every_parameter_a_gradient() -> None:
    g = generator(channels=1)
    path_length(g.synthesis.forward, g.mapping(torch.randn(2, 8)), noise=torch.randn(2, 1, 16, 16)).mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in g.parameters())
    assert g.synthesis.blocks["16"].to_rgb.bias.grad.abs().max() == 0
    assert g.mapping.layers[0].weight.grad.abs().max() > 0


class Doubled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * images


def test_r1_is_of_the_images_before_augmentation() -> None:
    gan, plain = tiny(augment=Doubled()), tiny()
    real = batch_of(gan)["image"]
    expected = 4 * r1(plain.discriminator, 2 * real)  # the chain rule through the doubling
    assert gan.r1_penalty(real, None).item() == pytest.approx(expected.item(), rel=1e-4)


# ---- training --------------------------------------------------------------------------------------------------------


def test_one_cutoff_for_the_global_batch_and_nine_in_ten_mix() -> None:
    gan, found = tiny(), []
    for gan.images_seen in range(0, 2000 * 16, 16):
        found.append(gan.mixing_cutoff("g"))
    counts = torch.bincount(torch.tensor(found))
    assert counts[0] == 0 and len(counts) == 7  # layers 1 to 5, and 6 where nothing is mixed
    assert counts[6].item() / 2000 == pytest.approx(0.1, abs=0.02)
    assert counts[1:6].min().item() / 1800 == pytest.approx(0.2, abs=0.03)
    assert {tiny(style_mixing=0).mixing_cutoff(str(i)) for i in range(20)} == {6}


def test_mixed_styles_are_those_of_two_latents() -> None:
    gan, z = tiny(style_mixing=1.0), torch.randn(4, 8)
    ws, first = gan.mixed_styles(z, None, "g"), gan.generator.mapping(z)
    other, cutoff = gan.generator.mapping(gan.latents(4, "g-mixing")), gan.mixing_cutoff("g")
    assert torch.equal(ws[:, :cutoff], first[:, :cutoff]) and torch.equal(ws[:, cutoff:], other[:, cutoff:])
    assert torch.equal(gan._means["w-g"][0], first[:, 0].mean(0)), "the other latents leave the average alone"


def test_averages_move_once_a_step_whatever_the_parts(tmp_path: Path) -> None:
    """Without what belongs to a micro-batch (minibatch std, the mean of its path lengths), parts change nothing."""
    whole = tiny(mbstd_channels=0, pl_weight=0, r1_interval=2)
    parts = tiny(mbstd_channels=0, pl_weight=0, r1_interval=2, micro_batches=4)
    one = state(whole, train(whole, tmp_path / "a", batches=3))["state"]
    two = state(parts, train(parts, tmp_path / "b", batches=3))["state"]
    assert one["generator.mapping.w_avg"].abs().max() > 0
    for name, tensor in one.items():
        assert largest_difference(tensor, two[name]) <= 1e-5 * max(1.0, tensor.abs().max().item()), name


def test_path_length_mean_follows_the_lengths_of_all_parts(tmp_path: Path) -> None:
    gan = tiny(micro_batches=2)
    train(gan, tmp_path, batches=1)
    noted: list[Tensor] = []
    gan._means, gan.generator.mapping.track = {"length": [torch.tensor(2.0), torch.tensor(4.0)]}, noted.append
    before = gan.pl_mean.item()
    gan.move_averages()
    assert before > 0 and gan.pl_mean.item() == pytest.approx(before + 0.01 * (3 - before)) and not noted


class Counting(StyleGAN2):
    """Notes who steps."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        first = optimizer.param_groups[0]["params"][0]
        self.order += "g" if any(p is first for p in self.generator.parameters()) else "d"


@pytest.mark.parametrize(
    ("weights", "order"),
    [({}, "ggdd" + "gd" * 3 + "ggd"), ({"pl_weight": 0.0, "r1_gamma": 0.0}, "gd" * 5)],
)
def test_lazy_terms_are_steps_of_their_own(weights: dict[str, float], order: str, tmp_path: Path) -> None:
    """A weight of 0 leaves the steps out, not the correction of Adam."""
    gan = tiny(lr=0.0025, **weights)
    gan.__class__, gan.order = Counting, ""
    trainer = train(gan, tmp_path, batches=5)
    assert gan.order == order
    opt_g, opt_d = (o.param_groups[0] for o in trainer.optimizers)
    assert (opt_g["lr"], opt_d["lr"]) == pytest.approx((0.0025 * 4 / 5, 0.0025 * 16 / 17))
    assert opt_g["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    assert opt_d["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_fakes_are_reused_when_asked(tmp_path: Path) -> None:
    for reuse, passes in ((False, 2), (True, 1)):
        gan, seen = tiny(reuse_fakes=reuse, pl_weight=0.0), []
        gan.generator.synthesis.register_forward_hook(lambda *args, seen=seen: seen.append(1))
        train(gan, tmp_path / str(reuse), batches=2)
        assert len(seen) == 2 * passes


def test_fakes_take_the_labels_of_the_reals(tmp_path: Path) -> None:
    gan, seen = tiny(num_classes=10, pl_weight=0.0, r1_gamma=0.0, style_mixing=0.0), []
    gan.generator.mapping.register_forward_pre_hook(lambda module, args: seen.append(("fake", args[1])))
    gan.discriminator.register_forward_pre_hook(lambda module, args: seen.append(("judged", args[1])))
    train(gan, tmp_path, batches=1)
    assert [who for who, _ in seen] == ["fake", "judged", "fake", "judged", "judged"]
    assert all(torch.equal(labels, seen[0][1]) for _, labels in seen) and len(seen[0][1].unique()) > 1


def test_real_logits_of_both_steps_are_observed_and_sampling_needs_no_augment(tmp_path: Path) -> None:
    gan = tiny(augment=AdaptiveAugment(p=0.25, xflip=1, brightness=1), r1_interval=2)
    train(gan, tmp_path, batches=3)
    signs, count = gan.augment.take_observed()
    assert count == (3 + 2) * BATCH and -count <= signs <= count
    again = load_run(tmp_path)
    assert again.augment is None and torch.equal(again.sample([1, 2]), gan.sample([1, 2]))


def test_what_is_reported(tmp_path: Path) -> None:
    gan = tiny()
    train(gan, tmp_path, batches=2)
    found = gan.reports.means()
    assert {"loss_d", "loss_g", "r1", "path_length", "pl_mean", "real_logits", "fake_logits"} <= {*found}
    assert found["pl_mean"].item() == pytest.approx(gan.pl_mean.item()) and found["r1"] > 0


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_styles_and_synthesis_are_the_two_halves_of_a_sample() -> None:
    gan = tiny(num_classes=3)
    gan.generator_ema.mapping.w_avg.fill_(0.5)
    z, labels = gan.seeded_latents(range(3)), torch.tensor([0, 1, 2])
    ws = gan.styles(z, labels=labels, psi=0.5).requires_grad_()
    image = gan.synthesize(ws)
    assert torch.allclose(image.clamp(-1, 1), gan.generate(z, labels=labels, psi=0.5), atol=1e-6)
    (gradient,) = torch.autograd.grad(image.square().sum(), ws)
    assert gradient.abs().max() > 0
    assert not torch.allclose(gan.generate(z, labels=labels, psi=0), gan.generate(z, labels=labels))
    average = gan.generate(z, labels=labels, psi=0)
    assert torch.allclose(average[0], average[2], atol=1e-6)


# ---- bad input, experiments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: resolutions(48), "resolution 48 is not a power of two.*use 32, 64"),
        (lambda: tiny(discriminator_architecture="skp"), "architecture 'skp' is not one of skip, resnet, orig"),
        (lambda: tiny(half_dtype="fp16"), "half_dtype 'fp16' is not one of float16, bfloat16"),
        (lambda: generator()(torch.randn(2, 8), noise="no"), "noise 'no' is not one of random, const, none"),
        (lambda: tiny(style_mixing=1.5), "style_mixing 1.5 is not a probability"),
        (lambda: tiny(r1_interval=0), "r1_interval 0.*must be 1 or more"),
        (lambda: generator(c_dim=3)(torch.randn(2, 8)), "conditional: give labels"),
        (lambda: as_condition(torch.ones(2, 4), 3), r"condition of shape \(2, 4\): expected .* \[N, 3\]"),
        (lambda: from_official_config({"img_size": 8}), "'img_size' is no argument"),
        (lambda: from_official_config({"synthesis_kwargs": {"use_noise": False}}), "use_noise is False.*True alone"),
    ],
)
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits32", "celeba64_ada"])
def test_small_experiments_train(name: str, tmp_path: Path) -> None:
    plan = yaml.safe_load(shipped_configs()[f"stylegan2/{name}"].read_text())
    argv = ["--config", f"experiments/stylegan2/{name}.yaml", "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += ["--evaluate.every_kimg=0", "--image_grid.columns=2", "--image_grid.rows=2"]
    argv += ["--model.init_args.channel_max=4", "--model.init_args.total_kimg=0.008"]
    if plan["model"]["init_args"]["channels"] == 3:
        argv += [
            "--data=lit_gans.data.Shapes",
            f"--data.init_args.resolution={plan['data']['init_args']['resolution']}",
        ]
    argv += ["--data.init_args.batch_size=4"]
    assert verb.main(argv) == 0
    assert load_run(tmp_path / "run").images_seen == 8
