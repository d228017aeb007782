"""Two processes train exactly what one trains on the same global batch."""

from pathlib import Path

import pytest
import torch

from tests.cases import BATCH, CASES, largest_difference, state, train
from tests.distributed.launch import run_processes

BATCHES = 20


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_processes(2, ["-m", "tests.distributed.worker", str(folder), str(BATCHES), str(BATCHES)])
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name: str, two_processes: Path, tmp_path: Path) -> None:
    """1,438 digits are not divisible by 16: batches run across the ends of epochs."""
    gan = CASES[name](**({"micro_batches": 4} if name == "gan-minimax" else {}))
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    alone = state(gan, train(gan, tmp_path, batches=BATCHES, holdout=True))
    first, second = (torch.load(two_processes / f"{name}-{rank}.pt") for rank in (0, 1))
    assert largest_difference(first, second) == 0.0, "the ranks differ"
    assert alone["clock"] == first["clock"] == (BATCHES * BATCH, BATCHES)
    assert largest_difference(alone["state"], before) > 1e-3, "nothing was learned"
    assert largest_difference(alone["state"], first["state"]) < 1e-5
