import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lit_gans.adversarial import GAN
from lit_gans.callbacks.health import (
    DivergenceError,
    Health,
    fake_distance,
    last_finite_checkpoint,
    mean_distance,
    real_distance,
)
from lit_gans.callbacks.report import Report
from lit_gans.data import TensorSet

from .common import fit, tiny_cgan, tiny_gan


class Break(Callback):
    """Puts a value into the discriminator's last bias before a batch."""

    def __init__(self, value: float, *, batch: int) -> None:
        self.value, self.batch = value, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: GAN, batch: Any, batch_idx: int) -> None:
        if pl_module.batches_seen == self.batch:
            torch.nn.init.constant_(pl_module.discriminator.layers[-1].bias, self.value)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ---- divergence ----------------------------------------------------------------------------------------------------


def test_nan_is_seen_at_the_next_tick(tmp_path: Path) -> None:
    gan = tiny_gan(total_kimg=1, optimizer="adam", lr=1e-3)
    with pytest.raises(DivergenceError) as error:
        fit(tmp_path, gan, Break(float("nan"), batch=5), Report(0.064), Health(0.064))
    assert gan.batches_seen == 8
    message = str(error.value)
    assert "diverged at 0.128 kimg" in message and "loss_d nan" in message and "real_logits nan" in message
    assert "precision 32-true, learning rates 0.001, 0.001" in message
    assert "there is no checkpoint" in message and "lower learning rate" in message
    assert "--trainer.precision" not in message  # it is the full one already


def test_nan_is_seen_between_distant_ticks(tmp_path: Path) -> None:
    gan = tiny_gan(total_kimg=10)
    with pytest.raises(DivergenceError, match="loss_d nan"):
        fit(tmp_path, gan, Break(float("nan"), batch=12), Report(100), Health(100))
    assert gan.batches_seen == 50


def test_nan_between_ticks_of_report_alone_is_seen(tmp_path: Path) -> None:
    gan = tiny_gan(total_kimg=0.3)
    with pytest.raises(DivergenceError, match="diverged at 0.128 kimg"):
        fit(tmp_path, gan, Break(float("nan"), batch=5), Report(0.064), Health(100))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_gradients_that_are_broken_for_ever_end_training(value: float, tmp_path: Path) -> None:
    gan = tiny_gan(total_kimg=10)
    gan.generator.layers[-1].bias.register_hook(lambda gradient: gradient.fill_(value))
    again = "gradients of generator are NaN or infinite at 2.400 kimg, and were in each of the last 3 batches"
    with pytest.warns(UserWarning, match="gradients of generator .* at 0.800 kimg; repair_gradients made them finite"):
        with pytest.raises(DivergenceError, match=again):
            fit(tmp_path, gan, Report(100), Health(100))
    assert all(p.isfinite().all() for p in gan.parameters())


def test_gradients_that_were_broken_once_are_forgotten(tmp_path: Path) -> None:
    gan = tiny_gan(total_kimg=2.4)
    weight = gan.discriminator.layers[-1].bias
    weight.register_hook(lambda gradient: gradient * float("nan") if gan.batches_seen == 50 else gradient)
    with pytest.warns(UserWarning, match="gradients of discriminator"):
        fit(tmp_path, gan, Report(0.032), Health(0.032))
    assert gan.broken_gradients() == {}


def test_a_second_training_forgets_the_gradients_of_the_first(tmp_path: Path) -> None:
    gan = tiny_gan(total_kimg=0.032)
    hook = gan.generator.layers[-1].bias.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.warns(UserWarning, match="gradients of generator"):
        fit(tmp_path / "first", gan, Report(0.016), Health(0.016))
    hook.remove()
    gan.total_kimg = 0.064
    fit(tmp_path / "second", gan, Report(0.016), Health(0.016))
    assert gan.broken_gradients() == {}


def test_logits_that_run_away_are_seen_and_the_limit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match=r"fake_logits 2e\+05, real_logits 2e\+05 .*health.divergence=10000"):
        fit(tmp_path, tiny_gan(total_kimg=1, lr=1e-9), Break(2e5, batch=0), Report(0.016), Health(0.016))


def test_the_last_good_checkpoint_is_named(tmp_path: Path) -> None:
    trainer = fit(tmp_path, tiny_gan(total_kimg=0.016))
    good, bad = tmp_path / "checkpoints" / "kimg00000.016.ckpt", tmp_path / "checkpoints" / "kimg00000.032.ckpt"
    trainer.save_checkpoint(good)
    torch.nn.init.constant_(trainer.lightning_module.discriminator.layers[-1].bias, float("nan"))
    trainer.save_checkpoint(bad)
    assert last_finite_checkpoint(tmp_path) == good
    with pytest.raises(DivergenceError, match=f"last good checkpoint is {good}"):
        fit(tmp_path, tiny_gan(total_kimg=1), Break(float("inf"), batch=0), Report(0.016), Health(0.016))


def test_healthy_training_passes_and_records_the_win_rate(tmp_path: Path) -> None:
    fit(tmp_path, tiny_gan(total_kimg=0.064), Report(0.032), Health(0.032))
    first, rates = lines(tmp_path)[:2]
    assert rates["d_win_rate"] == pytest.approx((first["real_sign"] + first["fake_sign"]) / 2)


def test_setup_wants_a_report_before_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Report callback before it; before it there are: none"):
        fit(tmp_path, tiny_gan(), Health(), Report())


@pytest.mark.parametrize(("argument", "value"), [("divergence", 0), ("samples", 3)])
def test_senseless_thresholds_are_refused(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"health.{argument} is {value}"):
        Health(**{argument: value})


# ---- diversity -----------------------------------------------------------------------------------------------------


def test_mean_distance() -> None:
    images = torch.zeros(3, 1, 2, 2)
    images[2] = 1.5  # distances 0, 3, 3
    assert mean_distance(images).item() == pytest.approx(2.0)
    assert mean_distance(images.repeat_interleave(32, -1).repeat_interleave(32, -2)).item() == pytest.approx(16.0)


def test_real_distance_is_within_classes() -> None:
    pixels = torch.tensor([0, 255, 0, 255], dtype=torch.uint8)[:, None, None, None]
    images = TensorSet(pixels, torch.tensor([0, 1, 0, 1]))
    assert real_distance(images, 2, samples=20) == 0  # each class is one picture
    assert real_distance(images, 0, samples=20) == pytest.approx(2 * 4 / 6)


def test_collapse_is_zero_and_warns_once_after_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gan = tiny_gan(total_kimg=0.096)
    monkeypatch.setattr(gan.generator_ema, "forward", lambda z: torch.zeros(len(z), 1, 8, 8))
    health = Health(0.016, diversity_every_kimg=0.016, warmup_kimg=0.048)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, gan, Report(0.016), health)
    values = [line["diversity"] for line in lines(tmp_path) if "diversity" in line]
    assert values == [0.0] * 6 and health.collapsed
    told = [str(w.message) for w in caught if "collapsed" in str(w.message)]
    assert len(told) == 1 and "at 0.048 kimg" in told[0] and "health.collapse_below=0.5" in told[0]


def test_a_generator_that_ignores_z_within_classes_has_collapsed() -> None:
    gan = tiny_cgan()
    gan.generator_ema.forward = lambda z, c: (c / 5.0 - 1)[:, None, None, None].expand(-1, 1, 8, 8)
    assert fake_distance(gan, samples=100) == pytest.approx(0, abs=1e-6)


def test_real_images_as_samples_have_diversity_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_gans.base.grids import spread
    from lit_gans.base.images import from_uint8
    from lit_gans.data import Digits

    digits = Digits(batch_size=1, resolution=8).dataset()
    gan = tiny_gan(total_kimg=0.016)
    reals = from_uint8(digits.fetch(spread(len(digits), 100))["image"])
    monkeypatch.setattr(gan.generator_ema, "forward", lambda z: reals)
    fit(tmp_path, gan, Report(0.016), Health(0.016, diversity_every_kimg=0.016))
    assert [line["diversity"] for line in lines(tmp_path) if "diversity" in line] == pytest.approx([1.0])
