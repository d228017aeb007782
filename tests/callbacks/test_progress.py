import time
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from lit_gans.adversarial import GAN
from lit_gans.base.progress import clock
from lit_gans.callbacks import progress
from lit_gans.callbacks.progress import Progress, figures
from lit_gans.callbacks.report import Report
from lit_gans.runs.records import record

from .common import fit, tiny_gan


class Evaluate(Callback):
    """An evaluation that measures nothing, after the second batch."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: GAN, outputs: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.batches_seen == 2:
            record(trainer, {"fid": 123.456})


def test_plain_lines_at_evaluations_and_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, tiny_gan(total_kimg=0.08), Report(0.016), Evaluate(), Progress(), enable_progress_bar=True)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2
    assert out[0].startswith("0.0/0.08 kimg  40%  ") and out[0].endswith("fid 123.5")
    assert out[1].startswith("0.1/0.08 kimg 100%  ") and "loss_d" in out[1] and "img/s" in out[1]


def test_plain_lines_by_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, tiny_gan(total_kimg=0.08), Progress(plain_s=1e-9), enable_progress_bar=True)
    assert len(capsys.readouterr().out.splitlines()) == 6


class Sleep(Callback):
    def on_train_batch_start(self, trainer: Trainer, pl_module: GAN, batch: Any, batch_idx: int) -> None:
        time.sleep(0.2)


@pytest.mark.parametrize(("patience", "told"), [(0.05, 1), (30, 0)])
def test_a_slow_first_batch_is_told_once(
    patience: float, told: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SLOW_S", patience)
    fit(tmp_path, tiny_gan(total_kimg=0.032), Sleep(), Progress(), enable_progress_bar=True)
    assert capsys.readouterr().out.count("the first batch has taken") == told


def test_bar_in_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    fit(tmp_path, tiny_gan(total_kimg=0.08), Report(0.016), Progress(), enable_progress_bar=True)
    out = capsys.readouterr().out
    assert "0.1/0.08 kimg" in out and "━" in out and "loss_g" in out
    assert out.rstrip().endswith("\x1b[?25h")  # the cursor is given back


def test_a_batch_costs_below_50_microseconds(tmp_path: Path) -> None:
    bar, gan = Progress(), tiny_gan()
    fit(tmp_path, gan, bar, enable_progress_bar=True)
    bar._next = time.perf_counter() + 1e6
    gan.latest_metrics = bar._metrics
    started = time.perf_counter()
    for _ in range(1000):
        bar.on_train_batch_end(gan._trainer, gan, None, {}, 0)
    assert (time.perf_counter() - started) / 1000 < 50e-6


def test_it_is_silent_when_disabled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(plain_s=1e-9)
    progress.disable()
    fit(tmp_path, tiny_gan(total_kimg=0.032), progress, enable_progress_bar=True)
    assert capsys.readouterr().out == ""


def test_texts() -> None:
    assert [clock(s) for s in (0, 61.9, 3600 * 30)] == ["0:00:00", "0:01:01", "30:00:00"]
    metrics = {"r1": 1.0, "frechet_digits": 3.25, "loss_g": 0.5, "loss_d": 1.0, "frechet_b": 1e6}
    assert figures(metrics) == ["loss_d 1", "loss_g 0.5", "frechet_digits 3.25", "frechet_b 1e+06"]
    metrics = {"loss_kl": 3.0, "loss": 2.0, "alpha": 1.0, "diversity": 0.5}
    assert figures(metrics) == ["loss 2", "loss_kl 3", "diversity 0.5"]
    with pytest.raises(ValueError, match="progress.plain_s is 0"):
        Progress(plain_s=0)
