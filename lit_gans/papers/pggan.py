"""PGGAN: progressive growing of GANs (Karras et al., 2018), https://arxiv.org/abs/1710.10196.

Both networks begin at 4 pixels and double, stage by stage; the FadeIn callback says when, and at which batch size.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, cross_entropy, interpolate, linear, one_hot

from lit_gans.adversarial import GAN, Growing, lazy_adam
from lit_gans.adversarial.losses import wasserstein
from lit_gans.adversarial.penalties import gradient_penalty
from lit_gans.adversarial.progressive import SMALLEST_PX, blended, enlarged, grow_together
from lit_gans.nn.bias_act import bias_act
from lit_gans.nn.equalized import EqualizedConv2d, EqualizedLinear
from lit_gans.nn.minibatch_std import MinibatchStd
from lit_gans.nn.mode import evaluating
from lit_gans.official.releases import Config, Release, State, numbered, renaming

FusedScale = Literal["auto"] | bool
FUSED_FROM_PX = 128  # "auto": convolution and resampling are one kernel from here on

# ---- layers (Sec. 4.1 and 4.2) ---------------------------------------------------------------------------------------


def stages(resolution: int) -> list[int]:
    """4, 8, ..., resolution."""
    return [SMALLEST_PX << level for level in range((resolution // SMALLEST_PX).bit_length())]


def widths(resolution: int, *, channel_base: int, channel_max: int) -> dict[int, int]:
    """Feature maps at 2 pixels (the last but one layer of the discriminator), 4, ..., resolution (Table 2).

    `channel_base / stage`, at most `channel_max`; base 16384 is 8192 in the official code, which counts from 2 pixels.

    Raises:
        ValueError: nothing is left at the full resolution.
    """
    if channel_base < resolution or channel_max < 1:
        raise ValueError(
            f"channel_base {channel_base} and channel_max {channel_max} leave no feature map at {resolution} pixels: "
            f"use at least {resolution} and 1; the paper has 16384 and 512"
        )
    return {px: min(channel_base // px, channel_max) for px in [2, *stages(resolution)]}


def is_fused(fused_scale: FusedScale, px: int) -> bool:
    """Whether the layer between px / 2 and px joins convolution and resampling.

    Raises:
        ValueError: fused_scale is neither a truth value nor "auto".
    """
    if fused_scale not in (True, False, "auto"):
        raise ValueError(f"fused_scale {fused_scale!r} is not one of true, false, 'auto'")
    return px >= FUSED_FROM_PX if fused_scale == "auto" else bool(fused_scale)


def pixel_norm(x: Tensor) -> Tensor:
    """x [N, C, ...], each pixel's features divided by the root of their mean square (Sec. 4.2)."""
    y = x.to(torch.promote_types(x.dtype, torch.float32))  # 1e-8 is nothing in half precision
    return (y * (y.square().mean(1, keepdim=True) + 1e-8).rsqrt()).to(x.dtype)


def boxed(weight: Tensor) -> Tensor:
    """[..., 3, 3] -> [..., 4, 4]: the kernel that convolves and, with stride 2, averages 2x2 pixels."""
    return avg_pool2d(weight, 2, stride=1, padding=1)


def as_one_hot(labels: Tensor | None, num_classes: int) -> Tensor:
    """Class labels [N] int64 -> [N, num_classes]; vectors [N, num_classes] as they are.

    Raises:
        ValueError: no labels, or another shape.
    """
    if labels is None:
        raise ValueError(f"this network is conditional: give labels [N] of {num_classes} classes")
    c = one_hot(labels, num_classes).float() if labels.dim() == 1 and not labels.is_floating_point() else labels
    if c.dim() != 2 or c.shape[1] != num_classes:
        raise ValueError(f"labels of shape {tuple(labels.shape)}: expected classes [N] or vectors [N, {num_classes}]")
    return c


class Conv(nn.Module):
    """x [N, I, H, W] -> lrelu(conv(x) + b) [N, O, H, W].

    The weight is drawn from N(0, 1) and scaled at runtime by He's constant sqrt(2 / fan_in) (Sec. 4.1). It is not
    `EqualizedConv2d`, whose root of 2 comes after the activation and multiplies the bias too.
    """

    def __init__(self, fan_in: int, fan_out: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.scale = math.sqrt(2 / (fan_in * kernel**2))

    def forward(self, x: Tensor) -> Tensor:
        y = conv2d(x, self.weight * self.scale, padding=self.weight.shape[-1] // 2)
        return bias_act(y, self.bias, act="lrelu", gain=1.0)


class UpConv(nn.Module):
    """x [N, I, H, W] -> lrelu(conv(x enlarged) + b) [N, O, 2H, 2W].

    Fused, it is one transposed convolution, whose weight [I, O, 3, 3] does what [O, I, 3, 3] mirrored does unfused.
    """

    def __init__(self, fan_in: int, fan_out: int, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.weight = nn.Parameter(torch.randn(*((fan_in, fan_out) if fused else (fan_out, fan_in)), 3, 3))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.scale = math.sqrt(2 / (fan_in * 9))

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:  # each pixel becomes four, which all have its value: a sum, where `boxed` averages
            y = conv_transpose2d(x, boxed(self.weight) * (4 * self.scale), stride=2, padding=1)
        else:
            y = conv2d(interpolate(x, scale_factor=2), self.weight * self.scale, padding=1)
        return bias_act(y, self.bias, act="lrelu", gain=1.0)


class DownConv(Conv):
    """x [N, I, H, W] -> [N, O, H / 2, W / 2]: averaged over 2x2 pixels after the activation, or before it if fused."""

    def __init__(self, fan_in: int, fan_out: int, *, fused: bool) -> None:
        super().__init__(fan_in, fan_out)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        if not self.fused:
            return avg_pool2d(super().forward(x), 2)
        y = conv2d(x, boxed(self.weight) * self.scale, stride=2, padding=1)
        return bias_act(y, self.bias, act="lrelu", gain=1.0)


class FromLatent(nn.Module):
    """z [N, Z] -> lrelu(w z + b) [N, O, 4, 4], with the gain sqrt(2) / 4 over sqrt(Z) of the official code.

    The weight [O, Z, 4, 4] is a convolution's over a padded pixel, and so its space is mirrored.
    """

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, SMALLEST_PX, SMALLEST_PX))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.scale = math.sqrt(2 / fan_in) / 4

    def forward(self, z: Tensor) -> Tensor:
        y = torch.tensordot(z, (self.weight * self.scale).flip((2, 3)), dims=([1], [1]))  # [N, O, 4, 4]
        return bias_act(y, self.bias, act="lrelu", gain=1.0)


class Dense(nn.Module):
    """x [N, ...] -> lrelu(w x + b) [N, O], scaled as `Conv`."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(fan_out, fan_in)), nn.Parameter(torch.zeros(fan_out))
        self.scale = math.sqrt(2 / fan_in)

    def forward(self, x: Tensor) -> Tensor:
        return bias_act(linear(x.flatten(1), self.weight * self.scale), self.bias, act="lrelu", gain=1.0)


# ---- the generator (Table 2) -----------------------------------------------------------------------------------------


class Generator(Growing):
    """z [N, Z] (and labels [N] or [N, K]) -> images [N, C, stage, stage], around [-1, 1] but not confined to it.

    fused_scale: in which layers convolution and enlarging are one kernel; "auto" is from 128 pixels on.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channels: int = 3,
        z_dim: int = 512,
        num_classes: int = 0,
        channel_base: int = 16384,
        channel_max: int = 512,
        fused_scale: FusedScale = False,
    ) -> None:
        super().__init__(resolution)
        self.num_classes, maps = num_classes, widths(resolution, channel_base=channel_base, channel_max=channel_max)
        layers: list[nn.Module] = [FromLatent(z_dim + num_classes, maps[SMALLEST_PX])]
        for px in stages(resolution):
            if px > SMALLEST_PX:
                layers.append(UpConv(maps[px // 2], maps[px], fused=is_fused(fused_scale, px)))
            layers.append(Conv(maps[px], maps[px]))
        self.layers = nn.ModuleList(layers)  # two of each stage
        self.to_rgb = nn.ModuleList(EqualizedConv2d(maps[px], channels, 1) for px in stages(resolution))  # gain 1

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = before = self.normalized(z, labels)
        newest = len(stages(self.stage)) - 1
        for i in range(2 * newest + 2):
            before = x if i % 2 == 0 else before  # what the newest stage begins with
            x = pixel_norm(self.layers[i](x))
        image = self.to_rgb[newest](x)
        if self.fading:  # Figure 2b
            image = self.faded(interpolate(self.to_rgb[newest - 1](before), scale_factor=2), image)
        return image

    def normalized(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Latents on the hypersphere (Sec. A.1); a label is put beside them, and both are normalised together."""
        if not self.num_classes:
            return pixel_norm(z)
        return pixel_norm(torch.cat([pixel_norm(z), as_one_hot(labels, self.num_classes).to(z)], 1))


# ---- the discriminator (Table 2) -------------------------------------------------------------------------------------


class GrowingDiscriminator(Growing):
    """The layers of a discriminator that grows: images [N, C, stage, stage] -> outputs [N, O] by `analysed`.

    `layers` and `from_rgb` begin at the full resolution; what lies above the present stage is not run.
    """

    def __init__(
        self, down: Sequence[nn.Module], *, channels: int, maps: dict[int, int], outputs: int, mbstd: nn.Module | None
    ) -> None:
        """down: the layers that halve, from the full resolution on; mbstd: what adds channels at 4 pixels."""
        resolution = max(maps)
        super().__init__(resolution)
        falling = stages(resolution)[::-1]
        layers: list[nn.Module] = []
        for px, halving in zip(falling[:-1], down, strict=True):
            layers += [Conv(maps[px], maps[px]), halving]
        added = mbstd.num_channels if mbstd is not None else 0
        layers += [Conv(maps[4] + added, maps[4]), Dense(maps[4] * 16, maps[2]), EqualizedLinear(maps[2], outputs)]
        self.layers, self.minibatch_std = nn.ModuleList(layers), mbstd
        self.from_rgb = nn.ModuleList(Conv(channels, maps[px], kernel=1) for px in falling)

    def from_image_on(self) -> list[nn.Module]:
        """The layers as an image passes them at the full resolution."""
        found: list[nn.Module] = []
        for i, colours in enumerate(self.from_rgb):
            found += [colours, *self.layers[2 * i : 2 * i + 2]]
        return [*found, self.layers[-1]]

    def analysed(self, images: Tensor) -> Tensor:
        """Raises ValueError for images of another size than the present stage's."""
        if tuple(images.shape[2:]) != (self.stage, self.stage):
            raise ValueError(
                f"images of {images.shape[2]}x{images.shape[3]} pixels at stage {self.stage}: scale them to the stage, "
                "or call set_progress"
            )
        level = len(self.from_rgb) - len(stages(self.stage))  # how many stages are still to come
        x = self.from_rgb[level](images)
        for i in range(2 * level, len(self.layers) - 3):
            x = self.layers[i](x)
            if i == 2 * level + 1 and self.fading:  # the first halving joins what the stage before began with
                x = self.faded(self.from_rgb[level + 1](avg_pool2d(images, 2)), x)
        x = x if self.minibatch_std is None else self.minibatch_std(x)
        for layer in self.layers[-3:]:
            x = layer(x)
        return x


def mbstd_layer(group_size: int | None, num_channels: int) -> MinibatchStd | None:
    """Minibatch standard deviation; None for 0 channels."""
    return MinibatchStd(group_size, num_channels) if num_channels else None


class Discriminator(GrowingDiscriminator):
    """images [N, C, stage, stage] -> logits [N]; a conditional one also names the class (`classify`).

    mbstd_group_size None: one group of the whole batch; mbstd_channels 0: no minibatch standard deviation.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channels: int = 3,
        num_classes: int = 0,
        channel_base: int = 16384,
        channel_max: int = 512,
        fused_scale: FusedScale = False,
        mbstd_group_size: int | None = 4,
        mbstd_channels: int = 1,
    ) -> None:
        maps = widths(resolution, channel_base=channel_base, channel_max=channel_max)
        falling = stages(resolution)[:0:-1]
        down = [DownConv(maps[px], maps[px // 2], fused=is_fused(fused_scale, px)) for px in falling]
        mbstd = mbstd_layer(mbstd_group_size, mbstd_channels)
        super().__init__(down, channels=channels, maps=maps, outputs=1 + num_classes, mbstd=mbstd)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The labels have no say: fakes must look real, and be recognised besides."""
        return self.analysed(images)[:, 0]

    def classify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(logits [N], logits of the classes [N, K])."""
        outputs = self.analysed(images)
        return outputs[:, 0], outputs[:, 1:]


# ---- training (App. A.1) ---------------------------------------------------------------------------------------------


class PGGAN(GAN):
    """Appendix A.1. Every batch updates the critic; every `n_critic`-th also the generator.

    Without FadeIn it trains at the full resolution from the start. Fakes of a stage that fades in are judged beside
    reals that fade in alike. A minibatch-std group lies inside one process's micro-batch. With classes it is an
    AC-GAN, as the official code has it; the paper's models have none.

    Args:
        resolution: a power of two from 4.
        channel_base, channel_max, fused_scale, mbstd_group_size, mbstd_channels: see the networks. The paper's runs
            had mbstd_group_size 16, the authors' later ones 4.
        penalty_weight: lambda of the gradient penalty, whose target is 1.
        drift: weight of the mean squared logit of the reals, which keeps it from drifting away from 0.
        class_weight: of the classification of reals and fakes.
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
        channel_base: int = 16384,
        channel_max: int = 512,
        fused_scale: FusedScale = False,
        mbstd_group_size: int | None = 4,
        mbstd_channels: int = 1,
        n_critic: int = 1,
        penalty_weight: float = 10.0,
        drift: float = 0.001,
        class_weight: float = 1.0,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.0, 0.99),
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, **game)
        self.save_hyperparameters()
        if n_critic < 1:
            raise ValueError(f"n_critic {n_critic} is below 1: the generator steps in every n_critic-th batch")
        shared = {"resolution": resolution, "channels": channels, "num_classes": num_classes}
        shared |= {"channel_base": channel_base, "channel_max": channel_max, "fused_scale": fused_scale}
        self.generator = Generator(z_dim=z_dim, **shared)
        self.discriminator = Discriminator(mbstd_group_size=mbstd_group_size, mbstd_channels=mbstd_channels, **shared)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.n_critic, self.lr, self.betas = n_critic, lr, betas
        self.penalty_weight, self.drift, self.class_weight = penalty_weight, drift, class_weight

    @classmethod
    def from_generator(cls, generator: Generator) -> PGGAN:
        """A generator alone, such as a released one, for sampling and measuring; the discriminator is a tiny one."""
        resolution, classes = generator.resolution, generator.num_classes
        size = {"resolution": resolution, "channels": generator.to_rgb[0].weight.shape[0], "num_classes": classes}
        z_dim = generator.layers[0].weight.shape[1] - classes
        gan = cls(**size, z_dim=z_dim, channel_base=resolution, channel_max=1)
        gan.generator = gan.generator_ema = generator
        return gan

    def set_progress(self, stage: int, alpha: float) -> None:
        """All networks go to `stage` pixels, with a share `alpha` of its layers; batches have its size from then on."""
        players = self.generator, self.generator_ema, self.discriminator
        grow_together(players, stage, alpha, leader=self.discriminator, compiled=self._compile)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        label = batch["label"] if self.num_classes else None
        real, n = blended(batch["image"], self.discriminator.alpha), len(batch["image"])
        mixes = self.draws("mix").uniform(n)
        with self.updating(opt_d):
            for x, z, c, mix in self.split(real, self.latents(n, "d"), label, mixes):
                fake = self.generator(z, c)
                (real_logits, real_class), (fake_logits, fake_class) = self.judged(x, c), self.judged(fake, c)
                d_loss, _ = wasserstein(real_logits, fake_logits)
                penalty = gradient_penalty(self.discriminator.forward, x, fake, mix=mix)
                drift = real_logits.square().mean()
                loss = d_loss + self.penalty_weight * penalty + self.drift * drift  # App. A.1
                self.accumulate(loss + self.class_weight * (real_class + fake_class))
                self.report_discriminator(d_loss, real_logits, fake_logits)
                self.report(gp=penalty, drift=drift)
        if self.every(self.n_critic):
            with self.updating(opt_g):
                for z, c in self.split(self.latents(n, "g"), label):
                    fake_logits, fake_class = self.judged(self.generator(z, c), c)
                    g_loss = -fake_logits.mean()
                    self.accumulate(g_loss + self.class_weight * fake_class)
                    self.report(loss_g=g_loss)

    def judged(self, images: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """(logits [N], how badly the class is recognised: cross entropy, 0 without classes)."""
        if label is None:
            return self.discriminator(images), 0.0
        logits, classes = self.discriminator.classify(images)
        return logits, cross_entropy(classes, label)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> images [N, C, H, W] in [-1, 1], those of an early stage enlarged.

        psi scales the latent, which the network normalises: it has no effect but at 0.
        """
        network = self.generator_ema if ema else self.generator
        with evaluating(network):
            return enlarged(network(psi * z, labels), self.resolution).clamp(-1, 1)


# ---- official networks: genforce/genforce, a PyTorch port of the official ones with their weights --------------------

# State-dict names -> ours. Of a generator or a discriminator.
OFFICIAL_KEYS: dict[str, str | None] = {
    r"lod": r"lod",
    r"layer(\d+)\.(weight|bias)": r"layers.\1.\2",
    r"output(\d+)\.(weight|bias)": r"to_rgb.\1.\2",
    r"input(\d+)\.(weight|bias)": r"from_rgb.\1.\2",
}
PORT_NAMES = {"resolution": "resolution", "image_channels": "channels", "fmaps_base": "channel_base",
              "fmaps_max": "channel_max", "fused_scale": "fused_scale"}  # fmt: skip
_GROUPS = {"minibatch_std_group_size": "mbstd_group_size", "minibatch_std_channels": "mbstd_channels"}


def port_discriminator(config: Config) -> Config:
    """Arguments of a discriminator of the port -> ours; a group of 0 is the port's way to have none."""
    ours = renaming({**PORT_NAMES, **_GROUPS, "label_size": "num_classes"})(config)
    return ours if ours["mbstd_group_size"] else {**ours, "mbstd_group_size": 1, "mbstd_channels": 0}


def port_maps(widths: list[int]) -> Config:
    """min(base // px, most) at 4, 8, ... pixels. ValueError for widths of no such rule."""
    most, last = max(widths), 2 * 2 ** len(widths)
    base = widths[-1] * last
    if widths != [min(base // (4 << i), most) for i in range(len(widths))]:
        raise ValueError(f"its feature maps {widths} do not halve from {most} on as the published ones do")
    return {"resolution": last, "fmaps_base": base, "fmaps_max": most}


def port_judge(state: State) -> tuple[Config, int, int]:
    """What a discriminator's weights tell in either paper: its size, its outputs, channels of minibatch deviation."""
    layers, colours = numbered(state, r"layer(\d+)\.weight"), numbered(state, r"input(\d+)\.weight")
    widths = [weight.shape[0] for weight in colours.values()][::-1]  # which begin at the full resolution
    last = max(layers)
    config = {"image_channels": colours[0].shape[1], **port_maps(widths)}
    return config, layers[last].shape[0], layers[last - 2].shape[1] - widths[0]


def _generator(state: State) -> Config:
    layers, colours = numbered(state, r"layer(\d+)\.weight"), numbered(state, r"output(\d+)\.weight")
    widths = [weight.shape[1] for weight in colours.values()]  # at 4, 8, ... pixels, before the 1x1 convolutions
    config = {"z_space_dim": layers[0].shape[1], "image_channels": colours[0].shape[0]}
    return {**config, "fused_scale": _fused(layers, widths), **port_maps(widths)}


def _fused(layers: dict[int, Tensor], widths: list[int]) -> bool:
    """A fused layer's weight is transposed. Where all are square nothing tells, and the port has them unfused."""
    for stage, (before, after) in enumerate(itertools.pairwise(widths), start=1):
        if before != after:
            return tuple(layers[2 * stage].shape[:2]) == (before, after)
    return False


def _discriminator(state: State) -> Config:
    config, outputs, added = port_judge(state)
    groups = {"minibatch_std_group_size": 16 if added else 0}
    return {**config, **groups, "label_size": outputs - 1, "fused_scale": False}


PORT: dict[str, Any] = {
    "repository": "genforce",
    "in_one_file": {"generator": "G", "discriminator": "D", "generator_smooth": "G_ema"},
}
OFFICIAL = [
    Release(
        class_name="PGGANGenerator", network=Generator, keys=OFFICIAL_KEYS,
        arguments=renaming({**PORT_NAMES, "z_space_dim": "z_dim"}), config=_generator,
        begins={"output0.weight": (1, 1)}, model=PGGAN, **PORT,
    ),
    Release(
        class_name="PGGANDiscriminator", network=Discriminator, keys=OFFICIAL_KEYS,
        arguments=port_discriminator, config=_discriminator, begins={"input0.weight": (1, 1)},
        fits=lambda state: "layer1.blur.kernel" not in state, name="D", **PORT,  # a blur is StyleGAN's
    ),
]  # fmt: skip
