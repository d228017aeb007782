"""How fast training runs, and on what it waits."""

import sys
import time
from typing import Any

import torch
from lightning.pytorch import Trainer

from lit_gans.adversarial import Game
from lit_gans.adversarial.checks import say
from lit_gans.base.progress import clock
from lit_gans.callbacks.clock import EveryKimg, synchronize
from lit_gans.runs.records import record

PROBE_S = 60.0


class Throughput(EveryKimg):
    """At each tick records, over all processes and the images since the last tick:

    - `img_per_s`: images per second of training, without the time in scheduled callbacks (evaluation, image grids,
      checkpoints, reports): each callback on the image clock measures its own calls, and their sum is subtracted;
    - `s_per_kimg`: wall-clock seconds per thousand images, those callbacks included;
    - `data_wait_share`: of the training time, the part between the end of a batch and the start of the next:
      waiting for the loader, the copy to the device, and what callbacks do per batch (microseconds);
    - `callback_share`: of the wall-clock time, the part in scheduled callbacks;
    - `peak_memory_mib`: largest over the processes; CUDA memory allocated since the last tick, or on a CPU the
      process's largest resident size so far.

    The device is waited for at ticks only.

    After `PROBE_S` seconds of training a line says how fast it is, when training will end and what memory it took.
    """

    def __init__(self, every_kimg: float = 4.0) -> None:
        super().__init__(every_kimg)
        self._probe: tuple[float, float, int] | None = None  # when the first batch ended, spent and images by then
        self._probed = False
        self._batch_ended = 0.0  # when, and how much scheduled work had been done by then
        self._spent_at_end = 0.0
        self._waited = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Game) -> None:
        super().on_train_start(trainer, pl_module)
        self._callbacks = [c for c in trainer.callbacks if isinstance(c, EveryKimg)]
        self._probe, self._probed = None, self.every_kimg == 0
        self._restart(pl_module)

    def _restart(self, game: Game) -> None:
        self._waited, self._started, self._images = 0.0, time.perf_counter(), game.images_seen
        self._spent_before = self._spent()
        self._batch_ended, self._spent_at_end = self._started, self._spent_before
        if game.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(game.device)

    def _spent(self) -> float:
        return sum(c.spent_s for c in self._callbacks)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Game, batch: Any, batch_idx: int) -> None:
        self._waited += time.perf_counter() - self._batch_ended - (self._spent() - self._spent_at_end)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Game, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        self._batch_ended, self._spent_at_end = time.perf_counter(), self._spent()
        if not self._probed:
            self._look(trainer, pl_module)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _look(self, trainer: Trainer, game: Game) -> None:
        """The first batch is left out: it makes things ready."""
        if self._probe is None:
            self._probe = self._batch_ended, self._spent_at_end, game.images_seen
            return
        began, spent, images = self._probe
        if self._batch_ended - began < PROBE_S:
            return
        self._probed = True
        synchronize(game.device)
        seconds = max(time.perf_counter() - began - (self._spent() - spent), 1e-9)
        speed = (game.images_seen - images) / seconds
        left = max(game.total_kimg * 1000 - game.images_seen, 0) / speed
        end = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + left))
        say(
            trainer,
            f"after a minute: {speed:.3g} images/s; the {game.total_kimg:g} kimg end in about {clock(left)}, at {end}, "
            f"without what grids and evaluations take; peak memory {peak_memory_mib(game.device) / 1024:.2f} GiB",
        )

    def act(self, trainer: Trainer, game: Game) -> None:
        synchronize(game.device)
        wall, spent = time.perf_counter() - self._started, self._spent() - self._spent_before
        images = game.images_seen - self._images
        if images > 0:
            times = torch.tensor([wall, spent, self._waited], dtype=torch.float32, device=game.device)
            wall, spent, waited = trainer.strategy.reduce(times, reduce_op="mean").tolist()
            training = max(wall - spent, 1e-9)
            values = {
                "img_per_s": images / training,
                "s_per_kimg": 1000 * wall / images,
                "data_wait_share": min(max(waited / training, 0.0), 1.0),
                "callback_share": spent / wall,
            }
            memory = torch.tensor(peak_memory_mib(game.device), device=game.device)
            values["peak_memory_mib"] = float(trainer.strategy.reduce(memory, reduce_op="max"))
            record(trainer, values)
        self._restart(game)


def peak_memory_mib(device: torch.device) -> float:
    """CUDA: most memory allocated since the last reset; else the process's largest resident size; NaN if not told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere
