"""Precision and recall by nearest neighbours (Kynkäänniemi et al., 2019), https://arxiv.org/abs/1904.06991, Eq. 2."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lit_gans.metrics.features import TwoFeatureSets

_CHUNK_ELEMENTS = 2**25  # distances held at once: 256 MiB in float64


class PrecisionRecall(TwoFeatureSets):
    """Share of fakes on the real manifold, and of reals on the fake one."""

    higher_is_better = True

    def __init__(self, num_features: int, *, k: int = 5) -> None:
        super().__init__(num_features)
        self.k = k

    def compute(self) -> tuple[Tensor, Tensor]:
        """precision, recall: float64 scalars in [0, 1]."""
        real, fake = self.sets()
        return precision_recall(real, fake, k=self.k)


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 5) -> tuple[Tensor, Tensor]:
    """real [N, D], fake [M, D] -> precision, recall in [0, 1].

    The manifold of a set is the union of balls around its points, each reaching to the k-th nearest other point (the
    point itself is not counted), border included. ValueError unless both sets have more than k points.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"{k} neighbours need more than {k} images on each side, got {len(real)} and {len(fake)}")
    real, fake = real.double(), fake.double()
    precision = _covered(fake, real, neighbour_radii(real, k=k) ** 2)
    recall = _covered(real, fake, neighbour_radii(fake, k=k) ** 2)
    return precision, recall


def neighbour_radii(points: Tensor, *, k: int) -> Tensor:
    """points [N, D] -> [N]: distance of each to its k-th nearest other point, float64."""
    radii = []
    for start, distances in _chunks(points.double(), points.double()):
        rows = torch.arange(len(distances), device=points.device)
        distances[rows, start + rows] = torch.inf
        radii.append(distances.topk(k, dim=1, largest=False).values[:, -1])
    return torch.cat(radii).sqrt()


def _covered(points: Tensor, centres: Tensor, squared_radii: Tensor) -> Tensor:
    """Share of `points` that lie in the ball of some centre."""
    inside = [(distances <= squared_radii).any(dim=1) for _, distances in _chunks(points, centres)]
    return torch.cat(inside).double().mean()


def _chunks(a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, squared distances [n, len(b)]) for consecutive rows of a."""
    rows, b_squared = max(1, _CHUNK_ELEMENTS // len(b)), b.square().sum(dim=1)
    for start in range(0, len(a), rows):
        part = a[start : start + rows]
        scale = part.square().sum(dim=1, keepdim=True) + b_squared
        distances = torch.addmm(scale, part, b.T, alpha=-2)
        # Equal points get 0, not rounding noise: a collapsed generator has radii of 0, which its own points must meet.
        yield start, distances.where(distances > 1e-12 * scale, 0.0)
