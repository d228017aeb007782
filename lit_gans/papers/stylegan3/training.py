"""How StyleGAN3 is trained (Karras et al., 2021, App. G): as StyleGAN2, without style mixing and path lengths."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.penalties import r1
from lit_gans.augment import AdaptiveAugment
from lit_gans.base.processes import mean_over_processes
from lit_gans.metrics.sources import StyleLayer
from lit_gans.nn.mode import evaluating
from lit_gans.nn.resample import filter2d
from lit_gans.papers.stylegan2.networks import Discriminator, Half, check_choice
from lit_gans.papers.stylegan3.networks import Generator

Configuration = Literal["T", "R"]
MAGNITUDE_HALF_LIFE_KIMG = 20.0  # of the running means of what comes into the layers (App. C)


class StyleGAN3(GAN):
    """Appendix G with the training loop of ADA: logistic loss, lazy R1, for R blurred images in the beginning.

    A minibatch-std group lies inside one process's micro-batch; `w_avg` and the layers' magnitudes are of the global
    batch. So two processes train what one does in two micro-batches.

    Args:
        resolution: a power of two from 16.
        configuration: "T" is equivariant to translation; "R" to rotation too: its generator has 1x1 convolutions,
            radial filters and twice the feature maps of `channel_base` and `channel_max`.
        num_layers, num_critical: of the synthesis network without colours; how many of the last are critically sampled.
        margin_px: pixels around the image in all layers but the last. mapping_layers: of the mapping network.
        channel_base, channel_max: of both players, see `schedule` and StyleGAN2's `widths`.
        num_half_res, half_dtype, conv_clamp: so many top resolutions compute in half precision (on CUDA; elsewhere it
            is slow, and they compute in full), with activations clamped; 4 in the official code.
        mbstd_group_size, mbstd_channels: of the minibatch standard deviation; group None is the whole micro-batch.
        lr_g, lr_d, betas: of the players' Adam as published, before the correction for lazy regularisation.
        r1_gamma, r1_interval: weight of R1, which runs in every so many batches; weight 0 leaves it out.
        blur_sigma, blur_kimg: reals and fakes are blurred with so many pixels at first, linearly less until blur_kimg.
            R takes 10 until 200 kimg for 32 images a batch, T no blur.
        augment: applied to all images that the discriminator sees; its buffers are saved with the weights.
        **game: channels, num_classes, total_kimg, ... of `GAN`.
    """

    only_in_training = ("augment",)

    def __init__(
        self,
        *,
        resolution: int = 256,
        channels: int = 3,
        num_classes: int = 0,
        configuration: Configuration = "T",
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 2,
        num_layers: int = 14,
        num_critical: int = 2,
        margin_px: int = 10,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_half_res: int = 0,
        half_dtype: Half = "float16",
        conv_clamp: float | None = 256,
        mbstd_group_size: int | None = 4,
        mbstd_channels: int = 1,
        lr_g: float = 0.0025,
        lr_d: float = 0.002,
        betas: tuple[float, float] = (0.0, 0.99),
        r1_gamma: float = 2.0,
        r1_interval: int = 16,
        blur_sigma: float = 0.0,
        blur_kimg: float = 200.0,
        augment: nn.Module | None = None,
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, **game)
        self.save_hyperparameters(ignore=["augment"])  # sampling needs none; training takes it from the config
        check_choice("configuration", configuration, Configuration)
        if r1_interval < 1:
            raise ValueError(f"r1_interval {r1_interval} must be 1 or more; r1_gamma=0 leaves the penalty out")
        if blur_sigma < 0 or blur_kimg <= 0:
            raise ValueError(
                f"blur_sigma {blur_sigma} must not be negative, and blur_kimg {blur_kimg} be positive; blur_sigma=0 "
                "blurs nothing"
            )
        shared = {"resolution": resolution, "channels": channels, "c_dim": num_classes}
        shared |= {"num_half_res": num_half_res, "half_dtype": half_dtype, "conv_clamp": conv_clamp}
        r = configuration == "R"
        self.generator = Generator(
            z_dim=z_dim,
            w_dim=w_dim,
            mapping_layers=mapping_layers,
            num_layers=num_layers,
            num_critical=num_critical,
            margin_px=margin_px,
            channel_base=channel_base * (2 if r else 1),
            channel_max=channel_max * (2 if r else 1),
            conv_kernel=1 if r else 3,
            radial_filters=r,
            **shared,
        )
        self.discriminator = Discriminator(
            channel_base=channel_base,
            channel_max=channel_max,
            mbstd_group_size=mbstd_group_size,
            mbstd_channels=mbstd_channels,
            **shared,
        )
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.augment = augment
        self.lr_g, self.lr_d, self.betas = lr_g, lr_d, betas
        self.r1_gamma, self.r1_interval = r1_gamma, r1_interval
        self.blur_sigma, self.blur_kimg = blur_sigma, blur_kimg

    @classmethod
    def from_generator(cls, generator: Generator) -> StyleGAN3:
        """A generator alone, such as a released one, for sampling, measuring and editing.

        It takes both the averaged generator's place and the other's; the discriminator is a tiny one, never trained.
        """
        mapping, signals = generator.mapping, generator.synthesis.signals
        size = {"z_dim": mapping.z_dim, "w_dim": len(mapping.w_avg), "num_classes": mapping.c_dim}
        size |= {"resolution": signals[-1].size, "channels": signals[-1].channels}
        gan = cls(**size, mapping_layers=1, num_layers=2, num_critical=0, channel_base=signals[-1].size, channel_max=1)
        gan.generator = gan.generator_ema = generator
        return gan

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        # Fakes take the labels of the batch's reals: the same distribution as the official code's, drawn anew there.
        real, label, means = batch["image"], batch["label"] if self.num_classes else None, list[Tensor]()
        with self.updating(opt_g):
            for z, c in self.split(self.latents(len(real), "g"), label):
                fake = self.generator.synthesis(self.generator.mapping(z, c))
                g_loss = softplus(-self.discriminator(self.seen(fake), c)).mean()
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)
        with self.updating(opt_d):
            for x, z, c in self.split(real, self.latents(len(real), "d"), label):
                ws, squares = self.generator.mapping(z, c), list[Tensor]()
                fake = self.generator.synthesis(ws, squares=squares)
                means.append(torch.cat([ws[:, 0].mean(0, dtype=torch.float32), torch.stack(squares)]))
                # One after the other, as in ADA: a minibatch-std group is all real or all fake.
                fake_logits = self.discriminator(self.seen(fake), c)
                real_logits = self.discriminator(self.seen(x), c)
                d_loss = softplus(fake_logits).mean() + softplus(-real_logits).mean()
                self.accumulate(d_loss)
                self.report_discriminator(d_loss, real_logits, fake_logits)
                self.observe(real_logits)
        if self.r1_gamma and self.every(self.r1_interval):  # R1, lazily: the interval multiplies the weight
            with self.updating(opt_d):
                for x, c in self.split(real, label):
                    self.accumulate(self.r1_gamma / 2 * self.r1_interval * self.r1_penalty(x, c))
        self.move_averages(torch.stack(means).mean(0), images=len(real))

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    def seen(self, images: Tensor) -> Tensor:
        """What the discriminator is shown of them: blurred (App. G), then augmented."""
        images = blurred(images, self.sigma)
        return images if self.augment is None else self.augment(images)

    @property
    def sigma(self) -> float:
        """Of the blur at this moment of the clock, in pixels."""
        return self.blur_sigma * max(1 - self.kimg / self.blur_kimg, 0.0)

    def r1_penalty(self, real: Tensor, c: Tensor | None) -> Tensor:
        """Squared gradient norm with respect to the reals before blur and augmentation; mean over the batch."""
        logits: list[Tensor] = []

        def network(images: Tensor) -> Tensor:
            logits.append(self.discriminator.forward(self.seen(images), c))
            return logits[0]

        penalty = r1(network, real)
        self.report(r1=penalty)
        self.observe(logits[0])
        return penalty + 0 * logits[0].mean()  # zeros for the last bias: Adam's step then counts for all alike

    def observe(self, real_logits: Tensor) -> None:
        if isinstance(self.augment, AdaptiveAugment):
            self.augment.observe(real_logits)

    @torch.no_grad()
    def move_averages(self, means: Tensor, *, images: int) -> None:
        """w_avg and the layers' magnitudes, by means [W + L - 1] over the fakes of the discriminator's step.

        The official code moves a magnitude just before the layer uses it, by its process's images alone; here all are
        moved after the step, so that processes and micro-batches use the same.
        """
        means, layers = mean_over_processes(means), self.generator.synthesis.layers
        w, squares = means.split([len(means) - len(layers), len(layers)])
        self.generator.mapping.track(w)
        decay = 0.5 ** (images * self._world_size / 1000 / MAGNITUDE_HALF_LIFE_KIMG)
        for layer, square in zip(layers, squares, strict=True):
            layer.track(square, decay=decay)

    # ---- what Lightning calls ----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        # The correction stays where R1 has weight 0, as in the official code.
        players = ((self.generator, self.lr_g, 1), (self.discriminator, self.lr_d, self.r1_interval))
        return [
            lazy_adam(player.parameters(), lr=lr, betas=self.betas, interval=k, fused=self.fused)
            for player, lr, k in players
        ]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self._compile:  # training calls the generator's two halves
            self.generator.mapping.compile(dynamic=False)
            self.generator.synthesis.compile(dynamic=False)

    # ---- sampling and editing ----------------------------------------------------------------------------------------

    def player(self, *, ema: bool = True) -> Generator:
        """The averaged generator, or the one that is trained."""
        return self.generator_ema if ema else self.generator

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> images [N, C, H, W] in [-1, 1]; psi truncates w towards its average."""
        network = self.player(ema=ema)
        with evaluating(network):
            return network(z, labels, psi=psi).clamp(-1, 1)

    def styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> ws [N, L, W], truncated by psi; differentiable."""
        return self.player(ema=ema).mapping(z, labels, psi=psi)

    def synthesize(self, ws: Tensor, *, ema: bool = True) -> Tensor:
        """ws [N, L, W] -> images [N, C, H, W] in single precision, not clamped; differentiable."""
        return self.player(ema=ema).synthesis(ws, force_fp32=True)

    def style_layers(self, *, ema: bool = True) -> dict[str, StyleLayer]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.style_layers()

    def feature_layers(self, *, ema: bool = True) -> dict[str, nn.Module]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.feature_layers()

    def feature_margins(self, *, ema: bool = True) -> dict[str, int]:
        """See `HasMargins`."""
        return self.player(ema=ema).synthesis.feature_margins()

    def synthesize_transformed(self, ws: Tensor, transform: Tensor, *, ema: bool = True) -> Tensor:
        """As `synthesize`, with `transform` [3, 3] in place of the input's own: see `SynthesisInput`."""
        moved = {"input.transform": transform.to(ws)}
        return functional_call(self.player(ema=ema).synthesis, moved, ws, {"force_fp32": True})


def blurred(images: Tensor, sigma: float) -> Tensor:
    """images [N, C, H, W] under a bell of 2^-(x / sigma)^2, cut off at three sigma; zeros lie around them (App. G)."""
    reach = math.floor(3 * sigma)
    if reach == 0:
        return images
    taps = (-(torch.arange(-reach, reach + 1, device=images.device) / sigma).square()).exp2()
    return filter2d(images, taps / taps.sum())
