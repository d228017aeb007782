"""A stranger's paper: by class, and sampled as BigGAN is: latents cut off, statistics of batch norms anew."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import hinge
from lit_gans.adversarial.priors import Normal, TruncatedNormal
from lit_gans.base.random import Draws

STANDING = 4  # batches of which standing statistics are gathered


class Generator(nn.Module):
    """z [N, Z] and labels [N] -> images [N, C, R, R], through a batch norm whose scale is the class's."""

    def __init__(self, *, z_dim: int, num_classes: int, width: int, channels: int, resolution: int) -> None:
        super().__init__()
        self.shape = (channels, resolution, resolution)
        self.first, self.norm = nn.Linear(z_dim, width), nn.BatchNorm1d(width, affine=False)
        self.scale = nn.Embedding(num_classes, width)
        self.last = nn.Linear(width, channels * resolution**2)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = (self.norm(self.first(z)) * (1 + self.scale(labels))).relu()
        return self.last(x).tanh().unflatten(1, self.shape)


class Discriminator(nn.Module):
    """Images and labels [N] -> logits [N]: the class is projected onto the features (Miyato and Koyama, 2018)."""

    def __init__(self, *, num_classes: int, width: int, channels: int, resolution: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(channels * resolution**2, width), nn.ReLU())
        self.out, self.classes = nn.Linear(width, 1), nn.Embedding(num_classes, width)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        x = self.features(images)
        return self.out(x).flatten() + (self.classes(labels) * x).sum(1)


def orthogonality(network: nn.Module) -> Tensor:
    """How far the rows of each weight are from orthogonal, their lengths left free (Brock et al., 2019, Eq. 3)."""
    total = torch.zeros((), device=next(network.parameters()).device)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            gram = module.weight @ module.weight.T
            total = total + (gram - torch.diag_embed(gram.diagonal())).square().sum()
    return total


class Big(GAN):
    """Trained with latents from N(0, 1); sampled with latents within `bound`."""

    def __init__(
        self,
        *,
        resolution: int = 8,
        channels: int = 1,
        num_classes: int = 10,
        z_dim: int = 4,
        width: int = 16,
        bound: float = 1.0,
        orthogonal: float = 1e-3,
        **game: Any,
    ) -> None:
        prior = TruncatedNormal(bound)
        super().__init__(
            resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, prior=prior, **game
        )
        self.save_hyperparameters()
        shape = {"num_classes": num_classes, "width": width, "channels": channels, "resolution": resolution}
        self.generator, self.discriminator = Generator(z_dim=z_dim, **shape), Discriminator(**shape)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.orthogonal = orthogonal

    def latents(self, n: int, purpose: str) -> Tensor:
        return Normal().draw(self.draws("z", purpose), n, self.z_dim)

    @contextmanager
    def sampling(self, *, ema: bool = True) -> Iterator[nn.Module]:
        """With the statistics of the latents that are sampled, gathered anew: those of training are put back."""
        draws = Draws("standing statistics", device=self.device)
        with super().sampling(ema=ema) as generator, torch.no_grad():
            kept = copy.deepcopy(generator.norm.state_dict())
            generator.norm.reset_running_stats()
            generator.norm.train()
            generator.norm.momentum = None
            for _ in range(STANDING):
                labels = torch.arange(20, device=self.device) % self.num_classes
                generator(self.prior.draw(draws, 20, self.z_dim), labels)
            generator.norm.eval()
            try:
                yield generator
            finally:
                generator.norm.momentum = 0.1
                generator.norm.load_state_dict(kept)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        real, label, n = batch["image"], batch["label"], len(batch["image"])
        with self.updating(opt_d):
            fake = self.generator(self.latents(n, "d"), label)
            real_logits, fake_logits = self.discriminator(real, label), self.discriminator(fake, label)
            d_loss, _ = hinge(real_logits, fake_logits)
            self.report_discriminator(d_loss, real_logits, fake_logits)
            self.accumulate(d_loss)
        with self.updating(opt_g):
            fake = self.generator(self.latents(n, "g"), label)
            _, g_loss = hinge(real_logits.detach(), self.discriminator(fake, label))
            penalty = orthogonality(self.generator)
            self.accumulate(g_loss + self.orthogonal * penalty)
            self.report(loss_g=g_loss, orthogonal_penalty=penalty)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        adam = partial(lazy_adam, lr=1e-3, betas=(0.0, 0.999))
        return [adam(self.generator.parameters()), adam(self.discriminator.parameters())]
