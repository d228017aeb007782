"""What a user brings who knows Lightning and nothing of this package: one player, rows of numbers, a plain loader."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, default_collate

from lit_gans.adversarial import Game

ROWS, BATCH = 64, 16


class Autoencoder(Game):
    """Only what must be written; `bottleneck` is a list, which has no forward."""

    def __init__(self, *, width: int = 4, **game: Any) -> None:
        super().__init__(**game)
        self.save_hyperparameters()
        self.bottleneck = nn.ModuleList([nn.Linear(8, width), nn.Linear(width, 8)])
        self.untrained = nn.Linear(8, 8)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        (x, _), optimizer = batch["pair"], self.optimizers()
        with self.updating(optimizer):
            down, up = self.bottleneck
            loss = (up(down(x + 0.1 * self.draws("noise").normal(len(x), 8))) - x).square().mean()
            self.accumulate(loss)
        self.log("loss", loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.bottleneck.parameters(), lr=1e-2)


def loader() -> DataLoader:
    x = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(0))
    pairs = TensorDataset(x, torch.arange(ROWS))
    return DataLoader(pairs, batch_size=BATCH, collate_fn=lambda rows: {"pair": default_collate(rows)})


class Rows(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return loader()


def build(cls: type[Game] = Autoencoder, **arguments: Any) -> Game:
    torch.manual_seed(0)
    return cls(**{"total_kimg": 0.128, **arguments})


def fit(game: Game, folder: Any, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    quiet |= {"logger": False, "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks)}
    resume = options.pop("ckpt_path", None)
    trainer = pl.Trainer(**{"max_epochs": -1, **quiet, **options}, default_root_dir=folder, callbacks=list(callbacks))
    trainer.fit(game, loader(), ckpt_path=resume, weights_only=False)
    return trainer
