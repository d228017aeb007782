"""`lit-gans sweep`: what is drawn, ranked, pruned, stopped, killed and gone on with."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_gans.base.checkpoints import checkpoints
from lit_gans.runs.records import append_line
from lit_gans.runs.state import record_end, state_of
from lit_gans.sweep import main, sweep
from lit_gans.training import stages, sweeps
from lit_gans.training.sweep_file import read_sweep
from lit_gans.training.sweeps import Sweep, Worker, ranked
from tests.test_compare import evaluation, write_run

ROOT = Path(__file__).parents[1]
LR = "model.init_args.lr"


def written(folder: Path, **changed: Any) -> Path:
    """A sweep file whose metric is the learning rate's distance from 0.01, as `Fit` measures it."""
    plan = {
        "command": ["lit-gans", "fit", "--config", "cgan/digits", "${args}"],
        "method": "random",
        "metric": {"name": "metrics/fid", "goal": "minimize"},
        "parameters": {
            LR: {"distribution": "log_uniform_values", "min": 1e-3, "max": 0.1},
            "trainer.devices": {"value": 1},
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({**plan, **changed}))
    return folder / "sweep.yaml"


class Fit:
    """In the place of `fit` in a process: writes what it would, and ends as it is told, by number of its call."""

    def __init__(self, **ends: int) -> None:
        self.calls: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.ends = {int(number.removeprefix("call")): status for number, status in ends.items()}
        self.values: Callable[[float], list[float]] = lambda lr: [abs(math.log10(lr) + 2)]

    def __call__(self, argv: list[str], *, look: Any = None, log: Path, env: Any = None) -> int:
        if "--print_config" in argv:
            log.write_text("lit-gans fit: no such option" if "--no=1" in argv else "ok")
            return 2 if "--no=1" in argv else 0
        number = len(self.calls)
        self.calls.append(argv)
        self.environments.append(env)
        options = dict(word.removeprefix("--").split("=", 1) for word in argv if word.startswith("--") and "=" in word)
        run, status = Path(options["run_folder"]), self.ends.get(number, 0)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"lit-gans fit: call {number} ends\n")
        if not run.exists():
            write_run(run)
        for kimg, value in enumerate(self.values(float(options[LR])) if status == 0 else [], 1):
            append_line(run / "metrics.jsonl", evaluation(kimg, fid=value))
            if look is not None and look():
                return 130
        return status


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fit:
    pytest.importorskip("optuna")
    found = Fit()
    monkeypatch.setattr(sweeps, "waited_for", found)
    monkeypatch.chdir(tmp_path)
    return found


def states(file: Path, **given: Any) -> list[str]:
    plan = Sweep(read_sweep(file), Path("runs") / f"sweep-{file.parent.name}", **given)
    return [trial.state.name.lower() for trial in plan.study().trials]


def test_a_sweep_of_six_runs_ends_in_a_ranked_table(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = written(tmp_path / "cgan")
    assert main([str(file), "--trials", "6", "--settings", "logger=none", "trainer.precision=64"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert table[0] == "| target | kimg | fid ↓ |" and len(table) == 7
    assert [line.rpartition("(")[2] for line in table[1:]] == [f"{rank}) |" for rank in range(1, 7)]
    drawn = [float(next(w for w in argv if w.startswith(f"--{LR}=")).partition("=")[2]) for argv in fit.calls]
    assert len(set(drawn)) == 6 and all(1e-3 <= lr <= 0.1 for lr in drawn)
    best = min(range(6), key=lambda number: abs(math.log10(drawn[number]) + 2))
    assert table[1].startswith(f"| {best:02d}-lr={drawn[best]:.3g} |")
    assert fit.calls[0][:2] == ["--config", "cgan/digits"] and fit.environments[0]["WANDB_RUN_GROUP"] == "sweep-cgan"
    assert {"--trainer.devices=1", "--logger=none", "--trainer.precision=64", "--ckpt_path=auto"} <= set(fit.calls[0])


def test_a_sweep_goes_on_where_it_was_and_draws_nothing_twice(fit: Fit, tmp_path: Path) -> None:
    file = written(tmp_path / "a")
    sweep(file, trials=2)
    sweep(file, trials=4)
    assert len({argv[2] for argv in fit.calls}) == len(fit.calls) == 4
    sweep(file, trials=4)
    assert len(fit.calls) == 4
    at_once = sweep(file, trials=4, folder="other")
    assert [argv[2] for argv in fit.calls[4:]] == [argv[2] for argv in fit.calls[:4]] and len(at_once.lines) == 4


@pytest.mark.parametrize(
    ("status", "says"), [(130, "broken off"), (137, "was ended by signal 9, as for want of memory")]
)
def test_a_trial_that_was_stopped_or_killed_is_taken_up(
    status: int, says: str, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = written(tmp_path / "a")
    fit.ends = {1: status}
    assert main([str(file), "--trials=3"]) == (130 if status == 130 else 2)
    assert says in (told := capsys.readouterr().err) and "the same command goes on with runs/sweep-a/01-lr=" in told
    assert states(file) == ["complete", "running"]
    assert main([str(file), "--trials=3"]) == 0
    assert states(file) == ["complete"] * 3
    assert fit.calls[1] == fit.calls[2] != fit.calls[3]


def test_what_had_finished_before_it_was_told_is_not_trained_again(fit: Fit, tmp_path: Path) -> None:
    file = written(tmp_path / "a")
    fit.ends = {0: 130}
    assert main([str(file), "--trials=1"]) == 130
    (run,) = (tmp_path / "runs" / "sweep-a").glob("00-*/")
    append_line(run / "metrics.jsonl", evaluation(1, fid=0.5))
    record_end(run, "finished")
    assert state_of(run).word == "finished"
    assert main([str(file), "--trials=1"]) == 0
    assert len(fit.calls) == 1 and states(file) == ["complete"]


def test_failures_are_told_and_count(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = written(tmp_path / "a")
    fit.ends = {0: 1}
    fit.values = lambda lr: [math.nan if len(fit.calls) == 2 else 1.0]
    result = sweep(file, trials=3)
    told = capsys.readouterr().err
    assert "trial 1 failed: lit-gans fit: call 0 ends; all it said: runs/sweep-a/00-lr=" in told
    assert "trial 2 failed: fid is nan" in told
    assert states(file) == ["fail", "fail", "complete"]
    assert [line.split()[0] for line in result.lines] == ["1", "fail", "fail"]


def test_trials_whose_figures_stay_behind_are_ended_early(fit: Fit, tmp_path: Path) -> None:
    file = written(tmp_path / "a", early_terminate={"type": "hyperband", "min_iter": 1, "eta": 2})
    fit.values = lambda lr: [float(len(fit.calls))] * 3
    sweep(file, trials=2)
    assert states(file) == ["complete", "pruned"]
    (run,) = (tmp_path / "runs" / "sweep-a").glob("01-*/")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    fit.values = lambda lr: [0.5] * 3
    sweep(file, trials=3)
    assert states(file) == ["complete", "pruned", "complete"]


def test_a_grid_has_each_of_its_points_once(fit: Fit, tmp_path: Path) -> None:
    grid = {LR: {"values": [0.001, 0.1]}, "model.init_args.betas": {"values": [[0, 0.99], [0.5, 0.999]]}}
    file = written(tmp_path / "a", method="grid", parameters=grid)
    assert len(sweep(file, trials=20).lines) == 4
    assert len({tuple(argv[2:4]) for argv in fit.calls}) == 4
    assert "--model.init_args.betas=[0, 0.99]" in sum(fit.calls, [])
    assert sorted(path.name[3:] for path in Path("runs/sweep-a").glob("*-*/"))[0] == "betas=0.5_0.999,lr=0.001"


def test_a_metric_of_training_is_ranked_without_protocols(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = written(tmp_path / "a", metric={"name": "loss/top1", "goal": "maximize"})
    fit.values = lambda lr: []
    with pytest.raises(ValueError, match="has measured no top1, which the sweep is ranked by: "):
        sweep(file, trials=1)
    (run,) = (tmp_path / "runs" / "sweep-a").glob("00-*/")
    append_line(run / "metrics.jsonl", {"kimg": 1, "top1": 0.25})
    record_end(run, "finished")
    assert main([str(file), "--trials=1"]) == 0
    assert capsys.readouterr().out == f"0.25        {run.name}\n"


def test_what_cannot_be_done_is_refused(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = written(tmp_path / "a")
    for argv, message in {
        ("--settings", "no=1"): "sweep.yaml: lit-gans fit: no such option",
        ("--trials=0",): "trials is 0 and workers 1; each must be 1 or more",
        ("--workers=2",): "workers and job are of a cluster's jobs: add --cluster=slurm, or local",
        ("--cluster=local", "--job", "gpus"): "job: 'gpus' has no value; give NAME=VALUE",
    }.items():
        assert main([str(file), *argv]) == 2 and message in capsys.readouterr().err
    assert not fit.calls and not (tmp_path / "runs" / "sweep-a" / "optuna.log").exists()
    assert main([str(file), "--trials=1"]) == 0
    assert main([str(file), "--trials=1", "--settings", "logger=none"]) == 2
    assert "runs/sweep-a holds trials of another settings: give another --folder" in capsys.readouterr().err
    assert main([str(written(tmp_path / "a", method="bayes")), "--trials=1"]) == 2
    assert "another method: give another --folder, or what it began with, which was method random" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("package", ["optuna", "submitit"])
def test_what_is_missing_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    if package == "submitit":
        pytest.importorskip("optuna")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sweeps, "waited_for", Fit())
    monkeypatch.chdir(tmp_path)
    assert main([str(written(tmp_path / "a")), "--cluster=local"]) == 2
    assert "the extra 'sweep': pip install 'lit-gans[sweep]'" in capsys.readouterr().err


def test_two_processes_share_the_trials_and_none_takes_the_others(fit: Fit, tmp_path: Path) -> None:
    plan = Sweep(read_sweep(written(tmp_path / "a")), tmp_path / "runs")
    study = plan.study()
    trial, lock = sweeps._next(plan, study, 2)
    other = multiprocessing.get_context("fork").Process(target=Worker(plan, 2))
    other.start()
    other.join(60)
    assert other.exitcode == 0 and [each.state.name for each in study.trials] == ["RUNNING", "COMPLETE"]
    lock.release()
    assert sweeps._next(plan, study, 2)[0].number == trial.number


# ---- what is waited for ----------------------------------------------------------------------------------------------


SLEEPER = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: sys.exit(130)); print(1, flush=True)\n"


@pytest.fixture
def sleepers(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """Processes in the place of `fit`, which wait to be stopped."""
    monkeypatch.setattr(stages, "LOOK_S", 0.05)
    found, start = [], subprocess.Popen
    command = [sys.executable, "-c", SLEEPER + "time.sleep(60)"]
    monkeypatch.setattr(subprocess, "Popen", lambda argv, **how: found.append(start(command, **how)) or found[-1])
    return found


def test_a_process_is_stopped_when_a_look_says_so(sleepers: list[subprocess.Popen], tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert stages.waited_for([], look=lambda: bool(log.read_bytes()), log=log) == 130


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
def test_a_signal_that_is_handled_here_is_not_the_processs_too(
    sleepers: list[subprocess.Popen], tmp_path: Path
) -> None:
    """SLURM sends it to both; the process would be ended by it without a checkpoint."""
    log = tmp_path / "log"

    def ended(number: int, frame: Any) -> None:
        raise SystemExit(144)

    def look() -> bool:
        if log.read_bytes():
            for pid in (sleepers[0].pid, os.getpid()):
                os.kill(pid, signal.SIGUSR2)
        return False

    before = signal.signal(signal.SIGUSR2, ended)
    try:
        with pytest.raises(SystemExit):
            stages.waited_for([], look=look, log=log)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert sleepers[0].returncode == 130


# ---- in earnest ------------------------------------------------------------------------------------------------------


TINY = ["model.init_args.width=8", "evaluate.num_images=100", "evaluate.every_kimg=0.5", "checkpoint.every_kimg=0.1",
        "image_grid.every_kimg=0", "health.diversity_every_kimg=0", "logger=none"]  # fmt: skip


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "lit_gans", "sweep", "cgan", "--folder", str(folder), "--settings", *TINY, *more]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def until(found: Callable[[], Any]) -> Any:
    for _ in range(2400):
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError("it did not come")


def starts(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "run.json").read_text())["starts"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_sweep_that_is_killed_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    folder = tmp_path / "trials"
    argv = command(folder, "model.init_args.total_kimg=3", "--trials", "2")
    process = subprocess.Popen(argv, cwd=tmp_path, env=environment(), start_new_session=True)
    (run,) = until(lambda: [run for run in folder.glob("00-*/") if checkpoints(run)])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run(argv, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(starts(run)) == 2 and "goes on from" in run.with_name(f"{run.name}.log").read_text()
    assert state_of(run).word == "finished" and "**" in again.stdout and len(list(folder.glob("0*/"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_job_that_is_preempted_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By submitit's own executor of this machine, whose jobs are put back as SLURM's are."""
    pytest.importorskip("optuna"), pytest.importorskip("submitit")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    plan = Sweep(read_sweep("cgan"), tmp_path / "trials", (*TINY, "model.init_args.total_kimg=3"))
    jobs = sweeps.submit(plan, 2, cluster="local", workers=1, job={})
    (run,) = until(lambda: [run for run in plan.folder.glob("00-*/") if checkpoints(run)])
    (worker,) = _children(jobs[0]._process.pid)
    os.kill(worker, signal.SIGUSR2)
    sweeps.wait_for(jobs)
    assert len(starts(run)) == 2 and starts(run)[0]["ended"]["word"] == "stopped"
    assert [trial.state.name for trial in plan.study().trials][0] == "COMPLETE" and len(ranked(plan)) == 2


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
