"""Fréchet distance of Gaussians fitted to features (Heusel et al., 2017), https://arxiv.org/abs/1706.08500, Eq. 6."""

import torch
from torch import Tensor

from lit_gans.metrics.features import Moments, TwoSided


class FrechetDistance(TwoSided):
    """The distance of two sets of features that were extracted before, from their moments in float64.

    torchmetrics' class sums raw products, which loses the digits of a covariance beside a large mean, and takes
    eigenvalues of the unsymmetric product of the covariances: with fewer images than features their square roots add
    noise of about 1e-8 of the trace each.
    """

    higher_is_better = False

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.real, self.fake = Moments(num_features), Moments(num_features)

    def update(self, features: Tensor, *, real: bool) -> None:
        """features [N, D] of real or generated images."""
        (self.real if real else self.fake).update(features)

    def load_real(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """The real side from kept moments (see `Moments`); on one process only."""
        self.real.load(count, mean, scatter)

    def compute(self) -> Tensor:
        """float64 scalar. ValueError with fewer than two images on a side."""
        return frechet_distance(*gaussian(*self.real.compute()), *gaussian(*self.fake.compute()))


def gaussian(count: int, mean: Tensor, scatter: Tensor) -> tuple[Tensor, Tensor]:
    """mean [D] and covariance [D, D] (divided by count - 1, as in every published FID)."""
    if count < 2:
        raise ValueError(f"a covariance needs two images or more, got {count}")
    return mean, scatter / (count - 1)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)), float64 scalar.

    With cov = F F^T, the last trace is the sum of singular values of F_a^T F_b, which needs no square root of rounding
    noise: the distance of a set from itself is 0 to 1e-12 of the trace, of rank-deficient covariances too.
    """
    traces = cov_a.double().trace() + cov_b.double().trace()
    return _distance(mean_a.double(), _factor(cov_a), mean_b.double(), _factor(cov_b), traces)


def frechet_of_features(a: Tensor, b: Tensor) -> Tensor:
    """a [N, D], b [M, D] -> their Fréchet distance; cheap where N and M are far below D, as within one class."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs two images or more, got {len(a)} and {len(b)}")
    means = [x.double().mean(dim=0) for x in (a, b)]
    factors = [((x.double() - m) / (len(x) - 1) ** 0.5).T for x, m in zip((a, b), means, strict=True)]
    traces = factors[0].square().sum() + factors[1].square().sum()
    return _distance(means[0], factors[0], means[1], factors[1], traces)


def _distance(mean_a: Tensor, factor_a: Tensor, mean_b: Tensor, factor_b: Tensor, traces: Tensor) -> Tensor:
    cross = torch.linalg.svdvals(factor_a.T @ factor_b).sum()
    return (mean_a - mean_b).square().sum() + traces - 2 * cross


def _factor(cov: Tensor) -> Tensor:
    """F [D, R] with F F^T = cov of rank R; few images make R, and the work after, small."""
    values, vectors = torch.linalg.eigh(cov.double())
    kept = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    return vectors[:, kept] * values[kept].sqrt()
