"""The exponential moving average of a game's generators."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.adversarial.checks import say
from lit_gans.adversarial.optim import half_cosine
from lit_gans.callbacks.clock import images_in


def ema_weight(
    batch_images: int,
    images_before: int,
    *,
    half_life_kimg: float,
    ramp_up: float | None,
    rise_kimg: float = 0.0,
) -> float:
    """How much of the average stays after a batch: 0.5 ** (batch / half-life).

    The half-life is at most `ramp_up` times the images shown before this batch, so that the average leaves the
    initial weights quickly (Karras et al., 2020b: half-life 10 or 20 kimg, ramp-up 0.05). In the first `rise_kimg` it
    rises from 0 along half a wave of a cosine (Huang et al., 2024).
    """
    half_life = half_cosine(images_before / 1000, 0.0, half_life_kimg, over_kimg=rise_kimg) * 1000
    if ramp_up is not None:
        half_life = min(half_life, images_before * ramp_up)
    return 0.5 ** (batch_images / max(half_life, 1e-8))


class EMA(Callback):
    """Keeps the averages that the game declares; parameters are averaged, buffers copied.

    Args:
        half_life_kimg: thousands of images after which half of the average is newer; 0 copies the generator, None
            switches the callback off.
        ramp_up: see `ema_weight`; None uses the full half-life from the start.
        start_kimg: until so many thousand images have been shown the average is a copy.
        average_buffers: buffers of floating point, such as running statistics, are averaged too.
        rise_kimg: thousands of images in which the half-life rises from 0; 0 has it whole from the start. With
            `ramp_up` besides, the shorter of both counts.

    Of a game that declares none nothing is kept, and that is said.

    Raises:
        ValueError: a negative half-life, start or rise.
    """

    def __init__(
        self,
        half_life_kimg: float | None = 10.0,
        ramp_up: float | None = 0.05,
        start_kimg: float = 0.0,
        average_buffers: bool = False,
        rise_kimg: float = 0.0,
    ) -> None:
        if half_life_kimg is not None and half_life_kimg < 0:
            raise ValueError(f"ema.half_life_kimg {half_life_kimg} is negative; 0 copies the generator at every step")
        if start_kimg < 0:
            raise ValueError(f"ema.start_kimg {start_kimg} is negative; 0 averages from the first batch on")
        if rise_kimg < 0:
            raise ValueError(f"ema.rise_kimg {rise_kimg} is negative; 0 has the whole half-life from the start")
        self.half_life_kimg, self.ramp_up, self.rise_kimg = half_life_kimg, ramp_up, rise_kimg
        self.start_kimg, self.average_buffers = start_kimg, average_buffers

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        if self.half_life_kimg is not None and not pl_module.averages():
            say(trainer, f"no average is kept: {type(pl_module).__name__} declares none")

    def on_fit_start(self, trainer: Trainer, pl_module: Game) -> None:
        pairs = pl_module.averages() if self.half_life_kimg is not None else []
        averages, live = zip(*pairs, strict=True) if pairs else ((), ())
        self._parameters = [p for a in averages for p in a.parameters()], [p for n in live for p in n.parameters()]
        self._buffers = [b for a in averages for b in a.buffers()], [b for n in live for b in n.buffers()]
        if self.average_buffers:
            for averaged, copied in zip(self._parameters, self._buffers, strict=True):
                averaged += [b for b in copied if b.is_floating_point()]
            self._buffers = tuple([b for b in side if not b.is_floating_point()] for side in self._buffers)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Game, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        if not self._parameters[0]:
            return
        shown = images_in(batch, trainer.world_size)
        stays = ema_weight(
            shown,
            pl_module.images_seen - shown,
            half_life_kimg=self.half_life_kimg,
            ramp_up=self.ramp_up,
            rise_kimg=self.rise_kimg,
        )
        if pl_module.images_seen < 1000 * self.start_kimg:
            stays = 0.0
        torch._foreach_lerp_(*self._parameters, 1 - stays)
        if self._buffers[0]:  # torch refuses empty lists
            torch._foreach_copy_(*self._buffers)
