"""StyleGAN: growing, styles, and what its training promises beyond the battery and the recorded values."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader

from lit_gans import fit as verb
from lit_gans.adversarial import Progressive
from lit_gans.adversarial.penalties import r1
from lit_gans.adversarial.progressive import enlarged
from lit_gans.base.random import Draws, drawing
from lit_gans.editing import project, render, style_mixing, truncation_sweep
from lit_gans.editing.projector import noise_maps
from lit_gans.metrics.path_length import path_distances
from lit_gans.metrics.perceptual import FrozenDistance
from lit_gans.metrics.sources import HasStyles
from lit_gans.papers.stylegan1 import (
    BlurredDownConv,
    Constant,
    Discriminator,
    Generator,
    MappingNetwork,
    StyledConv,
    StyledUpConv,
    StyleGAN1,
    truncate,
)
from lit_gans.runs.configs import shipped_configs
from tests.cases import BATCH, each, train

SIZES = {"resolution": 16, "channel_base": 64, "channel_max": 8}
STAGES = [(4, 1.0), (8, 0.0), (8, 0.4), (8, 1.0), (16, 0.3), (16, 1.0)]


def tiny(**arguments: Any) -> StyleGAN1:
    torch.manual_seed(0)
    sizes = {"channels": 1, "z_dim": 8, "w_dim": 8, "num_layers": 2, "seed": 3, "mbstd_group_size": 2, **SIZES}
    return StyleGAN1(**{**sizes, **arguments})


def perturbed(network: nn.Module) -> nn.Module:
    """With biases and noise weights that are not 0."""
    generator = torch.Generator().manual_seed(1)
    for name, p in network.named_parameters():
        if name.endswith(("bias", "noise_weight", "const")):
            p.data.copy_(torch.randn(p.shape, generator=generator))
    return network.eval()


def generator(**arguments: Any) -> Generator:
    torch.manual_seed(0)
    return perturbed(Generator(z_dim=8, w_dim=8, num_layers=2, **SIZES, **arguments))


def discriminator(**arguments: Any) -> Discriminator:
    torch.manual_seed(0)
    return perturbed(Discriminator(**SIZES, **arguments))


def reals(gan: StyleGAN1, n: int = 8) -> Tensor:
    stage = gan.discriminator.stage
    return torch.rand(n, gan.channels, stage, stage, generator=torch.Generator().manual_seed(2)) * 2 - 1


def train_one_batch(gan: StyleGAN1, *, n: int = 8) -> None:
    batch = {"image": reals(gan, n)}
    batch |= {"label": torch.arange(n) % gan.num_classes} if gan.num_classes else {}
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(gan, DataLoader([batch], batch_size=None))


# ---- growing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused_scale", [False, True])
@pytest.mark.parametrize("stage", [8, 16])
def test_a_stage_begins_as_the_one_before_it_ended(stage: int, fused_scale: bool) -> None:
    g, d = generator(fused_scale=fused_scale), discriminator(fused_scale=fused_scale)
    z, images = torch.randn(4, 8), torch.randn(4, 3, stage, stage)
    g.set_progress(stage // 2, 1.0), d.set_progress(stage // 2, 1.0)
    made, logits = enlarged(g(z, noise="const"), stage), d(avg_pool2d(images, 2))
    g.set_progress(stage, 0.0), d.set_progress(stage, 0.0)
    assert torch.allclose(g(z, noise="const"), made, atol=1e-6)
    assert torch.allclose(d(images), logits, atol=1e-6)


@pytest.mark.parametrize("stage", [8, 16])
def test_a_finished_stage_forgets_the_one_before(stage: int) -> None:
    g, d = generator(), discriminator()
    z, images = torch.randn(4, 8), torch.randn(4, 3, stage, stage)
    g.set_progress(stage, 1.0), d.set_progress(stage, 1.0)
    made, logits = g(z, noise="const"), d(images)
    present = {8: (1, 1), 16: (2, 0)}[stage]
    for colours, kept in zip((g.synthesis.to_rgb, d.from_rgb), present, strict=True):
        for i, layer in enumerate(colours):
            if i != kept:
                nn.init.constant_(layer.weight, float("nan"))
    assert torch.equal(g(z, noise="const"), made) and torch.equal(d(images), logits)


@pytest.mark.parametrize("objective", ["logistic", "wgan_gp"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("stage", "alpha"), STAGES)
def test_a_batch_trains_at_every_stage(stage: int, alpha: float, classes: int, objective: str) -> None:
    gan = tiny(num_classes=classes, objective=objective)
    assert isinstance(gan, Progressive)
    gan.set_progress(stage, alpha)
    before = {name: p.detach().clone() for name, p in gan.named_parameters()}
    train_one_batch(gan)
    after = dict(gan.named_parameters())
    assert all(torch.isfinite(p).all() for p in after.values())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    newest = {4: 0, 8: 1, 16: 2}[stage]
    assert "generator.mapping.layers.0.weight" in moved and gan.generator.mapping.w_avg.abs().max() > 0
    assert f"generator.synthesis.to_rgb.{newest}.weight" in moved or alpha == 0
    assert f"discriminator.from_rgb.{2 - newest}.weight" in moved or alpha == 0
    assert not any(name.startswith(f"generator.synthesis.layers.{2 * newest + 2}") for name in moved)
    assert (f"generator.synthesis.to_rgb.{newest - 1}.weight" in moved) == (alpha < 1)
    images = gan.sample(range(3))
    assert images.shape == (3, 1, 16, 16) and images.abs().max() <= 1
    assert torch.allclose(enlarged(avg_pool2d(images, 16 // stage), 16), images, atol=1e-6)


def test_layers_to_come_get_no_gradient() -> None:
    g, d = generator(), discriminator()
    g.set_progress(8, 0.5), d.set_progress(8, 0.5)
    d(g(torch.randn(4, 8))).sum().backward()
    idle = {name.rpartition(".")[0] for one in (g, d) for name, p in one.named_parameters() if p.grad is None}
    assert idle == {
        "synthesis.layers.4", "synthesis.layers.4.affine", "synthesis.layers.5", "synthesis.layers.5.affine",
        "synthesis.to_rgb.2", "layers.0", "layers.1", "from_rgb.0",
    }  # fmt: skip


def test_all_networks_grow_and_what_is_saved_knows_it() -> None:
    gan, other = tiny(), tiny()
    gan.set_progress(8, 0.25)
    other.load_state_dict(gan.state_dict())
    for one in (gan, other):
        for network in (one.generator.synthesis, one.discriminator, one.generator_ema.synthesis):
            assert (network.stage, network.alpha, float(network.lod)) == (8, 0.25, 1.75)
    assert torch.equal(gan.sample([1, 2]), other.sample([1, 2]))


# ---- layers ----------------------------------------------------------------------------------------------------------


def test_fused_enlarging_mirrors_the_kernel() -> None:
    torch.manual_seed(0)
    fused, apart = (StyledUpConv(3, 5, w_dim=4, px=8, fused=fused) for fused in (True, False))
    apart.load_state_dict(fused.state_dict())
    apart.weight.data.copy_(fused.weight.flip((2, 3)))
    x, w = torch.randn(2, 3, 4, 4), torch.randn(2, 4)
    assert torch.allclose(fused(x, w, None), apart(x, w, None), atol=1e-5)


def test_fused_halving_is_the_same_function() -> None:
    torch.manual_seed(0)
    fused, apart, x = BlurredDownConv(3, 5, fused=True), BlurredDownConv(3, 5, fused=False), torch.randn(2, 3, 8, 8)
    apart.load_state_dict(fused.state_dict())
    assert fused(x).shape == (2, 5, 4, 4) and torch.allclose(fused(x), apart(x), atol=1e-6)


def test_a_layer_has_the_mean_and_the_deviation_of_its_style() -> None:
    """Eq. 1: nothing of the statistics before it is left."""
    torch.manual_seed(0)
    layer, x, w = StyledConv(3, 5, w_dim=4, px=8), 7 * torch.randn(2, 3, 8, 8) + 3, torch.randn(2, 4)
    scale, shift = layer.affine(w).chunk(2, 1)
    y = layer(x, w, None)
    assert torch.allclose(y.mean((2, 3)), shift, atol=1e-5)
    assert torch.allclose(y.std((2, 3), correction=0), (scale + 1).abs(), atol=1e-4)


def test_a_fresh_input_is_constant_and_a_fresh_noise_weight_zero() -> None:
    layer = Constant(5, w_dim=4)
    assert torch.equal(layer.const, torch.ones(1, 5, 4, 4)) and layer.noise_weight.abs().max() == 0
    w = torch.randn(2, 4)
    assert torch.equal(layer(None, w, torch.randn(2, 1, 4, 4)), layer(None, w, None))


def test_noise_comes_from_the_enclosing_draws_and_has_a_weight_for_each_channel() -> None:
    g, z = generator(), torch.randn(4, 8)

    def under(*key: int, **share: int) -> Tensor:
        with drawing(Draws(*key, **share)):
            return g(z[2 * share["share"] :][:2] if share else z)

    whole = under(1)
    assert torch.equal(whole, under(1)) and not torch.allclose(whole, under(2))
    assert torch.allclose(whole, torch.cat([under(1, share=i, shares=2) for i in (0, 1)]), atol=1e-5)
    assert torch.equal(g(z, noise="const"), g(z, noise="const"))
    assert not torch.allclose(g(z, noise="const"), g(z, noise="none"))
    assert [layer.noise_weight.shape for layer in g.synthesis.layers] == [(8,)] * 4 + [(4,)] * 2


def test_mapping_layers_learn_a_hundred_times_slower_at_equal_output() -> None:
    mapping = MappingNetwork(z_dim=64, w_dim=64, num_ws=2)
    assert mapping.layers[0].weight.std().item() == pytest.approx(100, rel=0.05)
    assert mapping(torch.randn(64, 64)).square().mean().item() == pytest.approx(1.0, abs=0.7)


def test_labels_are_normalised_together_with_latents() -> None:
    """A large latent drowns its label, as officially; StyleGAN2 normalises each alone."""
    mapping, z = generator(num_classes=3).mapping, torch.randn(2, 8)
    one, other = (mapping(1e6 * z, torch.tensor([c, c])) for c in (0, 1))
    assert torch.allclose(one, other, atol=1e-3)
    one, other = (mapping(z, torch.tensor([c, c])) for c in (0, 1))
    assert not torch.allclose(one, other, atol=1e-2)
    assert torch.equal(one, mapping(z, torch.tensor([[1.0, 0, 0]] * 2)))


def test_a_logit_for_each_class_of_which_the_labels_counts() -> None:
    torch.manual_seed(1)
    d, images = discriminator(num_classes=3, mbstd_channels=0), torch.randn(3, 3, 16, 16)
    outputs = d.analysed(images)
    assert outputs.shape == (3, 3)
    assert torch.allclose(d(images, torch.tensor([2, 0, 1])), outputs[range(3), [2, 0, 1]])


# ---- styles ----------------------------------------------------------------------------------------------------------


def test_truncation_of_the_first_layers() -> None:
    gan = tiny(trunc_layers=2)
    z, w_avg = gan.seeded_latents(range(3)), gan.generator_ema.mapping.w_avg
    w_avg.copy_(torch.arange(8.0))
    whole, half, none = (gan.styles(z, psi=psi) for psi in (1.0, 0.5, 0.0))
    assert whole.shape == (3, 6, 8)
    assert torch.equal(none[:, :2], w_avg.expand(3, 2, 8)) and torch.equal(none[:, 2:], whole[:, 2:])
    assert torch.allclose(half[:, :2], (whole[:, :2] + w_avg) / 2, atol=1e-5)
    everywhere = truncate(whole, w_avg, psi=0.7)
    assert torch.allclose(everywhere, w_avg + 0.7 * (whole - w_avg), atol=1e-5)
    assert torch.equal(tiny(trunc_layers=0).styles(z, psi=0.5), whole)
    assert not torch.allclose(gan.generate(z, psi=0.5), gan.generate(z), atol=1e-3)


def test_styles_are_mixed_from_a_layer_of_the_present_stage_on() -> None:
    gan = tiny(style_mixing=1.0)
    for stage, layers in ((4, 2), (8, 4), (16, 6)):
        gan.set_progress(stage, 1.0)
        cutoffs = []
        for gan.images_seen in range(200):
            cutoffs.append(gan.mixing_cutoff("d"))
        assert {*cutoffs} == set(range(1, layers)), stage
    z = gan.latents(4, "d")
    own, mixed, cutoff = gan.generator.mapping(z), gan.mixed_styles(z, None, "d"), gan.mixing_cutoff("d")
    same = (own == mixed).all(2)
    assert same[:, :cutoff].all() and not same[:, cutoff:].any()
    gan.style_mixing = 0.0
    assert torch.equal(gan.mixed_styles(z, None, "d"), own)


def test_nine_of_ten_batches_are_mixed() -> None:
    gan, mixed = tiny(), []
    for gan.images_seen in range(2000):
        mixed.append(gan.mixing_cutoff("g") < 6)
    assert sum(mixed) / len(mixed) == pytest.approx(0.9, abs=0.02)


def test_the_average_of_w_follows_both_steps() -> None:
    gan, means = tiny(micro_batches=2, mbstd_channels=0), []
    gan.generator.mapping.register_forward_hook(lambda module, args, ws: means.append(ws[:, 0].detach().mean(0)))
    gan.style_mixing = 0.0
    train_one_batch(gan)
    expected = torch.zeros(8)
    for parts in (means[:2], means[2:]):  # the discriminator's step, then the generator's
        expected = expected.lerp(torch.stack(parts).mean(0), 1 - 0.995)
    assert len(means) == 4 and torch.allclose(gan.generator.mapping.w_avg, expected, atol=1e-7)


def test_the_two_halves_of_a_sample_are_what_editing_needs() -> None:
    gan = tiny(num_classes=3)
    assert isinstance(gan, HasStyles) and gan.player(ema=False) is gan.generator
    for stage, alpha in STAGES:
        gan.set_progress(stage, alpha)
        z, labels = gan.seeded_latents(range(3)), torch.tensor([0, 1, 2])
        ws = gan.styles(z, labels=labels, psi=0.5).detach().requires_grad_()
        image = gan.synthesize(ws)
        assert torch.allclose(image.clamp(-1, 1), gan.generate(z, labels=labels, psi=0.5), atol=1e-6)
        (gradient,) = torch.autograd.grad(image.square().sum(), ws)
        present = gan.generator.synthesis.num_present
        used = present if alpha > 0 else present - 2
        assert (gradient[:, :used].abs().amax((0, 2)) > 0).all() and gradient[:, used:].abs().sum() == 0


class Squares(FrozenDistance):
    """Squared differences."""

    name = "squares"

    def __init__(self) -> None:
        super().__init__()
        self.freeze()

    def features(self, images: Tensor) -> list[Tensor]:
        return [images]

    def between(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        return (fake[0] - real[0]).square().mean((1, 2, 3))


def test_tables_sweeps_path_lengths_and_projection() -> None:
    gan = tiny().eval()
    perturbed(gan.generator_ema)
    assert style_mixing(gan, [0, 1], [2], layers=[0, 1]).shape == (3, 2, 1, 16, 16)
    assert truncation_sweep(gan, [0, 1], psi=[0.0, 1.0]).shape == (2, 2, 1, 16, 16)
    assert len(noise_maps(gan)) == 6
    distances = path_distances(
        gan, lambda a, b: (a - b).square().sum((1, 2, 3)), torch.arange(4), space="w", sampling="full"
    )
    assert distances.shape == (4,) and torch.isfinite(distances).all() and (distances > 0).all()
    target = gan.generate(gan.seeded_latents([5]))[0]
    found = project(gan, target, distance=Squares(), steps=30, num_samples=100)
    assert found.distance < found.steps[0].distance
    again = render(gan, found.ws, found.noise).clamp(-1, 1)
    assert torch.allclose(again, found.image, atol=1e-5)


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_order_of_a_batch_and_what_is_reported(tmp_path: Path) -> None:
    for objective, terms in (("logistic", {"r1"}), ("wgan_gp", {"gp", "drift"})):
        gan, order = tiny(objective=objective, num_classes=10), []
        gan.generator.synthesis.register_forward_hook(lambda *args, order=order: order.append("made"))
        gan.discriminator.register_forward_pre_hook(lambda _, args, order=order: order.append(len(args[1].unique())))
        train(gan, tmp_path / objective, batches=1)
        assert order[0] == order[3] == "made" and len(order) == 5  # D: made, real, fake; then G: made, judged
        assert order[1] == order[2] == order[4] > 1, "fakes take the labels of the reals"
        assert gan.images_seen == BATCH
        assert {"loss_d", "loss_g", "real_logits", "fake_logits"} | terms <= {*gan.reports.means()}


def test_r1_is_that_of_the_reals_with_half_of_gamma() -> None:
    gan = tiny(r1_gamma=10.0)
    x, mix = reals(gan), torch.zeros(8)
    found = gan.regularised(gan.discriminator(x), x, x, None, mix)
    network = functools.partial(gan.discriminator.forward, labels=None)
    assert torch.allclose(found, 5 * r1(network, x))
    assert tiny(r1_gamma=0.0).regularised(gan.discriminator(x), x, x, None, mix) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tiny(resolution=24), "resolution 24 is not a power of two from 4"),
        (lambda: tiny(objective="hinge"), "objective 'hinge' is not one of logistic, wgan_gp"),
        (lambda: tiny(noise="no"), "noise 'no' is not one of random, const, none"),
        (lambda: tiny(style_mixing=1.5), "style_mixing 1.5 is not a probability"),
        (lambda: tiny(trunc_layers=-1), "trunc_layers -1 is negative; 0 truncates no layer"),
        (lambda: tiny(num_layers=0), "num_layers 0 is below 1"),
        (lambda: tiny(fused_scale="on"), "fused_scale 'on' is not one of true, false, 'auto'"),
        (lambda: generator(num_classes=3)(torch.randn(2, 8)), "conditional: give labels"),
        (lambda: discriminator(num_classes=3)(torch.zeros(4, 3, 16, 16)), "conditional: give labels"),
        (lambda: discriminator()(torch.zeros(4, 3, 8, 8)), "images of 8x8 pixels at stage 16"),
    ],
)
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# ---- the shipped experiments -----------------------------------------------------------------------------------------

CONFIGS = ("ffhq1024", "ffhq256", "celebahq1024", "mnist32", "celeba64")


@pytest.mark.parametrize("name", each(CONFIGS, slow=["celebahq1024", "ffhq256"]))
def test_a_shipped_config_trains_two_batches_at_full_size(name: str, tmp_path: Path) -> None:
    """On stand-in data, with narrow networks, and without the schedule, which has tests of its own."""
    plan = yaml.safe_load(shipped_configs()[f"stylegan1/{name}"].read_text())
    schedule, model = plan.pop("fade_in"), plan["model"]["init_args"]
    sizes = set(schedule["batch_sizes"]) | set(schedule["lrs"])
    assert all(px & (px - 1) == 0 and schedule["start_px"] <= px <= model["resolution"] for px in sizes)
    phases = (model["resolution"] // schedule["start_px"]).bit_length() - 1
    whole = schedule["stabilise_kimg"] * phases + schedule["fade_kimg"] * phases
    assert whole < model["total_kimg"], "training ends before the last stage stands"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plan))
    argv = ["--config", str(tmp_path / "config.yaml"), "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += ["--evaluate.every_kimg=0", "--data.init_args.num_workers=0"]
    argv += ["--image_grid.columns=2", "--image_grid.rows=2", "--model.init_args.total_kimg=0.008"]
    argv += ["--model.init_args.channel_base=64", "--model.init_args.channel_max=4", "--model.init_args.num_layers=2"]
    argv += ["--model.init_args.resolution=32", "--data.init_args.resolution=32", "--data.init_args.batch_size=4"]
    argv += ["--data=lit_gans.data.Shapes" if model["channels"] == 3 else "--data=lit_gans.data.Digits"]
    assert verb.main(argv) == 0
    assert (tmp_path / "run" / "samples" / "latest.png").is_file()
