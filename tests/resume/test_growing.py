"""PGGAN and StyleGAN grow the same when stopped, killed in the middle of a fade, or run on two processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_gans.base.checkpoints import checkpoints
from lit_gans.runs.load import load_run
from tests.cases import CASES, largest_difference, state
from tests.distributed.launch import ROOT, run_processes
from tests.resume.growing import NAMES, grown


@pytest.mark.parametrize("stop_at", [3, *(pytest.param(at, marks=pytest.mark.slow) for at in (4, 10))])
@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_goes_on_bit_for_bit(name: str, stop_at: int, tmp_path: Path) -> None:
    """Before the first fade, within it, and within the last."""
    whole, resumed = CASES[name](), CASES[name]()
    unbroken = state(whole, grown(whole, tmp_path / "whole", batches=20))
    grown(CASES[name](), tmp_path / "half", batches=20, stop_at=stop_at)
    trainer = grown(resumed, tmp_path / "half", batches=20, resume=checkpoints(tmp_path / "half")[-1])
    assert largest_difference(unbroken, state(resumed, trainer)) == 0.0
    # 9 batches of 16, then of 8 to the end
    assert (whole.images_seen, whole.batches_seen) == (320, 9 + 22)
    loaded = load_run(tmp_path / "half")
    assert torch.equal(loaded.sample(range(3)), whole.sample(range(3)))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_saved_while_it_fades_samples_as_it_stood(name: str, tmp_path: Path) -> None:
    gan = CASES[name]()
    grown(gan, tmp_path, batches=20, stop_at=5)
    loaded = load_run(tmp_path)
    network = loaded.discriminator
    assert (network.stage, network.alpha) == (8, pytest.approx(1 / 3))
    assert torch.equal(loaded.sample(range(3)), gan.sample(range(3))) and loaded.sample([0]).shape[-1] == 16


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_killed_in_the_middle_of_a_fade_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.resume.growing", str(tmp_path / "killed"), name]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == -signal.SIGKILL, result.stderr[-2000:]
    left = checkpoints(tmp_path / "killed")[-1]
    assert left.stem == "kimg00000.160"
    whole, resumed = CASES[name](), CASES[name]()
    unbroken = state(whole, grown(whole, tmp_path / "whole", batches=20))
    trainer = grown(resumed, tmp_path / "killed", batches=20, resume=left)
    assert largest_difference(unbroken, state(resumed, trainer)) == 0.0


@pytest.mark.slow
def test_two_processes_grow_as_one(tmp_path: Path) -> None:
    """Across all transitions, with another batch size at the last; each process's half is one of two parts here."""
    run_processes(2, ["-m", "tests.resume.growing", str(tmp_path)])
    for name in NAMES:
        gan = CASES[name](micro_batches=2)
        alone = state(gan, grown(gan, tmp_path / "alone" / name, batches=20))
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt") for rank in (0, 1))
        assert largest_difference(first, second) == 0.0, "the ranks differ"
        assert alone["clock"] == first["clock"] == (320, 31)
        for key, tensor in alone["state"].items():
            assert largest_difference(tensor, first["state"][key]) < 1e-5 * max(1.0, tensor.abs().max().item()), key
