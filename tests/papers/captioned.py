"""Text-to-image models on a few drawn shapes, for tests of several papers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.base.checkpoints import checkpoints
from lit_gans.callbacks import EMA, Checkpoint
from lit_gans.data import ImageData, ShapeCaptions
from tests.cases import StopAt, largest_difference, state

BATCH = 8
RED, BLUE = "a small red circle at the top left on grey", "there is one square at the centre and its colour is blue"


WORDS = list(ShapeCaptions(batch_size=BATCH, images=64).vocabulary.words)


def shapes(**options: Any) -> ShapeCaptions:
    plain = {"batch_size": BATCH, "resolution": 32, "images": 64, "test_images": 16, "seed": 5, "vocabulary": WORDS}
    return ShapeCaptions(**{**plain, **options})


TINY = {"resolution": 32, "encoder": "words", "vocabulary": WORDS, "sentence_dim": 6, "word_dim": 4, "seed": 3}


def fit(
    game: Game,
    folder: Path,
    data: ImageData,
    *,
    batches: int,
    stop_at: int | None = None,
    resume: Path | None = None,
    average: bool = True,
    **trainer: Any,
) -> pl.Trainer:
    """Trains in a run of `batches` batches that is stopped at `stop_at`."""
    game.total_kimg = batches * BATCH / 1000
    fitting = pl.Trainer(
        max_epochs=-1, limit_val_batches=0, logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=str(folder),
        callbacks=[EMA(0.1 if average else None), StopAt(stop_at), Checkpoint(0, 0, monitor=None)], **trainer,
    )  # fmt: skip
    fitting.fit(game, datamodule=data, ckpt_path=None if resume is None else str(resume), weights_only=True)
    return fitting


def check_resume(build: Callable[[], Game], folder: Path, fit: Callable[..., pl.Trainer], *, stop_at: int) -> None:
    """Six batches in one go, and with a stop: bit for bit the same."""
    whole, resumed = build(), build()
    unbroken = state(whole, fit(whole, folder / "whole", batches=6))
    fit(build(), folder / "half", batches=6, stop_at=stop_at)
    trainer = fit(resumed, folder / "half", batches=6, resume=checkpoints(folder / "half")[-1])
    assert largest_difference(unbroken, state(resumed, trainer)) == 0.0


def steps_of(game: Game, run: Callable[[], Any]) -> list[tuple[str, set[str]]]:
    """Who stepped while `run` ran, in order, and which of the networks' parameters each step changed."""
    seen: list[tuple[str, dict[str, Tensor]]] = []

    def weights() -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in game.named_parameters() if "ema" not in n}

    class Spy(type(game)):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            seen.append((("generator", "discriminator")[self.trainer.optimizers.index(optimizer)], weights()))

    game.__class__ = Spy
    run()
    states = [*(w for _, w in seen), weights()]
    return [
        (player, {n for n in before if not torch.equal(before[n], after[n])})
        for (player, before), after in zip(seen, states[1:], strict=True)
    ]
