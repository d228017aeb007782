"""A stranger's paper: a generator that is told its style layer by layer, as StyleGAN's; its network is a plain MLP."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import non_saturating
from lit_gans.adversarial.penalties import r1

LAYERS = 2


class Generator(nn.Module):
    """z [N, Z] -> ws [N, 2, W] -> images [N, C, R, R]; the mean of w is gathered while it trains."""

    def __init__(self, *, z_dim: int, w_dim: int, channels: int, resolution: int) -> None:
        super().__init__()
        self.shape = (channels, resolution, resolution)
        self.mapping = nn.Sequential(nn.Linear(z_dim, w_dim), nn.LeakyReLU(0.2), nn.Linear(w_dim, w_dim))
        self.const = nn.Parameter(torch.arange(16.0).sin())
        self.styles = nn.ModuleList(nn.Linear(w_dim, 16) for _ in range(LAYERS))
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(LAYERS))
        self.to_image = nn.Linear(16, channels * resolution**2)
        self.register_buffer("w_mean", torch.zeros(w_dim))

    def map(self, z: Tensor, *, psi: float = 1.0) -> Tensor:
        w = self.mapping(z)
        if self.training:
            self.w_mean.lerp_(w.detach().mean(0), 0.01)
        return self.w_mean.lerp(w, psi)[:, None].repeat(1, LAYERS, 1)

    def synthesize(self, ws: Tensor) -> Tensor:
        x = self.const
        for style, layer, w in zip(self.styles, self.layers, ws.unbind(1), strict=True):
            x = layer(x * (1 + style(w))).relu()
        return self.to_image(x).unflatten(1, self.shape)

    def forward(self, z: Tensor) -> Tensor:
        return self.synthesize(self.map(z))


class Styled(GAN):
    """It has styles, and so all that is done with them: mixing, truncation in W, projection, path lengths."""

    def __init__(
        self, *, resolution: int = 8, channels: int = 1, z_dim: int = 4, w_dim: int = 6, gamma: float = 0.1, **game: Any
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, z_dim=z_dim, **game)
        self.save_hyperparameters()
        self.generator = Generator(z_dim=z_dim, w_dim=w_dim, channels=channels, resolution=resolution)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.discriminator = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * resolution**2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1), nn.Flatten(0)
        )
        self.gamma = gamma

    def styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        with self.sampling(ema=ema) as generator:
            return generator.map(z, psi=psi)

    def synthesize(self, ws: Tensor, *, ema: bool = True) -> Tensor:
        with self.sampling(ema=ema) as generator:
            return generator.synthesize(ws)

    @torch.no_grad()
    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return self.synthesize(self.styles(z, psi=psi, ema=ema), ema=ema).clamp(-1, 1)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        real, n = batch["image"], len(batch["image"])
        with self.updating(opt_d):
            for x, z in self.split(real, self.latents(n, "d")):
                real_logits, fake_logits = self.discriminator(x), self.discriminator(self.generator(z))
                d_loss, _ = non_saturating(real_logits, fake_logits)
                self.report_discriminator(d_loss, real_logits, fake_logits)
                if self.every(2):
                    penalty = r1(self.discriminator.forward, x)
                    d_loss = d_loss + self.gamma / 2 * 2 * penalty
                    self.report(r1=penalty)
                self.accumulate(d_loss)
        with self.updating(opt_g):
            for (z,) in self.split(self.latents(n, "g")):
                _, g_loss = non_saturating(real_logits.detach(), self.discriminator(self.generator(z)))
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        adam = partial(lazy_adam, lr=2e-3, betas=(0.0, 0.99))
        return [adam(self.generator.parameters()), adam(self.discriminator.parameters(), interval=2)]
