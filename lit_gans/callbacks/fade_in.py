"""Growth on the image clock: which stage is trained, how far it is faded in, with which batches and learning rates."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Grows, require
from lit_gans.adversarial.progressive import SMALLEST_PX
from lit_gans.base.cache import cache_folder
from lit_gans.base.checks import power_of_two
from lit_gans.base.progress import progress_of
from lit_gans.data import ImageData
from lit_gans.data.pyramid import Pyramid


@dataclass(frozen=True)
class Stage:
    """One size: from which image on, after how many more it is faded in, with which batches and learning rate."""

    px: int
    start: int
    fade: int
    batch_size: int
    lr: float | None


@dataclass(frozen=True)
class Growth:
    """The stages in their order; a function of the images shown, so that nothing of it needs to be saved."""

    stages: tuple[Stage, ...]

    def stage_at(self, images_seen: int) -> Stage:
        return next(stage for stage in reversed(self.stages) if stage.start <= images_seen)

    def alpha_at(self, images_seen: int) -> float:
        """The share of the newest layers in the batch that begins at this moment."""
        stage = self.stage_at(images_seen)
        return min((images_seen - stage.start) / stage.fade, 1.0) if stage.fade else 1.0

    def phase_at(self, images_seen: int) -> tuple[int, bool]:
        """(stage in pixels, whether it is fading): where this changes is a transition."""
        return self.stage_at(images_seen).px, self.alpha_at(images_seen) < 1

    def batch_at(self, images_seen: int) -> tuple[int, int]:
        """(stage in pixels, global batch size)."""
        stage = self.stage_at(images_seen)
        return stage.px, stage.batch_size


def growth(
    *,
    start_px: int,
    resolution: int,
    stabilise_kimg: float | Mapping[int, float],
    fade_kimg: float | Mapping[int, float],
    batch_size: int,
    batch_sizes: Mapping[int, int] | None = None,
    lrs: Mapping[int, float] | None = None,
) -> Growth:
    """The stages from `start_px` to `resolution`; see `FadeIn`. ValueError for sizes that no stage has."""
    power_of_two("fade_in.start_px", start_px, least=SMALLEST_PX, most=resolution)
    stages: list[Stage] = []
    px, start = start_px, 0
    while px <= resolution:
        fade = 0 if not stages else _images(fade_kimg, px, "fade_kimg")
        lr = None if not lrs else _of_stage(lrs, px, None)
        stages.append(Stage(px, start, fade, _of_stage(batch_sizes or {}, px, batch_size), lr))
        start += fade + _images(stabilise_kimg, px, "stabilise_kimg")
        px *= 2
    known = {stage.px for stage in stages}
    for name, table in {"batch_sizes": batch_sizes, "lrs": lrs, "stabilise_kimg": stabilise_kimg,
                        "fade_kimg": fade_kimg}.items():  # fmt: skip
        if isinstance(table, Mapping) and (wrong := sorted(set(table) - known)):
            raise ValueError(
                f"fade_in.{name} has {wrong[0]} px, and the stages are {', '.join(map(str, sorted(known)))}"
            )
    return Growth(tuple(stages))


def _of_stage(table: Mapping[int, Any], px: int, default: Any) -> Any:
    """The entry of this size, or else of the next smaller one that has some."""
    return next((table[size] for size in sorted(table, reverse=True) if size <= px), default)


def _images(kimg: float | Mapping[int, float], px: int, name: str) -> int:
    value = _of_stage(kimg, px, None) if isinstance(kimg, Mapping) else kimg
    if value is None or value < 0:
        raise ValueError(f"fade_in.{name} is {value} at {px} px: give kimg of 0 or more, from the smallest stage on")
    return round(1000 * value)


class FadeIn(Callback):
    """Lets a game grow (Karras et al., 2018, Sec. 2, App. A): all its networks, batches and learning rates together.

    A stage is faded in for `fade_kimg` and trained on for `stabilise_kimg`, the last one to the end of training.
    Batches come at the stage's size, without a restart of the loaders, from copies of the pictures that are made once.
    A table's entry holds from its size on: batch_sizes={4: 64, 64: 16} is 16 at 128 px too.

    Args:
        start_px: size of the first stage; 0 switches the callback off, and the networks are trained fully grown.
        stabilise_kimg, fade_kimg: one number, or by size; both 600 in the paper.
        batch_sizes: global, by size; default: that of the data, everywhere.
        lrs: of all optimisers, by size; default: as the game's optimisers are made.
        reset_optimizers: forget their moments at each transition, into a fade and out of it, as the authors' code does.
        cache_px: the largest size of which copies are kept; above it pictures are made smaller for each batch.

    Raises:
        ValueError: in `setup`, for a game that does not grow, and sizes or batches that cannot be.
    """

    def __init__(
        self,
        start_px: int = 0,
        stabilise_kimg: float | dict[int, float] = 600.0,
        fade_kimg: float | dict[int, float] = 600.0,
        batch_sizes: dict[int, int] | None = None,
        lrs: dict[int, float] | None = None,
        reset_optimizers: bool = True,
        cache_px: int | None = None,
    ) -> None:
        self.start_px, self.stabilise_kimg, self.fade_kimg = start_px, stabilise_kimg, fade_kimg
        self.batch_sizes, self.lrs = batch_sizes, lrs
        self.reset_optimizers, self.cache_px = reset_optimizers, cache_px
        self.growth: Growth | None = None
        self._phase: tuple[int, bool] | None = None

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        if stage != "fit" or self.start_px == 0:
            return
        data = trainer.datamodule
        require(pl_module, Grows, "FadeIn", otherwise="set fade_in.start_px=0")
        if not isinstance(data, ImageData):
            raise ValueError(f"FadeIn changes the size of the data's pictures, and {type(data).__name__} has none")
        self.growth = growth(
            start_px=self.start_px,
            resolution=pl_module.resolution,
            stabilise_kimg=self.stabilise_kimg,
            fade_kimg=self.fade_kimg,
            batch_size=data.batch_size,
            batch_sizes=self.batch_sizes,
            lrs=self.lrs,
        )
        self._check(trainer, pl_module, self.growth)
        data.grow(self.growth, self._pyramid(trainer, data))

    def _check(self, trainer: Trainer, game: Game, growth: Growth) -> None:
        parts = trainer.world_size * game.micro_batches
        for stage in growth.stages:
            if stage.batch_size < 1 or stage.batch_size % parts:
                raise ValueError(
                    f"the batch of {stage.batch_size} at {stage.px} px (global) does not divide into "
                    f"{trainer.world_size} processes x {game.micro_batches} micro-batches: use multiples of {parts}"
                )
        last = growth.stages[-1]
        if game.total_kimg * 1000 < last.start + last.fade and trainer.is_global_zero:
            reached = growth.stage_at(round(game.total_kimg * 1000)).px
            warnings.warn(
                f"training ends at {game.total_kimg:g} kimg, with {reached} px; {last.px} px are faded in at "
                f"{(last.start + last.fade) / 1000:g} kimg",
                stacklevel=2,
            )

    def _pyramid(self, trainer: Trainer, data: ImageData) -> Pyramid:
        """Made before training: by the first process of each machine where that means files."""
        folder = cache_folder() / "pyramids" / data.fingerprint(data.train_split)
        sizes = [stage.px for stage in self.growth.stages]
        pyramid = Pyramid(data.dataset(data.train_split), data.resolution, sizes, folder=folder, cache_px=self.cache_px)
        with progress_of(f"pictures at {', '.join(map(str, pyramid.kept))} px") as progress:
            pyramid.build(write=trainer.local_rank == 0, progress=progress)
        trainer.strategy.barrier("pyramid")
        return pyramid

    # ---- training ----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: Game) -> None:
        if self.growth is not None:  # for pictures and numbers before the first batch
            pl_module.set_progress(*self._at(pl_module))
            self._set_rates(trainer, pl_module)  # of a resumed run too, where they were changed since

    def on_train_batch_start(self, trainer: Trainer, pl_module: Game, batch: dict[str, Tensor], batch_idx: int) -> None:
        if self.growth is None:
            return
        px, alpha = self._at(pl_module)
        pl_module.set_progress(px, alpha)
        pl_module.report(stage_px=float(px), alpha=alpha)
        phase = self.growth.phase_at(pl_module.images_seen)
        if phase != self._phase:
            self._enter(trainer, pl_module)
            self._phase = phase

    def _at(self, game: Game) -> tuple[int, float]:
        return self.growth.stage_at(game.images_seen).px, self.growth.alpha_at(game.images_seen)

    def _enter(self, trainer: Trainer, game: Game) -> None:
        """A transition, or the first batch of a run."""
        if self.reset_optimizers and self._phase is not None:
            for optimizer in trainer.optimizers:
                optimizer.state.clear()
        self._set_rates(trainer, game)

    def _set_rates(self, trainer: Trainer, game: Game) -> None:
        lr = self.growth.stage_at(game.images_seen).lr
        for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
            if lr is not None:
                group["lr"] = group["initial_lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        return {"phase": self._phase}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        phase = state_dict["phase"]
        self._phase = None if phase is None else tuple(phase)
