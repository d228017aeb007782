"""Every paper at a size that trains in seconds: what the battery, resume and distributed tests run over."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lit_gans import papers
from lit_gans.adversarial import GAN
from lit_gans.augment import AdaptiveAugment, DiffAugment
from lit_gans.callbacks import EMA, Checkpoint
from lit_gans.data import Digits

BATCH = 16
# Another case stands for their paper where all cases would take long; they are run with the slow tests.
VARIANTS = (
    "biggan-sngan", "msg-gan-wgan", "msg-gan-style", "pggan-classes", "stylegan1-wgan-gp", "stylegan3-t",
    "projected-gan-style", "r3gan-plain",
)  # fmt: skip
# Run in as many parts on one process as on two.
IN_PARTS = ("gan-minimax", "msg-gan", "msg-gan-wgan", "msg-gan-style", "pggan", "stylegan1", "stylegan2", "stylegan3-t")


def each(names: Iterable[str], *, slow: Sequence[str] = VARIANTS) -> list:
    """The names as parameters of a test, those of `slow` marked so."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def tiny(cls: type[GAN], **arguments: Any) -> Callable[..., GAN]:
    def build(**overrides: Any) -> GAN:
        torch.manual_seed(0)
        return cls(**{"resolution": 8, "channels": 1, "z_dim": 8, "seed": 3, **arguments, **overrides})

    return build


def varied(build: Callable[..., GAN]) -> Callable[..., GAN]:
    """With a constant input of StyleGAN's that varies.

    While it is uniform, as it begins, the bias after it has no effect, and a gradient of rounding errors alone, of
    which Adam makes whole steps: these depend on how a batch is divided.
    """

    def changed(**overrides: Any) -> GAN:
        gan = build(**overrides)
        for name, const in gan.named_parameters():
            if name.endswith(".const"):
                const.data.copy_(torch.arange(const.numel()).sin().view_as(const))
        return gan

    return changed


def stylegan1(**arguments: Any) -> Callable[..., GAN]:
    return varied(tiny(papers.StyleGAN1, w_dim=8, num_layers=2, channel_base=64, channel_max=8, **arguments))


STYLEGAN3 = {"w_dim": 8, "num_layers": 4, "margin_px": 4, "channel_base": 64, "channel_max": 4, "resolution": 16}
STYLEGAN3["mbstd_group_size"] = None

PROJECTED = {"resolution": 32, "features": "test_resnet", "features_weights": "random"}
PROJECTED |= {"mixed_channels": 4, "head_width": 4}
BIGGAN = {"resolution": 32, "width": 2, "num_classes": 10, "standing_passes": 2, "standing_images": 8}
# While attention counts for little, so do biases before it: of their gradients' rounding a small adam_eps makes steps.
BIGGAN_LEARNS = {**BIGGAN, "attention": [16], "lr_g": 2e-4, "lr_d": 2e-4, "betas": (0.0, 0.999), "adam_eps": 1e-3}
STYLEGAN_XL = {"w_dim": 8, "num_layers": 4, "margin_px": 4, "channel_base": 64, "channel_max": 4, "resolution": 16}
STYLEGAN_XL |= {"num_classes": 10, "embedding": [12, 6], "mixed_channels": 4, "head_width": 4, "num_heads": 3}
STYLEGAN_XL |= {"features": ["test_vit", "test_resnet"], "features_weights": ["random"] * 2, "features_px": [64, 32]}
STYLEGAN_T = {"encoder": "none", "channel_base": 128, "channel_max": 8, "num_res_blocks": 1, "gn_groups": 2}
STYLEGAN_T |= {"features": "test_resnet", "features_weights": "random", "features_px": 64, "cmap_dim": 4}
STYLEGAN_T |= {"blur_sigma": 2.0, "blur_kimg": 0.1}
R3GAN = {"resolution": 16, "widths": [8, 6, 4], "cardinalities": [4, 3, 2], "num_blocks": [2, 1, 1]}
R3GAN |= {"gamma": 1.0, "gamma_end": 0.1, "lr": 1e-3, "lr_end": 2e-4}


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return build()


CASES: dict[str, Callable[..., GAN]] = {
    "gan": tiny(papers.VanillaGAN, hidden=16, units=8, pieces=2, r1_gamma=0.1),
    "gan-minimax": tiny(papers.VanillaGAN, hidden=16, units=8, loss="lit_gans.adversarial.losses.minimax"),
    "dcgan": tiny(papers.DCGAN, width=8, resolution=16),
    "dcgan-r1": tiny(papers.DCGAN, width=8, resolution=16, kernel_size=4, r1_gamma=1.0, schedule="cosine"),
    "cgan-conv": tiny(papers.CGAN, width=8, resolution=16, embed_dim=4, label_flip=0.2, r1_gamma=1.0),
    "cgan-mlp": tiny(papers.CGAN, form="mlp", dropout=0.5, optimizer="sgd", lr=0.05),
    "age-cgan": tiny(papers.AgeCGAN, width=8, resolution=16, num_classes=10, kernel_size=4, encoder_share=0.0),
    "wgan": tiny(papers.WGAN, width=16, n_critic=2),
    "wgan-gp": tiny(papers.WGANGP, width=8, resolution=16, n_critic=3, clip_grad_norm=1.0),
    "msg-gan": tiny(papers.MSGGAN, width=8, resolution=16),
    "msg-gan-wgan": tiny(
        papers.MSGGAN,
        width=8,
        resolution=16,
        loss="lit_gans.papers.msg_gan.wasserstein_with_drift",
        penalty_weight=1.0,
        lr=0.0005,
    ),
    "msg-gan-style": varied(
        tiny(
            papers.MSGGAN,
            width=8,
            resolution=16,
            networks="stylegan",
            loss="lit_gans.adversarial.losses.non_saturating",
            r1_gamma=1.0,
            lr=0.001,
        )
    ),
    "stylegan2": tiny(
        papers.StyleGAN2,
        w_dim=8,
        num_layers=2,
        channel_base=64,
        channel_max=8,
        resolution=16,
        mbstd_group_size=None,
        pl_interval=2,
        r1_interval=3,
        num_classes=10,
        discriminator_architecture="skip",
        reuse_fakes=True,
    ),
    "stylegan2-ada": lambda **overrides: tiny(
        papers.StyleGAN2,
        w_dim=8,
        num_layers=2,
        channel_base=64,
        channel_max=8,
        resolution=16,
        mbstd_channels=0,
        r1_interval=3,
        pl_weight=0,
        augment=AdaptiveAugment(p=0.5, xflip=1, rotate=1, xfrac=1, brightness=1, hue=1),
    )(**overrides),
    "fastgan": lambda **overrides: tiny(
        papers.FastGAN,
        resolution=32,
        width=2,
        discriminator_width=2,
        reconstruction="l1",
        augment=DiffAugment(["color", "translation"]),
    )(**overrides),
    "pggan": tiny(
        papers.PGGAN, channel_base=64, channel_max=8, resolution=16, mbstd_group_size=None, n_critic=2, lr=3e-4
    ),
    "pggan-classes": tiny(
        papers.PGGAN, channel_base=64, resolution=8, fused_scale=True, num_classes=10, mbstd_channels=0
    ),
    "stylegan1": stylegan1(resolution=16, num_classes=10, mbstd_group_size=None),
    "stylegan1-wgan-gp": stylegan1(resolution=8, fused_scale=True, mbstd_channels=0, objective="wgan_gp"),
    "stylegan3-t": tiny(papers.StyleGAN3, **STYLEGAN3, num_classes=10, r1_interval=3),
    "stylegan3-r": lambda **overrides: tiny(
        papers.StyleGAN3,
        **STYLEGAN3,
        configuration="R",
        mbstd_channels=0,
        blur_sigma=2,
        blur_kimg=0.1,
        augment=AdaptiveAugment(p=0.5, xflip=1, rotate=1, brightness=1),
    )(**overrides),
    # At the published rates Adam amplifies rounding tenfold in each batch.
    "projected-gan": tiny(
        papers.ProjectedGAN, **PROJECTED, width=2, num_classes=10, features_px=32, num_heads=3, lr_g=2e-5, lr_d=2e-5
    ),
    "projected-gan-style": tiny(
        papers.ProjectedGAN,
        **PROJECTED,
        features_px=64,
        generator="stylegan2",
        w_dim=8,
        channel_base=64,
        channel_max=8,
        separable=True,
        lr_g=0.002,
        lr_d=0.002,
    ),
    "biggan": tiny(papers.BigGAN, **BIGGAN_LEARNS, shared_dim=6, ortho_g=1e-3),
    "biggan-deep": tiny(papers.BigGANDeep, **BIGGAN_LEARNS, shared_dim=6),
    "biggan-sngan": tiny(
        papers.BigGAN,
        **BIGGAN,
        attention=[],
        shared=False,
        hierarchical=False,
        generator_norm="none",
        wide=False,
        init="xavier",
        d_steps=2,
        lr_g=2e-4,
        lr_d=2e-4,
        betas=(0.0, 0.9),
        schedule="linear",
    ),
    "stylegan-t": tiny(papers.StyleGANT, **STYLEGAN_T, resolution=16, lr_g=2e-4, lr_d=2e-4),
    "stylegan-xl": lambda **overrides: tiny(
        papers.StyleGANXL,
        **STYLEGAN_XL,
        blur_kimg=0.1,
        classifier=seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 10))),
        guidance_weight=2.0,
    )(**overrides),
    "r3gan": lambda **overrides: tiny(
        papers.R3GAN,
        **R3GAN,
        num_classes=10,
        decay_kimg=0.1,
        augment=AdaptiveAugment(xflip=1, xfrac=1, brightness=0.5, cutout=1),
    )(**overrides),
    "r3gan-plain": tiny(
        papers.R3GAN, **R3GAN | {"resolution": 8, "widths": [8, 4], "cardinalities": [4, 2], "num_blocks": [1, 2]}
    ),
    "wgan-gp-mlp": tiny(papers.WGANGP, networks="mlp", width=16, n_critic=2, schedule="linear"),
}


class StopAt(pl.Callback):
    def __init__(self, batches: int | None) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GAN, *args: Any) -> None:
        trainer.should_stop |= pl_module.batches_seen == self.batches


def train(
    gan: GAN,
    folder: Path,
    *,
    batches: int,
    stop_at: int | None = None,
    resume: str | Path | None = None,
    callbacks: Sequence[pl.Callback] = (),
    checkpoint: Checkpoint | None = None,
    holdout: bool = False,
    **trainer: Any,
) -> pl.Trainer:
    """Trains `gan` on digits, in a run of `batches` batches that is stopped at `stop_at`."""
    gan.total_kimg = batches * BATCH / 1000
    arguments = {"max_epochs": -1, "limit_val_batches": 0, "logger": False, "accelerator": "cpu"}
    arguments |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(folder)}
    checkpoint = checkpoint or Checkpoint(0, 0, monitor=None)
    fitting = pl.Trainer(**(arguments | trainer), callbacks=[EMA(0.1), StopAt(stop_at), *callbacks, checkpoint])
    data = Digits(batch_size=BATCH, resolution=gan.resolution, seed=5, holdout=holdout)
    fitting.fit(gan, datamodule=data, ckpt_path=resume, weights_only=True)
    return fitting


def state(gan: GAN, trainer: pl.Trainer) -> dict[str, Any]:
    """All that training carries on: parameters, buffers, average, optimisers, clock."""
    return {
        "state": {k: v.clone() for k, v in gan.state_dict().items()},
        "optimizers": [o.state_dict()["state"] for o in trainer.optimizers],
        "clock": (gan.images_seen, gan.batches_seen),
    }


def largest_difference(a: Any, b: Any) -> float:
    """Over all tensors of two nested structures of the same shape; anything else must be equal."""
    if isinstance(a, torch.Tensor):
        assert a.shape == b.shape
        return (a.double() - b.double()).abs().max().item() if a.numel() else 0.0
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((largest_difference(a[k], b[k]) for k in a), default=0.0)
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        return max((largest_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    assert a == b, (a, b)
    return 0.0
