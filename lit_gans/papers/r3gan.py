"""R3GAN (Huang et al., 2024), https://arxiv.org/abs/2501.05441: a relativistic loss that R1 and R2 make well-behaved,
and networks without tricks: residual blocks of grouped convolutions that nothing normalises."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import relativistic
from lit_gans.adversarial.optim import half_cosine
from lit_gans.adversarial.penalties import Network, r1, r2
from lit_gans.augment import AdaptiveAugment
from lit_gans.base.checks import power_of_two
from lit_gans.data.base import ImageData
from lit_gans.nn.bias_act import bias_act
from lit_gans.nn.resample import downsample2d, fir_filter, upsample2d
from lit_gans.official import OfficialNetwork
from lit_gans.official.releases import Config, Release, numbered, renaming
from lit_gans.papers.stylegan2.networks import Half, as_condition, check_choice, computed_in

# ---- layers (Sec. 3) -------------------------------------------------------------------------------------------------

Penalty = Callable[[Network, Tensor], Tensor]
GAIN = math.sqrt(2 / (1 + 0.2**2))  # keeps the variance through a leaky rectifier of slope 0.2 (He et al., 2015)
LAYERS = 3  # convolutions in the branch of a block


class Convolution(nn.Conv2d):
    """A convolution without bias, computed in the precision of its input; weights from N(0, gain^2 / fan-in)."""

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        kernel_size: int = 1,
        *,
        groups: int = 1,
        gain: float = 1.0,
        padding: int | None = None,
    ) -> None:
        padding = kernel_size // 2 if padding is None else padding
        super().__init__(fan_in, fan_out, kernel_size, padding=padding, groups=groups, bias=False)
        scaled(self, gain)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight.to(x.dtype), padding=self.padding, groups=self.groups)


def scaled(layer: nn.Conv2d | nn.Linear, gain: float) -> nn.Module:
    """The layer, with weights from N(0, gain^2 / fan-in)."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    return layer


class Activation(nn.Module):
    """Bias and leaky rectifier of slope 0.2, without the gain that StyleGAN's have: x [N, C, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return bias_act(x, self.bias.to(x.dtype), act="lrelu", gain=1.0)


class ResidualBlock(nn.Module):
    """x [N, C, H, W] -> the same: to `expansion` times the maps, a grouped convolution there, and back.

    Nothing normalises the sum. Instead the branch begins as zero, and its other weights are small enough that its
    first steps change the output of all `num_blocks` blocks together by as much as one layer's would: gain times
    L^(-1 / (2m - 2)) for m layers in a branch (Fixup; Zhang et al., 2019).
    """

    def __init__(self, channels: int, *, cardinality: int, expansion: int, kernel_size: int, num_blocks: int) -> None:
        super().__init__()
        hidden, gain = channels * expansion, GAIN * num_blocks ** (-1 / (2 * LAYERS - 2))
        if hidden % cardinality:
            raise ValueError(
                f"cardinality {cardinality} does not divide the {hidden} maps of a block ({channels} x expansion "
                f"{expansion}): each of its groups has as many; the published have 16 or 32 in a group"
            )
        self.conv1, self.act1 = Convolution(channels, hidden, gain=gain), Activation(hidden)
        self.conv2 = Convolution(hidden, hidden, kernel_size, groups=cardinality, gain=gain)
        self.act2, self.conv3 = Activation(hidden), Convolution(hidden, channels, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))


class Upsample(nn.Module):
    """x [N, I, H, W] -> [N, O, 2 H, 2 W]: a 1x1 convolution where the widths differ, then the filter."""

    resample_filter: Tensor

    def __init__(self, fan_in: int, fan_out: int, *, resample_filter: Sequence[float]) -> None:
        super().__init__()
        self.conv = Convolution(fan_in, fan_out) if fan_in != fan_out else None
        self.register_buffer("resample_filter", fir_filter(interpolating(resample_filter)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return upsample2d(x if self.conv is None else self.conv(x), self.resample_filter)


class Downsample(nn.Module):
    """x [N, I, H, W] -> [N, O, H / 2, W / 2]: the filter, then a 1x1 convolution where the widths differ."""

    resample_filter: Tensor

    def __init__(self, fan_in: int, fan_out: int, *, resample_filter: Sequence[float]) -> None:
        super().__init__()
        self.conv = Convolution(fan_in, fan_out) if fan_in != fan_out else None
        self.register_buffer("resample_filter", fir_filter(interpolating(resample_filter)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = downsample2d(x, self.resample_filter)
        return x if self.conv is None else self.conv(x)


def interpolating(taps: Sequence[float]) -> list[float]:
    """The filter of k taps convolved with [1, 1], so that it has its middle between pixels: k + 1 taps."""
    return [a + b for a, b in zip([0.0, *taps], [*taps, 0.0], strict=True)]


class GenerativeBasis(nn.Module):
    """z [N, Z] -> [N, C, 4, 4]: learned maps, each times a linear function of z."""

    def __init__(self, fan_in: int, channels: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(channels, 4, 4))
        self.linear = scaled(nn.Linear(fan_in, channels, bias=False), 1.0)

    def forward(self, z: Tensor) -> Tensor:
        return self.basis * self.linear(z)[:, :, None, None]


class DiscriminativeBasis(nn.Module):
    """x [N, C, 4, 4] -> [N, E]: each map's product with a learned one, then a linear layer."""

    def __init__(self, channels: int, fan_out: int) -> None:
        super().__init__()
        self.basis = Convolution(channels, channels, 4, groups=channels, padding=0)
        self.linear = scaled(nn.Linear(channels, fan_out, bias=False), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.basis(x).flatten(1))  # [N, C, 4, 4] -> [N, C, 1, 1] -> [N, C]


class Stage(nn.Sequential):
    """The layers of one resolution, computed in `half` (None: in full) where that is fast."""

    def __init__(self, *layers: nn.Module, half: torch.dtype | None) -> None:
        super().__init__(*layers)
        self.half = half

    @property
    def dtype(self) -> torch.dtype:
        return computed_in(self.half, next(self.parameters()), force_fp32=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.dtype))


# ---- networks --------------------------------------------------------------------------------------------------------


class Staged(nn.Module):
    """What both networks are built from; lists are of the stages at 4, 8, ..., R pixels.

    Args:
        widths: feature maps. num_blocks: residual blocks.
        cardinalities: groups of the blocks' grouped convolutions. expansion: maps there, in widths.
        c_dim: classes, or numbers of a condition; 0 without. embed_dim: numbers that a condition is embedded in.
        kernel_size: of the grouped convolutions.
        resample_filter: taps that are made even, see `interpolating`.
        num_half_res, half_dtype: so many of the largest resolutions compute in half precision (on CUDA; elsewhere it
            is slow, and they compute in full), never 4 pixels.

    Raises:
        ValueError: lists of unequal lengths, numbers that are not positive, or groups that do not divide.
    """

    embed: nn.Module | None

    def __init__(
        self,
        *,
        widths: Sequence[int],
        cardinalities: Sequence[int],
        num_blocks: Sequence[int],
        expansion: int = 2,
        channels: int = 3,
        c_dim: int = 0,
        embed_dim: int = 0,
        kernel_size: int = 3,
        resample_filter: Sequence[float] = (1, 2, 1),
        num_half_res: int = 0,
        half_dtype: Half = "bfloat16",
    ) -> None:
        super().__init__()
        stages = len(widths)
        if not stages or not stages == len(cardinalities) == len(num_blocks):
            raise ValueError(
                f"widths, cardinalities and num_blocks have {stages}, {len(cardinalities)} and {len(num_blocks)} "
                "numbers: give one for every stage, from 4 pixels on, in each"
            )
        if min(*widths, *cardinalities, *num_blocks, expansion) < 1:
            raise ValueError(
                f"widths {list(widths)}, cardinalities {list(cardinalities)}, num_blocks {list(num_blocks)} and "
                f"expansion {expansion} must all be 1 or more"
            )
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is even and has no centre: use 1, 3, ...")
        if not 0 <= num_half_res < stages:
            raise ValueError(
                f"num_half_res {num_half_res}: of {stages} resolutions 0 to {stages - 1} can compute in half precision"
            )
        if c_dim and embed_dim < 1:
            raise ValueError(f"embed_dim {embed_dim}: conditions of {c_dim} numbers need 1 or more to be embedded in")
        check_choice("half_dtype", half_dtype, Half)
        self.widths, self.cardinalities, self.num_blocks = list(widths), list(cardinalities), list(num_blocks)
        self.resolution, self.channels = 4 * 2 ** (stages - 1), channels
        self.c_dim, self.embed_dim = c_dim, embed_dim if c_dim else 0
        self.expansion, self.kernel_size, self.resample_filter = expansion, kernel_size, list(resample_filter)
        halves = [i >= stages - num_half_res for i in range(stages)]
        self.halves = [getattr(torch, half_dtype) if half else None for half in halves]

    def blocks(self, i: int) -> list[nn.Module]:
        """The residual blocks of stage i."""
        sizes = {"cardinality": self.cardinalities[i], "expansion": self.expansion, "kernel_size": self.kernel_size}
        sizes["num_blocks"] = sum(self.num_blocks)
        return [ResidualBlock(self.widths[i], **sizes) for _ in range(self.num_blocks[i])]

    def embedding(self, *, gain: float) -> nn.Module | None:
        """A linear layer without bias, None without conditions."""
        return scaled(nn.Linear(self.c_dim, self.embed_dim, bias=False), gain) if self.c_dim else None

    def embedded(self, c: Tensor | None) -> Tensor:
        """Labels int64 [N] or conditions [N, c_dim] -> [N, embed_dim]. ValueError for others."""
        assert self.embed is not None
        if c is None:
            raise ValueError(f"this network is conditional: give labels [N] or conditions [N, {self.c_dim}]")
        return self.embed(as_condition(c, self.c_dim))


class Generator(Staged):
    """z [N, Z], conditions -> images [N, C, R, R], around [-1, 1] but not confined to it; arguments as of `Staged`."""

    def __init__(self, *, z_dim: int, **shape: Any) -> None:
        super().__init__(**shape)
        self.z_dim, widths, taps = z_dim, self.widths, self.resample_filter
        self.embed = self.embedding(gain=1.0)
        starts: list[nn.Module] = [GenerativeBasis(z_dim + self.embed_dim, widths[0])]
        starts += [Upsample(a, b, resample_filter=taps) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        self.stages = nn.ModuleList(
            Stage(start, *self.blocks(i), half=self.halves[i]) for i, start in enumerate(starts)
        )
        self.to_rgb = Convolution(widths[-1], self.channels)  # no activation follows

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """c: labels int64 [N], or vectors [N, c_dim]; None without conditions."""
        x = z if self.embed is None else torch.cat([z, self.embedded(c)], 1)
        for stage in self.stages:
            x = stage(x)
        images = self.to_rgb(x)
        # The official images stay in the last stage's precision; ours are in full, as all images here are.
        return images.to(torch.promote_types(images.dtype, torch.float32))


class Discriminator(Staged):
    """images [N, C, R, R], conditions -> logits [N]; the stages are the generator's, from R to 4 pixels.

    Arguments as of `Staged`. With conditions the logit is the image's features times the embedded condition.
    """

    def __init__(self, **shape: Any) -> None:
        super().__init__(**shape)
        widths, taps = self.widths, self.resample_filter
        self.from_rgb = Convolution(self.channels, widths[-1])
        ends: list[nn.Module] = [DiscriminativeBasis(widths[0], self.embed_dim or 1)]
        ends += [Downsample(b, a, resample_filter=taps) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        self.stages = nn.ModuleList(
            Stage(*self.blocks(i), ends[i], half=self.halves[i]) for i in reversed(range(len(widths)))
        )
        self.embed = self.embedding(gain=1 / math.sqrt(self.embed_dim or 1))  # a sum of so many products has unit size

    def forward(self, images: Tensor, c: Tensor | None = None) -> Tensor:
        """c: labels int64 [N], or vectors [N, c_dim]; None without conditions."""
        x = self.from_rgb(images.to(self.stages[0].dtype))
        for stage in self.stages:
            x = stage(x)
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # the loss is of small differences of logits
        return x.flatten() if self.embed is None else (x * self.embedded(c)).sum(1)


# ---- training (Sec. 2) -----------------------------------------------------------------------------------------------


class R3GAN(GAN):
    """A relativistic pairing loss with R1 and R2 in every step (Sec. 2), on schedules of half a cosine.

    Either player's step has reals and latents of its own, as in the authors' code: of each batch of the data the
    discriminator's takes rows 0, 2, 4, ..., the generator's rows 1, 3, 5, .... So the data's batch size is twice the
    published one, and so is what the clock counts: the authors' 20 million images are 40,000 kimg here.

    Args:
        resolution: 4 times a power of two from 2 on.
        widths, cardinalities, num_blocks: of each stage of both players, at 4, 8, ..., `resolution` pixels: feature
            maps, groups of the grouped convolutions, residual blocks. expansion: maps between these, in widths.
        num_half_res, half_dtype: so many of the largest resolutions compute in half precision (on CUDA; elsewhere it
            is slow, and they compute in full); published 3 at 32 pixels, 4 from 64 on, in bfloat16.
        lr, lr_end, gamma, gamma_end, betas, beta2_end: of both players' Adam and of R1 and R2, at the beginning and
            from `decay_kimg` on. The first beta stays.
        augment: applied to all images that the discriminator sees; its p is scheduled too, from 0 to `augment_p_end`,
            and nothing is adapted: the AdaptiveAugmentation callback must be off.
        decay_kimg: until when the schedules run; None: to the end of training. The average's half-life is scheduled
            by its callback (`ema.rise_kimg`).
        **game: channels, num_classes, total_kimg, ... of `GAN`.

    Raises:
        ValueError: lists that do not fit the resolution, or a schedule of `Game` beside these.
    """

    only_in_training = ("augment",)

    def __init__(
        self,
        *,
        resolution: int = 32,
        channels: int = 3,
        num_classes: int = 0,
        z_dim: int = 64,
        widths: Sequence[int] = (768, 768, 768, 768),
        cardinalities: Sequence[int] = (96, 96, 96, 96),
        num_blocks: Sequence[int] = (2, 2, 2, 2),
        expansion: int = 2,
        num_half_res: int = 0,
        half_dtype: Half = "bfloat16",
        lr: float = 2e-4,
        lr_end: float = 5e-5,
        betas: tuple[float, float] = (0.0, 0.9),
        beta2_end: float = 0.99,
        gamma: float = 0.05,
        gamma_end: float = 0.005,
        augment: AdaptiveAugment | None = None,
        augment_p_end: float = 0.55,
        decay_kimg: float | None = None,
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, **game)
        self.save_hyperparameters(ignore=["augment"])  # sampling needs none; training takes it from the config
        levels = power_of_two("resolution", resolution, least=8, why="R3GAN's stages double it from 4: use 32, 64, 256")
        if len(widths) != levels - 1:
            raise ValueError(
                f"widths has {len(widths)} numbers, and {resolution} pixels have {levels - 1} stages, from 4 pixels "
                "on: give widths, cardinalities and num_blocks so many"
            )
        if self.schedule != "constant" or self.warmup_kimg > 0:
            raise ValueError(
                f"schedule {self.schedule!r}, warmup_kimg {self.warmup_kimg:g}: R3GAN's learning rate goes from lr to "
                "lr_end by decay_kimg; leave these out"
            )
        if decay_kimg is not None and decay_kimg <= 0:
            raise ValueError(f"decay_kimg {decay_kimg} is not positive; None takes the length of training")
        scheduled = {"lr": lr, "lr_end": lr_end, "gamma": gamma, "gamma_end": gamma_end, "augment_p_end": augment_p_end}
        if wrong := [f"{name} {value}" for name, value in scheduled.items() if value < 0]:
            raise ValueError(f"{wrong[0]} is negative: schedules go between numbers from 0 on")
        shape: dict[str, Any] = {"widths": widths, "cardinalities": cardinalities, "num_blocks": num_blocks}
        shape |= {"expansion": expansion, "channels": channels, "c_dim": num_classes}
        shape |= {"num_half_res": num_half_res, "half_dtype": half_dtype}
        self.generator = Generator(z_dim=z_dim, embed_dim=z_dim, **shape)
        self.discriminator = Discriminator(embed_dim=widths[0], **shape)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.augment, self.augment_p_end = augment, augment_p_end
        self.lr, self.lr_end, self.betas, self.beta2_end = lr, lr_end, betas, beta2_end
        self.gamma, self.gamma_end, self.decay_kimg = gamma, gamma_end, decay_kimg

    @classmethod
    def from_generator(cls, generator: Generator) -> R3GAN:
        """A generator alone, such as a released one, for sampling and measuring.

        It takes both the averaged generator's place and the other's; the discriminator is a tiny one, never trained.
        """
        size = {"resolution": generator.resolution, "channels": generator.channels, "z_dim": generator.z_dim}
        one = [1] * len(generator.widths)
        tiny = {"widths": one, "cardinalities": one, "num_blocks": one, "expansion": 1}
        gan = cls(**size, **tiny, num_classes=generator.c_dim)
        gan.generator = gan.generator_ema = generator
        return gan

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        gamma = self.now(self.gamma, self.gamma_end)
        with self.updating(opt_d):
            for x, z, c in self.split(*self.share(batch, "d")):
                with torch.no_grad():
                    fake = self.generator(z, c)
                real_logits, r1_penalty = self.judged(r1, x, c)
                fake_logits, r2_penalty = self.judged(r2, fake, c)
                d_loss, _ = relativistic(real_logits, fake_logits)  # fake i against real i
                self.accumulate(d_loss + gamma / 2 * (r1_penalty + r2_penalty))
                self.report_discriminator(d_loss, real_logits, fake_logits)
                self.report(r1=r1_penalty, r2=r2_penalty)
        with self.updating(opt_g):
            for x, z, c in self.split(*self.share(batch, "g")):
                fake_logits = self.discriminator(self.augmented(self.generator(z, c)), c)
                with torch.no_grad():
                    real_logits = self.discriminator(self.augmented(x), c)
                _, g_loss = relativistic(real_logits, fake_logits)
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    def share(self, batch: dict[str, Tensor], player: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """Reals, latents and labels of the step of player "d" or "g": every other row of the batch.

        Of a process's rows, which lie together in the global batch, these are its part of those of one process.
        Fakes take the labels of the reals beside which they are judged, as in the authors' code.
        """
        if (images := len(batch["image"])) % 2:
            raise ValueError(f"a batch of {images} images on a process: R3GAN shares it out in two, give an even size")
        first = "dg".index(player)
        real, label = batch["image"][first::2], batch["label"][first::2] if self.num_classes else None
        return real, self.latents(len(real), player), label

    def judged(self, penalty: Penalty, images: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [N], and the penalty on their gradients at the images before augmentation, by one pass."""
        logits: list[Tensor] = []

        def network(images: Tensor) -> Tensor:
            logits.append(self.discriminator.forward(self.augmented(images), c))
            return logits[0]

        found = penalty(network, images)
        return logits[0], found

    def augmented(self, images: Tensor) -> Tensor:
        return images if self.augment is None else self.augment(images)

    def now(self, start: float, end: float) -> float:
        """The present value of what goes from `start` to `end`."""
        over_kimg = self.total_kimg if self.decay_kimg is None else self.decay_kimg
        return half_cosine(self.kimg, start, end, over_kimg=over_kimg)

    # ---- what Lightning calls ----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        parts = 2 * self.trainer.world_size * self.micro_batches
        if stage == "fit" and isinstance(data, ImageData) and data.batch_size % parts:
            raise ValueError(
                f"batch_size {data.batch_size} (global) is shared out between the two players' steps of "
                f"{self.trainer.world_size} processes x {self.micro_batches} micro-batches: use a multiple of {parts}"
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        for group in (group for optimizer in self.trainer.optimizers for group in optimizer.param_groups):
            group["lr"] = self.now(self.lr, self.lr_end)
            group["betas"] = (self.betas[0], self.now(self.betas[1], self.beta2_end))
        if self.augment is not None:
            self.augment.p.fill_(self.now(0.0, self.augment_p_end))
            self.report(augment_p=self.augment.p.clone())
        return super().on_train_batch_start(batch, batch_idx)

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> images [N, C, H, W] in [-1, 1]; psi scales the latent; differentiable."""
        with self.sampling(ema=ema) as network:
            return network(psi * z, labels).clamp(-1, 1)


# ---- released weights ------------------------------------------------------------------------------------------------

_BLOCK = r"(?:Model\.)?MainLayers\.(\d+)\.Layers\.(\d+)"
# State-dict names of the official networks -> ours: of brownvc/R3GAN's `R3GAN.Networks`, and of the networks of its
# trainings, which hold one of those as `Model`.
OFFICIAL_KEYS: dict[str, str | None] = {
    r"(?:Model\.)?EmbeddingLayer\.weight": "embed.weight",
    r"(?:Model\.)?AggregationLayer\.Layer\.weight": "to_rgb.weight",
    r"(?:Model\.)?ExtractionLayer\.Layer\.weight": "from_rgb.weight",
    rf"{_BLOCK}\.LinearLayer([123])\.Layer\.weight": r"stages.\1.\2.conv\3.weight",
    rf"{_BLOCK}\.NonLinearity([12])\.Bias": r"stages.\1.\2.act\3.bias",
    rf"{_BLOCK}\.LinearLayer\.Layer\.weight": r"stages.\1.\2.conv.weight",
    rf"{_BLOCK}\.Basis": r"stages.\1.\2.basis",  # the generator's
    rf"{_BLOCK}\.Basis\.weight": r"stages.\1.\2.basis.weight",
    rf"{_BLOCK}\.LinearLayer\.weight": r"stages.\1.\2.linear.weight",
    rf"{_BLOCK}\.Resampler\.Kernel": None,  # of `resample_filter`
}

# Official constructor arguments -> ours; None: told by others.
_arguments = renaming({
    "NoiseDimension": "z_dim", "WidthPerStage": "widths", "CardinalityPerStage": "cardinalities",
    "BlocksPerStage": "num_blocks", "ExpansionFactor": "expansion", "KernelSize": "kernel_size",
    "ResamplingFilter": "resample_filter", "ConditionDimension": "c_dim", "ConditionEmbeddingDimension": "embed_dim",
    "c_dim": "c_dim", "FP16Stages": "num_half_res", "img_resolution": None,
})  # fmt: skip
PER_STAGE = ("widths", "cardinalities", "num_blocks")


def from_official_config(config: Config) -> Config:
    """Arguments of an official Generator or Discriminator -> of ours of the same name.

    The official discriminator's lists begin at the image, ours, as the generator's, at 4 pixels.

    Raises:
        ValueError: an argument is not known, or half precision is not in the largest resolutions.
    """
    ours = _arguments(config)
    ours["c_dim"] = ours.get("c_dim") or 0
    halves = list(ours.pop("num_half_res", ()))
    generator = "z_dim" in ours
    largest = list(range(-1, -len(halves) - 1, -1)) if generator else list(range(len(halves)))
    if sorted(halves) != sorted(largest):
        raise ValueError(f"FP16Stages {halves} are not those of the largest resolutions, {largest}: ours are no others")
    ours |= {name: list(ours[name]) if generator else list(ours[name])[::-1] for name in PER_STAGE if name in ours}
    return ours | {"num_half_res": len(halves)}


def told(network: OfficialNetwork) -> Config:
    """The official arguments of a pickle's network, which says none of them, by its names and shapes.

    Half precision, which they do not tell, is that of the authors' configurations for its resolution.
    """
    state = {name.removeprefix("Model."): tensor for name, tensor in network.state.items()}
    last = max(int(m[1]) for name in state if (m := re.match(r"MainLayers\.(\d+)\.", name)))
    name = r"MainLayers\.{}\.Layers\.(\d+)\.LinearLayer2\.Layer\.weight"
    grouped = [numbered(state, name.format(i)) for i in range(last + 1)]  # of each stage, by its blocks' numbers
    first = [next(iter(blocks), -1) for blocks in grouped]
    inner = [state[f"MainLayers.{i}.Layers.{n}.LinearLayer1.Layer.weight"] for i, n in enumerate(first)]
    hidden, width = inner[0].shape[:2]
    found: Config = {"WidthPerStage": [w.shape[1] for w in inner], "BlocksPerStage": [len(b) for b in grouped]}
    groups = [weight.shape[0] // blocks[n].shape[1] for weight, blocks, n in zip(inner, grouped, first, strict=True)]
    found |= {"CardinalityPerStage": groups, "ExpansionFactor": hidden // width}
    found["KernelSize"] = grouped[0][first[0]].shape[-1]
    if (table := state.get("EmbeddingLayer.weight")) is not None:
        found |= {"ConditionEmbeddingDimension": table.shape[0], "ConditionDimension": table.shape[1]}
    if kernels := [tensor for name, tensor in state.items() if name.endswith(".Resampler.Kernel")]:
        found["ResamplingFilter"] = _before_interpolating(kernels[0].sum(0).tolist())
    halves = list(range(_published_half(4 * 2**last)))
    if "AggregationLayer.Layer.weight" not in state:
        return found | {"FP16Stages": halves}
    noise = state["MainLayers.0.Layers.0.LinearLayer.weight"].shape[1] - found.get("ConditionEmbeddingDimension", 0)
    return found | {"NoiseDimension": noise, "FP16Stages": [-1 - i for i in halves]}


def _published_half(resolution: int) -> int:
    """How many resolutions the authors' configurations compute in half precision."""
    return 4 if resolution >= 64 else 3 if resolution == 32 else 0


def _before_interpolating(taps: Sequence[float]) -> list[float]:
    """The filter of which `interpolating` makes these taps, but for a factor."""
    found = [taps[0]]
    for tap in taps[1:-1]:
        found.append(tap - found[-1])
    return [tap / found[0] for tap in found] if found[0] else found


def of_training(generator: Config) -> Config:
    """A generator's arguments -> those of `R3GAN`: sizes, and how it computes."""
    names = (*PER_STAGE, "expansion", "z_dim", "num_half_res")
    found = {"channels": 3} | {name: generator[name] for name in (*names, "channels") if name in generator}
    return found | {"resolution": 4 * 2 ** (len(generator["widths"]) - 1), "num_classes": generator["c_dim"]}


OFFICIAL = [
    Release(
        "R3GAN", "Generator", Generator, OFFICIAL_KEYS, from_official_config, model=R3GAN, says=told, trains=of_training
    ),
    Release("R3GAN", "Discriminator", Discriminator, OFFICIAL_KEYS, from_official_config, name="D", says=told),
]
