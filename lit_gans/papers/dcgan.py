"""DCGAN (Radford et al., 2015), https://arxiv.org/abs/1511.06434."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import loss_by_path
from lit_gans.adversarial.penalties import r1
from lit_gans.adversarial.priors import Uniform
from lit_gans.base.checks import power_of_two
from lit_gans.nn import BatchNorm


def widths(resolution: int, *, width: int, max_width: int = 1024) -> list[int]:
    """Channels at 4, 8, ..., resolution / 2 pixels: `width` at the finest, doubling towards 4 pixels (Figure 1).

    Raises:
        ValueError: the resolution is not a power of two from 8.
    """
    why = "strided layers double it from 4: use 16, 32, 64, 128 or 256"
    levels = power_of_two("resolution", resolution, least=8, why=why)
    return [min(width * 2**i, max_width) for i in reversed(range(levels - 2))]


class Generator(nn.Module):
    """Projection to 4x4, then strided transposed convolutions: z [N, Z] -> images [N, C, R, R] in [-1, 1]."""

    def __init__(self, *, z_dim: int, width: int, kernel_size: int, channels: int, resolution: int) -> None:
        super().__init__()
        w = widths(resolution, width=width)
        self.project = nn.Linear(z_dim, w[0] * 16, bias=False)
        self.norm = BatchNorm(w[0])
        layers: list[nn.Module] = [nn.ReLU()]
        for fan_in, fan_out in zip(w[:-1], w[1:], strict=True):
            layers += [doubling(fan_in, fan_out, kernel_size, bias=False), BatchNorm(fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, doubling(w[-1], channels, kernel_size), nn.Tanh())
        init_weights(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.norm(self.project(z).unflatten(1, (-1, 4, 4))))  # [N, 16 w] -> [N, w, 4, 4], w of 4 px


class Discriminator(nn.Module):
    """Strided convolutions with leaky rectifiers, no norm at the image: images [N, C, R, R] -> logits [N]."""

    def __init__(self, *, width: int, kernel_size: int, channels: int, resolution: int) -> None:
        super().__init__()
        w = widths(resolution, width=width)[::-1]
        layers: list[nn.Module] = [halving(channels, w[0], kernel_size), nn.LeakyReLU(0.2)]
        for fan_in, fan_out in zip(w[:-1], w[1:], strict=True):
            layers += [halving(fan_in, fan_out, kernel_size, bias=False), BatchNorm(fan_out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(w[-1] * 16, 1))
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten()


def doubling(fan_in: int, fan_out: int, kernel_size: int, *, bias: bool = True) -> nn.ConvTranspose2d:
    """Transposed convolution of stride 2 from R to exactly 2R pixels."""
    padding, extra = (kernel_size - 1) // 2, kernel_size % 2
    return nn.ConvTranspose2d(fan_in, fan_out, kernel_size, 2, padding, output_padding=extra, bias=bias)


def halving(fan_in: int, fan_out: int, kernel_size: int, *, bias: bool = True) -> nn.Conv2d:
    """Convolution of stride 2 from 2R to exactly R pixels."""
    return nn.Conv2d(fan_in, fan_out, kernel_size, 2, (kernel_size - 1) // 2, bias=bias)


def init_weights(network: nn.Module) -> None:
    """All weights from N(0, 0.02) (Sec. 4), batch-norm gains from N(1, 0.02), biases 0, as in the authors' code."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, BatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


class DCGAN(GAN):
    """Adam with lr 2e-4 and beta1 0.5, z of 100 uniform values (Sec. 4).

    Args:
        resolution: a power of two, 16 to 256 (8 for tests).
        width: channels at half the resolution; 128 gives Figure 1's 1024, 512, 256, 128 at 64 pixels.
        kernel_size: 5 as in the authors' code; 4 is divisible by the stride, lighter, and common since.
        loss: import path of an adversarial loss; the paper's is the non-saturating one.
        r1_gamma: weight of an R1 penalty in every step; 0 as published.
        **game: channels, total_kimg, ... of `GAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 3,
        z_dim: int = 100,
        width: int = 128,
        kernel_size: int = 5,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        loss: str = "lit_gans.adversarial.losses.non_saturating",
        r1_gamma: float = 0.0,
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, z_dim=z_dim, prior=Uniform(), **game)
        self.save_hyperparameters()
        if self.num_classes:
            raise ValueError("DCGAN is unconditional: set num_classes=0, or use lit_gans.papers.CGAN")
        network = {"width": width, "kernel_size": kernel_size, "channels": channels, "resolution": resolution}
        self.generator = Generator(z_dim=z_dim, **network)
        self.discriminator = Discriminator(**network)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.lr, self.betas, self.loss, self.r1_gamma = lr, betas, loss_by_path(loss), r1_gamma

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        # Both players see the same fakes, as in the authors' code, which spares a pass through the generator.
        fakes = self.for_both(self.generator, self.latents(len(batch["image"]), "z"))
        real_logits = []
        with self.updating(opt_d):
            for fake, (real,) in zip(fakes, self.split(batch["image"]), strict=True):
                # Reals and fakes pass separately: batch norm must see each alone (the authors' code does).
                real_logits.append(self.discriminator(real))
                fake_logits = self.discriminator(fake.detach())
                d_loss, _ = self.loss(real_logits[-1], fake_logits)
                self.report_discriminator(d_loss, real_logits[-1], fake_logits)
                if self.r1_gamma:
                    penalty = r1(self.discriminator.forward, real)
                    d_loss = d_loss + self.r1_gamma / 2 * penalty
                    self.report(r1=penalty)
                self.accumulate(d_loss)
        with self.updating(opt_g):
            for fake, real_part in zip(fakes, real_logits, strict=True):
                _, g_loss = self.loss(real_part.detach(), self.discriminator(fake))
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]
