"""Distributions of latents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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

    def draw(self, draws: Draws, n: int, dim: int) -> Tensor:
        return _within(2 * draws.uniform(n, dim) - 1, self.bound)

    def seeded(self, generator: torch.Generator, dim: int) -> Tensor:
        return _within(2 * torch.rand(dim, generator=generator) - 1, self.bound)

    def nearest(self, z: Tensor) -> Tensor:
        return z.clamp(-self.bound, self.bound)


class CensoredNormal(Prior):
    """max(N(0, 1), 0): half of the numbers are 0 (Brock et al., 2019, App. E)."""

    spherical = False

    def draw(self, draws: Draws, n: int, dim: int) -> Tensor:
        return draws.normal(n, dim).clamp(min=0)

    def seeded(self, generator: torch.Generator, dim: int) -> Tensor:
        return torch.randn(dim, generator=generator).clamp(min=0)

    def nearest(self, z: Tensor) -> Tensor:
        return z.clamp(min=0)


class Bernoulli(Prior):
    """0 or 1, equally often (Brock et al., 2019, App. E)."""

    spherical = False

    def draw(self, draws: Draws, n: int, dim: int) -> Tensor:
        return (draws.uniform(n, dim) < 0.5).float()

    def seeded(self, generator: torch.Generator, dim: int) -> Tensor:
        return (torch.rand(dim, generator=generator) < 0.5).float()

    def nearest(self, z: Tensor) -> Tensor:
        return (z > 0.5).to(z.dtype)


def truncated(z: Tensor, bound: float) -> Tensor:
    """z of N(0, 1), any shape, moved to N(0, 1) within `bound`, each number on its own and in the same order.

    So what follows from a seed changes smoothly with the bound, and has the distribution of `TruncatedNormal`.
    """
    if bound <= 0:
        raise ValueError(f"a truncation at {bound} leaves no latent: give more than 0")
    wide = z.float() if z.device.type == "mps" else z.double()  # near 1 single precision is coarse
    return _within(torch.erf(wide / math.sqrt(2)), bound).to(z.dtype)


def _within(u: Tensor, bound: float) -> Tensor:
    """u in [-1, 1] -> z in [-bound, bound], by the inverse of the distribution."""
    inside = math.erf(bound / math.sqrt(2))  # the share of N(0, 1) there
    return math.sqrt(2) * torch.erfinv(u * inside)


PriorName = Literal["normal", "uniform", "censored", "bernoulli"]


def prior_of(prior: Prior | PriorName) -> Prior:
    """The prior itself, or the one that configs and checkpoints call by this name. ValueError for another name."""
    if isinstance(prior, Prior):
        return prior
    named: dict[str, Callable[[], Prior]] = {
        "normal": Normal, "uniform": Uniform, "censored": CensoredNormal, "bernoulli": Bernoulli,
    }  # fmt: skip
    if prior not in named:
        raise ValueError(f"prior {prior!r} is none of {', '.join(named)}, nor a Prior: see adversarial.priors")
    return named[prior]()
