"""Which checkpoints there are, and when."""

import os
import signal
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


def test_a_checkpoint_knows_that_it_is_the_best(tmp_path: Path) -> None:
    """Judged before it is written; and a kill between file and link is made good by the resume."""
    measure = Measure("fid", [2.0, 1.0, 1.5, 3.0])
    train(CASES["gan"](), tmp_path, batches=4, stop_at=2, callbacks=[measure], checkpoint=Checkpoint(EVERY, 0))
    first, last = checkpoints(tmp_path)
    link_over(first, tmp_path / "checkpoints" / "best.ckpt")
    keep = Checkpoint(EVERY, 0)
    train(CASES["gan"](), tmp_path, batches=4, stop_at=3, resume=last, callbacks=[measure], checkpoint=keep)
    assert keep.best == 1.0
    assert read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["lit_gans"]["images_seen"] == 2 * BATCH


def test_what_is_measured_at_the_end_is_in_the_last_file(tmp_path: Path) -> None:
    class AtEnd(pl.Callback):
        def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            record(trainer, {"fid": 3.0})

    train(CASES["gan"](), tmp_path, batches=2, callbacks=[AtEnd()], checkpoint=Checkpoint(EVERY, 0))
    state = read_checkpoint(checkpoints(tmp_path)[-1])["callbacks"]
    assert next(s for name, s in state.items() if name.startswith("Checkpoint"))["best"] == 3.0


def refusing(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """The disk refuses these of the files."""
    flush, done = module.flush_to_disk, []

    def refuse(path: Path) -> None:
        done.append(path)
        if len(done) in calls:
            raise OSError("No space left on device")
        flush(path)

    monkeypatch.setattr(module, "flush_to_disk", refuse)


def test_a_refused_write_is_tried_again_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training ends on a scheduled checkpoint, which the disk refuses."""
    refusing(monkeypatch, 2)
    with pytest.warns(UserWarning, match="was not written"):
        train(CASES["gan"](), tmp_path, batches=2, checkpoint=Checkpoint(EVERY, 0, monitor=None))
    assert names(tmp_path) == ["kimg00000.016.ckpt", "kimg00000.032.ckpt"]


def test_the_last_write_that_is_refused_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, 2, 3)
    with pytest.warns(UserWarning), pytest.raises(OSError, match="kimg00000.016.ckpt is intact.*free space and resume"):
        train(CASES["gan"](), tmp_path, batches=2, checkpoint=Checkpoint(EVERY, 0, monitor=None))


def test_a_best_that_was_refused_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, 2)
    keep = Checkpoint(0, 0)
    with pytest.warns(UserWarning, match="was not written"):
        train(CASES["gan"](), tmp_path, batches=3, callbacks=[Measure("fid", [3.0, 1.0, 2.0])], checkpoint=keep)
    assert keep.best == 2.0
    assert read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["lit_gans"]["images_seen"] == 3 * BATCH


def test_going_on_from_an_older_one_keeps_both_timelines(tmp_path: Path) -> None:
    train(CASES["gan"](), tmp_path, batches=4, checkpoint=Checkpoint(EVERY, 0, keep_last=4, monitor=None))
    oldest = checkpoints(tmp_path)[0]
    keep = Checkpoint(EVERY, 0, keep_last=2, monitor=None)
    train(CASES["gan"](), tmp_path, batches=3, resume=oldest, checkpoint=keep)
    assert names(tmp_path) == ["kimg00000.032.ckpt", "kimg00000.048.ckpt"]
    apart = tmp_path / "set_apart" / "after-kimg00000.016"
    assert names(apart) == ["kimg00000.032.ckpt", "kimg00000.048.ckpt", "kimg00000.064.ckpt"]


class Spoil(pl.Callback):
    """Puts NaN into a weight after a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.batches_seen == self.batch:
            next(pl_module.parameters()).data.view(-1)[0] = float("nan")


def test_weights_that_are_nan_do_not_take_the_place_of_good_ones(tmp_path: Path) -> None:
    keep = Checkpoint(EVERY, 0, keep_last=2, monitor="fid")
    measure = Measure("fid", [5.0, 4.0, 3.0, 2.0, 1.0])
    with pytest.warns(
        UserWarning, match="weights are NaN or infinite, and .*64.ckpt was not written; .*48.ckpt is intact"
    ):
        with pytest.raises(
            ValueError, match="80.ckpt was not written; .*48.ckpt is intact: go on from it with a lower"
        ):
            train(CASES["gan"](), tmp_path, batches=5, callbacks=[measure, Spoil(4)], checkpoint=keep)
    assert names(tmp_path) == ["best.ckpt", "kimg00000.032.ckpt", "kimg00000.048.ckpt"]
    assert read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["lit_gans"]["images_seen"] == 3 * BATCH


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


def test_a_resume_that_breaks_off_before_training_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """When the clock is read back, weights may not be yet: what is there then is no state of the run."""

    class Refuse(pl.Callback):
        def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            raise ValueError("of other data")

    train(CASES["gan"](), tmp_path, batches=2, checkpoint=Checkpoint(EVERY, 0, monitor=None))
    newest = checkpoints(tmp_path)[-1]
    before, resumed = newest.read_bytes(), CASES["gan"]()
    with pytest.raises(ValueError, match="of other data"):
        train(resumed, tmp_path, batches=4, callbacks=[Refuse()], resume=newest)
    assert resumed.images_seen > 0
    assert newest.read_bytes() == before and checkpoints(tmp_path)[-1] == newest


def test_a_crash_inside_a_step_leaves_no_half_of_it(tmp_path: Path) -> None:
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
    assert names(tmp_path) == []


def test_broken_files_are_passed_over(tmp_path: Path) -> None:
    train(CASES["gan"](), tmp_path, batches=2, checkpoint=Checkpoint(EVERY, 0, monitor=None))
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert find_checkpoint(tmp_path).name == "kimg00000.016.ckpt"
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(newest)


def test_an_interrupted_step_is_older_than_the_same_moment_in_whole_steps(tmp_path: Path) -> None:
    """And younger than all moments before, whatever their names."""
    train(CASES["gan"](), tmp_path, batches=1)
    (whole,) = checkpoints(tmp_path)
    order = ["kimg00000.008.ckpt", "kimg00000.016-interrupted.ckpt", "kimg00000.016.ckpt", "kimg00000.032.ckpt"]
    order += ["kimg00000.040-interrupted.ckpt"]
    for name in reversed(order):
        if name != whole.name:
            (whole.parent / name).write_bytes(whole.read_bytes())
    assert [path.name for path in checkpoints(tmp_path)] == order
    assert find_checkpoint(tmp_path).name == order[-1]
    (whole.parent / order[-1]).unlink()
    (whole.parent / order[-2]).unlink()
    assert find_checkpoint(tmp_path) == whole


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


@pytest.mark.parametrize(
    ("environment", "job"),
    [({}, "9"), ({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "7_3")],
)
def test_sigusr1_saves_and_requeues(
    environment: dict[str, str], job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ask(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                os.kill(os.getpid(), signal.SIGUSR1)

    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    slurm = {"NTASKS": "1", "JOB_NAME": "fit", "JOB_ID": "9", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**{f"SLURM_{name}": value for name, value in slurm.items()}, **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SIGTERMException):
        train(CASES["gan"](), tmp_path, batches=8, callbacks=[Ask()])
    assert names(tmp_path) == ["kimg00000.032.ckpt"]
    assert (tmp_path / "asked").read_text() == f"requeue {job}\n"


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
