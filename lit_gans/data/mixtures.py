"""Mixtures of Gaussians in the plane, on which it can be seen how many modes a generator covers.

The two standard ones: `ring` with `RING_SIGMA` (Metz et al., 2017, https://arxiv.org/abs/1611.02163, App. A) and `grid`
with `GRID_SIGMA` (Srivastava et al., 2017, https://arxiv.org/abs/1705.07761; the values as in Lin et al., 2018,
https://arxiv.org/abs/1712.04086, whose ring has half the radius and half the sigma: the same picture, smaller).
`lit_gans.metrics.modes.MixtureModes` counts.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lit_gans.data.checks import _whole
from lit_gans.data.stream import uniform

RING_SIGMA = 0.02
GRID_SIGMA = 0.05


def ring(count: int = 8, *, radius: float = 2.0) -> Tensor:
    """float64 [count, 2]: centres at equal distances on a circle around the origin, anticlockwise from (radius, 0)."""
    turn = 2 * math.pi * torch.arange(_whole("count", count, 1), dtype=torch.float64) / count
    return radius * torch.stack([turn.cos(), turn.sin()], dim=1)


def grid(count: int = 25, *, spacing: float = 2.0) -> Tensor:
    """float64 [count, 2]: centres on a square grid around the origin: x, y in {-4, -2, 0, 2, 4} as it stands.

    ValueError unless `count` is a square.
    """
    side = math.isqrt(_whole("count", count, 1))
    if side**2 != count:
        raise ValueError(f"count {count} is no square number: a grid has {side**2} or {(side + 1) ** 2} centres")
    ticks = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    return torch.cartesian_prod(ticks, ticks)


def sample_mixture(centres: Tensor, sigma: float, *, n: int, seed: int = 0, start: int = 0) -> Tensor:
    """float64 [n, 2]: points number `start` to `start` + n of the mixture of equal weights with isotropic deviation.

    centres [K, 2], sigma of 0 or more. Point i depends on (seed, i) alone, so that batches of any size and any number
    of processes together draw one sequence.
    """
    if centres.ndim != 2 or centres.shape[1] != 2 or len(centres) == 0:
        raise ValueError(f"centres of shape {list(centres.shape)}, expected [K, 2] with K > 0")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma is {sigma!r}; it must be 0 or more")
    numbers = np.arange(_whole("start", start, 0), start + _whole("n", n, 0))
    component = (uniform(seed, "mixture component", numbers) * len(centres)).astype(np.int64)
    return centres.double()[torch.from_numpy(component)] + sigma * torch.from_numpy(_normal(seed, numbers))


def _normal(seed: int, numbers: np.ndarray) -> np.ndarray:
    """float64 [N, 2] from N(0, 1), by the transform of Box and Muller (1958)."""
    radius = np.sqrt(-2 * np.log1p(-uniform(seed, "mixture radius", numbers)))
    turn = 2 * math.pi * uniform(seed, "mixture turn", numbers)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
