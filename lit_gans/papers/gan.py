"""Generative Adversarial Nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661: the MNIST networks.

Layer sizes, dropout and optimiser are those of the configuration that the authors published; the paper names only the
kinds of layers (Sec. 5).
"""

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import loss_by_path
from lit_gans.adversarial.penalties import r1
from lit_gans.nn import Dropout, Maxout


class Generator(nn.Module):
    """Two layers of rectifiers and a sigmoid: z [N, Z] -> images [N, C, R, R] in [-1, 1]."""

    def __init__(self, *, z_dim: int, hidden: int, channels: int, resolution: int) -> None:
        super().__init__()
        self.shape = (channels, resolution, resolution)
        self.layers = nn.Sequential(
            nn.Linear(z_dim, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, math.prod(self.shape)),
        )  # fmt: skip
        _uniform_weights(self, 0.05)

    def forward(self, z: Tensor) -> Tensor:
        # The authors' images lie in [0, 1] behind a sigmoid; ours in [-1, 1]: 2 sigmoid(x) - 1 = tanh(x / 2).
        return torch.tanh(self.layers(z) / 2).unflatten(1, self.shape)  # [N, C R R] -> [N, C, R, R]


class Discriminator(nn.Module):
    """Two layers of maxout units with dropout: images [N, C, R, R] -> logits [N]."""

    def __init__(
        self, *, units: int, pieces: int, channels: int, resolution: int, input_dropout: float, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            Dropout(input_dropout), Maxout(channels * resolution**2, units, pieces=pieces),
            Dropout(dropout), Maxout(units, units, pieces=pieces),
            Dropout(dropout), nn.Linear(units, 1),
        )  # fmt: skip
        _uniform_weights(self, 0.005)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten()


def _uniform_weights(network: nn.Module, bound: float) -> None:
    """Weights from U(-bound, bound), biases 0, as in the authors' configuration."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)


class VanillaGAN(GAN):
    """Algorithm 1 with k = 1. `loss` chooses the form: `minimax` (Eq. 1) or `non_saturating` (Sec. 3).

    Args:
        optimizer: "sgd" with momentum as published, or "adam" with betas (momentum, 0.999).
        loss: import path of an adversarial loss.
        r1_gamma: weight of an R1 penalty in every step; 0 as published.
        **game: resolution, channels, total_kimg, ... of `GAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 28,
        channels: int = 1,
        z_dim: int = 100,
        hidden: int = 1200,
        units: int = 240,
        pieces: int = 5,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
        optimizer: Literal["sgd", "adam"] = "sgd",
        lr: float = 0.1,
        momentum: float = 0.5,
        loss: str = "lit_gans.adversarial.losses.non_saturating",
        r1_gamma: float = 0.0,
        **game: Any,
    ) -> None:
        # The paper does not name the prior; the authors' sampler draws from a normal distribution.
        super().__init__(resolution=resolution, channels=channels, z_dim=z_dim, **game)
        self.save_hyperparameters()
        if self.num_classes:
            raise ValueError("VanillaGAN is unconditional: set num_classes=0, or use lit_gans.papers.CGAN")
        image = {"channels": channels, "resolution": resolution}
        self.generator = Generator(z_dim=z_dim, hidden=hidden, **image)
        self.discriminator = Discriminator(
            units=units, pieces=pieces, input_dropout=input_dropout, dropout=dropout, **image
        )
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizer, self.lr, self.momentum = optimizer, lr, momentum
        self.loss, self.r1_gamma = loss_by_path(loss), r1_gamma

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        real_logits = []
        with self.updating(opt_d):  # Algorithm 1 with k = 1
            for real, z in self.split(batch["image"], self.latents(len(batch["image"]), "d")):
                real_logits.append(self.discriminator(real))
                fake_logits = self.discriminator(self.generator(z))
                d_loss, _ = self.loss(real_logits[-1], fake_logits)
                self.report_discriminator(d_loss, real_logits[-1], fake_logits)
                if self.r1_gamma:
                    penalty = r1(self.discriminator.forward, real)
                    d_loss = d_loss + self.r1_gamma / 2 * penalty
                    self.report(r1=penalty)
                self.accumulate(d_loss)
        with self.updating(opt_g):
            for z, real_part in self.split(self.latents(len(batch["image"]), "g"), torch.cat(real_logits).detach()):
                _, g_loss = self.loss(real_part, self.discriminator(self.generator(z)))  # log D(G(z)) by default
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        if self.optimizer == "sgd":
            return [torch.optim.SGD(p.parameters(), lr=self.lr, momentum=self.momentum) for p in players]
        betas = (self.momentum, 0.999)
        return [lazy_adam(p.parameters(), lr=self.lr, betas=betas, fused=self.fused) for p in players]
