"""A tiny game for the tests of callbacks: an MLP GAN on 8-pixel digits, a few batches long."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lit_gans.adversarial import GAN
from lit_gans.data import Digits
from lit_gans.papers.cgan import CGAN
from lit_gans.papers.gan import VanillaGAN


def tiny_gan(*, total_kimg: float = 0.16, **options: Any) -> VanillaGAN:
    """An unconditional MLP GAN for 8x8 grey images."""
    return VanillaGAN(resolution=8, hidden=16, units=8, pieces=2, z_dim=4, total_kimg=total_kimg, **options)


def tiny_cgan(*, total_kimg: float = 0.16, **options: Any) -> CGAN:
    """A conditional MLP GAN for 8x8 grey images in 10 classes."""
    return CGAN(resolution=8, channels=1, form="mlp", z_dim=4, total_kimg=total_kimg, **options)


def tiny_trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """A Trainer that runs until the module's `total_kimg`, silent but for the given callbacks."""
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    return pl.Trainer(
        **{"accelerator": "cpu", "devices": 1, "max_epochs": -1, "logger": False, **quiet, **options},
        default_root_dir=folder,
        callbacks=list(callbacks),
    )


def fit(
    folder: Path,
    gan: GAN,
    *callbacks: pl.Callback,
    batch_size: int = 16,
    ckpt_path: Path | None = None,
    **options: Any,
) -> pl.Trainer:
    """Trains `gan` on Digits with the callbacks, from a checkpoint if one is given, and gives back the Trainer."""
    trainer = tiny_trainer(folder, *callbacks, **options)
    trainer.fit(gan, Digits(batch_size=batch_size, resolution=8), ckpt_path=ckpt_path, weights_only=False)
    return trainer
