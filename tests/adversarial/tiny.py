"""A game that is no GAN, as small as can be: two translators, one discriminator, a pool of former fakes.

As a program: one of several processes that train it, see test_game.py.
"""

import copy
import os
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_gans.adversarial import Game, lazy_adam
from lit_gans.augment import ImagePool
from lit_gans.base.images import to_uint8
from lit_gans.callbacks import EMA, Checkpoint
from lit_gans.data import ShapeDomains

BATCH = 4


class TinyTranslator(Game):
    """One convolution each way; the discriminator judges what comes out of a pool of 6."""

    def __init__(self, *, pool_size: int = 6, averaged: bool = True, **game: Any) -> None:
        super().__init__(**game)
        self.save_hyperparameters()
        self.ab, self.ba, self.judge = (nn.Conv2d(3, n, 3, padding=1) for n in (3, 3, 1))
        self.ab_ema, self.ba_ema = (copy.deepcopy(g).requires_grad_(False) for g in (self.ab, self.ba))
        self.pool, self.averaged = ImagePool(pool_size), averaged

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        with self.updating(opt_g):
            fake = self.ab(batch["a"])
            loss = (self.ba(fake) - batch["a"]).abs().mean() + (self.judge(fake) - 1).square().mean()
            self.accumulate(loss + (self.ba(batch["b"]) - batch["b"]).abs().mean())
            self.report(loss_g=loss)
        shown = self.pool.query(fake, self.draws("pool"))
        with self.updating(opt_d):
            real_logits, fake_logits = self.judge(batch["b"]), self.judge(shown)
            d_loss = (real_logits - 1).square().mean() + fake_logits.square().mean()
            self.accumulate(d_loss)
            self.report_discriminator(d_loss, real_logits, fake_logits)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = [*self.ab.parameters(), *self.ba.parameters()], self.judge.parameters()
        return [lazy_adam(p, lr=1e-3, betas=(0.5, 0.999)) for p in players]

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.ab_ema, self.ab), (self.ba_ema, self.ba)] if self.averaged else []

    @torch.no_grad()
    def preview(self, data: pl.LightningDataModule, *, rows: int, columns: int, psi: float) -> tuple[Tensor, int]:
        given = data.dataset(data.preview_split).fetch(torch.arange(rows))
        a = data.on_after_batch_transfer(given, 0)["a"]
        return to_uint8(torch.stack([a, self.ab(a)], 1).flatten(0, 1)), 2


def build(**arguments: Any) -> TinyTranslator:
    torch.manual_seed(0)
    return TinyTranslator(**{"seed": 3, **arguments})


def train(
    game: Game, folder: Path, *callbacks: pl.Callback, batches: int, resume: Path | None = None, **trainer: Any
) -> pl.Trainer:
    game.total_kimg = batches * BATCH / 1000
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
    fitting = pl.Trainer(
        **{"max_epochs": -1, "accelerator": "cpu", "devices": 1, **quiet, **trainer}, default_root_dir=folder,
        callbacks=[*(callbacks or [EMA(0.05)]), Checkpoint(0, 0, monitor=None)],
    )  # fmt: skip
    data = ShapeDomains(batch_size=BATCH, resolution=8, images=14, images_b=9, test_images=5, mirror=True)
    fitting.fit(game, datamodule=data, ckpt_path=resume, weights_only=True)
    return fitting


if __name__ == "__main__":
    torch.set_num_threads(1)
    game = build()
    train(game, Path(sys.argv[1]), batches=8, strategy="sync_at_step", devices=2)
    torch.save(game.state_dict(), Path(sys.argv[1]) / f"{os.environ['RANK']}.pt")
