"""Wasserstein GANs: with weight clipping (Arjovsky et al., 2017), https://arxiv.org/abs/1701.07875, and with a
gradient penalty (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028. Critics have no batch norm (Sec. 4)."""

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import wasserstein
from lit_gans.adversarial.penalties import gradient_penalty
from lit_gans.base.checks import power_of_two
from lit_gans.nn import BatchNorm

Networks = Literal["resnet", "mlp"]


# ---- multilayer perceptrons (Arjovsky et al., Sec. 4.1) --------------------------------------------------------------


class MLPGenerator(nn.Module):
    """Three hidden rectifier layers: z [N, Z] -> images [N, C, R, R] in [-1, 1]."""

    def __init__(self, *, z_dim: int, width: int, channels: int, resolution: int) -> None:
        super().__init__()
        self.shape = (channels, resolution, resolution)
        self.layers = mlp(z_dim, width, math.prod(self.shape))

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.layers(z)).unflatten(1, self.shape)  # [N, C R R] -> [N, C, R, R]


class MLPCritic(nn.Module):
    """Three hidden rectifier layers: images [N, C, R, R] -> scores [N]."""

    def __init__(self, *, width: int, channels: int, resolution: int) -> None:
        super().__init__()
        self.layers = mlp(channels * resolution**2, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.flatten(1)).flatten()  # [N, C, R, R] -> [N, C R R] -> [N]


def mlp(fan_in: int, width: int, fan_out: int) -> nn.Sequential:
    """Four linear layers with rectifiers between, as in Arjovsky et al., Sec. 4.1 (width 512)."""
    return nn.Sequential(
        nn.Linear(fan_in, width), nn.ReLU(),
        nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, fan_out),
    )  # fmt: skip


# ---- residual networks (Gulrajani et al., App. F) --------------------------------------------------------------------


class UpBlock(nn.Module):
    """Pre-activation residual block that doubles the resolution (Gulrajani et al., App. F).

    Without biases, which the authors' code has: a norm follows on every path and would take them away again.
    """

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = BatchNorm(fan_in), BatchNorm(fan_out)
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1, bias=False)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(interpolate(relu(self.norm1(x)), scale_factor=2))
        # A 1x1 convolution and nearest upsampling commute: convolve the small map.
        return self.conv2(relu(self.norm2(y))) + interpolate(self.shortcut(x), scale_factor=2)


class DownBlock(nn.Module):
    """Pre-activation residual block without norm; halves the resolution by mean pooling if asked."""

    def __init__(self, fan_in: int, fan_out: int, *, down: bool, first: bool = False) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1, self.conv2 = nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.Conv2d(fan_out, fan_out, 3, padding=1)
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1) if down or fan_in != fan_out else nn.Identity()
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(relu(self.conv1(x if self.first else relu(x))))  # the image itself is not rectified
        if self.down:
            y, x = avg_pool2d(y, 2), avg_pool2d(x, 2)  # pooling commutes with the shortcut's 1x1 convolution
        return y + self.shortcut(x)


def he_init(block: nn.Module) -> None:
    """He's initialisation in the residual branch, Xavier's in the shortcut, biases 0, as in the authors' code."""
    for name, module in block.named_modules():
        if isinstance(module, nn.Conv2d):
            init = nn.init.xavier_uniform_ if name == "shortcut" else nn.init.kaiming_uniform_
            init(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def levels(resolution: int) -> int:
    """How often 4 pixels are doubled to `resolution`."""
    why = "residual blocks double it from 4: use 16, 32, 64, 128, or networks='mlp'"
    return power_of_two("resolution", resolution, least=8, why=why) - 2


class ResNetGenerator(nn.Module):
    """Residual blocks from 4x4 to the image: z [N, Z] -> images [N, C, R, R] in [-1, 1]."""

    def __init__(self, *, z_dim: int, width: int, channels: int, resolution: int) -> None:
        super().__init__()
        self.project = nn.Linear(z_dim, width * 16)
        self.blocks = nn.Sequential(*(UpBlock(width, width) for _ in range(levels(resolution))))
        self.norm, self.to_image = BatchNorm(width), nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.blocks(self.project(z).unflatten(1, (-1, 4, 4)))  # [N, 16 width] -> [N, width, 4, 4]
        return torch.tanh(self.to_image(relu(self.norm(x))))


class ResNetCritic(nn.Module):
    """Residual blocks down to 8x8, two more there, mean over space: images [N, C, R, R] -> scores [N]."""

    def __init__(self, *, width: int, channels: int, resolution: int) -> None:
        super().__init__()
        halvings = max(levels(resolution) - 1, 1)
        blocks = [DownBlock(channels, width, down=True, first=True)]
        blocks += [DownBlock(width, width, down=True) for _ in range(halvings - 1)]
        blocks += [DownBlock(width, width, down=False) for _ in range(2)]
        self.blocks, self.out = nn.Sequential(*blocks), nn.Linear(width, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(relu(self.blocks(images)).mean((2, 3))).flatten()  # [N, width, H, W] -> [N, width] -> [N]


def build(networks: Networks, *, z_dim: int, width: int, channels: int, resolution: int) -> tuple[nn.Module, nn.Module]:
    """The generator and the critic."""
    image = {"width": width, "channels": channels, "resolution": resolution}
    if networks == "mlp":
        return MLPGenerator(z_dim=z_dim, **image), MLPCritic(**image)
    return ResNetGenerator(z_dim=z_dim, **image), ResNetCritic(**image)


# ---- training with a gradient penalty (Gulrajani et al., Algorithm 1) ------------------------------------------------


class WGANGP(GAN):
    """Gulrajani et al., Algorithm 1. Every batch updates the critic; every `n_critic`-th also the generator.

    Args:
        networks: "resnet" (App. F; width 128 at 32 pixels) or "mlp" (width 512).
        lr, betas: 1e-4 and (0, 0.9) in Algorithm 1; the CIFAR-10 ResNet uses 2e-4, falling linearly to 0.
        penalty_weight: lambda of Eq. 3.
        **game: total_kimg, schedule, ... of `GAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 32,
        channels: int = 3,
        z_dim: int = 128,
        networks: Networks = "resnet",
        width: int = 128,
        n_critic: int = 5,
        penalty_weight: float = 10.0,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, z_dim=z_dim, **game)
        self.save_hyperparameters()
        if self.num_classes:
            raise ValueError("WGAN-GP is unconditional: set num_classes=0, or use lit_gans.papers.CGAN")
        self.generator, self.discriminator = build(
            networks, z_dim=z_dim, width=width, channels=channels, resolution=resolution
        )
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.n_critic, self.penalty_weight, self.lr, self.betas = n_critic, penalty_weight, lr, betas

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        n = len(batch["image"])
        mixes = self.draws("mix").uniform(n)  # epsilon of Algorithm 1, one for each sample
        with self.updating(opt_d):
            for real, z, mix in self.split(batch["image"], self.latents(n, "d"), mixes):
                fake = self.generator(z)
                real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
                d_loss, _ = wasserstein(real_logits, fake_logits)
                penalty = gradient_penalty(self.discriminator.forward, real, fake, mix=mix)
                self.accumulate(d_loss + self.penalty_weight * penalty)  # Eq. 3
                self.report_discriminator(d_loss, real_logits, fake_logits)
                self.report(gp=penalty)
        if self.every(self.n_critic):
            with self.updating(opt_g):
                for (z,) in self.split(self.latents(n, "g")):
                    g_loss = -self.discriminator(self.generator(z)).mean()
                    self.accumulate(g_loss)
                    self.report(loss_g=g_loss)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]


# ---- training with clipped weights (Arjovsky et al., Algorithm 1) ----------------------------------------------------


class WGAN(GAN):
    """Arjovsky et al., Algorithm 1: RMSProp, critic weights clipped to [-clip, clip] after each of its steps.

    Args:
        networks: "mlp" or "resnet".
        lr, clip, n_critic: 5e-5, 0.01 and 5 in Algorithm 1.
        **game: total_kimg, ... of `GAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 32,
        channels: int = 3,
        z_dim: int = 100,
        networks: Networks = "mlp",
        width: int = 512,
        n_critic: int = 5,
        clip: float = 0.01,
        lr: float = 5e-5,
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, z_dim=z_dim, **game)
        self.save_hyperparameters()
        if self.num_classes:
            raise ValueError("WGAN is unconditional: set num_classes=0, or use lit_gans.papers.CGAN")
        self.generator, self.discriminator = build(
            networks, z_dim=z_dim, width=width, channels=channels, resolution=resolution
        )
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.n_critic, self.clip, self.lr = n_critic, clip, lr

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        n = len(batch["image"])
        with self.updating(opt_d):
            for real, z in self.split(batch["image"], self.latents(n, "d")):
                real_logits, fake_logits = self.discriminator(real), self.discriminator(self.generator(z))
                d_loss, _ = wasserstein(real_logits, fake_logits)  # Eq. 3, negated
                self.accumulate(d_loss)
                self.report_discriminator(d_loss, real_logits, fake_logits)
        with torch.no_grad():
            for parameter in self.discriminator.parameters():
                parameter.clamp_(-self.clip, self.clip)  # so that the critic stays Lipschitz
        if self.every(self.n_critic):
            with self.updating(opt_g):
                for (z,) in self.split(self.latents(n, "g")):
                    g_loss = -self.discriminator(self.generator(z)).mean()
                    self.accumulate(g_loss)
                    self.report(loss_g=g_loss)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.RMSprop(p.parameters(), lr=self.lr) for p in (self.generator, self.discriminator)]
