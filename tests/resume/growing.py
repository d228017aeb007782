"""Training that grows, in a process of its own: one of several (as torchrun starts them), or one that is killed."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lit_gans.adversarial import GAN
from lit_gans.callbacks import Checkpoint, FadeIn
from tests.cases import CASES, state, train

# At 16 images a batch: 4 px for 3 batches, 8 px for 6 of which 3 fade, then 16 px in batches of 8, of which 6 fade.
SCHEDULE: dict[str, Any] = {
    "start_px": 4, "stabilise_kimg": 0.048, "fade_kimg": 0.048, "batch_sizes": {4: 16, 16: 8}, "lrs": {8: 0.002}
}  # fmt: skip
NAMES = ("pggan", "stylegan1")


def grown(gan: GAN, folder: Path, **arguments: Any) -> pl.Trainer:
    return train(gan, folder, callbacks=[FadeIn(**SCHEDULE)], **arguments)


class KilledAt(pl.Callback):
    def __init__(self, images: int) -> None:
        self.images = images

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GAN, *args: object) -> None:
        if pl_module.images_seen >= self.images:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(folder: Path, name: str) -> None:
    """Killed at 176 images, in the middle of the last fade, 16 images after a checkpoint."""
    fading = [FadeIn(**SCHEDULE), KilledAt(176)]
    train(CASES[name](), folder, batches=20, callbacks=fading, checkpoint=Checkpoint(0.032, 0, monitor=None))


def one_of_two(folder: Path) -> None:
    torch.set_num_threads(1)
    for name in NAMES:
        gan = CASES[name](micro_batches=1)
        trainer = grown(gan, folder / name, batches=20, strategy="sync_at_step", devices=2)
        torch.save(state(gan, trainer), folder / f"{name}-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    killed(Path(sys.argv[1]), sys.argv[2]) if len(sys.argv) > 2 else one_of_two(Path(sys.argv[1]))
