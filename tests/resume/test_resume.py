"""A resumed run equals an unbroken one, bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_gans.base.checkpoints import checkpoints
from tests.cases import CASES, each, largest_difference, state, train
from tests.distributed.launch import ROOT, run_processes


@pytest.mark.parametrize("name", each(CASES))
def test_ten_batches_are_five_and_five(name: str, tmp_path: Path) -> None:
    whole = CASES[name]()
    unbroken = state(whole, train(whole, tmp_path / "whole", batches=10))
    train(CASES[name](), tmp_path / "half", batches=10, stop_at=5)
    resumed = CASES[name]()
    trainer = train(resumed, tmp_path / "half", batches=10, resume=checkpoints(tmp_path / "half")[-1])
    assert largest_difference(unbroken, state(resumed, trainer)) == 0.0
    first, second = (gan.sample(range(8)) for gan in (whole, resumed))
    assert torch.equal(first, second)


def killed_run(folder: Path, how: str) -> list[Path]:
    """A process that trains 10 batches with a checkpoint every 3 and is killed with SIGKILL; what it left."""
    command = [sys.executable, "-m", "tests.resume.killed", str(folder), how]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == -signal.SIGKILL, result.stderr[-2000:]
    return checkpoints(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "left_at_kimg"), [("after-batch-8", "kimg00000.096"), ("while-writing", "kimg00000.048")]
)
def test_killed_run_resumes_from_the_last_checkpoint(how: str, left_at_kimg: str, tmp_path: Path) -> None:
    left = killed_run(tmp_path / "killed", how)
    assert [p.stem for p in left][-1] == left_at_kimg
    whole, resumed = CASES["cgan-conv"](), CASES["cgan-conv"]()
    unbroken = state(whole, train(whole, tmp_path / "whole", batches=10))
    trainer = train(resumed, tmp_path / "killed", batches=10, resume=left[-1])
    assert largest_difference(unbroken, state(resumed, trainer)) == 0.0
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*.tmp")), "the unfinished file stays behind"


@pytest.mark.slow
def test_two_processes_go_on_as_one(tmp_path: Path) -> None:
    whole, resumed = CASES["dcgan-r1"](), CASES["dcgan-r1"]()
    unbroken = state(whole, train(whole, tmp_path / "whole", batches=10, holdout=True))
    run_processes(2, ["-m", "tests.distributed.worker", str(tmp_path), "sync_at_step", "10", "5", "dcgan-r1"])
    left = checkpoints(tmp_path / "dcgan-r1")[-1]
    trainer = train(resumed, tmp_path / "dcgan-r1", batches=10, resume=left, holdout=True)
    assert largest_difference(unbroken["state"], state(resumed, trainer)["state"]) < 1e-5
    assert (resumed.images_seen, resumed.batches_seen) == (160, 10)
