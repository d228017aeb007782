"""Two processes train exactly what one trains on the same global batch."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.cases import BATCH, CASES, IN_PARTS, VARIANTS, each, largest_difference, state, train
from tests.distributed.launch import run_processes

BATCHES = 6
# What they do together others do too.
LIKE_OTHERS = (*VARIANTS, "gan-minimax", "dcgan", "cgan-mlp", "age-cgan", "wgan", "wgan-gp-mlp", "stylegan2")
# Where Adam amplifies rounding, on processors whose matrix products round otherwise: up to 4 % of the way was seen.
AMPLIFIED = ("msg-gan-wgan", "stylegan1", "projected-gan-style", "stylegan-t")
# A bias before a batch norm has no effect: rounding alone is its gradient, of which Adam makes whole steps. The mean
# that the norm keeps goes with it.
WITHOUT_EFFECT = re.compile(r"discriminator\..*\bheads\.\d+\.layers\.\d+\.(0\.bias|1\.running_mean)")


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """Trains those of `LIKE_OTHERS`, or all others, once; their folder."""
    folder = tmp_path_factory.mktemp("two")

    @cache
    def trained(like_others: bool) -> Path:
        names = [name for name in CASES if (name in LIKE_OTHERS) == like_others]
        settings = [str(folder), "sync_at_step", str(BATCHES), str(BATCHES)]
        run_processes(2, ["-m", "tests.distributed.worker", *settings, *names])
        return folder

    return trained


@pytest.mark.parametrize("name", each(CASES, slow=LIKE_OTHERS))
def test_two_processes_equal_one(name: str, two_processes: Callable[[bool], Path], tmp_path: Path) -> None:
    gan = CASES[name](**({"micro_batches": 4} if name in IN_PARTS else {}))
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    alone = state(gan, train(gan, tmp_path, batches=BATCHES, holdout=True))
    first, second = (torch.load(two_processes(name in LIKE_OTHERS) / f"{name}-{rank}.pt") for rank in (0, 1))
    assert largest_difference(first, second) == 0.0, "the ranks differ"
    assert alone["clock"] == first["clock"] == (BATCHES * BATCH, BATCHES)
    assert largest_difference(alone["state"], before) > 1e-4, "nothing was learned"
    for key, tensor in alone["state"].items():
        if WITHOUT_EFFECT.fullmatch(key):
            continue
        bound = 1e-5 * max(1.0, tensor.abs().max().item())  # weights of a mapping network are stored in hundreds
        if name in AMPLIFIED:
            bound = max(bound, min(0.1 * largest_difference(tensor, before[key]), 1e-3))
        assert largest_difference(tensor, first["state"][key]) < bound, key


FALLBACK = "ddp_find_unused_parameters_true"


@pytest.mark.slow
def test_lightnings_own_strategy_stays_a_fallback(tmp_path: Path) -> None:
    names = ["gan", "wgan-gp-mlp"]  # without batch norm
    run_processes(2, ["-m", "tests.distributed.worker", str(tmp_path), FALLBACK, "6", "6", *names])
    for name in names:
        gan = CASES[name]()
        alone = state(gan, train(gan, tmp_path / "alone" / name, batches=6, holdout=True))
        both = torch.load(tmp_path / f"{name}-0.pt")
        assert alone["clock"] == both["clock"]
        assert largest_difference(alone["state"], both["state"]) < 1e-5


@pytest.mark.slow
def test_missing_gradients_count_as_zero(tmp_path: Path) -> None:
    assert len(run_processes(2, ["-m", "tests.distributed.missing_gradients"])) == 2  # each process asserts


@pytest.mark.slow
def test_batch_norm_takes_the_global_batch(tmp_path: Path) -> None:
    """Outputs, running statistics, gradients and an R1 penalty through it."""
    assert len(run_processes(2, ["-m", "tests.distributed.global_batch_norm"])) == 2  # each process asserts


@pytest.mark.slow
def test_a_table_of_classes_is_made_together() -> None:
    assert len(run_processes(2, ["-m", "tests.distributed.class_table"])) == 2  # each process asserts
