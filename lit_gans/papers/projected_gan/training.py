"""How Projected GAN is trained (Sauer et al., 2021, Sec. 4), with the generators of FastGAN and of StyleGAN2."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.checks import say
from lit_gans.adversarial.losses import hinge
from lit_gans.augment import DiffAugment
from lit_gans.augment.diffaug import POLICIES
from lit_gans.base.processes import mean_over_processes
from lit_gans.base.random import derive_seed
from lit_gans.metrics.sources import StyleLayer
from lit_gans.papers import fastgan, stylegan2
from lit_gans.papers.projected_gan.discriminators import Discriminator
from lit_gans.papers.projected_gan.features import PUBLISHED_PX
from lit_gans.papers.projected_gan.projector import Mixing
from lit_gans.papers.stylegan2.networks import Noise, check_choice

GeneratorName = Literal["fastgan", "fastgan_lite", "stylegan2"]


class ProjectedGAN(GAN):
    """Sec. 4 with the authors' training loop: hinge loss, differentiable augmentation, no penalty.

    The discriminators look at images through a frozen feature network and random mixing layers. These are saved with
    the run; the network is not: training reads its weights, and sampling needs none. Each pass in training moves the
    vectors of spectral norms: micro-batches, of which each is a pass, train a little differently.

    Args:
        resolution: a power of two from 32, with "stylegan2" from 8.
        generator: FastGAN's, its form for small sets "fastgan_lite", or "stylegan2", for which the authors take
            z_dim 64, lr 0.002, separable discriminators.
        width: of FastGAN's generator at 128 pixels.
        w_dim, mapping_layers, channel_base, channel_max, num_half_res: of StyleGAN2's generator, whose convolutions
            clamp to 256 and whose average of w decays by 0.998, as in the authors' code; half precision there is in 4
            resolutions.
        features: a model of timm (EfficientNets, ResNets, vision transformers such as DeiT and DINOv2), or
            "torchvision:<model>" (SqueezeNets, ResNets).
        features_weights: a file of that model's weights; None takes the published ones, from where they are kept or
            downloaded; "random" draws them, with which little is learned (Table 2).
        features_fingerprint: of the weights, 16 hex digits; others are refused. Checkpoints keep those of the run.
        features_px: the side that the feature network sees. None, as published: 224, or the resolution if it is larger.
        features_normalise: by mean and standard deviation of that model's own training; the authors feed [-1, 1].
        mixing: "scales" mixes channels and scales, "channels" channels alone, "none" nothing (Sec. 3.2).
        mixed_channels, expand: of the finest level, and whether coarser ones have twice as many each.
        num_heads: discriminators, from the finest level on; head_width: of all their blocks, None as published.
        separable, patch: forms of the discriminators' blocks, see `halving` and `patch_halving`.
        policy: of `DiffAugment`, [] for none; cutouts have a fifth of the side.
        lr_g, lr_d, betas: of the players' Adam as published.
        lazy_interval: the discriminator's Adam is corrected as for a penalty in every so many batches, which the
            authors' code kept although there is none; 1 corrects nothing.
        **game: channels, num_classes, total_kimg, ... of `GAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 256,
        channels: int = 3,
        num_classes: int = 0,
        generator: GeneratorName = "fastgan",
        z_dim: int = 256,
        width: int = 128,
        w_dim: int = 128,
        mapping_layers: int = 2,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_half_res: int = 0,
        features: str = "tf_efficientnet_lite0",
        features_weights: str | None = None,
        features_fingerprint: str | None = None,
        features_px: int | None = None,
        features_normalise: bool = False,
        mixing: Mixing = "scales",
        mixed_channels: int = 64,
        expand: bool = True,
        num_heads: int = 4,
        head_width: int | None = None,
        separable: bool = False,
        patch: bool = False,
        policy: Sequence[str] = POLICIES,
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.0, 0.99),
        lazy_interval: int = 16,
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, **game)
        self.save_hyperparameters()
        check_choice("generator", generator, GeneratorName)
        size = {"resolution": resolution, "channels": channels, "z_dim": z_dim}
        if generator == "stylegan2":
            widths = {"channel_base": channel_base, "channel_max": channel_max}
            styled = {"c_dim": num_classes, "w_dim": w_dim, "num_layers": mapping_layers, "num_half_res": num_half_res}
            styled |= {"conv_clamp": 256, "w_avg_decay": 0.998}
            self.generator = stylegan2.Generator(**size, **styled, **widths)
        else:
            lite = generator == "fastgan_lite"
            self.generator = fastgan.Generator(**size, num_classes=num_classes, width=width, lite=lite)
        self.discriminator = Discriminator(
            features,
            features_px=max(resolution, PUBLISHED_PX) if features_px is None else features_px,
            features_weights=features_weights,
            fingerprint=features_fingerprint,
            normalise=features_normalise,
            mixing=mixing,
            mixed_channels=mixed_channels,
            expand=expand,
            num_heads=num_heads,
            width=head_width,
            separable=separable,
            patch=patch,
            num_classes=num_classes,
            seed=derive_seed(self.seed, "projection"),
        )
        if generator == "stylegan2":  # a capability is had by having its members, and W by no other generator
            self.styles, self.synthesize = self._styles, self._synthesize
            self.style_layers, self.feature_layers = self._style_layers, self._feature_layers
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.augment = DiffAugment(list(policy), cutout=0.2)
        self.lr_g, self.lr_d, self.betas, self.lazy_interval = lr_g, lr_d, betas, lazy_interval

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        # Fakes take the labels of the batch's reals: the same distribution as the authors', who draw them anew.
        real, label, means = batch["image"], batch["label"] if self.num_classes else None, list[Tensor]()
        with self.updating(opt_g):
            for z, c in self.split(self.latents(len(real), "g"), label):
                fake_logits = self.discriminator(self.augment(self.generator(z, c)), c)
                _, g_loss = hinge(fake_logits, fake_logits)
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)
        with self.updating(opt_d):
            for x, z, c in self.split(real, self.latents(len(real), "d"), label):
                with torch.no_grad():
                    fake = self.generator(z, c)
                    if isinstance(self.generator, stylegan2.Generator):
                        means.append(self.generator.mapping(z, c)[:, 0].mean(0, dtype=torch.float32))
                # One after the other: batch norm must see each alone.
                fake_logits = self.discriminator(self.augment(fake), c)
                real_logits = self.discriminator(self.augment(x), c)
                d_loss, _ = hinge(real_logits, fake_logits)
                self.accumulate(d_loss)
                self.report_discriminator(d_loss, real_logits, fake_logits)
        if means:
            self.generator.mapping.track(mean_over_processes(torch.stack(means).mean(0)))

    # ---- what Lightning calls ----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = ((self.generator, self.lr_g, 1), (self.discriminator, self.lr_d, self.lazy_interval))
        return [
            lazy_adam(trained(player), lr=lr, betas=self.betas, interval=k, fused=self.fused)
            for player, lr, k in players
        ]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        # Before a batch norm a bias changes nothing; of what rounding leaves in its gradient Adam makes whole steps.
        for bias in self.discriminator.idle_biases():
            if bias.grad is not None:
                bias.grad.zero_()

    def discriminators(self) -> list[nn.Module]:
        """The heads; what they look through is frozen as it is."""
        return list(self.discriminator.heads.heads)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            network = self.discriminator.features
            network.load()
            self.hparams["features_fingerprint"] = network.fingerprint
            say(self.trainer, network.told())

    def frozen_networks(self) -> list[dict[str, object]]:
        return [self.discriminator.features.stamp()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["hyper_parameters"].get("features_fingerprint")
        self.discriminator.features.check_trained_with(saved)
        super().on_load_checkpoint(checkpoint)

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> images [N, C, H, W] in [-1, 1]; psi truncates StyleGAN2's w.

        FastGAN's latents have one length, and psi changes nothing. Noise is constant, so that an image depends on its
        latent alone.
        """
        with self.sampling(ema=ema) as network:
            if isinstance(network, stylegan2.Generator):
                return network(z, labels, psi=psi, noise="const").clamp(-1, 1)
            return network(z, labels).clamp(-1, 1)

    # With StyleGAN2's generator, see `HasLayers`.

    def _styled(self, *, ema: bool) -> stylegan2.Generator:
        return self.generator_ema if ema else self.generator

    def _styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return self._styled(ema=ema).mapping(z, labels, psi=psi)

    def _synthesize(self, ws: Tensor, *, ema: bool = True, noise: Noise = "const") -> Tensor:
        return self._styled(ema=ema).synthesis(ws, noise=noise, force_fp32=True)

    def _style_layers(self, *, ema: bool = True) -> dict[str, StyleLayer]:
        return self._styled(ema=ema).synthesis.style_layers()

    def _feature_layers(self, *, ema: bool = True) -> dict[str, nn.Module]:
        return self._styled(ema=ema).synthesis.feature_layers()


def trained(player: nn.Module) -> list[nn.Parameter]:
    return [p for p in player.parameters() if p.requires_grad]
