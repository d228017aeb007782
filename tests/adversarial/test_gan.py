"""The clock, updates, sampling, reports and the checks before training."""

from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from lit_gans import papers
from lit_gans.adversarial import checks
from lit_gans.adversarial.reports import Reports
from lit_gans.callbacks import EMA
from lit_gans.callbacks.ema import ema_weight
from lit_gans.data import Digits, Shapes
from tests.cases import BATCH, CASES, train
from tests.waits import Operators


def test_the_clock_counts_images_and_stops_training(tmp_path: Path) -> None:
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, gan: papers.VanillaGAN, *args: object) -> None:
            seen.append(("start", gan.images_seen))

        def on_train_batch_end(self, trainer: pl.Trainer, gan: papers.VanillaGAN, *args: object) -> None:
            seen.append(("end", gan.images_seen))

    gan = CASES["gan"]()
    train(gan, tmp_path, batches=2, callbacks=[Watch()])
    assert seen == [("start", 0), ("end", BATCH), ("start", BATCH), ("end", 2 * BATCH)]
    assert (gan.images_seen, gan.batches_seen, gan.kimg) == (2 * BATCH, 2, 2 * BATCH / 1000)


def test_a_finished_run_stays_finished(tmp_path: Path) -> None:
    gan = CASES["gan"]()
    train(gan, tmp_path, batches=2)
    again = CASES["gan"]()
    train(again, tmp_path, batches=2, resume=next((tmp_path / "checkpoints").glob("kimg*.ckpt")))
    assert again.images_seen == 2 * BATCH


def test_every_is_due_in_the_first_batch() -> None:
    gan = CASES["gan"]()
    due = []
    for gan.batches_seen in range(7):
        due.append(gan.every(3))
    assert due == [True, False, False, True, False, False, True]


def test_n_critic_steps_per_generator_step(tmp_path: Path) -> None:
    gan, steps = CASES["wgan-gp"](), []
    original = gan.on_before_optimizer_step
    gan.on_before_optimizer_step = lambda o: (steps.append(gan.trainer.optimizers.index(o)), original(o))
    train(gan, tmp_path, batches=6)
    assert steps == [1, 0, 1, 1, 1, 0, 1, 1]


def test_gradients_are_clipped_and_made_finite(tmp_path: Path) -> None:
    gan, norms = CASES["wgan-gp"](clip_grad_norm=1e-3), []
    original = gan.on_before_optimizer_step

    def spy(optimizer: torch.optim.Optimizer) -> None:
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        parameters[0].grad.view(-1)[0] = float("nan")
        original(optimizer)
        norms.append(torch.cat([p.grad.flatten() for p in parameters]).norm().item())

    gan.on_before_optimizer_step = spy
    train(gan, tmp_path, batches=2)
    assert norms == pytest.approx([1e-3] * len(norms), rel=0.01)
    assert all(torch.isfinite(p).all() for p in gan.parameters())


def test_gradients_are_left_as_they_are_where_that_is_asked_for(tmp_path: Path) -> None:
    gan = CASES["wgan-gp"](repair_gradients=False)
    original = gan.on_before_optimizer_step

    def spy(optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0]["params"][0].grad.view(-1)[0] = float("nan")
        original(optimizer)

    gan.on_before_optimizer_step = spy
    with pytest.raises(ValueError, match="weights are NaN or infinite, and checkpoint .* was not written"):
        train(gan, tmp_path, batches=2)
    assert not all(torch.isfinite(p).all() for p in gan.parameters())


def test_only_the_stepping_player_takes_gradients_in_a_second_fit_too(tmp_path: Path) -> None:
    gan, seen = CASES["gan"](), []

    class Spy(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, gan: papers.VanillaGAN, optimizer: object) -> None:
            seen.append([all(p.requires_grad for p in network.parameters()) for network in gan.networks()])

    for run in ("first", "second"):
        gan.discriminator = CASES["gan"]().discriminator
        train(gan, tmp_path / run, batches=gan.batches_seen + 1, callbacks=[Spy()])
    assert seen == [[False, True], [True, False]] * 2
    assert all(p.requires_grad for network in gan.networks() for p in network.parameters())


def test_learning_rates_follow_the_clock(tmp_path: Path) -> None:
    gan, rates = CASES["wgan-gp-mlp"](), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
            rates.append([o.param_groups[0]["lr"] for o in trainer.optimizers])

    train(gan, tmp_path, batches=4, callbacks=[Watch()])
    assert [r[0] for r in rates] == pytest.approx([1e-4, 0.75e-4, 0.5e-4, 0.25e-4])


def test_sample_labels_default_to_the_seed_and_are_checked() -> None:
    gan = CASES["cgan-conv"]()
    assert torch.equal(gan.sample([3, 14]), gan.sample([3, 14], labels=torch.tensor([3, 4])))
    with pytest.raises(ValueError, match="classes from 0 to 9"):
        gan.sample([0], labels=torch.tensor([10]))
    with pytest.raises(ValueError, match="unconditional"):
        CASES["gan"]().sample([0], labels=torch.tensor([1]))


def test_psi_scales_the_latent() -> None:
    gan = CASES["gan"]()
    assert torch.equal(gan.sample([1, 2], psi=0.0)[0], gan.sample([1, 2], psi=0.0)[1])
    assert torch.equal(gan.sample([1], psi=0.5), gan.generate(0.5 * gan.seeded_latents([1])))


def test_sampling_changes_nothing() -> None:
    gan = CASES["dcgan"]().train()
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    ambient = torch.get_rng_state()
    gan.sample(range(8))
    assert torch.equal(torch.get_rng_state(), ambient)
    assert all(torch.equal(v, before[k]) for k, v in gan.state_dict().items())
    assert all(m.training for m in gan.generator.modules())


def test_reports_are_means_since_the_last_time(tmp_path: Path) -> None:
    gan = CASES["gan"]()
    train(gan, tmp_path, batches=1)
    gan.take_reports()
    gan.report(a=torch.tensor([1.0, 2.0]), b=4.0)
    gan.report(a=3.5)
    assert gan.take_reports() == {"a": 2.5, "b": 4.0}
    assert gan.take_reports() == {}


def test_signs_of_logits_are_those_of_a_discriminator_that_is_right() -> None:
    """Unequal for both sides, so that neither stands in the other's place."""
    reports = Reports()
    reports.add_logits(torch.tensor([3.0, 1.0, 2.0, -1.0]), torch.tensor([-1.0, -2.0, 4.0, 5.0, 6.0]))
    reports.add_logits(torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.full((5,), -5.0))
    found = {name: value.item() for name, value in reports.means().items()}
    assert found == pytest.approx({"fake_logits": -1.3, "fake_sign": 0.7, "real_logits": 0.75, "real_sign": 0.5})


@pytest.mark.parametrize(
    ("before", "expected"), [(0, 0.0), (10_000, 0.5 ** (100 / 500)), (10**9, 0.5 ** (100 / 10_000))]
)
def test_ema_weight_ramps_up(before: int, expected: float) -> None:
    found = ema_weight(100, before, half_life_kimg=10, ramp_up=0.05)
    assert found == pytest.approx(expected, abs=1e-12)


def test_ema_averages_parameters_and_copies_buffers(tmp_path: Path) -> None:
    gan, averages = CASES["dcgan"](), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, gan: papers.DCGAN, *args: object) -> None:
            averages.append((gan.generator.project.weight.clone(), gan.generator_ema.project.weight.clone()))

    train(gan, tmp_path, batches=4, callbacks=[Watch()])  # half-life 0.1 kimg, ramp-up 0.05
    expected = averages[0][0]
    for i, (live, average) in enumerate(averages):
        stays = ema_weight(BATCH, i * BATCH, half_life_kimg=0.1, ramp_up=0.05)
        expected = expected.lerp(live, 1 - stays)
        assert torch.allclose(average, expected, atol=1e-7)
    assert torch.equal(gan.generator_ema.norm.running_mean, gan.generator.norm.running_mean)


def test_ema_is_two_operators_however_many_tensors_there_are(tmp_path: Path) -> None:
    gan, ema = CASES["dcgan"](), EMA(0.1)
    ema.on_fit_start(None, gan)
    with Operators() as seen:
        ema.on_train_batch_end(SimpleNamespace(world_size=1), gan, None, {"image": torch.ones(BATCH)}, 0)
    assert seen.calls["_foreach_lerp_"] == seen.calls["_foreach_copy_"] == 1 and seen.calls["copy_"] == 0


def test_a_half_life_is_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        EMA(-1)


# ---- checks ----------------------------------------------------------------------------------------------------------


def fit(gan: papers.VanillaGAN, data: Digits, folder: Path, **trainer: object) -> None:
    arguments = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": -1}
    arguments |= {"enable_checkpointing": False, "default_root_dir": folder, "accelerator": "cpu"}
    pl.Trainer(**(arguments | trainer)).fit(gan, datamodule=data)


@pytest.mark.parametrize(
    ("gan", "data", "message"),
    [
        (
            lambda: CASES["gan"](),
            lambda: Digits(batch_size=8, resolution=16),
            "resolution 8, the data have resolution 16",
        ),
        (lambda: CASES["gan"](channels=3), lambda: Digits(batch_size=8, resolution=8), "channels 3, the data have.* 1"),
        (
            lambda: CASES["gan"](micro_batches=3),
            lambda: Digits(batch_size=8, resolution=8),
            "batch_size 8 .*multiple of 3",
        ),
        (
            lambda: CASES["cgan-mlp"](num_classes=6),
            lambda: Digits(batch_size=8, resolution=8),
            "num_classes 6, the data have 10 classes: set model.init_args.num_classes=10",
        ),
    ],
)
def test_model_and_data_must_fit(gan: object, data: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fit(gan(), data(), tmp_path)


def test_conditional_model_needs_labels(tmp_path: Path) -> None:
    data = Shapes(batch_size=8, resolution=8, channels=1, images=50)
    data.class_names = ()
    with pytest.raises(ValueError, match="conditional on 10 classes, and the data have no labels"):
        fit(CASES["cgan-mlp"](), data, tmp_path)


def test_half_precision_is_refused_where_it_is_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "cpu_has_fast_bf16", lambda: False)
    data = Digits(batch_size=8, resolution=8)
    with pytest.raises(ValueError, match="13 to 27 times slower.*LIT_GANS_ALLOW_SLOW_BF16=1"):
        fit(CASES["gan"](), data, tmp_path, precision="bf16-mixed")


@pytest.mark.parametrize("name", CASES)
def test_bf16_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checks.SLOW_BF16_VARIABLE, "1")
    gan = CASES[name]()
    train(gan, tmp_path, batches=3, precision="bf16-mixed")
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in gan.parameters())


def test_plain_ddp_is_refused_with_the_way_out(tmp_path: Path) -> None:
    trainer = pl.Trainer(strategy="ddp", accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="sync_at_step"):
        checks.check_strategy(trainer)


def test_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    train(CASES["gan"](), tmp_path, batches=1)
    left = next((tmp_path / "checkpoints").glob("kimg*.ckpt"))
    with pytest.raises(ValueError, match="holds a lit_gans.papers.gan.VanillaGAN, the config asks for .*DCGAN"):
        train(CASES["dcgan"](), tmp_path, batches=2, resume=left)
    with pytest.raises(ValueError, match=r"differ from the config's in \d+ tensors \(discriminator.*saved .*wanted"):
        train(CASES["gan"](units=9), tmp_path, batches=2, resume=left)
