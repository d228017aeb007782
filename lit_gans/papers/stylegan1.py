"""StyleGAN (Karras et al., 2019), https://arxiv.org/abs/1812.04948: a generator that is told its style layer by layer.

It grows as PGGAN does, from 8 pixels in the paper; the FadeIn callback says when, and at which batch size.
"""

from __future__ import annotations

import copy
import functools
import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, instance_norm, interpolate, linear

from lit_gans.adversarial import GAN, Growing, lazy_adam
from lit_gans.adversarial.losses import non_saturating, wasserstein
from lit_gans.adversarial.penalties import gradient_penalty, r1
from lit_gans.adversarial.progressive import SMALLEST_PX, blended, enlarged, grow_together
from lit_gans.base.processes import mean_over_processes
from lit_gans.base.random import Draws, random_noise
from lit_gans.metrics.sources import StyleLayer
from lit_gans.nn.bias_act import bias_act
from lit_gans.nn.equalized import EqualizedConv2d, EqualizedLinear
from lit_gans.nn.mode import evaluating
from lit_gans.nn.resample import filter2d, fir_filter
from lit_gans.official import Change, Release, numbered, renaming
from lit_gans.official.releases import Config, State
from lit_gans.papers.pggan import (
    PORT,
    PORT_NAMES,
    Conv,
    FusedScale,
    GrowingDiscriminator,
    as_one_hot,
    boxed,
    is_fused,
    mbstd_layer,
    pixel_norm,
    port_discriminator,
    port_judge,
    port_maps,
    stages,
    widths,
)

Noise = Literal["random", "const", "none"]
Objective = Literal["logistic", "wgan_gp"]
BLUR = (1, 2, 1)  # App. C; wherever the resolution changes

# ---- the mapping network f (Figure 1b, App. C) -----------------------------------------------------------------------


class MappingLayer(nn.Module):
    """x [N, I] -> lrelu(w x + b) [N, O]; weight and bias learn `lr_multiplier` times as fast (App. C)."""

    def __init__(self, fan_in: int, fan_out: int, *, lr_multiplier: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.scale, self.lr_multiplier = math.sqrt(2 / fan_in) * lr_multiplier, lr_multiplier  # He's constant

    def forward(self, x: Tensor) -> Tensor:
        return bias_act(linear(x, self.weight * self.scale), self.bias * self.lr_multiplier, act="lrelu", gain=1.0)


class MappingNetwork(nn.Module):
    """z [N, Z] (and labels [N] or [N, K]) -> ws [N, L, W], the same w for each of `num_ws` layers (Figure 1b).

    `w_avg` is the average of w, to which `psi` truncates; training moves it by `track`.
    """

    w_avg: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        w_dim: int,
        num_ws: int,
        num_classes: int = 0,
        num_layers: int = 8,
        hidden_dim: int | None = None,
        lr_multiplier: float = 0.01,
        w_avg_decay: float = 0.995,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers {num_layers} is below 1; the paper's mapping has 8 layers")
        self.num_ws, self.num_classes, self.w_avg_decay = num_ws, num_classes, w_avg_decay
        self.label_weight = nn.Parameter(torch.randn(num_classes, z_dim)) if num_classes else None
        first = z_dim * (2 if num_classes else 1)
        w = [first, *[hidden_dim or w_dim] * (num_layers - 1), w_dim]
        self.layers = nn.ModuleList(
            MappingLayer(fan_in, fan_out, lr_multiplier=lr_multiplier)
            for fan_in, fan_out in zip(w[:-1], w[1:], strict=True)
        )
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self, z: Tensor, labels: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """psi pulls w towards the average (App. B), in the first `cutoff` layers or in all."""
        if self.label_weight is not None:
            c = as_one_hot(labels, self.num_classes).to(z.dtype)
            z = torch.cat([z, c @ self.label_weight], 1)  # before the norm, which StyleGAN2 applies to each of both
        w = pixel_norm(z)
        for layer in self.layers:
            w = layer(w)
        ws = w[:, None].expand(-1, self.num_ws, -1)  # [N, W] -> [N, L, W]
        return ws if psi == 1 else truncate(ws, self.w_avg, psi=psi, cutoff=cutoff)

    @torch.no_grad()
    def track(self, mean: Tensor) -> None:
        """Moves the average towards the mean w [W] of a batch."""
        self.w_avg.lerp_(mean.to(self.w_avg.dtype), 1 - self.w_avg_decay)


def truncate(ws: Tensor, w_avg: Tensor, *, psi: float, cutoff: int | None = None) -> Tensor:
    """ws [N, L, W] with the first `cutoff` layers (None: all) moved to w_avg, of which psi stays away."""
    near = w_avg.lerp(ws, psi)  # w_avg + psi (w - w_avg), App. B
    return near if cutoff is None else torch.cat([near[:, :cutoff], ws[:, cutoff:]], 1)


# ---- the synthesis network g (Figure 1b) -----------------------------------------------------------------------------


class Styled(nn.Module):
    """How every layer ends (Figure 1b): noise, bias, leaky rectifier, adaptive instance normalisation (Eq. 1)."""

    noise_const: Tensor

    def __init__(self, width: int, *, w_dim: int, px: int) -> None:
        super().__init__()
        self.bias, self.noise_weight = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.affine = EqualizedLinear(w_dim, 2 * width)
        self.register_buffer("noise_const", torch.randn(px, px))

    def styled(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N, C, H, W], w [N, W], noise [..., H, W] -> [N, C, H, W]."""
        if noise is not None:
            x = x + noise * self.noise_weight[:, None, None]  # one map for all channels, a weight [C, 1, 1] for each
        x = instance_norm(bias_act(x, self.bias, act="lrelu", gain=1.0), eps=1e-8)  # (x - mu(x)) / sigma(x) of Eq. 1
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, 1)  # [N, 2 C] -> y_s - 1, y_b of Eq. 1 [N, C, 1, 1]
        return x * (scale + 1) + shift  # a fresh affine map changes nothing on average


class Constant(Styled):
    """The learned input at 4 pixels (Sec. 2.1), which stands in the first convolution's place."""

    def __init__(self, width: int, *, w_dim: int) -> None:
        super().__init__(width, w_dim=w_dim, px=SMALLEST_PX)
        self.const = nn.Parameter(torch.ones(1, width, SMALLEST_PX, SMALLEST_PX))

    def forward(self, x: Tensor | None, w: Tensor, noise: Tensor | None) -> Tensor:
        return self.styled(self.const.expand(w.shape[0], -1, -1, -1), w, noise)  # [1, C, 4, 4] -> [N, C, 4, 4]


class StyledConv(Styled):
    """3x3 convolution at one resolution."""

    def __init__(self, fan_in: int, fan_out: int, *, w_dim: int, px: int) -> None:
        super().__init__(fan_out, w_dim=w_dim, px=px)
        self.weight, self.scale = nn.Parameter(torch.randn(fan_out, fan_in, 3, 3)), math.sqrt(2 / (fan_in * 9))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        return self.styled(conv2d(x, self.weight * self.scale, padding=1), w, noise)


class StyledUpConv(StyledConv):
    """3x3 convolution that doubles the resolution, and a blur. Fused, the kernel is mirrored (see PGGAN's)."""

    blur: Tensor

    def __init__(self, fan_in: int, fan_out: int, *, w_dim: int, px: int, fused: bool) -> None:
        super().__init__(fan_in, fan_out, w_dim=w_dim, px=px)
        self.fused = fused
        self.register_buffer("blur", fir_filter(BLUR), persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        if self.fused:
            kernel = boxed(self.weight).transpose(0, 1) * (4 * self.scale)  # [O, I, 3, 3] -> [I, O, 4, 4], see PGGAN's
            x = conv_transpose2d(x, kernel, stride=2, padding=1)
        else:
            x = conv2d(interpolate(x, scale_factor=2), self.weight * self.scale, padding=1)
        return self.styled(filter2d(x, self.blur), w, noise)


class SynthesisNetwork(Growing):
    """ws [N, L, W] -> images [N, C, stage, stage], around [-1, 1] but not confined to it; L is `num_ws`.

    L counts the layers of the full resolution, two for each stage; those of the present stage are used.
    """

    def __init__(
        self,
        *,
        resolution: int,
        w_dim: int,
        channels: int = 3,
        channel_base: int = 16384,
        channel_max: int = 512,
        fused_scale: FusedScale = "auto",
    ) -> None:
        super().__init__(resolution)
        maps = widths(resolution, channel_base=channel_base, channel_max=channel_max)
        layers: list[nn.Module] = [Constant(maps[SMALLEST_PX], w_dim=w_dim)]
        for px in stages(resolution):
            if px > SMALLEST_PX:
                fused = is_fused(fused_scale, px)
                layers.append(StyledUpConv(maps[px // 2], maps[px], w_dim=w_dim, px=px, fused=fused))
            layers.append(StyledConv(maps[px], maps[px], w_dim=w_dim, px=px))
        self.layers, self.num_ws = nn.ModuleList(layers), len(layers)
        self.to_rgb = nn.ModuleList(EqualizedConv2d(maps[px], channels, 1) for px in stages(resolution))  # gain 1

    @property
    def num_present(self) -> int:
        """Layers of the present stage."""
        return 2 * len(stages(self.stage))

    def forward(self, ws: Tensor, *, noise: Noise = "random") -> Tensor:
        """noise: anew at each call ("random"), the stored maps ("const"), or "none"."""
        x = before = None
        for i, one in enumerate(self.noise_maps(ws.shape[0], noise)):
            before = x if i % 2 == 0 else before  # what the newest stage begins with
            x = self.layers[i](x, ws[:, i], one)
        newest = self.num_present // 2 - 1
        image = self.to_rgb[newest](x)
        if self.fading:
            image = self.faded(interpolate(self.to_rgb[newest - 1](before), scale_factor=2), image)
        return image

    def style_layers(self) -> dict[str, StyleLayer]:
        """See `HasLayers`: of each layer of the present stage, scales (less 1) and then shifts."""
        present = enumerate(self.layers[: self.num_present])
        return {str(i): StyleLayer(layer.affine, i) for i, layer in present}

    def feature_layers(self) -> dict[str, nn.Module]:
        """See `HasLayers`: the layers of the present stage."""
        return {str(i): layer for i, layer in enumerate(self.layers[: self.num_present])}

    def noise_maps(self, n: int, noise: Noise) -> list[Tensor] | list[None]:
        """One for each layer of the present stage."""
        check_choice("noise", noise, Noise)
        stored = [layer.noise_const for layer in self.layers[: self.num_present]]
        if noise == "random":
            return random_noise(n, like=stored)
        return stored if noise == "const" else [None] * len(stored)


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises ValueError unless `value` is one of a Literal's."""
    if value not in get_args(choices):
        raise ValueError(f"{name} {value!r} is not one of {', '.join(get_args(choices))}")


class Generator(nn.Module):
    """z [N, Z] (and labels [N] or [N, K]) -> images; see `MappingNetwork` and `SynthesisNetwork`."""

    def __init__(
        self,
        *,
        resolution: int,
        channels: int = 3,
        z_dim: int = 512,
        w_dim: int = 512,
        num_classes: int = 0,
        num_layers: int = 8,
        hidden_dim: int | None = None,
        lr_multiplier: float = 0.01,
        w_avg_decay: float = 0.995,
        **synthesis: Any,
    ) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(resolution=resolution, channels=channels, w_dim=w_dim, **synthesis)
        self.mapping = MappingNetwork(
            z_dim=z_dim,
            w_dim=w_dim,
            num_ws=self.synthesis.num_ws,
            num_classes=num_classes,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            lr_multiplier=lr_multiplier,
            w_avg_decay=w_avg_decay,
        )

    def set_progress(self, stage: int, alpha: float) -> None:
        """See `Growing`: the synthesis grows, the mapping is whole from the start."""
        self.synthesis.set_progress(stage, alpha)

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        noise: Noise = "random",
    ) -> Tensor:
        return self.synthesis(self.mapping(z, labels, psi=psi, cutoff=cutoff), noise=noise)


# ---- the discriminator -----------------------------------------------------------------------------------------------


class BlurredDownConv(Conv):
    """x [N, I, H, W] -> [N, O, H / 2, W / 2]: blurred, convolved, averaged over 2x2 pixels, and only then rectified.

    PGGAN averages after the rectifier. Fused or not makes no difference here but in speed.
    """

    blur: Tensor

    def __init__(self, fan_in: int, fan_out: int, *, fused: bool) -> None:
        super().__init__(fan_in, fan_out)
        self.fused = fused
        self.register_buffer("blur", fir_filter(BLUR), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x, weight = filter2d(x, self.blur), self.weight * self.scale
        y = conv2d(x, boxed(weight), stride=2, padding=1) if self.fused else avg_pool2d(conv2d(x, weight, padding=1), 2)
        return bias_act(y, self.bias, act="lrelu", gain=1.0)


class Discriminator(GrowingDiscriminator):
    """images [N, C, stage, stage] (and labels [N] or [N, K]) -> logits [N].

    A conditional one has a logit for each class, of which the label's counts. mbstd_group_size None: one group of the
    whole batch; mbstd_channels 0: no minibatch standard deviation.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channels: int = 3,
        num_classes: int = 0,
        channel_base: int = 16384,
        channel_max: int = 512,
        fused_scale: FusedScale = "auto",
        mbstd_group_size: int | None = 4,
        mbstd_channels: int = 1,
    ) -> None:
        maps, falling = (
            widths(resolution, channel_base=channel_base, channel_max=channel_max),
            stages(resolution)[:0:-1],
        )
        down = [BlurredDownConv(maps[px], maps[px // 2], fused=is_fused(fused_scale, px)) for px in falling]
        mbstd = mbstd_layer(mbstd_group_size, mbstd_channels)
        super().__init__(down, channels=channels, maps=maps, outputs=max(num_classes, 1), mbstd=mbstd)
        self.num_classes = num_classes

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        outputs = self.analysed(images)
        if not self.num_classes:
            return outputs[:, 0]
        return (outputs * as_one_hot(labels, self.num_classes)).sum(1)  # [N, K] -> [N]


# ---- training (Sec. 2, App. C) ---------------------------------------------------------------------------------------


class StyleGAN1(GAN):
    """Section 2 and Appendix C. Without FadeIn it trains at the full resolution from the start.

    A minibatch-std group lies inside one process's micro-batch; `w_avg` is of the global batch.

    Args:
        resolution: a power of two from 4.
        num_layers, hidden_dim: of the mapping; hidden_dim None is w_dim.
        channel_base, channel_max, fused_scale, mbstd_group_size, mbstd_channels: see the networks.
        objective: "logistic", non-saturating with R1 (FFHQ in Table 1, B to F), or "wgan_gp", PGGAN's (CelebA-HQ).
        r1_gamma: weight of R1 in every batch, with the logistic loss.
        penalty_weight, drift: lambda and the drift's weight, with WGAN-GP.
        style_mixing: the probability that a batch mixes the styles of two latents (Sec. 3.1).
        trunc_layers: so many first layers are truncated by a psi below 1; None: all. In the paper those up to 32
            pixels, 8 layers.
        noise: of the generator in training; another than "random" is for experiments.
        lr, betas: of both players' Adam; FadeIn may set other learning rates at high resolutions.
        **game: channels, num_classes, total_kimg, ... of `GAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 1024,
        channels: int = 3,
        num_classes: int = 0,
        z_dim: int = 512,
        w_dim: int = 512,
        num_layers: int = 8,
        hidden_dim: int | None = None,
        channel_base: int = 16384,
        channel_max: int = 512,
        fused_scale: FusedScale = "auto",
        mbstd_group_size: int | None = 4,
        mbstd_channels: int = 1,
        objective: Objective = "logistic",
        r1_gamma: float = 10.0,
        penalty_weight: float = 10.0,
        drift: float = 0.001,
        style_mixing: float = 0.9,
        trunc_layers: int | None = 8,
        noise: Noise = "random",
        lr: float = 0.001,
        betas: tuple[float, float] = (0.0, 0.99),
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, **game)
        self.save_hyperparameters()
        check_choice("objective", objective, Objective)
        check_choice("noise", noise, Noise)
        if not 0 <= style_mixing <= 1:
            raise ValueError(f"style_mixing {style_mixing} is not a probability; the paper's is 0.9, 0 mixes nothing")
        if trunc_layers is not None and trunc_layers < 0:
            raise ValueError(f"trunc_layers {trunc_layers} is negative; 0 truncates no layer, null all")
        shared = {"resolution": resolution, "channels": channels, "num_classes": num_classes}
        shared |= {"channel_base": channel_base, "channel_max": channel_max, "fused_scale": fused_scale}
        self.generator = Generator(z_dim=z_dim, w_dim=w_dim, num_layers=num_layers, hidden_dim=hidden_dim, **shared)
        self.discriminator = Discriminator(mbstd_group_size=mbstd_group_size, mbstd_channels=mbstd_channels, **shared)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.objective, self.adversarial = objective, {"logistic": non_saturating, "wgan_gp": wasserstein}[objective]
        self.r1_gamma, self.penalty_weight, self.drift = r1_gamma, penalty_weight, drift
        self.style_mixing, self.trunc_layers, self.noise = style_mixing, trunc_layers, noise
        self.lr, self.betas = lr, betas
        self._means: dict[str, list[Tensor]] = {}  # of this batch: mean w by purpose, one per micro-batch

    @classmethod
    def from_generator(cls, generator: Generator) -> StyleGAN1:
        """A generator alone, such as a released one, for sampling, measuring and editing; the discriminator is tiny."""
        mapping, synthesis = generator.mapping, generator.synthesis
        resolution, classes, taken = synthesis.resolution, mapping.num_classes, mapping.layers[0].weight.shape[1]
        size = {"resolution": resolution, "channels": synthesis.to_rgb[0].weight.shape[0], "num_classes": classes}
        size |= {"z_dim": taken // (2 if classes else 1), "w_dim": len(mapping.w_avg)}
        gan = cls(**size, num_layers=1, channel_base=resolution, channel_max=1)
        gan.generator = gan.generator_ema = generator
        return gan

    def set_progress(self, stage: int, alpha: float) -> None:
        """All networks go to `stage` pixels, with a share `alpha` of its layers; batches have its size from then on."""
        players = self.generator, self.generator_ema, self.discriminator
        grow_together(players, stage, alpha, leader=self.discriminator, compiled=self._compile)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        # Fakes take the labels of the batch's reals; the official generator step draws its labels from the same set.
        label = batch["label"] if self.num_classes else None
        real, n = blended(batch["image"], self.discriminator.alpha), len(batch["image"])
        with self.updating(opt_d):
            for x, z, c, mix in self.split(real, self.latents(n, "d"), label, self.draws("mix").uniform(n)):
                fake = self.generator.synthesis(self.mixed_styles(z, c, "d"), noise=self.noise)
                real_logits, fake_logits = self.discriminator(x, c), self.discriminator(fake, c)
                d_loss, _ = self.adversarial(real_logits, fake_logits)
                self.accumulate(d_loss + self.regularised(real_logits, x, fake, c, mix))
                self.report_discriminator(d_loss, real_logits, fake_logits)
        with self.updating(opt_g):
            for z, c in self.split(self.latents(n, "g"), label):
                fake = self.generator.synthesis(self.mixed_styles(z, c, "g"), noise=self.noise)
                fake_logits = self.discriminator(fake, c)
                _, g_loss = self.adversarial(fake_logits, fake_logits)  # neither loss compares it with reals
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)
        self.move_average()

    def regularised(self, real_logits: Tensor, real: Tensor, fake: Tensor, c: Tensor | None, mix: Tensor) -> Tensor:
        """What the discriminator's loss has beside logits: R1, or the gradient penalty and the drift."""
        network = functools.partial(self.discriminator.forward, labels=c)
        if self.objective == "wgan_gp":
            penalty, drift = gradient_penalty(network, real, fake, mix=mix), real_logits.square().mean()
            self.report(gp=penalty, drift=drift)
            return self.penalty_weight * penalty + self.drift * drift
        if not self.r1_gamma:
            return torch.zeros((), device=self.device)
        penalty = r1(network, real)
        self.report(r1=penalty)
        return self.r1_gamma / 2 * penalty

    def mixed_styles(self, z: Tensor, c: Tensor | None, purpose: str) -> Tensor:
        """ws [N, L, W] of z, from some layer on those of other latents (Sec. 3.1)."""
        ws = self.generator.mapping(z, c)
        self._means.setdefault(purpose, []).append(ws[:, 0].detach().mean(0, dtype=torch.float32))  # [W]
        cutoff = self.mixing_cutoff(purpose)
        if cutoff == self.generator.synthesis.num_present:
            return ws
        others = self.generator.mapping(self.latents(len(z), f"{purpose}-mixing"), c)  # not averaged, as officially
        return torch.cat([ws[:, :cutoff], others[:, cutoff:]], 1)

    def mixing_cutoff(self, purpose: str) -> int:
        """The first layer with other styles, from 1, or the present layers' number where nothing is mixed.

        One for the global batch, as in the official code.
        """
        present = self.generator.synthesis.num_present
        draws = Draws(self.seed, self.images_seen, "mixing", purpose)  # every process's, and never waits for a GPU
        chance, where = draws.uniform(2).tolist()
        return present if chance >= self.style_mixing else 1 + int(where * (present - 1))

    @torch.no_grad()
    def move_average(self) -> None:
        """w_avg, once for each player's step, by means over micro-batches and processes."""
        parts, self._means = self._means, {}
        for mean in mean_over_processes(torch.stack([torch.stack(means).mean(0) for means in parts.values()])):
            self.generator.mapping.track(mean)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]

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
        """z [N, z_dim] (and labels [N]) -> images [N, C, H, W] in [-1, 1], those of an early stage enlarged.

        psi truncates w towards its average in the first `trunc_layers` layers. With constant noise, so that an image
        depends on its latent alone; the official metrics draw the noise anew.
        """
        with evaluating(self.player(ema=ema)):
            ws = self.styles(z, labels=labels, psi=psi, ema=ema)
            return self.synthesize(ws, ema=ema).clamp(-1, 1)

    def styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> ws [N, L, W], truncated by psi; differentiable."""
        return self.player(ema=ema).mapping(z, labels, psi=psi, cutoff=self.trunc_layers)

    def synthesize(self, ws: Tensor, *, ema: bool = True, noise: Noise = "const") -> Tensor:
        """ws [N, L, W] -> images [N, C, H, W], not clamped; differentiable."""
        return enlarged(self.player(ema=ema).synthesis(ws, noise=noise), self.resolution)

    def style_layers(self, *, ema: bool = True) -> dict[str, StyleLayer]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.style_layers()

    def feature_layers(self, *, ema: bool = True) -> dict[str, nn.Module]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.feature_layers()


# ---- official networks -----------------------------------------------------------------------------------------------

# State-dict names of genforce, the PyTorch port of the official networks -> ours; None: dropped, since constructors
# make them. Of a generator or a discriminator. The port has noise maps as [1, 1, H, W].
OFFICIAL_KEYS: dict[str, str | Change | None] = {
    r".+\.blur\.kernel": None,
    r"((?:synthesis\.)?)lod": r"\1lod",
    r"mapping\.dense(\d+)\.(weight|bias)": r"mapping.layers.\1.\2",
    r"mapping\.label_weight": r"mapping.label_weight",
    r"truncation\.w_avg": r"mapping.w_avg",
    r"synthesis\.layer(\d+)\.style\.(weight|bias)": r"synthesis.layers.\1.affine.\2",
    r"synthesis\.layer(\d+)\.apply_noise\.weight": r"synthesis.layers.\1.noise_weight",
    r"synthesis\.layer(\d+)\.apply_noise\.noise": Change(
        r"synthesis.layers.\1.noise_const", lambda noise: noise[0, 0], lambda noise: noise[None, None]
    ),
    r"synthesis\.layer(\d+)\.(weight|bias|const)": r"synthesis.layers.\1.\2",
    r"synthesis\.output(\d+)\.(weight|bias)": r"synthesis.to_rgb.\1.\2",
    r"layer(\d+)\.(weight|bias)": r"layers.\1.\2",
    r"input(\d+)\.(weight|bias)": r"from_rgb.\1.\2",
}
_STYLES = {"z_space_dim": "z_dim", "w_space_dim": "w_dim", "mapping_layers": "num_layers",
           "mapping_fmaps": "hidden_dim", "label_size": "num_classes"}  # fmt: skip


def _generator(state: State) -> Config:
    dense = numbered(state, r"mapping\.dense(\d+)\.weight")
    colours, label = numbered(state, r"synthesis\.output(\d+)\.weight"), state.get("mapping.label_weight")
    config = {"z_space_dim": dense[0].shape[1] // (1 if label is None else 2), "mapping_layers": len(dense)}
    config |= {"w_space_dim": dense[max(dense)].shape[0], "mapping_fmaps": dense[0].shape[0]}
    config |= {"label_size": 0 if label is None else label.shape[0], "image_channels": colours[0].shape[0]}
    return {**config, **port_maps([weight.shape[1] for weight in colours.values()]), "fused_scale": "auto"}


def _discriminator(state: State) -> Config:
    config, outputs, added = port_judge(state)
    groups = {"minibatch_std_group_size": 4 if added else 0, "minibatch_std_channels": max(added, 1)}
    return {**config, **groups, "label_size": outputs if outputs > 1 else 0, "fused_scale": "auto"}


OFFICIAL = [
    Release(
        class_name="StyleGANGenerator", network=Generator, keys=OFFICIAL_KEYS,
        arguments=renaming({**PORT_NAMES, **_STYLES}), config=_generator,
        begins={"synthesis.layer0.const": (4, 4)}, model=StyleGAN1, **PORT,
    ),
    Release(
        class_name="StyleGANDiscriminator", network=Discriminator, keys=OFFICIAL_KEYS,
        arguments=port_discriminator, config=_discriminator, begins={"input0.weight": (1, 1)},
        fits=lambda state: "layer1.blur.kernel" in state, name="D", **PORT,
    ),
]  # fmt: skip
