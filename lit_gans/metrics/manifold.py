"""Precision and recall by nearest neighbours (Kynkäänniemi et al., 2019), https://arxiv.org/abs/1904.06991, Eq. 2."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lit_gans.metrics.features import TwoFeatureSets

_CHUNK_ELEMENTS = 2**25  # distances held at once: 256 MiB in float64
_SLACK = 1e-12  # of the squared lengths: what rounding can add to a distance of 0


class PrecisionRecall(TwoFeatureSets):
    """Share of fakes on the real manifold, and of reals on the fake one."""

    higher_is_better = True

    def __init__(self, num_features: int, *, k: int = 5) -> None:
        super().__init__(num_features)
        self.k = k
        self.add_state("real_radii", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool, index: Tensor | None = None) -> None:
        super().update(features, real=real, index=index)
        if not self.real_radii:  # gathering needs something of one type from every process
            self.real_radii.append(torch.empty(0, dtype=torch.float64, device=features.device))

    def load_real(self, features: Tensor, radii: Tensor) -> None:
        """The real side at once, features [N, D] with their `neighbour_radii` [N]; on one process only."""
        self.update(features, real=True)
        self.real_radii = [radii.to(features.device)]

    def compute(self) -> tuple[Tensor, Tensor]:
        """precision, recall: float64 scalars in [0, 1]."""
        real, fake = self.sets()
        radii = dim_zero_cat(self.real_radii)
        assert len(radii) in (0, len(real)), "load_real takes the whole real side"
        return precision_recall(real, fake, k=self.k, real_radii=radii if len(radii) else None)


def precision_recall(
    real: Tensor, fake: Tensor, *, k: int = 5, real_radii: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """real [N, D], fake [M, D] -> precision, recall in [0, 1].

    The manifold of a set is the union of balls around its points, each reaching to the k-th nearest other point (the
    point itself is not counted), border included. `real_radii` [N] saves finding those of the reals.
    ValueError unless both sets have more than k points.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"{k} neighbours need more than {k} images on each side, got {len(real)} and {len(fake)}")
    precision = _covered(fake, real, neighbour_radii(real, k=k) if real_radii is None else real_radii)
    return precision, _covered(real, fake, neighbour_radii(fake, k=k))


def neighbour_radii(points: Tensor, *, k: int) -> Tensor:
    """points [N, D] -> [N]: distance of each to its k-th nearest other point, float64."""
    radii = []
    for start, distances in _chunks(points, points):
        rows = torch.arange(len(distances), device=points.device)
        distances[rows, start + rows] = torch.inf
        radii.append(distances.topk(k, dim=1, largest=False).values[:, -1])
    return torch.cat(radii).clamp(min=0).sqrt()


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Share of `points` that lie in the ball of some centre.

    With slack for rounding: a collapsed generator has radii of 0, which its own points must meet.
    """
    squared = radii**2
    inside = [(distances <= squared).any(dim=1) for _, distances in _chunks(points, centres, slack=_SLACK)]
    return torch.cat(inside).double().mean()


def _chunks(a: Tensor, b: Tensor, *, slack: float = 0.0) -> Iterator[tuple[int, Tensor]]:
    """(first row, squared distances [n, len(b)]) for consecutive rows of a, less `slack` of both squared lengths.

    |x|^2 - 2 x.y + |y|^2 is one matrix product with two more columns: a third of the time of adding the lengths after.
    """
    b = b.double()
    right = torch.cat([b, torch.ones_like(b[:, :1]), (1 - slack) * _lengths(b)], dim=1).T
    for start, part in _parts(a, max(1, _CHUNK_ELEMENTS // len(b))):
        left = torch.cat([-2 * part, (1 - slack) * _lengths(part), torch.ones_like(part[:, :1])], dim=1)
        yield start, left @ right


def _parts(rows: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size].double()


def _lengths(x: Tensor) -> Tensor:
    return x.square().sum(dim=1, keepdim=True)
