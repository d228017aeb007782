"""Fréchet distance of Gaussians fitted to features (Heusel et al., 2017), https://arxiv.org/abs/1706.08500, Eq. 6."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from lit_gans.metrics import extractors
from lit_gans.metrics.extractors import Extractor
from lit_gans.metrics.features import Moments, TwoSided
from lit_gans.metrics.measures import Classes, Context, FakeBatch, FeatureSets, Measure, identity, published_name


class FrechetDistance(TwoSided):
    """The distance of two sets of features that were extracted before, from their moments in float64.

    torchmetrics' class sums raw products, which loses the digits of a covariance beside a large mean, and takes
    eigenvalues of the unsymmetric product of the covariances: with fewer images than features their square roots add
    noise of about 1e-8 of the trace each.
    """

    higher_is_better = False
    real: Moments
    fake: Moments

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


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class FrechetMeasure(Measure):
    """The distance of an extractor's features of the images, or spatial ones, to those of the reals.

    `extractor`: another than the one that the evaluation's protocol names.
    """

    def __init__(self, context: Context, *, spatial: bool = False, extractor: Extractor | None = None) -> None:
        self.context, self.spatial, self.aside = context, spatial, extractor is not None
        self.extractor = context.extractor if extractor is None else extractor.to(context.device)
        self.name = published_name("spatial_frechet" if spatial else "frechet", self.extractor.name)
        self.width = self.extractor.num_spatial if spatial else self.extractor.num_features
        self.distance = FrechetDistance(self.width).to(context.device)

    def begin(self) -> None:
        if not self.spatial:
            self._warn_if_few(self.context.subject.total)
        none = torch.empty(0, self.width, device=self.context.device)
        self.distance.update(none, real=False)
        self.distance.update(none, real=True)
        if statistics := self.context.statistics(self.extractor):
            moments = statistics.spatial if self.spatial else statistics.moments
            assert moments is not None
            self.distance.load_real(*moments)

    def _warn_if_few(self, total: int) -> None:
        """The covariance of D features needs more than D images."""
        if total <= self.width:
            warnings.warn(
                f"{total} generated images are too few for the covariance of {self.width} features: the Fréchet "
                f"distance comes out much too large; use more than {self.width}, and 50,000 for a number to publish",
                stacklevel=7,  # the caller of evaluate_gan, which a decorator wraps
            )

    def update(self, batch: FakeBatch) -> None:
        seen = batch.through(self.extractor)
        features = seen.spatial if self.spatial else seen.features
        assert features is not None
        self.distance.update(features, real=False)

    def values(self) -> dict[str, float]:
        return {self.name: self.distance.compute().item()}

    def settings(self) -> dict[str, object]:
        return identity(self.extractor) if self.aside else {}


def spatial_frechet(context: Context) -> Measure | None:
    if context.extractor.num_spatial == 0:
        context.leave_out("spatial_frechet", f"extractor {context.extractor.name} has no spatial features")
        return None
    return FrechetMeasure(context, spatial=True)


def random_frechet(context: Context) -> Measure:
    return FrechetMeasure(context, extractor=extractors.RandomInception())


class IntraClassMeasure(Measure):
    """The mean of the distances within each class."""

    def __init__(self, context: Context) -> None:
        self.classes, self.name = context.classes, published_name("intra_frechet", context.extractor.name)
        _check_classes(context.classes)
        self.sets = context.one(FeatureSets)

    def values(self) -> dict[str, float]:
        return {self.name: intra_class_frechet(*self.sets.gathered(), self.classes).item()}


def intra_frechet(context: Context) -> Measure | None:
    classes = context.classes
    if classes.real is None or classes.fake is None:
        side = "real" if classes.real is None else "generated"
        context.leave_out("intra_frechet", f"the {side} images have no classes")
        return None
    return IntraClassMeasure(context)


def intra_class_frechet(real: Tensor, fake: Tensor, classes: Classes) -> Tensor:
    """Mean over the classes of the Fréchet distance within each (Miyato and Koyama, 2018, Sec. 4), float64 scalar.

    real [N, D], fake [M, D] in the order of `classes`' labels. With fewer images in a class than features it comes out
    too large, by as much for each model that is measured with the same numbers of images.
    """
    assert classes.real is not None and classes.fake is not None
    per_class = [
        frechet_of_features(real[(classes.real == c).to(real.device)], fake[(classes.fake == c).to(fake.device)])
        for c in range(classes.count)
    ]
    return torch.stack(per_class).mean()


def _check_classes(classes: Classes) -> None:
    for side, labels in (("real", classes.real), ("generated", classes.fake)):
        assert labels is not None
        counts = labels.bincount(minlength=classes.count)
        if counts.min() < 2:
            c = int(counts.argmin())
            raise ValueError(
                f"intra_frechet needs two images or more of every class, and class {c} has {int(counts[c])} {side} "
                f"images: measure more images, or leave intra_frechet out"
            )
