"""Fréchet distance of Gaussians fitted to features (Heusel et al., 2017), https://arxiv.org/abs/1706.08500, Eq. 6."""

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance


class Passthrough(nn.Module):
    """Hands features on in float64: torchmetrics sums up in it anyway, but rounds its result to the input's type."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features.double()


class FrechetDistance(FrechetInceptionDistance):
    """torchmetrics' sums over processes, on features that were extracted before, with a stable distance at the end.

    torchmetrics takes eigenvalues of the unsymmetric product of the covariances: with fewer images than features their
    square roots add noise of about 1e-8 of the trace each. See `frechet_distance`.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(feature=Passthrough(num_features))

    def load_real(self, count: int, total: Tensor, outer: Tensor) -> None:
        """The real side from kept statistics: count, sum [D], sum of outer products [D, D]; on one process only."""
        self.real_features_num_samples = torch.tensor(count, device=self.device)
        self.real_features_sum = total.to(self.device)
        self.real_features_cov_sum = outer.to(self.device)

    def compute(self) -> Tensor:
        """float64 scalar. ValueError with fewer than two images on a side."""
        real = gaussian(self.real_features_num_samples, self.real_features_sum, self.real_features_cov_sum)
        fake = gaussian(self.fake_features_num_samples, self.fake_features_sum, self.fake_features_cov_sum)
        return frechet_distance(*real, *fake)


def gaussian(count: Tensor | int, total: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """mean [D] and covariance [D, D] (divided by count - 1, as in every published FID)."""
    if int(count) < 2:
        raise ValueError(f"a covariance needs two images or more, got {int(count)}")
    mean = total / count
    return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)), float64 scalar.

    With cov = F F^T, the last trace is the sum of singular values of F_a^T F_b, which needs no square root of rounding
    noise: the distance of a set from itself is 0 to 1e-12 of the trace, of rank-deficient covariances too.
    """
    cross = torch.linalg.svdvals(_factor(cov_a).T @ _factor(cov_b)).sum()
    squared = (mean_a.double() - mean_b.double()).square().sum()
    return squared + cov_a.double().trace() + cov_b.double().trace() - 2 * cross


def _factor(cov: Tensor) -> Tensor:
    """F [D, R] with F F^T = cov of rank R; few images make R, and the work after, small."""
    values, vectors = torch.linalg.eigh(cov.double())
    kept = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    return vectors[:, kept] * values[kept].sqrt()
