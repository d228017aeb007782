"""How StyleGAN2 is trained (Karras et al., 2020a, Sec. 3), with few images too (ADA; Karras et al., 2020b)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.penalties import path_length, r1
from lit_gans.augment import AdaptiveAugment
from lit_gans.base.processes import mean_over_processes
from lit_gans.base.random import Draws
from lit_gans.metrics.sources import StyleLayer
from lit_gans.nn.mode import evaluating
from lit_gans.papers.stylegan2.networks import Architecture, Discriminator, Generator, Half, Noise, seen_through


class StyleGAN2(GAN):
    """Section 3 with the training loop of ADA: logistic loss, lazy R1 and path length, style mixing.

    A minibatch-std group lies inside one process's micro-batch, and so does the mean of the path lengths in the
    penalty; `pl_mean` and `w_avg` are of the global batch. So two processes train what one does in two micro-batches.

    Args:
        resolution: a power of two from 8.
        num_layers: of the mapping; 8 in the paper, 2 in ADA's "auto" and CIFAR-10 configurations.
        channel_base, channel_max: see `widths`; base 16384 is the half width that ADA uses up to 256 pixels.
        generator_architecture, discriminator_architecture: "skip", "resnet" or "orig" (Figure 7).
        num_half_res, half_dtype, conv_clamp: so many top resolutions compute in half precision (on CUDA; elsewhere it
            is slow, and they compute in full), with activations clamped; 4, "float16" and 256 in ADA.
        mbstd_group_size, mbstd_channels: of the minibatch standard deviation; group None is the whole micro-batch.
        lr, betas: of both players' Adam as published, before the correction for lazy regularisation.
        r1_gamma, r1_interval: weight of R1, which runs in every so many batches; weight 0 leaves it out.
        pl_weight, pl_interval, pl_shrink, pl_decay: the same of the path length; it takes 1 / pl_shrink of the batch.
        style_mixing: the probability that a batch mixes the styles of two latents.
        noise: of the generator in training; another than "random" is for experiments.
        reuse_fakes: the discriminator's step sees the fakes of the generator's; the paper draws new ones.
        augment: applied to all images that the discriminator sees; its buffers are saved with the weights.
        **game: channels, num_classes, total_kimg, ... of `GAN`.
    """

    pl_mean: Tensor
    only_in_training = ("augment",)

    def __init__(
        self,
        *,
        resolution: int = 256,
        channels: int = 3,
        num_classes: int = 0,
        z_dim: int = 512,
        w_dim: int = 512,
        num_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        generator_architecture: Architecture = "skip",
        discriminator_architecture: Architecture = "resnet",
        num_half_res: int = 0,
        half_dtype: Half = "float16",
        conv_clamp: float | None = None,
        mbstd_group_size: int | None = 4,
        mbstd_channels: int = 1,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.0, 0.99),
        r1_gamma: float = 10.0,
        r1_interval: int = 16,
        pl_weight: float = 2.0,
        pl_interval: int = 4,
        pl_shrink: int = 2,
        pl_decay: float = 0.01,
        style_mixing: float = 0.9,
        noise: Noise = "random",
        reuse_fakes: bool = False,
        augment: nn.Module | None = None,
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, **game)
        self.save_hyperparameters(ignore=["augment"])  # sampling needs none; training takes it from the config
        if not 0 <= style_mixing <= 1:
            raise ValueError(f"style_mixing {style_mixing} is not a probability; the paper's is 0.9, 0 mixes nothing")
        if min(r1_interval, pl_interval, pl_shrink) < 1:
            raise ValueError(
                f"r1_interval {r1_interval}, pl_interval {pl_interval} and pl_shrink {pl_shrink} must be 1 or more; "
                "r1_gamma=0 or pl_weight=0 leave a penalty out"
            )
        shared = {"resolution": resolution, "channels": channels, "c_dim": num_classes}
        shared |= {"channel_base": channel_base, "channel_max": channel_max, "conv_clamp": conv_clamp}
        shared |= {"num_half_res": num_half_res, "half_dtype": half_dtype}
        self.generator = Generator(
            z_dim=z_dim, w_dim=w_dim, num_layers=num_layers, architecture=generator_architecture, **shared
        )
        # The discriminator's label mapping always has 8 layers: ADA's shorter mapping is the generator's alone.
        self.discriminator = Discriminator(
            architecture=discriminator_architecture,
            mbstd_group_size=mbstd_group_size,
            mbstd_channels=mbstd_channels,
            **shared,
        )
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.augment = augment
        self.register_buffer("pl_mean", torch.zeros(()))
        self.lr, self.betas, self.style_mixing = lr, betas, style_mixing
        self.r1_gamma, self.r1_interval, self.noise, self.reuse_fakes = r1_gamma, r1_interval, noise, reuse_fakes
        self.pl_weight, self.pl_interval, self.pl_shrink, self.pl_decay = pl_weight, pl_interval, pl_shrink, pl_decay
        self._means: dict[str, list[Tensor]] = {}  # of this batch: w by purpose and path lengths, one per micro-batch

    @classmethod
    def from_generator(cls, generator: Generator) -> StyleGAN2:
        """A generator alone, such as a released one, for sampling, measuring and editing.

        It takes both the averaged generator's place and the other's; the discriminator is a tiny one, never trained.
        """
        mapping, blocks = generator.mapping, generator.synthesis.blocks
        resolution = max(map(int, blocks))
        size = {"z_dim": mapping.z_dim, "w_dim": len(mapping.w_avg), "num_classes": mapping.c_dim}
        size |= {"resolution": resolution, "channels": blocks[str(resolution)].to_rgb.weight.shape[0]}
        gan = cls(**size, num_layers=1, channel_base=resolution, channel_max=1)
        gan.generator = gan.generator_ema = generator
        return gan

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        # Fakes take the labels of the batch's reals: the same distribution as ADA's, which draws them anew.
        real, label, fakes = batch["image"], batch["label"] if self.num_classes else None, []
        with self.updating(opt_g):
            for z, c in self.split(self.latents(len(real), "g"), label):
                fakes.append(self.generator.synthesis(self.mixed_styles(z, c, "g"), noise=self.noise))
                g_loss = softplus(-self.discriminator(self.augmented(fakes[-1]), c)).mean()
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)
                fakes[-1] = fakes[-1].detach() if self.reuse_fakes else None
        if self.pl_weight and self.every(self.pl_interval):  # Eq. 4, lazily: the interval multiplies the weight
            with self.updating(opt_g):
                for some, c in self.split(real, label):
                    self.accumulate(self.pl_weight * self.pl_interval * self.path_length_penalty(len(some), c))
        with self.updating(opt_d):
            parts = self.split(real, self.latents(len(real), "d"), label)
            for fake, (x, z, c) in zip(fakes, parts, strict=True):
                if fake is None:
                    fake = self.generator.synthesis(self.mixed_styles(z, c, "d"), noise=self.noise)
                # One after the other, as in ADA: a minibatch-std group is all real or all fake.
                fake_logits = self.discriminator(self.augmented(fake), c)
                real_logits = self.discriminator(self.augmented(x), c)
                d_loss = softplus(fake_logits).mean() + softplus(-real_logits).mean()
                self.accumulate(d_loss)
                self.report_discriminator(d_loss, real_logits, fake_logits)
                self.observe(real_logits)
        if self.r1_gamma and self.every(self.r1_interval):  # R1, lazily too
            with self.updating(opt_d):
                for x, c in self.split(real, label):
                    self.accumulate(self.r1_gamma / 2 * self.r1_interval * self.r1_penalty(x, c))
        self.move_averages()

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    def mixed_styles(self, z: Tensor, c: Tensor | None, purpose: str) -> Tensor:
        """ws [N, L, W] of z, from some layer on those of other latents (Karras et al., 2019, Sec. 3.1)."""
        ws = self.generator.mapping(z, c)
        self._means.setdefault(f"w-{purpose}", []).append(ws[:, 0].detach().mean(0, dtype=torch.float32))  # [W]
        cutoff = self.mixing_cutoff(purpose)
        if cutoff == ws.shape[1]:
            return ws
        # ADA leaves these out of w_avg.
        others = self.generator.mapping(self.latents(len(z), f"{purpose}-mixing"), c)
        return torch.cat([ws[:, :cutoff], others[:, cutoff:]], 1)

    def mixing_cutoff(self, purpose: str) -> int:
        """The first layer with other styles, 1 to L - 1, or L where nothing is mixed: one for the global batch."""
        num_ws = self.generator.synthesis.num_ws
        draws = Draws(self.seed, self.images_seen, "mixing", purpose)  # every process's, and never waits for a GPU
        chance, where = draws.uniform(2).tolist()
        return num_ws if chance >= self.style_mixing else 1 + int(where * (num_ws - 1))

    def path_length_penalty(self, n: int, c: Tensor | None) -> Tensor:
        """Mean of (length - running mean)^2 over 1 / pl_shrink of n latents (Eq. 4, App. B)."""
        n = max(n // self.pl_shrink, 1)
        c = None if c is None else c[:n]
        noise = self.draws("pl-noise").normal(n, self.channels, self.resolution, self.resolution)  # y of Eq. 4
        ws = self.mixed_styles(self.latents(n, "pl"), c, "pl")
        lengths = path_length(lambda ws: self.generator.synthesis.forward(ws, noise=self.noise), ws, noise=noise)
        self._means.setdefault("length", []).append(lengths.detach().mean())
        # The mean has moved, and is not constant, when it is subtracted: Eq. 4 leaves both open, ADA's code does so.
        penalty = (lengths - self.pl_mean.lerp(lengths.mean(), self.pl_decay)).square().mean()
        self.report(path_length=penalty)
        return penalty

    def r1_penalty(self, real: Tensor, c: Tensor | None) -> Tensor:
        """Squared gradient norm with respect to the reals before augmentation (ADA, App. D); mean over the batch."""
        logits: list[Tensor] = []

        def network(images: Tensor) -> Tensor:
            logits.append(self.discriminator.forward(self.augmented(images), c))
            return logits[0]

        penalty = r1(network, real)
        self.report(r1=penalty)
        self.observe(logits[0])
        return penalty + 0 * logits[0].mean()  # zeros for the last bias: Adam's step then counts for all alike

    def augmented(self, images: Tensor) -> Tensor:
        return images if self.augment is None else self.augment(images)

    def observe(self, real_logits: Tensor) -> None:
        if isinstance(self.augment, AdaptiveAugment):
            self.augment.observe(real_logits)

    @torch.no_grad()
    def move_averages(self) -> None:
        """w_avg, once per pass through the mapping, and pl_mean: by means over micro-batches and processes."""
        names, self._means, means = list(self._means), {}, list(self._means.values())
        together = mean_over_processes(torch.cat([torch.stack(parts).mean(0).flatten() for parts in means]))
        for name, mean in zip(names, together.split([parts[0].numel() for parts in means]), strict=True):
            if name == "length":
                self.pl_mean.lerp_(mean[0], self.pl_decay)
                self.report(pl_mean=self.pl_mean.clone())
            else:
                self.generator.mapping.track(mean)

    # ---- what Lightning calls ----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        # The correction stays where a penalty has weight 0, as in the official code (CIFAR-10).
        intervals = {self.generator: self.pl_interval, self.discriminator: self.r1_interval}
        return [
            lazy_adam(player.parameters(), lr=self.lr, betas=self.betas, interval=k, fused=self.fused)
            for player, k in intervals.items()
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
        """z [N, z_dim] (and labels [N]) -> images [N, C, H, W] in [-1, 1]; psi truncates w towards its average.

        With constant noise, so that an image depends on its latent alone; ADA's metrics draw the noise anew.
        """
        network = self.player(ema=ema)
        with evaluating(network):
            return network(z, labels, psi=psi, noise="const").clamp(-1, 1)

    def styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> ws [N, L, W], truncated by psi; differentiable."""
        return self.player(ema=ema).mapping(z, labels, psi=psi)

    def synthesize(self, ws: Tensor, *, ema: bool = True, noise: Noise = "const") -> Tensor:
        """ws [N, L, W] -> images [N, C, H, W] in single precision, not clamped; differentiable."""
        return self.player(ema=ema).synthesis(ws, noise=noise, force_fp32=True)

    def style_layers(self, *, ema: bool = True) -> dict[str, StyleLayer]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.style_layers()

    def feature_layers(self, *, ema: bool = True) -> dict[str, nn.Module]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.feature_layers()

    def synthesize_transformed(self, ws: Tensor, transform: Tensor, *, ema: bool = True) -> Tensor:
        """As `synthesize`, with the learned constant seen through `transform` [3, 3], as a periodic picture.

        The paper moves nothing; it is here to be compared with StyleGAN3. Noise maps stay where they are.
        """
        synthesis = self.player(ema=ema).synthesis
        moved = {"blocks.4.const": seen_through(synthesis.blocks["4"].const, transform)}
        return functional_call(synthesis, moved, ws, {"noise": "const", "force_fp32": True})
