"""R3GAN: what its blocks, its pairs, its schedules and its shares of a batch promise beyond the recorded values."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import softplus

from lit_gans import fit as verb
from lit_gans.adversarial.optim import half_cosine
from lit_gans.base.checkpoints import checkpoints
from lit_gans.callbacks import EMA
from lit_gans.callbacks.ema import ema_weight
from lit_gans.data import Digits, Shapes
from lit_gans.papers import R3GAN
from lit_gans.papers.r3gan import Discriminator, Generator, ResidualBlock, Stage, interpolating
from lit_gans.papers.stylegan2 import networks
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from tests.cases import BATCH, CASES, train
from tests.papers.replay import Replay, heard, moved, replayed, watched
from tests.papers.test_seen import DISCRIMINATOR, GENERATOR, Shift

SHAPE: dict[str, Any] = {"widths": [8, 6, 4], "cardinalities": [4, 3, 2], "num_blocks": [2, 1, 1]}


def tiny(**arguments: Any) -> R3GAN:
    return CASES["r3gan"](**arguments)


def digits(resolution: int = 16) -> Digits:
    return Digits(batch_size=BATCH, resolution=resolution, seed=5)


# ---- networks --------------------------------------------------------------------------------------------------------


def test_branches_begin_as_nothing_and_other_weights_at_fixups_size() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(64, cardinality=8, expansion=2, kernel_size=3, num_blocks=16)
    x = torch.randn(2, 64, 5, 5)
    assert torch.equal(block(x), x) and not block.conv3.weight.any()
    gain = math.sqrt(2 / 1.04) / 2  # 16 blocks to the power of -1/4
    assert block.conv1.weight.std().item() == pytest.approx(gain / math.sqrt(64), rel=0.05)
    assert block.conv2.weight.std().item() == pytest.approx(gain / math.sqrt(16 * 9), rel=0.05)  # 16 maps in a group
    generator = Generator(z_dim=50, widths=[400, 60], cardinalities=[1, 1], num_blocks=[1, 1], c_dim=90, embed_dim=60)
    basis, up = generator.stages[0][0], generator.stages[1][0]
    assert basis.basis.std().item() == pytest.approx(1, rel=0.05)
    assert basis.linear.weight.std().item() == pytest.approx(1 / math.sqrt(110), rel=0.05)
    assert up.conv.weight.std().item() == pytest.approx(1 / math.sqrt(400), rel=0.05)
    assert generator.embed.weight.std().item() == pytest.approx(1 / math.sqrt(90), rel=0.05)
    judge = Discriminator(widths=[400, 60], cardinalities=[1, 1], num_blocks=[1, 1], c_dim=90, embed_dim=60)
    assert judge.embed.weight.std().item() == pytest.approx(1 / math.sqrt(90 * 60), rel=0.05)
    assert judge.stages[-1][-1].basis.weight.std().item() == pytest.approx(1 / 4, rel=0.05)


def test_there_is_no_norm_and_biases_are_activations_alone() -> None:
    gan = tiny()
    kinds = {type(m).__name__ for m in gan.modules() if any(True for _ in m.parameters(recurse=False))}
    assert kinds == {"Convolution", "Linear", "Activation", "GenerativeBasis"}
    biases = [name for name, _ in gan.named_parameters() if "bias" in name]
    assert biases and all(name.endswith(("act1.bias", "act2.bias")) for name in biases)


def test_resampling_keeps_a_constant_and_convolves_on_the_small_side() -> None:
    assert interpolating([1, 2, 1]) == [1, 3, 3, 1] and interpolating([1]) == [1, 1]
    gan = tiny()
    up, down = gan.generator.stages[1][0], gan.discriminator.stages[1][-1]
    up.conv, down.conv = nn.Identity(), nn.Identity()
    ones = torch.ones(1, 8, 8, 8)
    assert up(ones).shape == (1, 8, 16, 16) and torch.allclose(up(ones)[..., 2:-2, 2:-2], ones.new_ones(()))
    assert down(ones).shape == (1, 8, 4, 4) and torch.allclose(down(ones)[..., 1:-1, 1:-1], ones.new_ones(()))
    assert Generator(z_dim=4, widths=[4, 4], cardinalities=[1, 1], num_blocks=[1, 1]).stages[1][0].conv is None


def test_conditions_are_labels_or_vectors_and_are_asked_for() -> None:
    gan = tiny()
    z, labels = torch.randn(3, 8), torch.tensor([1, 0, 9])
    images = gan.generator(z, labels)
    for network, x in ((gan.generator, z), (gan.discriminator, images)):
        moved(network)
        one_hot = nn.functional.one_hot(labels, 10).float()
        assert torch.equal(network(x, labels), network(x, one_hot))
        assert not torch.allclose(network(x, labels), network(x, labels.flip(0)))
        with pytest.raises(ValueError, match=r"conditional: give labels \[N\] or conditions \[N, 10\]"):
            network(x)


@pytest.mark.parametrize("half_dtype", ["float16", "bfloat16"])
def test_half_precision_of_the_largest_resolutions_is_near_full(
    half_dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gan = tiny(num_half_res=2, half_dtype=half_dtype)
    moved(gan)
    z, labels = torch.randn(4, 8), torch.arange(4)
    full = gan.generator(z, labels)
    logits = gan.discriminator(full, labels)
    monkeypatch.setattr(networks, "has_fast_half", lambda device: True)
    half = getattr(torch, half_dtype)
    assert [stage.dtype for stage in gan.generator.stages] == [torch.float32, half, half]
    assert [stage.dtype for stage in gan.discriminator.stages] == [half, half, torch.float32]
    seen: set[tuple[str, torch.dtype]] = set()
    for name in ("generator", "discriminator"):
        for module in getattr(gan, name).modules():
            if not isinstance(module, (Stage, nn.ModuleList, Generator, Discriminator)):
                module.register_forward_hook(lambda m, args, out, name=name: seen.add((name, out.dtype)))
    image = gan.generator(z, labels)
    found = gan.discriminator(image, labels)
    assert seen == {(name, d) for name in ("generator", "discriminator") for d in (torch.float32, half)}
    assert image.dtype == found.dtype == torch.float32
    assert torch.allclose(image, full, atol=0.1 * full.abs().max().item()) and not torch.equal(image, full)
    assert torch.allclose(found, logits, atol=0.1 * logits.abs().max().item() + 0.1)


def test_half_precision_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "has_fast_half", lambda device: True)
    gan = tiny(num_half_res=2)
    train(gan, tmp_path, batches=3)
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in gan.parameters())


# ---- the loss: pairs, penalties, shares ------------------------------------------------------------------------------


def looked(look: Any, folder: Path, **arguments: Any) -> None:
    """`look` at the first batch of a game whose weights have moved."""

    def at(game: R3GAN, batch: dict[str, Tensor]) -> None:
        moved(game)
        look(game, batch)

    replayed(tiny(**arguments), digits(), folder, at)


def test_the_players_see_different_reals_and_latents(tmp_path: Path) -> None:
    """The discriminator's step rows 0, 2, ...; the generator's 1, 3, ...; all through the same augmentation."""
    augment = Shift()

    def look(game: R3GAN, batch: dict[str, Tensor]) -> None:
        augment.given, augment.made = [], []
        with watched(game, "generator", "discriminator") as calls:
            run = Replay(game, batch).fresh()
        assert run.steps == [DISCRIMINATOR, GENERATOR]
        assert [(c.network, c.step) for c in calls] == [
            ("generator", DISCRIMINATOR), ("discriminator", DISCRIMINATOR), ("discriminator", DISCRIMINATOR),
            ("generator", GENERATOR), ("discriminator", GENERATOR), ("discriminator", GENERATOR),
        ]  # fmt: skip
        made, told, passed = calls[0], calls[1], calls[4]
        real, fake, passing, beside = augment.given
        assert torch.equal(real, batch["image"][0::2]) and torch.equal(beside, batch["image"][1::2])
        assert torch.equal(fake, made.out) and torch.equal(passing, calls[3].out)
        judged = [call.args[0] for call in (told, calls[2], passed, calls[5])]
        assert all(x is shown for x, shown in zip(judged, augment.made, strict=True))
        assert real.requires_grad and fake.requires_grad, "R1 and R2 are of images before augmentation"
        assert not made.out.requires_grad and passing.requires_grad and not calls[5].out.requires_grad

    looked(look, tmp_path, augment=augment)


def test_the_loss_is_of_pairs_with_half_gamma_times_r1_and_r2(tmp_path: Path) -> None:
    def look(game: R3GAN, batch: dict[str, Tensor]) -> None:
        replay, losses = Replay(game, batch), list[float]()
        for game.images_seen in (0, 50, 100):  # gamma goes from 1 to 0.1 in 100
            game.augment.p.fill_(0)
            with heard(game, "accumulate", lambda loss: losses.append(loss.item())):
                run = replay.fresh()
            real, fake = run.judged[0]
            gamma, squares = {0: 1.0, 50: 0.55, 100: 0.1}[game.images_seen], []
            with watched(game, "generator", "discriminator") as calls:
                replay.fresh()
            for call in calls[1:3]:
                x = call.args[0].detach().requires_grad_()
                (slope,) = torch.autograd.grad(game.discriminator(x, *call.args[1:]).sum(), x)
                squares.append(slope.square().sum((1, 2, 3)).mean().item())
            expected = softplus(fake - real).mean().item()
            assert losses[-2] == pytest.approx(expected + gamma / 2 * sum(squares), rel=1e-4)
            assert [run.reports[name] for name in ("r1", "r2")] == pytest.approx(squares, rel=1e-4)
            assert abs(squares[0] - squares[1]) > 1e-4 * squares[0]
            fake, real = (call.out for call in calls[4:6])
            assert losses[-1] == pytest.approx(softplus(real - fake).mean().item(), rel=1e-4)

    looked(look, tmp_path, decay_kimg=0.1, augment_p_end=0.0)


def test_penalties_are_in_every_step(tmp_path: Path) -> None:
    def look(game: R3GAN, batch: dict[str, Tensor]) -> None:
        for game.batches_seen in range(3):
            found = Replay(game, batch).fresh().reports
            assert found["r1"] > 0 and found["r2"] > 0

    looked(look, tmp_path)


def test_parts_of_a_batch_pair_as_the_whole_does(tmp_path: Path) -> None:
    """Other pairs give other gradients: that they are the same is no accident."""
    found: dict[str, list[Tensor]] = {}

    def look(game: R3GAN, batch: dict[str, Tensor]) -> None:
        found[str(game.micro_batches)] = Replay(game, batch).fresh().gradients
        share = game.share
        game.share = lambda *given: (lambda x, z, c: (x, z.roll(1, 0), c))(*share(*given))
        found["others"] = Replay(game, batch).fresh().gradients

    for parts in (4, 2, 1):
        looked(look, tmp_path, micro_batches=parts, num_classes=0)
    whole = found["1"]
    for name, gradients in found.items():
        apart = [((a - b).norm() / b.norm()).item() for a, b in zip(gradients, whole, strict=True)]
        assert all(x > 1e-3 for x in apart) if name == "others" else all(x < 1e-5 for x in apart), (name, apart)


def test_processes_pair_as_one_does(tmp_path: Path) -> None:
    """Each process's share of its rows is its part of the shares of the whole batch, latents and labels too."""

    def look(game: R3GAN, batch: dict[str, Tensor]) -> None:
        whole = {player: game.share(batch, player) for player in "dg"}
        trainer, draws = game.trainer, type(game).draws
        for rank in (0, 1):
            rows = {name: tensor.chunk(2)[rank] for name, tensor in batch.items()}

            def of_rank(self: R3GAN, *purpose: Any, rank: int = rank) -> Any:
                found = draws(self, *purpose)
                found.share, found.shares = rank, 2
                return found

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(game), "draws", of_rank)
                for player, parts in whole.items():
                    for own, all_of in zip(game.share(rows, player), parts, strict=True):
                        assert torch.equal(own, all_of.chunk(2)[rank])
        assert game.trainer is trainer

    replayed(tiny(), digits(), tmp_path, look)


# ---- schedules -------------------------------------------------------------------------------------------------------


class Watch(pl.Callback):
    """What is in force in each batch."""

    def __init__(self) -> None:
        self.seen: dict[int, list[float]] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, gan: R3GAN, *args: Any) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        (lr,), (betas,) = {group["lr"] for group in groups}, {group["betas"] for group in groups}
        self.seen[gan.images_seen - BATCH] = [lr, *betas, gan.augment.p.item()]


def test_half_a_cosine() -> None:
    assert [half_cosine(kimg, 3.0, 1.0, over_kimg=8) for kimg in (0, 4, 8, 9)] == pytest.approx([3, 2, 1, 1], abs=1e-15)
    assert half_cosine(2, 0.0, 1.0, over_kimg=8) == pytest.approx(0.5 - 0.5 * math.cos(math.pi / 4), rel=1e-12)
    assert half_cosine(8, 0.1, 0.3, over_kimg=8) == 0.3 and half_cosine(0, 0.1, 0.3, over_kimg=0) == 0.3


def test_schedules_hold_at_the_start_in_the_middle_at_the_end_and_after_a_resume(tmp_path: Path) -> None:
    whole, resumed = Watch(), Watch()
    scheduled = {"decay_kimg": 4 * BATCH / 1000, "augment_p_end": 0.6}
    train(tiny(**scheduled), tmp_path / "whole", batches=6, callbacks=[whole])
    train(tiny(**scheduled), tmp_path / "half", batches=6, stop_at=3, callbacks=[resumed])
    later = Watch()
    train(tiny(**scheduled), tmp_path / "half", batches=6, callbacks=[later], resume=checkpoints(tmp_path / "half")[-1])
    assert resumed.seen | later.seen == whole.seen and min(later.seen) == 3 * BATCH
    ends = [(1e-3, 2e-4), (0.0, 0.0), (0.9, 0.99), (0.0, 0.6)]  # lr, both betas, p
    for batch, share in {0: 0.0, 1: 0.5 - math.sqrt(0.125), 2: 0.5, 4: 1.0, 5: 1.0}.items():
        expected = [a + share * (b - a) for a, b in ends]
        assert whole.seen[batch * BATCH] == pytest.approx(expected, abs=1e-7)


def test_without_an_end_schedules_last_as_long_as_training(tmp_path: Path) -> None:
    watch = Watch()
    train(tiny(decay_kimg=None), tmp_path, batches=4, callbacks=[watch])
    assert watch.seen[2 * BATCH] == pytest.approx([6e-4, 0.0, 0.945, 0.275], rel=1e-6)


def test_the_averages_half_life_rises() -> None:
    """From a copy at the start, along half a cosine, to the whole at the end."""
    found = [ema_weight(16, n, half_life_kimg=0.1, ramp_up=None, rise_kimg=0.064) for n in (0, 16, 32, 64, 999)]
    assert found == pytest.approx([0, 0.5 ** (16 / (100 * (0.5 - math.sqrt(0.125)))), 0.5**0.32, 0.5**0.16, 0.5**0.16])
    assert ema_weight(16, 32, half_life_kimg=0.1, ramp_up=0.5, rise_kimg=0.064) == 0.5  # the shorter counts: 16
    with pytest.raises(ValueError, match=r"ema\.rise_kimg -1 is negative"):
        EMA(rise_kimg=-1)


def test_the_rising_average_goes_on_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.cases.EMA", lambda half_life_kimg: EMA(half_life_kimg, None, rise_kimg=0.064))
    seen: list[tuple[Tensor, Tensor]] = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, gan: R3GAN, *args: Any) -> None:
            seen.append((gan.generator.to_rgb.weight.detach().clone(), gan.generator_ema.to_rgb.weight.clone()))

    train(tiny(), tmp_path, batches=6, stop_at=3, callbacks=[Look()])
    train(tiny(), tmp_path, batches=6, callbacks=[Look()], resume=checkpoints(tmp_path)[-1])
    expected = seen[0][0]
    for i, (live, average) in enumerate(seen):
        stays = ema_weight(BATCH, i * BATCH, half_life_kimg=0.1, ramp_up=None, rise_kimg=0.064)
        expected = expected.lerp(live, 1 - stays)
        assert torch.allclose(average, expected, atol=1e-7)
    assert len(seen) == 6


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 24}, "resolution 24 is not a power of two from 8; R3GAN's stages double it"),
        ({"resolution": 32}, "widths has 3 numbers, and 32 pixels have 4 stages"),
        ({"num_blocks": [1, 1]}, "widths, cardinalities and num_blocks have 3, 3 and 2 numbers: give one for every"),
        ({"num_blocks": [1, 0, 1]}, r"num_blocks \[1, 0, 1\] and expansion 2 must all be 1 or more"),
        ({"cardinalities": [4, 3, 3]}, "cardinality 3 does not divide the 8 maps of a block"),
        ({"num_half_res": 3}, "num_half_res 3: of 3 resolutions 0 to 2 can compute in half precision"),
        ({"half_dtype": "float8"}, "half_dtype 'float8' is not one of float16, bfloat16"),
        ({"gamma_end": -1.0}, "gamma_end -1.0 is negative"),
        ({"decay_kimg": 0}, "decay_kimg 0 is not positive; None takes the length of training"),
        ({"schedule": "cosine"}, "schedule 'cosine', warmup_kimg 0: R3GAN's learning rate goes from lr to lr_end"),
        ({"warmup_kimg": 1.0}, "warmup_kimg 1: R3GAN's learning rate"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_networks_refuse_what_they_cannot_be() -> None:
    with pytest.raises(ValueError, match="kernel_size 2 is even"):
        Generator(z_dim=4, kernel_size=2, **SHAPE)
    with pytest.raises(ValueError, match="embed_dim 0: conditions of 3 numbers need 1 or more"):
        Discriminator(c_dim=3, **SHAPE)
    with pytest.raises(TypeError, match="widht"):
        Discriminator(widht=3, **SHAPE)


def test_a_batch_that_two_steps_cannot_share_is_refused_before_training(tmp_path: Path) -> None:
    gan, data = tiny(micro_batches=4), Digits(batch_size=12, resolution=16)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match=r"batch_size 12 .* of 1 processes x 4 micro-batches: use a multiple of 8"):
        trainer.fit(gan, datamodule=data)
    with pytest.raises(ValueError, match="a batch of 3 images on a process: R3GAN shares it out in two"):
        gan.share({"image": torch.zeros(3, 1, 16, 16), "label": torch.zeros(3)}, "d")


# ---- experiments -----------------------------------------------------------------------------------------------------

# train.py of brownvc/R3GAN, its presets and README: (gamma from, to, half-life and decay in thousands, augmentation,
# batch), as it counts them: of one player.
PUBLISHED = {
    "cifar10": (0.05, 0.005, 5_000, 20_000, 0.55, 512),
    "ffhq64": (2, 0.2, 500, 20_000, 0.3, 256),
    "ffhq256": (150, 15, 500, 20_000, 0.3, 256),
    "imagenet32": (0.5, 0.05, 50_000, 200_000, 0.5, 4096),
    "imagenet64": (1, 0.1, 50_000, 200_000, 0.4, 4096),
}
TRANSFORMS = dict.fromkeys(("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "cutout"), 1.0)
TRANSFORMS |= dict.fromkeys(("brightness", "contrast", "lumaflip", "hue", "saturation"), 0.5)
EXPERIMENTS = [name for name in shipped_configs() if name.startswith("r3gan/")]


def plan_of(name: str) -> dict[str, Any]:
    return yaml.safe_load(shipped_configs()[name].read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_experiments_have_the_published_numbers(name: str) -> None:
    plan, (gamma, gamma_end, half_life, decay, p, batch) = plan_of(f"r3gan/{name}"), PUBLISHED[name]
    model, data = plan["model"]["init_args"], plan["data"]["init_args"]
    found = [model["gamma"], model["gamma_end"], model["augment_p_end"], data["batch_size"], data["mirror"]]
    assert found == [gamma, gamma_end, p, 2 * batch, True]
    assert plan["ema"] == {"half_life_kimg": 2 * half_life, "ramp_up": None, "rise_kimg": 2 * decay}
    assert model["decay_kimg"] == 2 * decay and model["total_kimg"] >= 2 * decay
    assert model["augment"]["init_args"] == TRANSFORMS and "lr" not in model and "betas" not in model
    large, resolution = "imagenet" in name, model["resolution"]
    widths = [1536 if large else min(768, 24 * 1024 // r) if r > 32 else 768 for r in (4, 8, 16, 32, 64, 128, 256)]
    stages = resolution.bit_length() - 2
    assert model.get("widths", [768] * 4) == widths[:stages] and data["resolution"] == resolution
    assert model.get("cardinalities", [96] * 4) == [w // (16 if large else 8) for w in widths[:stages]]
    assert model.get("num_blocks", [2] * 4) == [2] * stages
    assert model["num_half_res"] == (3 if resolution == 32 else 4)
    assert model.get("num_classes", 0) == (1000 if large else 10 if name == "cifar10" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_train(name: str, tmp_path: Path) -> None:
    """On stand-in data of the same shape, with narrower networks."""
    plan = plan_of(name)
    model, data = plan["model"]["init_args"], plan["data"]["init_args"]
    stages = len(model.get("widths", [1] * 4))
    argv = ["--config", f"experiments/{name}.yaml", "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += ["--evaluate.every_kimg=0", "--image_grid.columns=2", "--image_grid.rows=2"]
    argv += ["--model.init_args.expansion=1"]
    argv += [f"--model.init_args.{option}={[2] * stages}" for option in ("widths", "cardinalities")]
    argv += [f"--model.init_args.num_blocks={[1] * stages}", "--model.init_args.total_kimg=0.016"]
    stand_in = Digits if model["channels"] == 1 else Shapes
    if model.get("num_classes"):
        argv += [f"--model.init_args.num_classes={stand_in(batch_size=1, resolution=8).num_classes}"]
    argv += [f"--data=lit_gans.data.{stand_in.__name__}", f"--data.init_args.resolution={data['resolution']}"]
    argv += ["--data.init_args.batch_size=8"]
    assert verb.main(argv) == 0
    assert load_run(tmp_path / "run").images_seen == 16
