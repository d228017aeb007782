"""Checkpoints that a kill, a crash or a full disk cannot lose."""

import os
import shutil
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.base.checkpoints import BEST, checkpoints
from lit_gans.base.files import flush_folder, flush_to_disk, lasting
from lit_gans.base.processes import broadcast_state
from lit_gans.callbacks.clock import EveryKimg, crossed, images_in, later
from lit_gans.metrics.catalog import CATALOG, direction, metric_of
from lit_gans.runs.loggers import offer_checkpoint
from lit_gans.runs.timelines import set_apart

STOPS = ("SIGTERM", "SIGINT", "SIGUSR1")  # the last is what SLURM is often asked to send; Windows has none


class Checkpoint(EveryKimg, LightningCheckpoint):
    """Writes `<run>/checkpoints/kimg00012.800.ckpt` by the image clock, by wall-clock time, at the end, on SIGTERM,
    on SIGUSR1, on Ctrl-C and when training fails; keeps the last few and, as `best.ckpt`, the best by a metric.

    A file is written beside and renamed, so that a kill at any moment leaves the previous ones usable. When the disk
    is full, training goes on with a warning and the next one is tried; only the last one's failure is an error. An
    error in the middle of a batch writes none: half a batch's steps are in the weights. A run that goes on from an
    older one than its newest first moves to `set_apart` what it had written since; see `lit_gans.runs.timelines`.
    Weights & Biases is told of each file, and takes those that `wandb.artifacts` asks for.

    Args:
        every_kimg: thousands of images between checkpoints; 0 writes only by time and at the end.
        every_minutes: wall-clock minutes after which one is written in any case; 0 for never.
        keep_last: how many are kept, the newest first.
        monitor: the number of `best.ckpt` (a name in metrics.jsonl), or "auto": `fid`, else the first `frechet_...`;
            None keeps no best. The catalog of metrics says whether lower or higher is better; of a number that is not
            in it, which a warning says, the lower.
    """

    def __init__(
        self, every_kimg: float = 100.0, every_minutes: float = 30.0, keep_last: int = 2, monitor: str | None = "auto"
    ) -> None:
        super().__init__(every_kimg)
        if keep_last < 1:
            raise ValueError(f"checkpoint.keep_last {keep_last} is below 1: the newest one is always kept")
        if every_minutes < 0:
            raise ValueError(f"checkpoint.every_minutes {every_minutes} is negative; 0 is never")
        self.every_minutes, self.keep_last, self.monitor = every_minutes, keep_last, monitor
        self.best: float | None = None
        self.best_name: str | None = None  # of the metric
        self.best_at = -1  # the count of images at which it was measured
        self._judged: float | None = None  # the last value of the metric that was compared with the best
        self._saved_at = -1  # the count of images that the newest file holds
        self._began = False  # whether training has begun, with all that a checkpoint holds read back
        self._written_at = time.monotonic()
        self._handlers: dict[int, Any] = {}
        self._stop = self._requeue = False
        self._answer: Callable[[], float] | None = None

    # ---- when --------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        self.folder = Path(trainer.default_root_dir) / "checkpoints"
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self.folder.glob(".*.tmp"):  # of a process that was killed while writing
            unfinished.unlink()
        self._check_space(pl_module)
        if self.monitor not in (None, "auto") and direction(self.monitor) is None:
            warnings.warn(
                f"checkpoint.monitor {self.monitor!r} is no number of a metric that has a better direction: best.ckpt "
                f"will be the one where it is lowest",
                stacklevel=2,
            )

    def _check_space(self, game: Game) -> None:
        """Weights twice more for Adam's moments, for every file that is kept at once."""
        one = 3 * sum(t.numel() * t.element_size() for t in game.state_dict().values())
        needed, free = one * (self.keep_last + 2), shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                f"{free / 2**20:.0f} MiB free in {self.folder}, and the {self.keep_last + 2} checkpoints that exist at "
                f"once need about {needed / 2**20:.0f} MiB: free space, lower checkpoint.keep_last, or choose another "
                "--run_folder"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: Game) -> None:
        if trainer.is_global_zero:
            set_apart(self.folder.parent, images_seen=pl_module.images_seen)
            self._restore_best(trainer, pl_module)
            if self.best is not None:
                self._offer(trainer, pl_module, self.folder / BEST)
        self.best = trainer.strategy.broadcast(self.best)

    def _restore_best(self, trainer: Trainer, game: Game) -> None:
        """A kill may have come between a checkpoint that is the best and its link; without a file there is no best."""
        path, resumed = self.folder / BEST, trainer.ckpt_path
        if resumed and self.best is not None and self.best_at == game.images_seen:
            link_over(Path(resumed), path)
        if not path.exists():
            self.best, self.best_at = None, -1

    def on_train_start(self, trainer: Trainer, pl_module: Game) -> None:
        super().on_train_start(trainer, pl_module)
        self._written_at, self._saved_at, self._began = time.monotonic(), pl_module.images_seen, True
        if threading.current_thread() is threading.main_thread():
            for number in (s for s in signal.Signals if s.name in STOPS):
                self._handlers[number] = signal.signal(number, self._note_signal)

    def _note_signal(self, number: int, frame: Any) -> None:
        """Lets the batch finish; a second signal ends the process at once.

        Lightning's own handler sends messages to the other processes from inside the signal, in the middle of
        whatever they are exchanging, and raises on one process alone.
        """
        if self._stop:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._stop, self._requeue = True, signal.Signals(number).name == "SIGUSR1"

    def _stop_if_asked(self, trainer: Trainer) -> None:
        """Raises SIGTERMException on all processes after the same batch."""
        stop = self._stop
        if trainer.world_size > 1:
            # The answer to the question of the batch before, for which nothing waits that came after it.
            stop = self._answer is not None and self._answer() > 0
            asked = torch.full((), float(self._stop), device=trainer.strategy.root_device)
            self._answer = later(trainer.strategy.reduce(asked, reduce_op="sum"))
        if stop:
            raise SIGTERMException

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Game, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        before = self.best, self.best_at
        better = self._judge(pl_module)  # first: the file knows whether it is the best
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if better and not self._keep_best(trainer, pl_module):
            self.best, self.best_at = before
        if self.every_minutes and self._saved_at != pl_module.images_seen and self._late(trainer, pl_module, batch):
            self._act_now(trainer, pl_module)
        self._stop_if_asked(trainer)

    def _late(self, trainer: Trainer, game: Game, batch: dict[str, Tensor]) -> bool:
        late = time.monotonic() - self._written_at > self.every_minutes * 60
        if trainer.world_size == 1:
            return late
        # The processes must agree, and asking costs a message: ask once per kimg.
        after = game.images_seen
        return crossed(after - images_in(batch, trainer.world_size), after, 1.0) and trainer.strategy.broadcast(late)

    def act(self, trainer: Trainer, game: Game) -> None:
        self.save(trainer, game)

    def on_train_end(self, trainer: Trainer, pl_module: Game) -> None:
        unsaved, better = self._saved_at != pl_module.images_seen, self._judge(pl_module)
        if unsaved or better:  # a file of this moment that was written before knows another best
            self.save(trainer, pl_module, last_chance=unsaved)
        if better:
            self._keep_best(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Game, exception: BaseException) -> None:
        if not self._began:  # the clock may be read back and the weights not: that is no state of the run
            return
        stopped = isinstance(exception, SIGTERMException)
        whole = pl_module.images_seen > 0 and not pl_module.mid_step and _finite(pl_module)
        # On several processes an error on one leaves the others elsewhere: nothing can be agreed upon.
        if whole and pl_module.images_seen != self._saved_at and (stopped or trainer.world_size == 1):
            self.save(trainer, pl_module, last_chance=stopped)
        if stopped and self._requeue and trainer.is_global_zero and SLURMEnvironment.detect():
            requeue()

    def teardown(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers, self._began = {}, False

    # ---- writing -----------------------------------------------------------------------------------------------------

    def save(self, trainer: Trainer, game: Game, *, last_chance: bool = False) -> Path | None:
        """Writes a checkpoint on all processes' behalf; None, after a warning, if the disk refuses it.

        Weights that are not finite are not written: they would take the place of good ones.

        Raises:
            OSError: it was refused and `last_chance` says that there will be no other.
            ValueError: weights are not finite, and there will be no other.
        """
        broadcast_state(game, buffers_only=True)
        path = self.folder / f"kimg{game.kimg:09.3f}.ckpt"
        if not _finite(game):
            return self._refuse(path, last_chance=last_chance)
        failure = write_checkpoint(trainer, path)
        self._written_at = time.monotonic()  # or tried: a full disk is not asked again after each batch
        if failure is None:
            self._saved_at = game.images_seen
            if trainer.is_global_zero:
                for old in checkpoints(self.folder.parent)[: -self.keep_last]:
                    old.unlink(missing_ok=True)
                self._offer(trainer, game, path)
            return path
        message = f"checkpoint {path} was not written ({failure}); {self._before()}"
        if last_chance:
            raise OSError(f"{message}: free space and resume with --ckpt_path=last")
        warnings.warn(f"{message}: free space, the next one will be tried in time", stacklevel=2)
        return None

    def _offer(self, trainer: Trainer, game: Game, path: Path) -> None:
        """To the loggers (rank 0): a file of this moment, or best.ckpt, with the metric that it is judged by."""
        if path.name == BEST:
            told = {"kimg": self.best_at / 1000, "metric": self.best_name, "value": self.best, "best": True}
        else:
            name, best = self._monitored(game.latest_metrics), self.best_at == game.images_seen
            value = game.latest_metrics.get(name) if name else None
            told = {"kimg": game.kimg, "metric": name, "value": value, "best": best}
        offer_checkpoint(trainer.loggers, path, **told)

    def _before(self) -> str:
        kept = checkpoints(self.folder.parent)
        return f"{kept[-1]} is intact" if kept else "there is none yet"

    def _refuse(self, path: Path, *, last_chance: bool) -> None:
        message = f"weights are NaN or infinite, and checkpoint {path} was not written; {self._before()}"
        self._written_at = time.monotonic()
        if last_chance:
            raise ValueError(f"{message}: go on from it with a lower learning rate or clip_grad_norm")
        warnings.warn(message, stacklevel=3)

    def _judge(self, game: Game) -> bool:
        """Whether a value of the metric has come that is better than all before."""
        name = self._monitored(game.latest_metrics)
        value = game.latest_metrics.get(name) if name else None
        if name is None or value is None or value == self._judged:
            return False
        self._judged = value
        if self.best is not None and not (value > self.best if direction(name) == "higher" else value < self.best):
            return False
        self.best, self.best_name, self.best_at = value, name, game.images_seen
        return True

    def _keep_best(self, trainer: Trainer, game: Game) -> bool:
        """Links best.ckpt to the file of this moment, written if there is none yet; whether the disk took it."""
        if self._saved_at != game.images_seen:
            self._act_now(trainer, game)
        kept = self._saved_at == game.images_seen
        if kept and trainer.is_global_zero:
            try:
                link_over(self.folder / f"kimg{game.kimg:09.3f}.ckpt", self.folder / BEST)
                self._offer(trainer, game, self.folder / BEST)
            except OSError as error:
                warnings.warn(f"best.ckpt was not replaced ({error}): free space", stacklevel=2)
                kept = False
        return trainer.strategy.broadcast(kept)

    def _monitored(self, metrics: dict[str, float]) -> str | None:
        if self.monitor != "auto":
            return self.monitor
        return next((name for name in metrics if metric_of(name) is CATALOG["frechet"]), None)

    def state_dict(self) -> dict[str, Any]:
        kept = {"best": self.best, "best_name": self.best_name, "best_at": self.best_at}
        return {**kept, "judged": self._judged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self._judged = state_dict["best"], state_dict["judged"]
        # Not in files of earlier versions:
        self.best_at, self.best_name = state_dict.get("best_at", -1), state_dict.get("best_name")


def requeue() -> None:
    """Puts this SLURM job, or task of an array, back into the queue, as Lightning does on SIGUSR1."""
    job, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    try:
        subprocess.run(["scontrol", "requeue", f"{job}_{task}" if job else os.environ["SLURM_JOB_ID"]], check=True)
    except (OSError, KeyError, subprocess.CalledProcessError) as error:
        warnings.warn(f"the job was not requeued ({error}): queue it again, with --ckpt_path=auto", stacklevel=2)


def write_checkpoint(trainer: Trainer, path: Path) -> str | None:
    """Writes Lightning's checkpoint beside `path` and renames it; the reason, on all processes, if the disk refuses."""
    unfinished = path.with_name(f".{path.name}.tmp")
    failure = None
    try:
        trainer.save_checkpoint(unfinished)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        failure = str(error).splitlines()[0]
        trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other processes wait for the writer
    if trainer.is_global_zero:
        try:
            if failure is None:
                flush_to_disk(unfinished)
                os.replace(unfinished, path)
                flush_folder(path.parent)
        except OSError as error:
            failure = str(error)
        unfinished.unlink(missing_ok=True)
    return trainer.strategy.broadcast(failure)


def link_over(source: Path, target: Path) -> None:
    """`target` becomes the same file as `source`, at once; copied where the file system has no links."""
    with lasting(target) as unfinished:
        try:
            os.link(source, unfinished)
        except OSError:
            shutil.copyfile(source, unfinished)


def _finite(game: Game) -> bool:
    return bool(torch.stack([torch.isfinite(p).all() for p in game.parameters()]).all())
