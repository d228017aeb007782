"""The same command, killed again and again, leaves what it leaves without a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from tests.cases import largest_difference
from tests.distributed.launch import ROOT
from tests.resume.kills import CONFIG, argv

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 100])
def test_a_command_that_is_killed_again_and_again(kills: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.resume.kills", str(tmp_path), "--kills", str(kills)]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=3600)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert f"\n{kills} kills, " in "\n" + result.stdout


def start(command: list[str], log: Path) -> subprocess.Popen[str]:
    with log.open("w") as file:
        return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=file)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.mark.slow
def test_torchrun_goes_on_where_a_worker_was_killed(config: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log.txt"
    workers = ["--trainer.devices=2", "--trainer.accelerator=cpu"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    launched = start([*launch, "-m", "lit_gans.fit", *argv(config, run), *workers], log)
    while not checkpoints(run):
        assert launched.poll() is None, log.read_text()[-3000:]
        time.sleep(0.1)
    children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert launched.wait(timeout=600) == 0, log.read_text()[-3000:]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "log.txt", "run"]
    assert len(json.loads((run / "run.json").read_text())["starts"]) == 2
    alone = start(["-m", "lit_gans.fit", *argv(config, tmp_path / "alone")], log)
    assert alone.wait(timeout=600) == 0, log.read_text()[-3000:]
    two, one = (read_checkpoint(checkpoints(folder)[-1]) for folder in (run, tmp_path / "alone"))
    assert largest_difference(two["state_dict"], one["state_dict"]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "option", [[], ["--ckpt_path=auto", "--model.init_args.total_kimg=24"]]
)  # more than a lock's wait
def test_simultaneous_starts_share_no_folder(option: list[str], config: Path, tmp_path: Path) -> None:
    """New ones take a folder each; of those that mean one and the same, one trains and the others say why not."""
    command = ["-m", "lit_gans.fit", "--config", str(config), f"--run_folder={tmp_path / 'run'}", *option]
    logs: list[Any] = [tmp_path / f"{i}.txt" for i in range(3)]
    statuses = [each.wait(timeout=900) for each in [start(command, log) for log in logs]]
    folders = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert all(len(json.loads((p / "run.json").read_text())["starts"]) == 1 for p in folders)
    assert sorted(statuses) == ([0, 1, 1] if option else [0, 0, 0]) and len(folders) == (1 if option else 3)
    said = [log.read_text() for log, status in zip(logs, statuses, strict=True) if status]
    assert all("another process" in text for text in said)
