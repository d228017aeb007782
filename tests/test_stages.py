"""Stages that one command trains one after the other: passed over, stopped, killed and gone on with."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.fit import main
from lit_gans.runs.load import load_run
from lit_gans.training import stages
from tests.cases import STYLEGAN_XL, largest_difference

ROOT = Path(__file__).parents[1]
BATCHES = 6
MODEL = {**STYLEGAN_XL, "channels": 1, "z_dim": 8, "features": ["test_resnet"], "features_weights": ["random"]}
MODEL |= {"features_px": [32], "total_kimg": BATCHES * 4 / 1000}


def written(folder: Path, px: int, **model: Any) -> str:
    """A config of StyleGAN-XL on digits of so many pixels."""
    init = {**MODEL, "resolution": px, **model}
    data = {"class_path": "lit_gans.data.Digits", "init_args": {"resolution": px, "batch_size": 4}}
    plan = {"model": {"class_path": "lit_gans.papers.StyleGANXL", "init_args": init}, "data": data, "logger": "none"}
    plan |= {"image_grid": {"every_kimg": 0}, "evaluate": {"every_kimg": 0}, "checkpoint": {"every_kimg": 0.008}}
    (folder / f"px{px}.yaml").write_text(yaml.safe_dump(plan))
    return f"px{px}.yaml"


def checkpoint_at(run: Path, name: str) -> None:
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(run / "checkpoints" / name, "w") as file:
        file.writestr("a", "")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What `fit` would be started with; it trains nothing."""
    found: list[list[str]] = []
    monkeypatch.setattr(stages, "waited_for", lambda argv: found.append(argv) or 0)
    monkeypatch.chdir(tmp_path)
    return found


def test_stages_that_are_finished_are_passed_over(
    asked: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    configs = [written(tmp_path, px) for px in (16, 32, 64)]
    checkpoint_at(tmp_path / "runs" / "px16", "kimg00000.024.ckpt")
    checkpoint_at(tmp_path / "runs" / "px32", "kimg00000.016.ckpt")
    checkpoint_at(tmp_path / "runs" / "px32", "kimg00000.024-interrupted.ckpt")
    assert main(["--stages", *configs, "--trainer.devices=1"]) == 0
    assert asked == [["--config", f"px{px}.yaml", "--ckpt_path=auto", "--trainer.devices=1"] for px in (32, 64)]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "stage 1 of 3, px16.yaml: finished, 0.024 kimg in runs/px16" and said[1:] == [
        "stage 2 of 3, px32.yaml", "stage 3 of 3, px64.yaml"
    ]  # fmt: skip
    main(["--model.init_args.total_kimg=0.1", "--stages=px16.yaml"])  # more of what is finished
    assert asked[2] == ["--config", "px16.yaml", "--ckpt_path=auto", "--model.init_args.total_kimg=0.1"]
    main(["--stages", "px16.yaml", "--model.init_args.total_kimg", "0.1"])  # in words that `fit` alone reads
    assert len(asked) == 4
    (tmp_path / "px16.yaml").write_text("model: lit_gans.papers.DCGAN")  # how long, `fit` alone can tell
    main(["--stages", "px16.yaml"])
    assert len(asked) == 5


def test_a_stage_that_fails_ends_the_sequence(
    monkeypatch: pytest.MonkeyPatch, asked: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    configs = [written(tmp_path, px) for px in (16, 32, 64)]
    monkeypatch.setattr(stages, "waited_for", lambda argv: asked.append(argv) or 130 * (argv[1] == "px32.yaml"))
    assert main(["--stages", *configs]) == 130 and [argv[1] for argv in asked] == configs[:2]
    assert "stage 2 of 3, px32.yaml: ended with status 130; the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--stages"], "--stages names no configs: give those to train in turn"),
        (["--stages", "--logger=none"], "--stages names no configs"),
        (["--stages", "nothing.yaml"], "config nothing.yaml does not exist"),
        (["--stages", "cgan/digits", "--run_folder=x"], "--run_folder=x is of one run, and each of the stages has its"),
        (["--stages", "cgan/digits", "--ckpt_path", "last"], "--ckpt_path is of one run"),
        (["-c", "cgan/digits", "--stages", "cgan/digits"], "-c is of one run"),
    ],
)
def test_what_cannot_be_stages(
    argv: list[str], message: str, asked: list[list[str]], capsys: pytest.CaptureFixture
) -> None:
    assert main(argv) == 1 and message in capsys.readouterr().err and not asked


# ---- processes -------------------------------------------------------------------------------------------------------


def start(folder: Path, *argv: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lit_gans.fit", "--stages", *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


def ended(process: subprocess.Popen) -> tuple[int, str]:
    output = process.communicate(timeout=300)[0]
    return process.returncode, output


def stopped(folder: Path, process: subprocess.Popen, stop: Callable[[], None]) -> tuple[int, str]:
    """How it ended after `stop`, which is called when the second stage has saved something."""
    end = time.monotonic() + 300
    while not checkpoints(folder / "runs" / "px32"):
        assert process.poll() is None and time.monotonic() < end, process.stdout.read()[-3000:]
        time.sleep(0.01)
    stop()
    return ended(process)


@pytest.mark.slow
def test_a_failure_of_fit_is_that_of_the_stages(tmp_path: Path) -> None:
    first = written(tmp_path, 16, num_layers=1)
    status, output = ended(start(tmp_path, first, written(tmp_path, 32)))
    assert status == 1 and f"stage 1 of 2, {first}: ended with status 1" in output and "stage 2" not in output


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_what_was_killed_in_its_second_stage_goes_on_exactly(how: str, tmp_path: Path) -> None:
    long = {"heads": [[32, 4]], "start_from": "runs/px16", "total_kimg": 0.16}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        configs = [written(tmp_path / name, 16), written(tmp_path / name, 32, **long)]
    whole = start(tmp_path / "whole", *configs)
    assert ended(whole)[0] == 0
    parts, process = tmp_path / "parts", start(tmp_path / "parts", *configs)
    if how == "SIGKILL":
        assert stopped(parts, process, lambda: os.killpg(process.pid, signal.SIGKILL))[0] == -signal.SIGKILL
    else:  # to the first process alone, which passes it on
        status, output = stopped(parts, process, process.terminate)
        assert status == 130 and "stage 2 of 2, px32.yaml: ended with status 130" in output
    below = read_checkpoint(checkpoints(parts / "runs" / "px16")[-1])
    status, output = ended(start(parts, *configs))
    assert status == 0 and "stage 1 of 2, px16.yaml: finished, 0.024 kimg" in output, output[-3000:]
    for stage in ("px16", "px32"):
        one, other = (read_checkpoint(checkpoints(tmp_path / f / "runs" / stage)[-1]) for f in ("whole", "parts"))
        assert one["lit_gans"]["images_seen"] == other["lit_gans"]["images_seen"] == (24 if stage == "px16" else 160)
        assert largest_difference(one["state_dict"], other["state_dict"]) == 0
    grown = load_run(parts / "runs" / "px32").generator_ema.state_dict()
    stem = ("generator_ema.synthesis.input.", *(f"generator_ema.synthesis.layers.{i}." for i in range(2)))
    kept = {k: t for k, t in below["state_dict"].items() if k.startswith(stem)}
    assert kept and all((grown[k.removeprefix("generator_ema.")] == t).all() for k, t in kept.items())
    status, output = ended(start(parts, *configs))
    assert status == 0 and output.count("finished") == len(output.splitlines()) == 2
