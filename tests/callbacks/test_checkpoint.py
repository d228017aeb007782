"""Which checkpoints there are, and when."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_gans.base.checkpoints import checkpoints, find_checkpoint, read_checkpoint
from lit_gans.callbacks import Checkpoint
from lit_gans.callbacks import checkpoint as module
from lit_gans.callbacks.checkpoint import link_over
from lit_gans.runs.records import record
from tests.cases import BATCH, CASES, train
from tests.waits import DEVICE, noting

EVERY = BATCH / 1000


class Measure(pl.Callback):
    """Records a metric after each batch, as Evaluate would."""

    def __init__(self, name: str, values: list[float]) -> None:
        self.name, self.values = name, values

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        record(trainer, {self.name: self.values[pl_module.batches_seen - 1]})


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "checkpoints").iterdir())


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    train(CASES["gan"](), tmp_path, batches=5, checkpoint=Checkpoint(EVERY, 0, keep_last=2, monitor=None))
    assert names(tmp_path) == ["kimg00000.064.ckpt", "kimg00000.080.ckpt"]
    assert find_checkpoint(tmp_path).name == "kimg00000.080.ckpt"


@pytest.mark.parametrize(("monitor", "metric"), [("auto", "frechet_digits"), ("auto", "fid"), ("mine", "mine")])
def test_the_best_is_kept_however_old(monitor: str, metric: str, tmp_path: Path) -> None:
    measure = Measure(metric, [5.0, 2.0, 3.0, float("nan"), 4.0])
    keep = Checkpoint(0, 0, keep_last=1, monitor=monitor)
    train(CASES["gan"](), tmp_path, batches=5, callbacks=[measure], checkpoint=keep)
    assert names(tmp_path) == ["best.ckpt", "kimg00000.080.ckpt"]
    best = read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    assert best["lit_gans"]["images_seen"] == 2 * BATCH and keep.best == 2.0


@pytest.mark.parametrize("monitor", ["precision_k5", "class_accuracy", "psnr_ba"])
def test_the_best_is_the_highest_where_higher_is_better(monitor: str, tmp_path: Path) -> None:
    measure = Measure(monitor, [0.5, 0.7, 0.6, float("nan"), 0.1])
    keep = Checkpoint(0, 0, keep_last=1, monitor=monitor)
    train(CASES["gan"](), tmp_path, batches=5, callbacks=[measure], checkpoint=keep)
    assert keep.best == 0.7
    assert read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["lit_gans"]["images_seen"] == 2 * BATCH


def test_a_number_of_no_metric_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="checkpoint.monitor 'presicion_k5' is no number of a metric"):
        train(CASES["gan"](), tmp_path, batches=1, checkpoint=Checkpoint(EVERY, 0, monitor="presicion_k5"))


def test_a_resumed_run_remembers_its_best(tmp_path: Path) -> None:
    measure = Measure("fid", [2.0, 5.0, 4.0, 1.0])
    train(CASES["gan"](), tmp_path, batches=4, stop_at=2, callbacks=[measure], checkpoint=Checkpoint(EVERY, 0))
    keep = Checkpoint(EVERY, 0)
    last = checkpoints(tmp_path)[-1]
    train(CASES["gan"](), tmp_path, batches=4, stop_at=3, resume=last, callbacks=[measure], checkpoint=keep)
    assert keep.best == 2.0
    assert read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["lit_gans"]["images_seen"] == BATCH


def test_wall_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute passes with every batch."""
    now = [0.0]
    monkeypatch.setattr("lit_gans.callbacks.checkpoint.time.monotonic", lambda: now[0])

    class Pass(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            now[0] += 30

    train(CASES["gan"](), tmp_path, batches=8, callbacks=[Pass()], checkpoint=Checkpoint(0, 1.0, keep_last=9))
    assert names(tmp_path) == ["kimg00000.048.ckpt", "kimg00000.096.ckpt", "kimg00000.128.ckpt"]


def test_a_crash_saves_what_there_is(tmp_path: Path) -> None:
    class Crash(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
            if pl_module.batches_seen == 3:
                raise RuntimeError("something else broke")

    with pytest.raises(RuntimeError, match="something else broke"):
        train(CASES["gan"](), tmp_path, batches=8, callbacks=[Crash()])
    assert names(tmp_path) == ["kimg00000.048.ckpt"]


def test_a_crash_inside_a_step_is_marked(tmp_path: Path) -> None:
    gan, steps = CASES["gan"](), []
    original = gan.on_before_optimizer_step

    def break_later(optimizer: torch.optim.Optimizer) -> None:
        steps.append(optimizer)
        if len(steps) == 4:  # the generator's step of the second batch
            raise RuntimeError("broke between the players")
        original(optimizer)

    gan.on_before_optimizer_step = break_later
    with pytest.raises(RuntimeError, match="between the players"):
        train(gan, tmp_path, batches=8)
    assert names(tmp_path) == ["kimg00000.016-interrupted.ckpt"]


def test_broken_files_are_passed_over(tmp_path: Path) -> None:
    train(CASES["gan"](), tmp_path, batches=2, checkpoint=Checkpoint(EVERY, 0, monitor=None))
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert find_checkpoint(tmp_path).name == "kimg00000.016.ckpt"
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(newest)


def test_link_over_replaces(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        link_over(tmp_path / name, tmp_path / "best")
        assert (tmp_path / "best").read_text() == name
    assert os.path.samefile(tmp_path / "b", tmp_path / "best")


def test_time_is_counted_for_throughput(tmp_path: Path) -> None:
    keep = Checkpoint(EVERY, 0, monitor=None)
    started = time.perf_counter()
    train(CASES["gan"](), tmp_path, batches=2, checkpoint=keep)
    assert 0 < keep.spent_s < time.perf_counter() - started


def test_several_processes_agree_to_stop_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch asks, and reads the answer to the question of the batch before."""
    answers, seen, asked = iter([0.0, 1.0]), [], []

    def later(question: torch.Tensor) -> Any:
        asked.append(question)
        return lambda: next(answers)

    monkeypatch.setattr(module, "later", later)
    strategy = SimpleNamespace(root_device=DEVICE, reduce=lambda x, reduce_op: x)
    keep, trainer = Checkpoint(0, 0), SimpleNamespace(world_size=2, strategy=strategy)
    with noting(seen.append):
        keep._stop_if_asked(trainer)
        keep._stop_if_asked(trainer)
        with pytest.raises(SIGTERMException):
            keep._stop_if_asked(trainer)
    assert seen == [] and [question.device for question in asked] == [DEVICE] * 3
