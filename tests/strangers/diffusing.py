"""A stranger's model of another family: one network that takes noise away, and no discriminator (Ho et al., 2020)."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.adversarial import Game, lazy_adam
from lit_gans.adversarial.capabilities import class_labels
from lit_gans.base.random import derive_seed
from lit_gans.nn.mode import evaluating


class Denoiser(nn.Module):
    """x [N, C, R, R] and times [N] in [0, 1] -> the noise in x."""

    def __init__(self, *, pixels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(pixels + 1, width), nn.SiLU(), nn.Linear(width, pixels))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(torch.cat([x.flatten(1), t[:, None]], 1)).view_as(x)


def kept(t: Tensor) -> Tensor:
    """[N] -> [N, 1, 1, 1]: the share of the picture that is left at a time, by the cosine of Nichol and Dhariwal."""
    return ((t * 0.99) * torch.pi / 2).cos().square().view(-1, 1, 1, 1)


class Diffusing(Game):
    """Samples in `steps` steps (Song et al., 2021, with eta 0)."""

    num_classes = 0

    def __init__(
        self, *, resolution: int = 8, channels: int = 1, width: int = 16, steps: int = 5, lr: float = 1e-3, **game: Any
    ) -> None:
        super().__init__(**game)
        self.save_hyperparameters()
        self.resolution, self.channels, self.steps, self.lr = resolution, channels, steps, lr
        self.denoiser = Denoiser(pixels=channels * resolution**2, width=width)
        self.denoiser_ema = copy.deepcopy(self.denoiser).requires_grad_(False)

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.denoiser_ema, self.denoiser)]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, n = batch["image"], len(batch["image"])
        noise, times = self.draws("noise").normal(n, *real.shape[1:]), self.draws("t").uniform(n)
        with self.updating(self.optimizers()):
            for x, eps, t in self.split(real, noise, times):
                noisy = kept(t).sqrt() * x + (1 - kept(t)).sqrt() * eps
                loss = (self.denoiser(noisy, t) - eps).square().mean()
                self.accumulate(loss)
                self.report(loss=loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return lazy_adam(self.denoiser.parameters(), lr=self.lr, betas=(0.9, 0.999))

    @torch.no_grad()
    def sample(
        self, seeds: Sequence[int] | Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True
    ) -> Tensor:
        """Images [N, C, R, R] in [-1, 1]; ValueError for labels, and for another psi than 1."""
        class_labels(self, seeds, labels)
        if psi != 1:
            raise ValueError(f"psi {psi}: a {type(self).__name__} has no truncation, leave it out")
        generator, shape = torch.Generator(), (self.channels, self.resolution, self.resolution)
        rows = []
        for seed in torch.as_tensor(seeds).tolist():
            generator.manual_seed(derive_seed("diffusing", seed))
            rows.append(torch.randn(shape, generator=generator))
        x, network = torch.stack(rows).to(self.device), self.denoiser_ema if ema else self.denoiser
        times = torch.linspace(1, 0, self.steps + 1, device=self.device)
        with evaluating(network):
            for now, then in zip(times[:-1], times[1:], strict=True):
                now, then = now.expand(len(x)), then.expand(len(x))
                eps = network(x, now)
                clean = ((x - (1 - kept(now)).sqrt() * eps) / kept(now).sqrt()).clamp(-1, 1)
                x = kept(then).sqrt() * clean + (1 - kept(then)).sqrt() * eps
        return clean
