"""The strength of augmentation follows the overfitting of the discriminator."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.augment import AdaptiveAugment
from lit_gans.base.precision import with_double
from lit_gans.callbacks.clock import images_in


def adjusted(p: Tensor, r_t: Tensor, *, target: float, by: float) -> Tensor:
    """p moved by `by` towards more augmentation when r_t is above the target, towards less below; never under 0.

    There is no upper bound, as in the authors' code: above 1 every transform of multiplier 1 is certain.
    """
    return (p + torch.sign(r_t - target) * by).clamp_min(0).to(p.dtype)


class AdaptiveAugmentation(Callback):
    """Moves `augment.p` so that the mean sign of the discriminator's logits on reals, r_t, stays at a target.

    r_t is 0 as long as the discriminator does not tell its training images from others, and 1 when it knows them all by
    heart (Karras et al., 2020, Sec. 3 and Eq. 1). It covers all real logits that the module's steps have handed to
    `augment.observe` since the last adjustment, on all processes. Reports `augment_r_t` and `augment_p`, of which the
    Report callback writes the means over a tick.

    Args:
        target: of r_t; 0.6 in the paper.
        interval: batches between adjustments; 4 in the paper, 0 switches the callback off.
        speed_kimg: thousands of images in which p can go from 0 to 1; 500 in the paper, 100 in the authors' code when
            training goes on from another network.

    Raises:
        ValueError: a senseless argument; `setup` finds no AdaptiveAugment under `augment`; or no real logits were
            observed by the time of an adjustment.
    """

    def __init__(self, interval: int = 4, target: float = 0.6, speed_kimg: float = 500.0) -> None:
        if not -1 < target < 1:
            raise ValueError(
                f"adaptive_augmentation.target {target} is no mean of signs: give more than -1, less than 1"
            )
        if interval < 0:
            raise ValueError(
                f"adaptive_augmentation.interval {interval} is below 0; 1 adjusts after every batch, 0 never"
            )
        if speed_kimg <= 0:
            raise ValueError(f"adaptive_augmentation.speed_kimg {speed_kimg} is not positive; 500 is the paper's")
        self.target, self.interval, self.speed_kimg = target, interval, speed_kimg
        self._forget()

    def _forget(self) -> None:
        self._signs: Tensor | int = 0  # since the last adjustment, over all processes
        self._logits = self._images = 0

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        if self.interval == 0:
            return
        found = dict(pl_module.named_children())
        augment = found.get("augment")
        if not isinstance(augment, AdaptiveAugment):
            there = ", ".join(f"{name} ({type(module).__name__})" for name, module in found.items()) or "none"
            raise ValueError(
                f"AdaptiveAugmentation moves the p of an AdaptiveAugment under {type(pl_module).__name__}.augment, and "
                f"the parts are: {there}. Give the model one (model.init_args.augment), or drop the callback"
            )
        self._augment = augment
        self._forget()

    def on_train_start(self, trainer: Trainer, pl_module: Game) -> None:
        if self.interval:
            self._augment.take_observed()  # of a step that an error broke off

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Game, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        if self.interval == 0:
            return
        self._gather(trainer)
        self._images += images_in(batch, trainer.world_size)
        if pl_module.batches_seen % self.interval == 0:
            self._adjust(pl_module)

    def _gather(self, trainer: Trainer) -> None:
        """After every batch, so that whoever writes a checkpoint holds the sums of all processes."""
        signs, logits = self._augment.take_observed()
        if signs is None:
            return
        self._signs = self._signs + trainer.strategy.reduce(signs, reduce_op="sum")
        self._logits += logits * trainer.world_size  # processes have equal shares of a batch

    def _adjust(self, game: Game) -> None:
        """Without waiting for a device that has float64."""
        if self._logits == 0:
            raise ValueError(
                f"no real logits were observed in {self._images} images: {type(game).__name__}'s discriminator step "
                "must call self.augment.observe(real_logits)"
            )
        p = self._augment.p
        place = with_double(p.device)
        r_t = torch.as_tensor(self._signs).to(place).double() / self._logits
        p.copy_(adjusted(p.to(place), r_t, target=self.target, by=self._images / (self.speed_kimg * 1000)))
        game.report(augment_r_t=r_t if place == p.device else r_t.float(), augment_p=p.clone())
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        return {"signs": float(self._signs), "logits": self._logits, "images": self._images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._signs, self._logits, self._images = (int(state_dict[name]) for name in ("signs", "logits", "images"))
