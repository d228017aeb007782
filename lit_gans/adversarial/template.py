"""Template: a GAN to begin with. Small convolutional networks, the non-saturating loss, R1 on the reals."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.penalties import r1
from lit_gans.base.checks import power_of_two


class Generator(nn.Module):
    """z [N, Z] -> images [N, C, R, R] in [-1, 1]: a picture of 4 x 4, doubled until it has R pixels."""

    def __init__(self, *, z_dim: int, width: int, channels: int, doublings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(z_dim, width * 16), nn.Unflatten(1, (width, 4, 4)), nn.ReLU()]
        for _ in range(doublings):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Discriminator(nn.Module):
    """Images [N, C, R, R] -> logits [N]: halved until they have 4 x 4 pixels."""

    def __init__(self, *, width: int, channels: int, doublings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
        for _ in range(doublings):
            layers += [nn.Conv2d(width, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten()


class Template(GAN):
    """A config sets the arguments; `game` are those of `GAN` and `Game`: total_kimg, micro_batches, ..."""

    def __init__(
        self, *, resolution: int = 16, channels: int = 1, z_dim: int = 64, width: int = 32, lr: float = 1e-3,
        r1_gamma: float = 1.0, **game: Any,
    ) -> None:  # fmt: skip
        super().__init__(resolution=resolution, channels=channels, z_dim=z_dim, **game)
        self.save_hyperparameters()  # from which a checkpoint is loaded
        shape = {"width": width, "channels": channels, "doublings": power_of_two("resolution", resolution, least=8) - 2}
        self.generator, self.discriminator = Generator(z_dim=z_dim, **shape), Discriminator(**shape)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)  # the average that is sampled
        self.lr, self.r1_gamma = lr, r1_gamma

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        n = len(batch["image"])
        with self.updating(opt_d):
            for real, z in self.split(batch["image"], self.latents(n, "d")):
                real_logits, fake_logits = self.discriminator(real), self.discriminator(self.generator(z).detach())
                loss_d = softplus(-real_logits).mean() + softplus(fake_logits).mean()
                self.accumulate(loss_d + self.r1_gamma / 2 * r1(self.discriminator, real))
                self.report_discriminator(loss_d, real_logits, fake_logits)
        with self.updating(opt_g):
            for (z,) in self.split(self.latents(n, "g")):
                loss_g = softplus(-self.discriminator(self.generator(z))).mean()
                self.accumulate(loss_g)
                self.report(loss_g=loss_g)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=(0.0, 0.99), fused=self.fused) for p in players]
