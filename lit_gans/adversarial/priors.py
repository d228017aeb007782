"""Distributions of latents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_gans.base.random import Draws, derive_seed


class Prior(ABC):
    """Draws latents from a stream that is derived from the clock, and of a seed's own generator.

    spherical: whether samples lie near a sphere, so that a walk between two of them should stay on it.
    """

    spherical: bool

    @abstractmethod
    def draw(self, draws: Draws, n: int, dim: int) -> Tensor:
        """[n, dim]: this process's share of the global batch."""

    @abstractmethod
    def seeded(self, generator: torch.Generator, dim: int) -> Tensor:
        """[dim] on the CPU, from the generator's next numbers."""

    def nearest(self, z: Tensor) -> Tensor:
        """z [N, dim] brought back to where samples lie: the sphere of radius sqrt(dim), where they are near one."""
        return z * (math.sqrt(z.shape[1]) / z.norm(dim=1, keepdim=True)) if self.spherical else z

    def of_seeds(self, seeds: Sequence[int] | Tensor, dim: int, *, purpose: str) -> Tensor:
        """[N, dim] on the CPU; row i depends on seeds[i] and the purpose alone."""
        keys = (derive_seed(purpose, seed) for seed in torch.as_tensor(seeds).tolist())
        return torch.stack([self.seeded(torch.Generator().manual_seed(key), dim) for key in keys])


class Normal(Prior):
    """N(0, 1)."""

    spherical = True

    def draw(self, draws: Draws, n: int, dim: int) -> Tensor:
        return draws.normal(n, dim)

    def seeded(self, generator: torch.Generator, dim: int) -> Tensor:
        return torch.randn(dim, generator=generator)


class Uniform(Prior):
    """U(-1, 1)."""

    spherical = False

    def draw(self, draws: Draws, n: int, dim: int) -> Tensor:
        return 2 * draws.uniform(n, dim) - 1

    def seeded(self, generator: torch.Generator, dim: int) -> Tensor:
        return 2 * torch.rand(dim, generator=generator) - 1

    def nearest(self, z: Tensor) -> Tensor:
        return z.clamp(-1, 1)


@dataclass(frozen=True)
class TruncatedNormal(Prior):
    """N(0, 1) within `bound`: as if numbers beyond it were drawn again (Brock et al., 2019, Sec. 3.1).

    By the inverse of the distribution, which needs one draw, and no look at the numbers.
    """

    bound: float
    spherical = True

    def __post_init__(self) -> None:
        if self.bound <= 0:
            raise ValueError(f"bound {self.bound} of a truncated normal prior is not positive; BigGAN's lie in (0, 2]")

    def _within(self, u: Tensor) -> Tensor:
        """u in [0, 1) -> z in [-bound, bound]."""
        inside = math.erf(self.bound / math.sqrt(2))  # the share of N(0, 1) there
        return math.sqrt(2) * torch.erfinv((2 * u - 1) * inside)

    def draw(self, draws: Draws, n: int, dim: int) -> Tensor:
        return self._within(draws.uniform(n, dim))

    def seeded(self, generator: torch.Generator, dim: int) -> Tensor:
        return self._within(torch.rand(dim, generator=generator))

    def nearest(self, z: Tensor) -> Tensor:
        return z.clamp(-self.bound, self.bound)


PriorName = Literal["normal", "uniform"]


def prior_of(prior: Prior | PriorName) -> Prior:
    """The prior itself, or the one that configs and checkpoints call by this name. ValueError for another name."""
    if isinstance(prior, Prior):
        return prior
    named = {"normal": Normal, "uniform": Uniform}
    if prior not in named:
        raise ValueError(f"prior {prior!r} is neither 'normal' nor 'uniform', nor a Prior: see adversarial.priors")
    return named[prior]()
