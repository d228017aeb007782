"""MSG-GAN (Karnewar and Wang, 2020), https://arxiv.org/abs/1903.06048: one discriminator sees the generator's images of
every scale at once, and so sends gradients to all of its layers, without growing.

On the networks of PGGAN ("pggan"; the official code is akanimax/BMSG-GAN) and of StyleGAN ("stylegan"; it is
akanimax/msg-stylegan-tf).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, leaky_relu

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import loss_by_path, wasserstein
from lit_gans.base.checks import power_of_two
from lit_gans.base.processes import mean_over_processes
from lit_gans.base.random import random_noise
from lit_gans.nn.equalized import EqualizedConv2d
from lit_gans.nn.minibatch_std import MinibatchStd
from lit_gans.nn.mode import evaluating
from lit_gans.official.releases import Config, Release, State, numbered, renaming
from lit_gans.papers.pggan import pixel_norm
from lit_gans.papers.stylegan1 import Constant, MappingNetwork, StyledConv, StyledUpConv

Networks = Literal["pggan", "stylegan"]
Noise = Literal["random", "const"]

# ---- what all networks use -------------------------------------------------------------------------------------------


def widths(resolution: int, *, width: int) -> dict[int, int]:
    """Feature maps at 4, 8, ..., resolution: `width` up to 32 pixels, then half as many at each doubling.

    Raises:
        ValueError: the resolution is not a power of two from 8, or the width cannot be halved so often.
    """
    why = "MSG-GAN doubles it from 4, scale by scale: use 32, 64, 128, ..."
    levels = power_of_two("resolution", resolution, least=8, why=why)
    maps = {2**level: width * 32 // max(2**level, 32) for level in range(2, levels + 1)}
    # Below the largest scale half of the discriminator's maps are of the image, half of the features.
    if width < 1 or maps[resolution] < 1 or any(maps[r] % 2 for r in maps if r < resolution):
        raise ValueError(
            f"width {width} cannot be halved at every scale of {resolution} pixels: use a multiple of "
            f"{2 * max(resolution // 64, 1)}, such as 512"
        )
    return maps


def pyramid(images: Tensor) -> list[Tensor]:
    """[N, C, R, R] -> [N, C, 4, 4], [N, C, 8, 8], ..., [N, C, R, R]: average-pooled to every scale.

    Below 4 pixels the images themselves are the only scale.
    """
    resolution = images.shape[-1]
    sizes = (2**level for level in range(min(2, resolution.bit_length() - 1), resolution.bit_length()))
    return [images if size == resolution else avg_pool2d(images, resolution // size) for size in sizes]


def on_sphere(z: Tensor) -> Tensor:
    """Each row of z [N, Z] at length sqrt(Z): latents lie on a hypersphere, as in PGGAN."""
    return z / z.norm(dim=1, keepdim=True) * math.sqrt(z.shape[1])


class Conv(nn.Conv2d):
    """Convolution at "same" padding (or `padding`); weights are N(0, 1), scaled by sqrt(2 / fan-in) at each call.

    The official code has the gain sqrt(2) in the layers to and from RGB too, where PGGAN has 1. Without `equalized` it
    is torch's own convolution.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        kernel_size: int,
        *,
        padding: int | None = None,
        equalized: bool = True,
    ) -> None:
        super().__init__(fan_in, fan_out, kernel_size, padding=kernel_size // 2 if padding is None else padding)
        self.scale = math.sqrt(2 / (fan_in * kernel_size**2)) if equalized else 1.0
        if equalized:
            nn.init.normal_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class FromLatent(nn.ConvTranspose2d):
    """z [N, Z] -> [N, O, 4, 4]; its fan-in is Z, without the kernel's 16."""

    def __init__(self, z_dim: int, fan_out: int, *, equalized: bool = True) -> None:
        super().__init__(z_dim, fan_out, 4)
        self.scale = math.sqrt(2 / z_dim) if equalized else 1.0
        if equalized:
            nn.init.normal_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, z: Tensor) -> Tensor:
        return conv_transpose2d(z[:, :, None, None], self.weight * self.scale, self.bias)


def lrelu(x: Tensor) -> Tensor:
    return leaky_relu(x, 0.2)


# ---- the networks of PGGAN (Fig. 2) ----------------------------------------------------------------------------------


class FirstBlock(nn.Module):
    """z [N, Z] -> [N, O, 4, 4]; one pixel norm, at the end, where PGGAN has one after each layer."""

    def __init__(self, z_dim: int, fan_out: int, *, equalized: bool) -> None:
        super().__init__()
        self.conv1 = FromLatent(z_dim, fan_out, equalized=equalized)
        self.conv2 = Conv(fan_out, fan_out, 3, equalized=equalized)

    def forward(self, z: Tensor) -> Tensor:
        return pixel_norm(lrelu(self.conv2(lrelu(self.conv1(z)))))


class UpBlock(nn.Module):
    """[N, I, R/2, R/2] -> [N, O, R, R]."""

    def __init__(self, fan_in: int, fan_out: int, *, equalized: bool) -> None:
        super().__init__()
        self.conv1 = Conv(fan_in, fan_out, 3, equalized=equalized)
        self.conv2 = Conv(fan_out, fan_out, 3, equalized=equalized)

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_norm(lrelu(self.conv1(interpolate(x, scale_factor=2))))
        return pixel_norm(lrelu(self.conv2(x)))


class Generator(nn.Module):
    """z [N, Z] on the sphere -> images of every scale, [N, C, 4, 4] to [N, C, R, R], around [-1, 1] but not confined.

    Each block's features become colours by a 1x1 convolution (Fig. 2).
    """

    def __init__(
        self, *, resolution: int, channels: int = 3, z_dim: int = 512, width: int = 512, equalized: bool = True
    ) -> None:
        super().__init__()
        first, *others = maps = list(widths(resolution, width=width).values())
        self.blocks = nn.ModuleList([FirstBlock(z_dim, first, equalized=equalized)])
        self.blocks.extend(UpBlock(i, o, equalized=equalized) for i, o in zip(maps, others, strict=False))
        self.to_rgb = nn.ModuleList(Conv(w, channels, 1, equalized=equalized) for w in maps)

    def forward(self, z: Tensor) -> list[Tensor]:
        x, images = z, []
        for block, to_rgb in zip(self.blocks, self.to_rgb, strict=True):
            x = block(x)
            images.append(to_rgb(x))
        return images

    def draw(self, z: Tensor, *, psi: float = 1.0) -> list[Tensor]:
        """What a user gets of z; psi scales it."""
        return self(psi * z)


class DownBlock(nn.Module):
    """[N, I, R, R] -> [N, O, R/2, R/2]."""

    def __init__(self, fan_in: int, fan_out: int, *, equalized: bool) -> None:
        super().__init__()
        self.conv1 = Conv(fan_in, fan_in, 3, equalized=equalized)
        self.conv2 = Conv(fan_in, fan_out, 3, equalized=equalized)

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(lrelu(self.conv2(lrelu(self.conv1(x)))), 2)


class LastBlock(nn.Module):
    """[N, I, 4, 4] -> logits [N]; the minibatch standard deviation is over the whole (micro-)batch, without groups."""

    def __init__(self, fan_in: int, *, equalized: bool) -> None:
        super().__init__()
        self.std = MinibatchStd(None)
        self.conv1 = Conv(fan_in + 1, fan_in, 3, equalized=equalized)
        self.conv2 = Conv(fan_in, fan_in, 4, padding=0, equalized=equalized)
        self.out = Conv(fan_in, 1, 1, equalized=equalized)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(lrelu(self.conv2(lrelu(self.conv1(self.std(x)))))).flatten()  # [N, 1, 1, 1] -> [N]


class Discriminator(nn.Module):
    """Images of every scale, smallest first -> logits [N].

    The largest is where the features begin; each smaller one, through a 1x1 convolution, is concatenated before the
    features that have come down to its scale (Fig. 2). Given one tensor
    [N, C, R, R], such as reals, it pools the smaller scales from it.
    """

    def __init__(self, *, resolution: int, channels: int = 3, width: int = 512, equalized: bool = True) -> None:
        super().__init__()
        maps = list(widths(resolution, width=width).values())
        # blocks[i] and from_rgb[i] are at 8 * 2^i pixels.
        self.from_smallest = Conv(channels, maps[0] // 2, 1, equalized=equalized)
        self.from_rgb = nn.ModuleList(Conv(channels, w // 2, 1, equalized=equalized) for w in maps[1:-1])
        self.from_rgb.append(Conv(channels, maps[-1], 1, equalized=equalized))
        down = zip(maps[1:], maps, strict=False)
        self.blocks = nn.ModuleList(DownBlock(i, o // 2, equalized=equalized) for i, o in down)
        self.last = LastBlock(maps[0], equalized=equalized)

    def from_image_on(self) -> list[nn.Module]:
        """From the largest scale on."""
        pairs = zip(self.from_rgb[::-1], self.blocks[::-1], strict=True)
        return [part for pair in pairs for part in pair] + [self.from_smallest, self.last]

    def forward(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        smallest, *others = pyramid(images) if isinstance(images, Tensor) else images
        x: Tensor | None = None
        for image, from_rgb, block in zip(others[::-1], self.from_rgb[::-1], self.blocks[::-1], strict=True):
            x = block(joined(from_rgb(image), x))
        return self.last(joined(self.from_smallest(smallest), x))


def joined(converted: Tensor, features: Tensor | None) -> Tensor:
    """The image's maps before the features; the image's alone at the largest scale."""
    return converted if features is None else torch.cat([converted, features], 1)


# ---- the generator of StyleGAN ---------------------------------------------------------------------------------------


class StyleGenerator(nn.Module):
    """z [N, Z] -> images of every scale, [N, C, 4, 4] to [N, C, R, R], around [-1, 1] but not confined to it.

    StyleGAN's mapping and synthesis, with colours at every scale and without style mixing, as in the official code.
    Colours have the gain 1 here.
    """

    def __init__(self, *, resolution: int, channels: int = 3, z_dim: int = 512, width: int = 512) -> None:
        super().__init__()
        maps = widths(resolution, width=width)
        self.layers = nn.ModuleList([Constant(maps[4], w_dim=z_dim), StyledConv(maps[4], maps[4], w_dim=z_dim, px=4)])
        for px, w in list(maps.items())[1:]:
            self.layers.append(StyledUpConv(maps[px // 2], w, w_dim=z_dim, px=px, fused=False))
            self.layers.append(StyledConv(w, w, w_dim=z_dim, px=px))
        self.to_rgb = nn.ModuleList(EqualizedConv2d(w, channels, 1) for w in maps.values())
        self.mapping = MappingNetwork(z_dim=z_dim, w_dim=z_dim, num_ws=len(self.layers))

    def forward(
        self, z: Tensor, *, psi: float = 1.0, cutoff: int | None = None, noise: Noise = "random"
    ) -> list[Tensor]:
        """psi pulls w towards its average, in the first `cutoff` layers or all; noise: anew or as stored ("const")."""
        ws = self.mapping(z, psi=psi, cutoff=cutoff)
        stored = [layer.noise_const for layer in self.layers]
        maps = stored if noise == "const" else random_noise(z.shape[0], like=stored)
        x, images = None, []
        for i, layer in enumerate(self.layers):
            x = layer(x, ws[:, i], maps[i])
            if i % 2:  # the second layer of a scale
                images.append(self.to_rgb[i // 2](x))
        return images

    def draw(self, z: Tensor, *, psi: float = 1.0) -> list[Tensor]:
        """What a user gets of z: with constant noise, so that an image depends on its latent alone."""
        return self(z, psi=psi, noise="const")


# ---- losses and penalties --------------------------------------------------------------------------------------------


def wasserstein_with_drift(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Wasserstein's loss with 0.001 times the reals' mean squared score (PGGAN, App. A.1)."""
    d_loss, g_loss = wasserstein(real_logits, fake_logits)
    return d_loss + 0.001 * real_logits.square().mean(), g_loss


def least_squares_of_means(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of the mean score of a (micro-)batch, where Mao et al. have the mean of the squares.

    As in the official code.
    """
    real, fake = real_logits.mean(), fake_logits.mean()
    return 0.5 * ((real - 1).square() + fake.square()), 0.5 * (fake - 1).square()


def input_gradients(network: Callable[[list[Tensor]], Tensor], images: Sequence[Tensor]) -> list[Tensor]:
    """d(sum of logits)/d(images of each scale), differentiable, in single precision."""
    with torch.autocast(images[0].device.type, enabled=False), torch.enable_grad():
        inputs = [x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_() for x in images]
        return list(torch.autograd.grad(network(inputs).sum(), inputs, create_graph=True))


def multi_scale_r1(network: Callable[[list[Tensor]], Tensor], reals: Sequence[Tensor]) -> Tensor:
    """R1 of each scale's images, averaged over the scales, as the official code does; times gamma / 2."""
    gradients = input_gradients(network, reals)
    return torch.stack([g.square().flatten(1).sum(1).mean() for g in gradients]).mean()


def multi_scale_gradient_penalty(
    network: Callable[[list[Tensor]], Tensor], reals: Sequence[Tensor], fakes: Sequence[Tensor], *, mix: Tensor
) -> Tensor:
    """Mean of (gradient norm - 1)^2 between reals and fakes, averaged over the scales; times 10.

    mix [N] in [0, 1]: the share of the real, one for all scales of a sample.
    """
    mix = mix[:, None, None, None]
    between = [fake.detach().float().lerp(real.float(), mix) for real, fake in zip(reals, fakes, strict=True)]
    norms = [(g.square().flatten(1).sum(1) + 1e-12).sqrt() for g in input_gradients(network, between)]  # [N] each
    return torch.stack([(norm - 1).square().mean() for norm in norms]).mean()


# ---- training --------------------------------------------------------------------------------------------------------


class MSGGAN(GAN):
    """Relativistic average hinge loss, Adam with lr 0.003 for both players, nothing that grows.

    The minibatch standard deviation and the means of the loss are those of one process's micro-batch: two processes
    train what one does in two micro-batches.

    Args:
        resolution: a power of two from 8.
        networks: the generator of PGGAN ("pggan") or of StyleGAN ("stylegan"). The discriminator is the same; that of
            the official code for "stylegan" differs (minibatch standard deviation and a learned joining in each block).
        width: feature maps up to 32 pixels, halved at each doubling from there.
        loss: import path; besides those of `lit_gans.adversarial.losses`, `wasserstein_with_drift` and
            `least_squares_of_means` of this file.
        penalty_weight: of the gradient penalty at all scales; 10 with a Wasserstein loss.
        r1_gamma: weight of R1 at all scales in every step; 10 for "stylegan" with the non-saturating loss.
        lr, betas: of both players' Adam, as in the official code.
        **game: channels, total_kimg, ... of `GAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 256,
        channels: int = 3,
        z_dim: int = 512,
        networks: Networks = "pggan",
        width: int = 512,
        loss: str = "lit_gans.adversarial.losses.relativistic_average_hinge",
        penalty_weight: float = 0.0,
        r1_gamma: float = 0.0,
        lr: float = 0.003,
        betas: tuple[float, float] = (0.0, 0.99),
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, z_dim=z_dim, **game)
        self.save_hyperparameters()
        if self.num_classes:
            raise ValueError("MSG-GAN is unconditional: set num_classes=0, or use lit_gans.papers.CGAN or StyleGAN2")
        if networks not in get_args(Networks):
            raise ValueError(f"networks {networks!r} is not one of {', '.join(get_args(Networks))}")
        image = {"resolution": resolution, "channels": channels, "width": width}
        self.style_based = networks == "stylegan"
        self.generator = (StyleGenerator if self.style_based else Generator)(z_dim=z_dim, **image)
        self.discriminator = Discriminator(**image)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.loss, self.penalty_weight, self.r1_gamma = loss_by_path(loss), penalty_weight, r1_gamma
        self.lr, self.betas = lr, betas

    @classmethod
    def from_generator(cls, generator: Generator) -> MSGGAN:
        """A generator of the PGGAN form alone, such as a released one, for sampling and measuring.

        The discriminator is as narrow as can be.
        """
        resolution = 2 * 2 ** len(generator.to_rgb)
        size = {"resolution": resolution, "channels": generator.to_rgb[0].weight.shape[0]}
        z_dim = generator.blocks[0].conv1.weight.shape[0]
        gan = cls(**size, z_dim=z_dim, width=2 * max(resolution // 64, 1))
        gan.generator = gan.generator_ema = generator
        return gan

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        real, n = batch["image"], len(batch["image"])
        latents, mixes = self.latents(n, "z"), self.draws("mix").uniform(n)  # both players' steps take the same latents
        with self.updating(opt_d):
            for x, z, mix in self.split(real, latents, mixes):
                reals, fakes = pyramid(x), self.generator(z)
                real_logits, fake_logits = self.discriminator(reals), self.discriminator(fakes)
                d_loss, _ = self.loss(real_logits, fake_logits)
                self.accumulate(d_loss + self.penalty(reals, fakes, mix))
                self.report_discriminator(d_loss, real_logits, fake_logits)
        with self.updating(opt_g):
            for x, z in self.split(real, latents):
                real_logits, fake_logits = self.discriminator(pyramid(x)), self.discriminator(self.generator(z))
                _, g_loss = self.loss(real_logits, fake_logits)
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)
        if self.style_based:
            self.move_average(latents)

    def penalty(self, reals: list[Tensor], fakes: list[Tensor], mix: Tensor) -> Tensor | float:
        """The weighted penalties that are switched on, of a micro-batch."""
        total: Tensor | float = 0.0
        network = self.discriminator.forward  # eager where the module is compiled
        if self.penalty_weight:
            gp = multi_scale_gradient_penalty(network, reals, fakes, mix=mix)
            self.report(gp=gp)
            total = total + self.penalty_weight * gp
        if self.r1_gamma:
            r1 = multi_scale_r1(network, reals)
            self.report(r1=r1)
            total = total + self.r1_gamma / 2 * r1
        return total

    @torch.no_grad()
    def move_average(self, z: Tensor) -> None:
        """w_avg, by the mean over the global batch."""
        mean = self.generator.mapping(z)[:, 0].mean(0, dtype=torch.float32)
        self.generator.mapping.track(mean_over_processes(mean))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]

    def latents(self, n: int, purpose: str) -> Tensor:
        """z [n, z_dim], uniform on the sphere."""
        return on_sphere(super().latents(n, purpose))

    def scales(self, z: Tensor, *, psi: float = 1.0, ema: bool = True) -> list[Tensor]:
        """z [N, z_dim] -> images of every scale, [N, C, 4, 4] to [N, C, R, R] in [-1, 1].

        psi truncates w towards its average on the networks of StyleGAN. On those of PGGAN it scales z, which changes
        little: but for the biases, the pixel norm takes the length of z away.
        """
        network = self.generator_ema if ema else self.generator
        with evaluating(network):
            return [images.clamp(-1, 1) for images in network.draw(on_sphere(z), psi=psi)]

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] -> the largest scale's images [N, C, R, R] in [-1, 1]; see `scales`."""
        if labels is not None:
            raise ValueError("labels were given, but MSG-GAN is unconditional")
        return self.scales(z, psi=psi, ema=ema)[-1]


# ---- official names and arguments ------------------------------------------------------------------------------------

# State-dict names of akanimax/BMSG-GAN's Generator and Discriminator -> ours. Nothing is dropped.
OFFICIAL_KEYS: dict[str, str | None] = {
    r"layers\.(\d+)\.conv_([12])\.(weight|bias)": r"blocks.\1.conv\2.\3",
    r"rgb_converters\.(\d+)\.(weight|bias)": r"to_rgb.\1.\2",
    r"rgb_to_features\.(\d+)\.(weight|bias)": r"from_rgb.\1.\2",
    r"final_converter\.(weight|bias)": r"from_smallest.\1",
    r"final_block\.conv_([12])\.(weight|bias)": r"last.conv\1.\2",
    r"final_block\.conv_3\.(weight|bias)": r"last.out.\1",
}
_ARGUMENTS = renaming({
    "depth": "resolution", "latent_size": "z_dim", "feature_size": "width", "use_eql": "equalized",
    "image_channels": "channels",  # the official networks have 3
})  # fmt: skip


def from_official_config(config: Config) -> Config:
    """Arguments of an official Generator or Discriminator -> of ours of the same name.

    Raises:
        ValueError: an argument is not known.
    """
    ours = _ARGUMENTS(config)
    if "resolution" in ours:
        ours["resolution"] = 2 * 2 ** ours["resolution"]
    # The official generator's first layers are as wide as the latent.
    return {**ours, "width": ours["z_dim"]} if "z_dim" in ours else ours


def _generator(state: State) -> Config:
    latent, channels = state["layers.0.conv_1.weight"].shape[0], state["rgb_converters.0.weight"].shape[0]
    depth = len(numbered(state, r"rgb_converters\.(\d+)\.weight"))
    return {"depth": depth, "latent_size": latent, "use_eql": True, "image_channels": channels}


def _discriminator(state: State) -> Config:
    depth = len(numbered(state, r"layers\.(\d+)\.conv_1\.weight")) + 1
    width, channels = state["final_block.conv_2.weight"].shape[0], state["final_converter.weight"].shape[1]
    return {"depth": depth, "feature_size": width, "use_eql": True, "image_channels": channels}


OFFICIAL = [
    Release(
        "BMSG-GAN", "MSGGenerator", Generator, OFFICIAL_KEYS, from_official_config, _generator,
        begins={"rgb_converters.0.weight": (1, 1)}, model=MSGGAN,
    ),
    Release(
        "BMSG-GAN", "MSGDiscriminator", Discriminator, OFFICIAL_KEYS, from_official_config, _discriminator,
        begins={"rgb_to_features.0.weight": (1, 1)}, name="D",
    ),
]  # fmt: skip
