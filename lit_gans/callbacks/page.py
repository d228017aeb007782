"""The run's page while it trains."""

import sys
import time
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lit_gans.adversarial import Game
from lit_gans.base.command import told
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.runs.report import write_page
from lit_gans.runs.state import training
from lit_gans.runs.uses import commands

HEARTBEAT_S = 300  # the page's own words say five minutes
COSTS = 20  # of the time that passes, at most so small a part goes into pages


class Page(EveryKimg):
    """Writes `<run>/index.html` before the first batch and after each new grid, and every five minutes; rank 0 alone.

    Where grids follow each other so fast that pages would take more than a twentieth of the time, some are left to the
    next. How the run ended is written by whoever started it.
    """

    def __init__(self) -> None:
        super().__init__(every_kimg=0)
        self._written = self._cost = 0.0
        self._shown = 0

    def on_train_start(self, trainer: Trainer, pl_module: Game) -> None:
        if trainer.is_global_zero:
            self._act_now(trainer, pl_module)
            print(f"page: {_run(trainer) / 'index.html'} shows how it goes, from now on", file=sys.stderr)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Game, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        passed = time.monotonic() - self._written
        if passed > HEARTBEAT_S or (_changed(trainer) != self._shown and passed > COSTS * self._cost):
            self._act_now(trainer, pl_module)

    def act(self, trainer: Trainer, game: Game) -> None:
        """A disk that refuses a page ends no training."""
        started, self._shown = time.monotonic(), _changed(trainer)
        try:
            write_page(_run(trainer), state=training(), commands=commands(_run(trainer), game))
        except OSError as error:
            warnings.warn(f"{_run(trainer) / 'index.html'} was not written: {told(error)}", stacklevel=2)
        self._written = time.monotonic()
        self._cost = self._written - started


def _run(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir)


def _changed(trainer: Trainer) -> int:
    """When the last grid was drawn; 0 before the first."""
    latest = _run(trainer) / "samples" / "latest.png"
    return latest.stat().st_mtime_ns if latest.is_file() else 0
