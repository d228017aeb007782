"""Mixtures in the plane: their centres and their samples."""

import numpy as np
import pytest
import torch
from scipy import stats

from lit_gans.data.mixtures import grid, ring, sample_mixture


def test_the_ring_has_its_centres_at_equal_distances_on_the_circle() -> None:
    centres = ring()
    assert centres.shape == (8, 2) and centres.dtype == torch.float64
    assert torch.allclose(centres.norm(dim=1), torch.tensor(2.0).double())
    side = (centres - centres.roll(-1, 0)).norm(dim=1)
    assert torch.allclose(side, torch.full((8,), 2 * 2 * np.sin(np.pi / 8), dtype=torch.float64))
    assert centres[0].tolist() == [2, 0] and centres[2, 1] > 0
    assert ring(4, radius=1.0).norm(dim=1).tolist() == pytest.approx([1] * 4)


def test_the_grid_is_five_by_five_from_minus_four_to_four() -> None:
    assert {tuple(c) for c in grid().tolist()} == {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    assert sorted(map(tuple, grid(4, spacing=1.0).tolist())) == [(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]


def test_samples_are_gaussian_around_centres_drawn_equally_often() -> None:
    centres, sigma = grid(), 0.05
    points = sample_mixture(centres, sigma, n=10_000, seed=1)
    nearest = torch.cdist(points, centres).argmin(dim=1)
    assert stats.chisquare(nearest.bincount(minlength=25).numpy()).pvalue > 1e-3
    x, y = ((points - centres[nearest]) / sigma).T.numpy()
    assert min(stats.kstest(values, "norm").pvalue for values in (x, y)) > 1e-3
    assert max(abs(np.corrcoef(x, y)[0, 1]), abs(np.corrcoef(x**2, y**2)[0, 1])) < 0.04
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 0.04


def test_a_point_depends_on_seed_and_number_alone() -> None:
    whole = sample_mixture(ring(), 0.02, n=50, seed=7)
    parts = [sample_mixture(ring(), 0.02, n=n, seed=7, start=start) for start, n in ((0, 20), (20, 0), (20, 30))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(sample_mixture(ring(), 0.02, n=50, seed=8), whole)
    assert {tuple(c) for c in sample_mixture(ring(), 0, n=200).tolist()} == {tuple(c) for c in ring().tolist()}


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="count 24 is no square number: a grid has 16 or 25 centres"):
        grid(24)
    with pytest.raises(ValueError, match="count is 0; it must be a whole number of 1 or more"):
        ring(0)
    with pytest.raises(ValueError, match=r"centres of shape \[0, 2\], expected \[K, 2\] with K > 0"):
        sample_mixture(torch.zeros(0, 2), 1.0, n=1)
    with pytest.raises(ValueError, match="sigma is -1; it must be 0 or more"):
        sample_mixture(ring(), -1, n=1)
    with pytest.raises(ValueError, match="n is -2; it must be a whole number of 0 or more"):
        sample_mixture(ring(), 1.0, n=-2)
