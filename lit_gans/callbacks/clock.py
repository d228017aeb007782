"""Schedules on the image clock: what is due when, the same on every process and after every resume."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.adversarial.clock import images_in


def crossed(before_images: int, after_images: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` lies in (before_images, after_images]; never when `every_kimg` is 0.

    The interval is rounded to whole images (at least one), so that no rounding error of kimg shifts a multiple.
    """
    if every_kimg == 0:
        return False
    every = max(round(every_kimg * 1000), 1)
    return after_images // every > before_images // every


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all work given to it; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def later(x: Tensor) -> Callable[[], float]:
    """What reads the scalar x: when called it waits for x, but not for what the device was given to do after that."""
    there = x.to("cpu", non_blocking=True)
    if x.device.type != "cuda":
        return there.item
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(x.device))
    return lambda: (arrived.synchronize(), there.item())[1]


class EveryKimg(Callback, ABC):
    """Calls `act` on all processes whenever the image clock passes a multiple of `every_kimg`; 0 switches it off.

    Nothing is remembered between runs: what is due follows from the clock before and after a batch, so a resumed run
    neither repeats nor skips a call.

    Args:
        at_start: also before the first batch of a new run (not of a resumed one).
        at_end: also when training ends, unless `act` was called at that very count, or no batch was trained.

    Raises:
        ValueError: `every_kimg` is negative.
    """

    def __init__(self, every_kimg: float, at_start: bool = False, at_end: bool = True) -> None:
        if every_kimg < 0:
            raise ValueError(f"{type(self).__name__}: every_kimg is {every_kimg}; give 0 (never) or more")
        self.every_kimg, self.at_start, self.at_end = every_kimg, at_start, at_end
        self.spent_s = 0.0  # time in `act` since the start, which Throughput does not count as training
        self._settled_at = -1  # the count of images for which nothing is left to do

    @abstractmethod
    def act(self, trainer: Trainer, game: Game) -> None:
        """What is due; called on all processes at the same count of images."""

    def _act_now(self, trainer: Trainer, game: Game) -> None:
        synchronize(game.device)  # work that training left in the queue is not this callback's
        started = time.perf_counter()
        self.act(trainer, game)
        self.spent_s += time.perf_counter() - started
        self._settled_at = game.images_seen

    def on_train_start(self, trainer: Trainer, pl_module: Game) -> None:
        if self.every_kimg and self.at_start and pl_module.images_seen == 0:
            self._act_now(trainer, pl_module)
        self._settled_at = pl_module.images_seen

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Game, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        after = pl_module.images_seen
        if crossed(after - images_in(batch, trainer.world_size), after, self.every_kimg):
            self._act_now(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Game) -> None:
        if self.every_kimg and self.at_end and pl_module.images_seen != self._settled_at:
            self._act_now(trainer, pl_module)
