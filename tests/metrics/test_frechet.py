import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from lit_gans.metrics import FrechetDistance
from lit_gans.metrics.features import Moments
from lit_gans.metrics.frechet import frechet_of_features


def features(n: int, d: int, seed: int) -> Tensor:
    """Correlated, far from the origin, in float32, as a network's are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(9))
    return torch.randn(n, d, generator=generator) @ mixing + 10 + seed


def distance(real: Tensor, fake: Tensor) -> float:
    metric = FrechetDistance(real.shape[1])
    metric.update(real, real=True)
    for part in fake.split(37):
        metric.update(part, real=False)
    return metric.compute().item()


@pytest.mark.parametrize(("n", "d"), [(500, 16), (40, 128)])
def test_of_a_set_from_itself_is_zero_even_with_fewer_images_than_features(n: int, d: int) -> None:
    x = features(n, d, 0)
    assert abs(distance(x, x)) < 1e-6


def test_equals_the_formula_with_scipys_matrix_square_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    real, fake = features(600, 24, 0), features(500, 24, 1) * 1.3
    a, b = real.double().numpy(), fake.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real)
    assert distance(real, fake) == pytest.approx(expected, rel=1e-5)


class Passthrough(nn.Module):
    """Features in float64: torchmetrics sums up in it anyway, but rounds its result to the input's type."""

    num_features = 24

    def forward(self, features: Tensor) -> Tensor:
        return features.double()


def test_equals_torchmetrics_where_that_is_well_conditioned() -> None:
    real, fake = features(600, 24, 0), features(500, 24, 1)
    theirs = FrechetInceptionDistance(feature=Passthrough())
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    assert distance(real, fake) == pytest.approx(theirs.compute().item(), rel=1e-8)


def test_equals_torch_fidelity() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    real, fake = features(600, 24, 0), features(500, 24, 1)
    statistics = [fid_features_to_statistics(x.double()) for x in (real, fake)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert distance(real, fake) == pytest.approx(theirs, rel=1e-6)


def test_a_large_mean_costs_no_digits() -> None:
    real, fake = features(400, 8, 0).double(), features(300, 8, 1).double() * 1.1
    small = distance(real, fake)
    far = 1e6  # raw sums of products would lose 12 of 16 digits
    assert distance(real + far, fake + far) == pytest.approx(small, rel=1e-7)
    raw = (real + far).T @ (real + far) / 399 - 400 / 399 * torch.outer(*2 * ((real + far).mean(0),))
    assert not torch.allclose(raw, real.T.cov(), rtol=1e-5), "the test's mean is too small to show anything"


def test_moments_merge_over_batches_of_any_size() -> None:
    x = features(101, 6, 0).double()
    moments = Moments(6)
    for part in x.split([1, 50, 0, 13, 37]):
        moments.update(part)
    count, mean, scatter = moments.compute()
    assert count == 101 and torch.allclose(mean, x.mean(0), rtol=1e-14)
    assert torch.allclose(scatter / 100, x.T.cov(), rtol=1e-12)


def test_features_of_few_images_give_the_same_distance() -> None:
    real, fake = features(40, 128, 0), features(30, 128, 1)
    assert frechet_of_features(real, fake).item() == pytest.approx(distance(real, fake), rel=1e-9)
    with pytest.raises(ValueError, match="two images or more, got 40 and 1"):
        frechet_of_features(real, fake[:1])


def test_a_shift_counts_with_its_square() -> None:
    x = features(300, 8, 0)
    assert distance(x, x + 2) == pytest.approx(8 * 2**2, rel=1e-5)


def test_kept_statistics_stand_for_the_reals() -> None:
    real, fake = features(100, 8, 0), features(90, 8, 1)
    moments, metric = Moments(8), FrechetDistance(8)
    moments.update(real)
    metric.load_real(*moments.compute())
    metric.update(fake, real=False)
    assert metric.compute().item() == pytest.approx(distance(real, fake), rel=1e-12)


def test_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="two images or more, got 1"):
        distance(features(10, 4, 0), features(1, 4, 1))
