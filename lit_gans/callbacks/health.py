"""Watches over training: stops it when it has diverged, and warns when samples have become one and the same."""

import math
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Samples, can
from lit_gans.adversarial.checks import say
from lit_gans.adversarial.game import LOOK_EVERY_BATCHES
from lit_gans.base.checkpoints import readable_checkpoints
from lit_gans.base.grids import spread
from lit_gans.base.images import from_uint8
from lit_gans.callbacks.clock import EveryKimg, crossed, images_in
from lit_gans.callbacks.report import Report
from lit_gans.data import ImageData, ImageSet
from lit_gans.runs.records import record

CHECK_EVERY_BATCHES = LOOK_EVERY_BATCHES
BROKEN_LOOKS = 3  # after which gradients are not expected to recover
MAX_CLASSES = 10
MAX_SIDE_PX = 16


class DivergenceError(RuntimeError):
    """Training has left the region in which it can recover; the message says what was seen and what to try."""


class Health(EveryKimg):
    """Raises `DivergenceError` on all processes when a reported figure is NaN or infinite, or logits have run away.

    Figures are looked at every 50 batches, and right after each tick of Report, behind which it must stand; logits are
    those named so (`real_logits`). Gradients that `repair_gradients` makes finite are looked at in one batch of 50: the
    first broken ones give a warning, and a player that has them at three looks in a row ends training.
    Records, where there is a discriminator, `d_win_rate`, the share of images that it told rightly (0.5: it guesses, 1:
    it sees through everything), and `diversity` of what samples: the mean distance of two images (averaged weights,
    fixed seeds, within a class)
    divided by that of two real images, at 16 pixels or less. 1 is as varied as the data, 0 one and the same image.

    Args:
        collapse_below: a diversity below it gives a warning, once until it rises again. On 16-pixel digits healthy
            runs keep between 0.6 and 1, and an MLP that has collapsed wavers between 0.15 and 0.5.
        divergence: largest size of the mean logits that passes.
        diversity_every_kimg: cadence of `diversity`; 0 switches it off. A game that samples nothing has none.
        warmup_kimg: no warning before; at the start all samples are alike.
        samples: how many images `diversity` draws of each kind.

    Raises:
        ValueError: `setup` finds no Report before it; or a threshold cannot be met.
    """

    def __init__(
        self,
        every_kimg: float = 4.0,
        collapse_below: float = 0.5,
        divergence: float = 1e4,
        diversity_every_kimg: float = 10.0,
        warmup_kimg: float = 50.0,
        samples: int = 100,
    ) -> None:
        super().__init__(every_kimg)
        if divergence <= 0:
            raise ValueError(f"health.divergence is {divergence}: no logits are that small; give more than 0")
        if samples < 2 * MAX_CLASSES:
            raise ValueError(f"health.samples is {samples}: two images of {MAX_CLASSES} classes need {2 * MAX_CLASSES}")
        self.collapse_below, self.divergence = collapse_below, divergence
        self.diversity_every_kimg, self.warmup_kimg, self.samples = diversity_every_kimg, warmup_kimg, samples
        self.collapsed = False
        self._judged: dict[str, float] = {}
        self._warned: set[str] = set()
        self._real_distance: float | None = None

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        reports = [c for c in before if isinstance(c, Report)]
        if not reports:
            found = ", ".join(type(c).__name__ for c in before) or "none"
            raise ValueError(f"Health reads the figures of a Report callback before it; before it there are: {found}")
        self._report = reports[0]
        self._samples = can(pl_module, Samples)
        if self.diversity_every_kimg and not self._samples:
            say(trainer, f"no diversity is measured: a {type(pl_module).__name__} draws no images from seeds")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Game, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.every_kimg:
            if self._report.latest is not self._judged:  # a tick between two of ours
                self._judged = self._report.latest
                self._judge(trainer, pl_module, self._judged)
            if pl_module.batches_seen % CHECK_EVERY_BATCHES == 0:
                self._look(trainer, pl_module)
        after = pl_module.images_seen
        due = crossed(after - images_in(batch, trainer.world_size), after, self.diversity_every_kimg)
        if due and self._samples:
            self._diversity_now(trainer, pl_module)

    # ---- divergence --------------------------------------------------------------------------------------------------

    def act(self, trainer: Trainer, game: Game) -> None:
        figures = self._judged = self._report.latest
        self._judge(trainer, game, figures)
        self._judge_gradients(trainer, game)
        if {"real_sign", "fake_sign"} <= figures.keys():
            record(trainer, {"d_win_rate": (figures["real_sign"] + figures["fake_sign"]) / 2})

    def _look(self, trainer: Trainer, game: Game) -> None:
        """Looks at the running sums without taking them: one number comes back from the device."""
        finite = game.reports.finite()
        if finite is None:
            return
        broken = (~finite).float().to(game.device)
        if trainer.strategy.reduce(broken, reduce_op="sum") > 0:
            self._judge(trainer, game, game.take_reports())
        self._judge_gradients(trainer, game)

    def _judge_gradients(self, trainer: Trainer, game: Game) -> None:
        for player, looks in game.broken_gradients().items():
            seen = f"the gradients of {player} are NaN or infinite at {game.kimg:.3f} kimg"
            if looks >= BROKEN_LOOKS:
                again = f"and were in each of the last {looks} batches that were looked at, one in {LOOK_EVERY_BATCHES}"
                raise DivergenceError(f"{seen}, {again}: {self._ways_out(trainer)}")
            if player not in self._warned and trainer.is_global_zero:
                warnings.warn(f"{seen}; repair_gradients made them finite: {self._ways_out(trainer)}", stacklevel=2)
            self._warned.add(player)

    def _judge(self, trainer: Trainer, game: Game, figures: dict[str, float]) -> None:
        """Raises DivergenceError; `figures` are the same on all processes, so all raise or none."""
        wrong = {name: value for name, value in figures.items() if not math.isfinite(value)}
        logits = {name: value for name, value in figures.items() if name.endswith("logits")}
        wrong |= {name: value for name, value in logits.items() if abs(value) > self.divergence}
        if wrong:
            raise DivergenceError(self._message(trainer, game, wrong))

    def _message(self, trainer: Trainer, game: Game, wrong: dict[str, float]) -> str:
        seen = ", ".join(f"{name} {value:.4g}" for name, value in wrong.items())
        rates = ", ".join(f"{o.param_groups[0]['lr']:.3g}" for o in trainer.optimizers)
        return (
            f"training has diverged at {game.kimg:.3f} kimg: {seen} (precision {trainer.precision}, learning rates "
            f"{rates}); {self._ways_out(trainer)}; the logits' limit is health.divergence={self.divergence:g}"
        )

    def _ways_out(self, trainer: Trainer) -> str:
        good = last_finite_checkpoint(Path(trainer.default_root_dir))
        rescue = f"the last good checkpoint is {good}" if good else "there is no checkpoint to go back to"
        half = "" if trainer.precision == "32-true" else "--trainer.precision=32-true, "
        return f"{rescue}. Try {half}a lower learning rate, clip_grad_norm, or with a discriminator a larger r1_gamma"

    # ---- diversity ---------------------------------------------------------------------------------------------------

    def _diversity_now(self, trainer: Trainer, game: Game) -> None:
        """Measured by rank 0, known to all."""
        value = self._diversity(trainer, game) if trainer.is_global_zero else None
        value = trainer.strategy.broadcast(value)
        if value is None:
            return
        record(trainer, {"diversity": value})
        collapsed = value < self.collapse_below and game.kimg >= self.warmup_kimg
        if collapsed and not self.collapsed and trainer.is_global_zero:
            warnings.warn(
                f"the generator has collapsed at {game.kimg:.3f} kimg: two samples differ by {value:.3f} of what two "
                f"real images differ (below health.collapse_below={self.collapse_below:g}); try a lower learning rate "
                "of the generator, r1_gamma > 0, or a larger batch",
                stacklevel=2,
            )
        self.collapsed = collapsed

    def _diversity(self, trainer: Trainer, model: Samples) -> float | None:
        data = trainer.datamodule
        if not isinstance(data, ImageData):
            return None
        if self._real_distance is None:
            images = data.dataset(data.train_split)
            self._real_distance = real_distance(images, model.num_classes, samples=self.samples)
        if self._real_distance == 0:
            return None
        return fake_distance(model, samples=self.samples) / self._real_distance


def fake_distance(model: Samples, *, samples: int) -> float:
    """Mean distance of two samples of fixed seeds; of the same class, on a conditional model."""
    seeds = torch.arange(samples)
    if model.num_classes == 0:
        return mean_distance(model.sample(seeds)).item()
    classes = spread(model.num_classes, MAX_CLASSES)
    each = samples // len(classes)
    images = model.sample(seeds[: each * len(classes)], labels=classes.repeat_interleave(each))
    return torch.stack([mean_distance(part) for part in images.split(each)]).mean().item()


def real_distance(images: ImageSet, num_classes: int, *, samples: int) -> float:
    """Mean distance of two real images; within the classes that `fake_distance` draws, when conditional."""
    if num_classes == 0 or images.labels is None:
        groups, each = [torch.arange(len(images))], samples
    else:
        classes = spread(num_classes, MAX_CLASSES)
        groups, each = [(images.labels == c).nonzero().flatten() for c in classes], samples // len(classes)
    chosen = [group[spread(len(group), each)] for group in groups if len(group) > 1]
    distances = [mean_distance(from_uint8(images.fetch(some)["image"])) for some in chosen]
    return torch.stack(distances).mean().item() if distances else 0.0


def mean_distance(images: Tensor) -> Tensor:
    """[N, C, H, W] with N > 1 -> mean Euclidean distance of two different ones, at 16 pixels or less."""
    side = min(MAX_SIDE_PX, images.shape[-1])
    x = F.adaptive_avg_pool2d(images.float(), side).flatten(1)
    return torch.pdist(x).mean()


def last_finite_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run whose weights are all finite numbers."""
    for path, checkpoint in readable_checkpoints(run):
        if all(w.isfinite().all() for w in checkpoint["state_dict"].values() if w.is_floating_point()):
            return path
    return None
