import json
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from lit_gans.adversarial import GAN
from lit_gans.callbacks import throughput
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.callbacks.throughput import Throughput, peak_memory_mib
from lit_gans.data import Digits

from .common import fit, tiny_gan, tiny_trainer

NAMES = {"img_per_s", "s_per_kimg", "data_wait_share", "callback_share", "peak_memory_mib"}


class Evaluation(EveryKimg):
    """Takes 0.3 s."""

    def act(self, trainer: Trainer, gan: GAN) -> None:
        time.sleep(0.3)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_scheduled_callbacks_do_not_count_as_training(tmp_path: Path) -> None:
    # At the start, at 0.16 and at 0.32 kimg; the one at 0.48 comes after Throughput's tick.
    fit(tmp_path, tiny_gan(total_kimg=0.48), Throughput(0.48), Evaluation(0.16, at_start=True))
    (line,) = lines(tmp_path)
    assert NAMES <= line.keys() and line["kimg"] == 0.48
    wall = line["s_per_kimg"] * 0.48
    assert line["callback_share"] * wall == pytest.approx(0.9, abs=0.1)
    assert 480 / line["img_per_s"] == pytest.approx(wall * (1 - line["callback_share"]))
    assert line["data_wait_share"] < 0.5


def test_each_tick_starts_anew(tmp_path: Path) -> None:
    fit(tmp_path, tiny_gan(total_kimg=0.16), Throughput(0.064))
    assert [line["kimg"] for line in lines(tmp_path)] == [0.064, 0.128, 0.16]


class SlowDigits(Digits):
    def on_before_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        time.sleep(0.02)
        return batch


def test_waiting_for_data_is_seen(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, Throughput(0.16))
    trainer.fit(tiny_gan(total_kimg=0.16), SlowDigits(batch_size=16, resolution=8))
    (line,) = lines(tmp_path)
    assert line["data_wait_share"] > 0.2  # which beside other work is less than the larger half


def test_after_a_minute_the_end_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path / "a", tiny_gan(total_kimg=0.064), Throughput(0.064))
    assert "images/s" not in capsys.readouterr().err  # it did not last a minute
    monkeypatch.setattr(throughput, "PROBE_S", 0)
    fit(tmp_path / "b", tiny_gan(total_kimg=0.064), Throughput(0.064))
    said = capsys.readouterr().err
    assert said.count("after a minute: ") == 1 and "the 0.064 kimg end in about 0:00:" in said and "GiB" in said


def test_resident_memory_is_plausible() -> None:
    assert 50 < peak_memory_mib(torch.device("cpu")) < 100_000
