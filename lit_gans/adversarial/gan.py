"""The game whose generator makes images from nothing but a latent, and a class where there are some."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_gans.adversarial.capabilities import class_labels
from lit_gans.adversarial.game import Game
from lit_gans.adversarial.preview import draw_grid
from lit_gans.adversarial.priors import Prior, PriorName, prior_of
from lit_gans.nn.mode import evaluating


class GAN(Game):
    """A game with latents: `generator`, `discriminator`, and `generator_ema` (or None), declared by the paper.

    Args:
        resolution: side of the square images in pixels.
        channels: 1 (grey) or 3 (RGB).
        num_classes: 0 for an unconditional model.
        z_dim: size of the latent. prior: its distribution, or "normal" or
            "uniform".
        **game: total_kimg, micro_batches, schedule, seed, ... of `Game`.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_ema: nn.Module | None

    def __init__(
        self,
        *,
        resolution: int,
        channels: int,
        num_classes: int = 0,
        z_dim: int,
        prior: Prior | PriorName = "normal",
        **game: Any,
    ) -> None:
        super().__init__(**game)
        if channels not in (1, 3):
            raise ValueError(f"channels {channels} is neither 1 (grey) nor 3 (RGB)")
        self.resolution, self.channels, self.num_classes = resolution, channels, num_classes
        self.z_dim, self.prior = z_dim, prior_of(prior)

    def networks(self) -> list[nn.Module]:
        return [self.generator, self.discriminator]

    def discriminators(self) -> list[nn.Module]:
        return [self.discriminator]

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        return [] if self.generator_ema is None else [(self.generator_ema, self.generator)]

    def preview(
        self, data: pl.LightningDataModule | None, *, rows: int, columns: int, psi: float
    ) -> tuple[Tensor, int]:
        """Fakes of fixed seeds from the averaged generator; on a conditional model a class in each row."""
        return draw_grid(self, rows, columns, psi=psi)

    def latents(self, n: int, purpose: str) -> Tensor:
        """z [n, z_dim] from the prior, for this process's batch of n."""
        return self.prior.draw(self.draws("z", purpose), n, self.z_dim)

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def seeded_latents(self, seeds: Sequence[int] | Tensor) -> Tensor:
        """z [N, z_dim]; row i depends on seeds[i] alone, and is the same on every device."""
        return self.prior.of_seeds(seeds, self.z_dim, purpose="sample").to(self.device)

    @torch.no_grad()
    def sample(
        self,
        seeds: Sequence[int] | Tensor,
        *,
        labels: Tensor | None = None,
        psi: float = 1.0,
        ema: bool = True,
    ) -> Tensor:
        """Images [N, C, H, W] in [-1, 1]; image i depends on seeds[i] and labels[i] only.

        labels [N] int64, or None: seed modulo the number of classes on a conditional model. psi scales the latent:
        below 1, more typical and less varied images. ema: the averaged generator where there is one.
        """
        return self.generate(self.seeded_latents(seeds), labels=self.sample_labels(seeds, labels), psi=psi, ema=ema)

    def sample_labels(self, seeds: Sequence[int] | Tensor, labels: Tensor | None) -> Tensor | None:
        """[N] int64 on the module's device, or None on an unconditional model."""
        return class_labels(self, seeds, labels)

    @contextmanager
    def sampling(self, *, ema: bool = True) -> Iterator[nn.Module]:
        """The network that images are drawn from: the averaged generator or the one that is trained, evaluating.

        Whatever a paper does before it samples, such as gathering the statistics of batch norms anew, it does here.
        """
        network = self.generator_ema if ema and self.generator_ema is not None else self.generator
        with evaluating(network):
            yield network

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> images [N, C, H, W] in [-1, 1], in evaluation mode; differentiable."""
        with self.sampling(ema=ema) as network:
            return network(psi * z, labels) if self.num_classes else network(psi * z)
