"""Micro-batches: memory falls with their number, and what is trained stays the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.base.random import drawing
from tests.cases import StopAt, each, largest_difference, state
from tests.memory import StepMemory
from tests.papers.games import GANS, OTHERS

BATCH, PARTS = 32, 4
SHARED = (
    "dcgan", "dcgan-r1", "fastgan", "pix2pix-batch", "stackgan", "stackgan2-captions", "stackgan2-none", "attngan",
)  # fmt: skip
OWN = ("cgan-conv", "msg-gan", "pggan", "stylegan2", "stylegan3-t", "stylegan-t", "cyclegan-usual", "pix2pixhd",
       "damsm-lstm")  # fmt: skip
QUICK = {"dcgan", "stackgan", "stylegan2", "pix2pix-batch"}  # the others are slow tests
STAGE2 = {"stackgan": {"stage1_kimg": 0.0}}

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")


def fit(name: str, folder: Path, *, parts: int, batches: int, callbacks: Sequence[pl.Callback] = ()) -> dict[str, Any]:
    build, source = (GANS | OTHERS)[name]
    game, data = build(micro_batches=parts, **STAGE2.get(name, {})), source(folder / "data")
    game.total_kimg, data.batch_size = 1.0, BATCH
    trainer = pl.Trainer(
        max_epochs=-1, limit_val_batches=0, logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=str(folder),
        callbacks=[*callbacks, StopAt(batches)],
    )  # fmt: skip
    trainer.fit(game, datamodule=data)
    return state(game, trainer)


def peak(name: str, folder: Path, *, parts: int) -> int:
    memory = StepMemory()
    fit(name, folder, parts=parts, batches=2, callbacks=[memory])
    return memory.peak


def kept(game: Game, make: Any, *inputs: Tensor | None) -> list[Any]:
    """`Game.for_both`, with the graphs of all parts."""
    made = []
    for part in game.split(*inputs):
        with drawing(game.draws("layers", 0)):
            made.append(make(*part))
    return made


@pytest.mark.parametrize("name", each([*SHARED, *OWN], slow={*SHARED, *OWN} - QUICK))
def test_memory_falls_with_the_number_of_parts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a quarter, but for gradients, of which there are as many as ever."""
    found = peak(name, tmp_path, parts=PARTS)
    assert found < 0.45 * peak(name, tmp_path, parts=1)
    if name in SHARED:  # the fakes that both players see hold no graphs in the step that has no use for them
        monkeypatch.setattr(Game, "for_both", kept)
        assert found < 0.7 * peak(name, tmp_path, parts=PARTS)


@pytest.mark.parametrize("name", SHARED)
def test_what_is_made_once_more_is_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, moments, and the statistics of batch norms, which must not count it twice; dropout included."""
    found = fit(name, tmp_path, parts=PARTS, batches=3)
    monkeypatch.setattr(Game, "for_both", kept)
    assert largest_difference(fit(name, tmp_path, parts=PARTS, batches=3), found) == 0.0
