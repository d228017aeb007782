"""PGGAN: growing, and what its training promises beyond the battery and the recorded values."""

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
from lit_gans.adversarial.progressive import Growing, enlarged
from lit_gans.papers.pggan import PGGAN, Conv, Discriminator, DownConv, Generator, UpConv, pixel_norm, widths
from lit_gans.runs.configs import shipped_configs
from tests.cases import each

SIZES = {"resolution": 16, "channel_base": 64, "channel_max": 8}
STAGES = [(4, 1.0), (8, 0.0), (8, 0.4), (8, 1.0), (16, 0.3), (16, 1.0)]


def tiny(**arguments: Any) -> PGGAN:
    torch.manual_seed(0)
    return PGGAN(**{"channels": 1, "z_dim": 8, "seed": 3, **SIZES, **arguments})


def perturbed(network: nn.Module) -> nn.Module:
    """With biases that are not 0."""
    generator = torch.Generator().manual_seed(1)
    for name, p in network.named_parameters():
        if name.endswith("bias"):
            p.data.copy_(torch.randn(p.shape, generator=generator))
    return network.eval()


def generator(**arguments: Any) -> Generator:
    torch.manual_seed(0)
    return perturbed(Generator(z_dim=8, **SIZES, **arguments))


def discriminator(**arguments: Any) -> Discriminator:
    torch.manual_seed(0)
    return perturbed(Discriminator(**SIZES, **arguments))


def train_one_batch(gan: PGGAN, *, n: int = 8, classes: int = 0) -> None:
    stage = gan.discriminator.stage
    batch = {"image": torch.rand(n, gan.channels, stage, stage, generator=torch.Generator().manual_seed(2)) * 2 - 1}
    batch |= {"label": torch.arange(n) % classes} if classes else {}
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
    made, logits = enlarged(g(z), stage), d(avg_pool2d(images, 2))
    g.set_progress(stage, 0.0), d.set_progress(stage, 0.0)
    assert torch.allclose(g(z), made, atol=1e-6)
    assert torch.allclose(d(images), logits, atol=1e-6)


@pytest.mark.parametrize("stage", [8, 16])
def test_a_finished_stage_forgets_the_one_before(stage: int) -> None:
    g, d = generator(), discriminator()
    z, images = torch.randn(4, 8), torch.randn(4, 3, stage, stage)
    g.set_progress(stage, 1.0), d.set_progress(stage, 1.0)
    made, logits = g(z), d(images)
    for network, colours in ((g, g.to_rgb), (d, d.from_rgb)):
        present = {8: 1, 16: 2}[stage] if network is g else {8: 1, 16: 0}[stage]
        for i, layer in enumerate(colours):
            if i != present:
                nn.init.constant_(layer.weight, float("nan"))
    assert torch.equal(g(z), made) and torch.equal(d(images), logits)


def test_a_share_of_the_way_lies_between_its_ends() -> None:
    g, z = generator(), torch.randn(4, 8)
    images = []
    for alpha in (0.0, 0.25, 1.0):
        g.set_progress(16, alpha)
        images.append(g(z))
    assert torch.allclose(images[1], 0.75 * images[0] + 0.25 * images[2], atol=1e-5)
    assert not torch.allclose(images[0], images[2], atol=1e-2)


def test_only_layers_of_the_present_stage_learn() -> None:
    g, d = generator(), discriminator()
    expected = {
        (4, 1.0): ({"layers.0", "layers.1", "to_rgb.0"}, {"layers.4", "layers.5", "layers.6", "from_rgb.2"}),
        (8, 0.5): ({f"layers.{i}" for i in range(4)} | {"to_rgb.0", "to_rgb.1"},
                   {f"layers.{i}" for i in range(2, 7)} | {"from_rgb.1", "from_rgb.2"}),
        (16, 1.0): ({f"layers.{i}" for i in range(6)} | {"to_rgb.2"},
                    {f"layers.{i}" for i in range(7)} | {"from_rgb.0"}),
    }  # fmt: skip
    for (stage, alpha), names in expected.items():
        g.set_progress(stage, alpha), d.set_progress(stage, alpha)
        g.zero_grad(), d.zero_grad()
        d(g(torch.randn(4, 8))).sum().backward()
        for network, wanted in zip((g, d), names, strict=True):
            found = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.grad is not None}
            assert found == wanted, (stage, alpha)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("stage", "alpha"), STAGES)
def test_a_batch_trains_at_every_stage(stage: int, alpha: float, classes: int) -> None:
    gan = tiny(num_classes=classes, mbstd_group_size=2)
    assert isinstance(gan, Progressive)
    gan.set_progress(stage, alpha)
    before = {name: p.detach().clone() for name, p in gan.named_parameters()}
    train_one_batch(gan, classes=classes)
    after = dict(gan.named_parameters())
    assert all(torch.isfinite(p).all() for p in after.values())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    newest = {4: 0, 8: 1, 16: 2}[stage]
    assert f"generator.to_rgb.{newest}.weight" in moved or alpha == 0
    assert f"discriminator.from_rgb.{2 - newest}.weight" in moved or alpha == 0
    assert not any(name.startswith(f"generator.layers.{2 * newest + 2}") for name in moved)
    assert (f"generator.to_rgb.{newest - 1}.weight" in moved) == (alpha < 1)
    labels = None if not classes else torch.tensor([0, 1, 2])
    images = gan.sample(range(3), labels=labels)
    assert images.shape == (3, 1, 16, 16) and images.abs().max() <= 1
    blocks = avg_pool2d(images, 16 // stage)
    assert torch.allclose(enlarged(blocks, 16), images, atol=1e-6), "images of a stage are enlarged pixel by pixel"


def test_all_networks_grow_and_what_is_saved_knows_it() -> None:
    gan, other = tiny(), tiny()
    gan.set_progress(8, 0.25)
    other.load_state_dict(gan.state_dict())
    for one in (gan, other):
        for network in (one.generator, one.discriminator, one.generator_ema):
            assert isinstance(network, Growing) and (network.stage, network.alpha) == (8, 0.25)
            assert float(network.lod) == 1.75
    assert torch.equal(gan.sample([1, 2]), other.sample([1, 2]))


# ---- layers ----------------------------------------------------------------------------------------------------------


def test_fused_enlarging_mirrors_the_kernel() -> None:
    torch.manual_seed(0)
    fused, apart, x = UpConv(3, 5, fused=True), UpConv(3, 5, fused=False), torch.randn(2, 3, 4, 4)
    apart.weight.data.copy_(fused.weight.detach().transpose(0, 1).flip((2, 3)))
    assert fused(x).shape == (2, 5, 8, 8) and torch.allclose(fused(x), apart(x), atol=1e-6)


def test_fused_halving_averages_before_the_activation() -> None:
    torch.manual_seed(0)
    fused, apart, x = DownConv(3, 5, fused=True), DownConv(3, 5, fused=False), torch.randn(2, 3, 8, 8)
    apart.load_state_dict(fused.state_dict())
    assert fused(x).shape == (2, 5, 4, 4) and not torch.allclose(fused(x), apart(x), atol=1e-2)
    for layer in (fused, apart):
        nn.init.constant_(layer.bias, 100.0)  # far from where the rectifier bends
    assert torch.allclose(fused(x), apart(x), atol=1e-4)


@pytest.mark.parametrize(
    ("fused_scale", "fused"), [(False, set()), (True, {8, 16, 32, 64, 128, 256}), ("auto", {128, 256})]
)
def test_which_layers_are_fused(fused_scale: Any, fused: set[int]) -> None:
    with torch.device("meta"):
        sizes = {"resolution": 256, "channel_base": 256, "fused_scale": fused_scale}
        g, d = Generator(z_dim=8, **sizes), Discriminator(**sizes)
    ups = [layer for layer in g.layers if isinstance(layer, UpConv)]
    downs = [layer for layer in d.layers if isinstance(layer, DownConv)]
    assert {8 << i for i, layer in enumerate(ups) if layer.fused} == fused
    assert {256 >> i for i, layer in enumerate(downs) if layer.fused} == fused


def test_he_constant_keeps_the_variance_at_runtime() -> None:
    torch.manual_seed(0)
    layer, x = Conv(64, 256), torch.randn(4, 64, 16, 16)
    assert layer.weight.std().item() == pytest.approx(1.0, rel=0.02)
    y = layer(x)[:, :, 1:-1, 1:-1]
    assert y.square().mean().item() == pytest.approx(1.04, rel=0.05)  # (1 + 0.2^2) / 2 of 2
    assert torch.allclose(pixel_norm(y).square().mean(1), torch.ones(4, 14, 14), atol=1e-5)


def test_latents_lie_on_a_sphere() -> None:
    g, z = generator(), torch.randn(4, 8)
    assert torch.allclose(g(z), g(3 * z), atol=1e-5) and not torch.allclose(g(z), g(-z), atol=1e-2)


def test_published_widths() -> None:
    """Table 2."""
    maps = widths(1024, channel_base=16384, channel_max=512)
    assert maps == {2: 512, 4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_drift_pulls_the_logits_of_reals_to_zero() -> None:
    gan, free = tiny(drift=100.0, lr=0.01), tiny(drift=0.0, lr=0.01)
    real = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    for one in (gan, free):
        nn.init.constant_(one.discriminator.layers[-1].bias, 5.0)
        train_one_batch(one)
    assert gan.discriminator(real).square().mean() < free.discriminator(real).square().mean()


def test_classes_reach_both_players() -> None:
    gan = tiny(num_classes=3)
    z, labels = gan.seeded_latents([1, 1, 1]), torch.arange(3)
    images = gan.generator(z, labels)
    assert not torch.allclose(images[0], images[1], atol=1e-4)
    assert torch.equal(images, gan.generator(z, torch.eye(3)))
    logits, classes = gan.discriminator.classify(images)
    assert classes.shape == (3, 3) and torch.equal(logits, gan.discriminator(images, labels))
    with pytest.raises(ValueError, match="conditional: give labels .N. of 3 classes"):
        gan.generator(z)
    with pytest.raises(ValueError, match=r"labels of shape \(3, 2\): expected classes .N. or vectors .N, 3."):
        gan.generator(z, torch.eye(3)[:, :2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 24}, "resolution 24 is not a power of two from 4"),
        ({"channel_base": 8}, "channel_base 8 and channel_max 8 leave no feature map at 16 pixels"),
        ({"fused_scale": "always"}, "fused_scale 'always' is not one of true, false, 'auto'"),
        ({"n_critic": 0}, "n_critic 0 is below 1"),
        ({"channels": 2}, "channels 2 is neither 1"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_images_must_have_the_size_of_the_stage() -> None:
    d = discriminator()
    d.set_progress(8, 0.5)
    with pytest.raises(ValueError, match="images of 16x16 pixels at stage 8: scale them to the stage"):
        d(torch.zeros(4, 3, 16, 16))


# ---- the shipped experiments -----------------------------------------------------------------------------------------

CONFIGS = ("celebahq1024", "celebahq256", "mnist32")


@pytest.mark.parametrize("name", each(CONFIGS, slow=["celebahq256"]))
def test_a_shipped_config_trains_two_batches_at_full_size(name: str, tmp_path: Path) -> None:
    """On stand-in data, with narrow networks, and without the schedule, which has tests of its own."""
    plan = yaml.safe_load(shipped_configs()[f"pggan/{name}"].read_text())
    schedule, model = plan.pop("fade_in"), plan["model"]["init_args"]
    sizes = set(schedule["batch_sizes"]) | set(schedule["lrs"])
    assert schedule["start_px"] == 4 and all(px & (px - 1) == 0 and px <= model["resolution"] for px in sizes)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plan))
    argv = ["--config", str(tmp_path / "config.yaml"), "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += [
        "--evaluate.every_kimg=0",
        "--data.init_args.num_workers=0",
        "--image_grid.columns=2",
        "--image_grid.rows=2",
    ]
    argv += [
        "--model.init_args.channel_base=64",
        "--model.init_args.channel_max=4",
        "--model.init_args.total_kimg=0.008",
    ]
    argv += ["--model.init_args.resolution=32", "--model.init_args.micro_batches=1"]
    argv += ["--data=lit_gans.data.Shapes" if model["channels"] == 3 else "--data=lit_gans.data.Digits"]
    argv += ["--data.init_args.resolution=32", "--data.init_args.batch_size=4"]
    assert verb.main(argv) == 0
    assert (tmp_path / "run" / "samples" / "latest.png").is_file()


def test_gradients_of_unused_layers_stay_away_from_the_optimiser() -> None:
    gan = tiny()
    gan.set_progress(4, 1.0)
    seen: list[set[int]] = []

    class Spy(PGGAN):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            seen.append({id(p) for group in optimizer.param_groups for p in group["params"] if p.grad is not None})

    gan.__class__ = Spy
    train_one_batch(gan)
    unused: list[Tensor] = [*gan.generator.layers[2:].parameters(), *gan.discriminator.layers[:4].parameters()]
    assert len(seen) == 2 and all(id(p) not in step for step in seen for p in unused)
