"""The image clock: what counts the batches of training, before anybody else sees their end."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from torch import Tensor

from lit_gans.adversarial.checks import say
from lit_gans.adversarial.optim import apply_changed, options_of

if TYPE_CHECKING:
    from lit_gans.adversarial.game import Game


class Clock(pl.Callback):
    """Advances the game's clock at the end of a batch. The game puts it before all other callbacks, which Lightning
    calls before the module's own hook: they find the batch counted.

    Between `on_fit_start` and `on_train_start` Lightning restores the optimisers with all their options; here those
    that were changed since come into force.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: "Game") -> None:  # type: ignore[override]
        pl_module.optimizer_options = options_of(trainer.optimizers)

    def on_train_start(self, trainer: pl.Trainer, pl_module: "Game") -> None:  # type: ignore[override]
        if pl_module.images_seen:
            but = "lr" if trainer.lr_scheduler_configs else ""  # a scheduler of the game's own, restored as well
            before, now = pl_module.saved_options, pl_module.optimizer_options
            if changed := apply_changed(trainer.optimizers, before=before, now=now, but=but):
                say(trainer, f"from here on the optimisers have {', '.join(changed)}")

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: "Game", batch: Any, batch_idx: int
    ) -> None:
        pl_module.start_batch()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: "Game", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.end_batch(batch)
        if pl_module.is_finished:
            trainer.should_stop = True


def wind(trainer: pl.Trainer) -> None:
    """One clock, first among the trainer's callbacks; at a second `fit` too."""
    trainer.callbacks = [Clock(), *(c for c in trainer.callbacks if not isinstance(c, Clock))]  # type: ignore[attr-defined]


def images_in(batch: Any, world_size: int) -> int:
    """The images of the global batch of which `batch` is this process's part: the rows of its first tensor.

    Raises:
        ValueError: there is no tensor with rows in it.
    """
    tensor = _first_tensor(batch)
    if tensor is None:
        raise ValueError(f"a batch of {type(batch).__name__} holds no tensor whose rows could be counted")
    return len(tensor) * world_size


def _first_tensor(batch: Any) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch if batch.ndim else None
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else ()
    return next((found for part in parts if (found := _first_tensor(part)) is not None), None)
