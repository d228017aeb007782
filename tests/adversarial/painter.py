"""The smallest text-to-image game, for tests of what all of them share."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.adversarial import lazy_adam
from lit_gans.adversarial.losses import non_saturating
from lit_gans.papers.text.encoders import TextFeatures
from lit_gans.papers.text.game import TextGAN, scaled_images


class Painter(TextGAN):
    """One linear layer each; images of half and of full size."""

    def __init__(self, *, resolution: int = 16, z_dim: int = 3, noise_dim: int = 2, **game: Any) -> None:
        super().__init__(resolution=resolution, channels=3, z_dim=z_dim, noise_dim=noise_dim, **game)
        self.save_hyperparameters()
        self.keep_encoder()
        known = 0 if self.text_encoder is None else self.text_encoder.sentence_dim
        self.generator = nn.Linear(z_dim + noise_dim + known, 3 * resolution**2)
        self.discriminator = nn.Linear(3 * resolution**2 + known, 1)
        self.generator_ema = None

    def scales(self, generator: nn.Module, z: Tensor, features: TextFeatures | None, *, noise: Tensor) -> list[Tensor]:
        known = [] if features is None else [features.sentence]
        images = generator(torch.cat([z, noise, *known], 1)).tanh().unflatten(1, (3, self.resolution, self.resolution))
        return scaled_images(images, [self.resolution // 2, self.resolution])

    def judge(self, images: Tensor, features: TextFeatures | None) -> Tensor:
        known = [] if features is None else [features.sentence]
        return self.discriminator(torch.cat([images.flatten(1), *known], 1)).flatten()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        real, features = batch["image"], self.features(batch)
        z, noise = self.latents(len(real), "step"), self.draws("noise").normal(len(real), self.noise_dim)
        with self.updating(opt_d):
            fake = self.scales(self.generator, z, features, noise=noise)[-1]
            logits = self.judge(real, features), self.judge(fake.detach(), features)
            self.accumulate(non_saturating(*logits)[0])
            self.report_discriminator(non_saturating(*logits)[0].detach(), *logits)
        with self.updating(opt_g):
            fake = self.scales(self.generator, z, features, noise=noise)[-1]
            self.accumulate(non_saturating(logits[0].detach(), self.judge(fake, features))[1])

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [lazy_adam(p.parameters(), lr=1e-3, betas=(0.5, 0.999)) for p in (self.generator, self.discriminator)]
