"""Overlap of two sets of features by nearest neighbours.

Precision and recall: Kynkäänniemi et al., 2019, https://arxiv.org/abs/1904.06991, Eq. 2. Density and coverage: Naeem et
al., 2020, https://arxiv.org/abs/2002.09797, Eq. 4 and 5. Both take the k-th nearest other point, not counting the point
itself; the first count a border as inside (<=), the second do not (<), as their authors' code does.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gans.metrics.features import FeatureSet, TwoFeatureSets
from lit_gans.metrics.measures import Context, FeatureSets, Measure

_ROWS, _COLUMNS = 2048, 8192  # distances held at once: 128 MiB in float64
_BLOCK = 4096  # of a set against itself: as many
_SLACK = 1e-12  # of the squared lengths: what rounding can add to or take from a squared distance


class Overlap(NamedTuple):
    """precision, recall, coverage in [0, 1] and density from 0 on (1 where the sets are alike): float64 scalars."""

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


class ManifoldOverlap(TwoFeatureSets):
    """Precision, recall, density and coverage of generated features, in one pass over all pairs."""

    higher_is_better = True

    def __init__(self, num_features: int, *, k: int = 5, real_capacity: int = 0, fake_capacity: int = 0) -> None:
        super().__init__(num_features, real_capacity=real_capacity, fake_capacity=fake_capacity)
        self.k = k
        self.radii = FeatureSet(1)

    def load_real(self, features: Tensor, radii: Tensor) -> None:
        """The real side at once, features [N, D] with their `neighbour_radii` [N]; on one process only."""
        self.real.capacity = 0  # they lie in one piece already
        self.update(features, real=True)
        self.radii.update(radii.to(features.device)[:, None])

    def compute(self) -> Overlap:
        """ValueError unless both sets have more than k points."""
        real, fake = self.sets()
        radii = self.radii.gathered().flatten()
        assert len(radii) in (0, len(real)), "load_real takes the whole real side"
        return manifold_overlap(real, fake, k=self.k, real_radii=radii if len(radii) else None)

    def reset(self) -> None:
        super().reset()
        self.radii.reset()


class PrecisionRecall(ManifoldOverlap):
    """The first two alone: share of fakes on the real manifold, and of reals on the fake one."""

    def compute(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """precision, recall: float64 scalars in [0, 1]."""
        overlap = super().compute()
        return overlap.precision, overlap.recall


def precision_recall(
    real: Tensor, fake: Tensor, *, k: int = 5, real_radii: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """real [N, D], fake [M, D] -> precision, recall in [0, 1]; see `manifold_overlap`."""
    overlap = manifold_overlap(real, fake, k=k, real_radii=real_radii)
    return overlap.precision, overlap.recall


def manifold_overlap(real: Tensor, fake: Tensor, *, k: int = 5, real_radii: Tensor | None = None) -> Overlap:
    """real [N, D], fake [M, D] -> Overlap.

    The manifold of a set is the union of balls around its points, each reaching to the k-th nearest other point.
    Precision is the share of fakes in some real's ball, recall that of reals in some fake's ball, density the mean
    number of reals' balls around a fake, divided by k, coverage the share of reals whose ball holds a fake.
    `real_radii` [N] saves finding those of the reals. ValueError unless both sets have more than k points.
    """
    if k < 1 or min(len(real), len(fake)) <= k:
        raise ValueError(
            f"{k} neighbours need 1 or more, and more than {k} images on each side, got {len(real)} and {len(fake)}"
        )
    real_radii = neighbour_radii(real, k=k) if real_radii is None else real_radii.to(real.device)
    real_reach, fake_reach = real_radii.square(), neighbour_radii(fake, k=k).square()
    near_real, balls = torch.zeros_like(fake_reach, dtype=torch.bool), torch.zeros_like(fake_reach)
    near_fake, covered = (torch.zeros_like(real_reach, dtype=torch.bool) for _ in range(2))
    for rows, columns, squared, slack in _tiles(fake, real):
        squared -= slack  # towards inside
        near_real[rows] |= (squared <= real_reach[columns]).any(dim=1)
        near_fake[columns] |= (squared <= fake_reach[rows, None]).any(dim=0)
        strictly = squared.add_(slack, alpha=2) < real_reach[columns]  # towards outside
        balls[rows] += strictly.sum(dim=1)
        covered[columns] |= strictly.any(dim=0)
    return Overlap(*(x.double().mean() for x in (near_real, near_fake, balls / k, covered)))


def neighbour_radii(points: Tensor, *, k: int) -> Tensor:
    """points [N, D] -> [N]: distance of each to its k-th nearest other point, float64.

    Every pair of blocks is looked at once, for the rows of both.
    """
    nearest = torch.full((len(points), k), torch.inf, dtype=torch.float64, device=points.device)
    for rows in _slices(len(points), _BLOCK):
        for _, columns, squared, _ in _tiles(points, points[rows.start :], only=rows, size=_BLOCK):
            columns = slice(rows.start + columns.start, rows.start + columns.stop)
            if columns == rows:
                squared.fill_diagonal_(torch.inf)
            else:
                nearest[columns] = _smallest(nearest[columns], squared.T, k)
            nearest[rows] = _smallest(nearest[rows], squared, k)
    return nearest[:, -1].clamp(min=0).sqrt()


def _smallest(known: Tensor, found: Tensor, k: int) -> Tensor:
    """known [n, k], found [n, m] -> [n, k]: the smallest of both, rising along the row."""
    few = found.topk(min(k, found.shape[1]), dim=1, largest=False).values
    return torch.cat([known, few], dim=1).topk(k, dim=1, largest=False).values


def _tiles(
    a: Tensor, b: Tensor, *, only: slice | None = None, size: int = _COLUMNS
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """(rows of a, rows of b, squared distances [n, m], their slack [n, m]) over all pairs, in float64.

    `only` takes these rows of a alone, at once; `size` is that of the parts of b. Only one tile is ever held in
    float64. |x|^2 - 2 x.y + |y|^2 is one matrix product with two more columns: a third of the time of adding the
    lengths after.
    """
    for rows in _slices(len(a), _ROWS) if only is None else (only,):
        x = a[rows].double()
        x_lengths = x.square().sum(dim=1, keepdim=True)
        left = torch.cat([-2 * x, x_lengths, torch.ones_like(x_lengths)], dim=1)
        for columns in _slices(len(b), size):
            y = b[columns].double()
            y_lengths = y.square().sum(dim=1, keepdim=True)
            right = torch.cat([y, torch.ones_like(y_lengths), y_lengths], dim=1)
            yield rows, columns, left @ right.T, _SLACK * (x_lengths + y_lengths.T)


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class _Overlap(Measure):
    """All four at once, for the measures of each: one pass over all pairs."""

    def __init__(self, context: Context) -> None:
        self.context, self.sets = context, context.one(FeatureSets)
        self.found: Overlap | None = None

    def begin(self) -> None:
        self.radii = FeatureSet(1).to(self.context.device)
        self.radii.update(torch.empty(0, 1, dtype=torch.float64, device=self.context.device))
        if statistics := self.context.statistics(self.context.extractor):
            radii = statistics.radii(k=self.context.plan.neighbours, device=self.context.device)
            self.radii.update(radii.to(self.context.device)[:, None])

    def overlap(self) -> Overlap:
        if self.found is None:
            k, radii = self.context.plan.neighbours, self.radii.gathered().flatten()
            self.found = manifold_overlap(*self.sets.gathered(), k=k, real_radii=radii)
        return self.found

    def values(self) -> dict[str, float]:
        return {}


class OverlapMeasure(Measure):
    """`which` of an `Overlap`."""

    def __init__(self, context: Context, *, which: str) -> None:
        self.all, self.which, self.name = context.one(_Overlap), which, f"{which}_k{context.plan.neighbours}"

    def values(self) -> dict[str, float]:
        return {self.name: getattr(self.all.overlap(), self.which).item()}
