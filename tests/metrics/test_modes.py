"""Modes covered: of stacked MNIST and of mixtures in the plane."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lit_gans.data import Digits
from lit_gans.data.mixtures import GRID_SIGMA, RING_SIGMA, grid, ring, sample_mixture
from lit_gans.data.stacked_mnist import StackedSet
from lit_gans.metrics.classifiers import ClassifierFeatures
from lit_gans.metrics.measures import Classes
from lit_gans.metrics.modes import (
    MixtureModes,
    ModeMeasure,
    StackedModes,
    mode_count,
    mode_divergence,
    stacked_classes,
    stacked_logits,
)

from .common import PixelFeatures


def logits_of(modes: Tensor) -> Tensor:
    """modes int64 [N] -> logits [N, 3, 10] of a classifier that is sure of them."""
    digits = torch.stack([modes // 100, modes // 10 % 10, modes % 10], dim=1)
    return 5 * torch.nn.functional.one_hot(digits, 10).float()


def test_counts_and_divergence_of_generated_modes() -> None:
    metric, modes = StackedModes(), torch.tensor([7, 7, 7, 42, 999, 999])
    metric.update(logits_of(modes[:4]))
    metric.update(logits_of(modes[4:]))
    count, divergence = metric.compute()
    assert count == 3
    expected = math.log(1000) - stats.entropy([3 / 6, 1 / 6, 2 / 6])
    assert divergence.item() == pytest.approx(expected, rel=1e-12) and divergence.dtype == torch.float64


def test_every_mode_has_a_number_of_its_own() -> None:
    every = torch.arange(1000)
    assert torch.equal(stacked_classes(logits_of(every)), every)
    metric = StackedModes()
    metric.update(logits_of(every))
    count, divergence = metric.compute()
    assert (count.item(), divergence.item()) == (1000, pytest.approx(0, abs=1e-12))


def test_divergence_is_that_of_the_generated_from_the_real_ones() -> None:
    generated, real = torch.tensor([3, 0, 9, 4]), torch.tensor([10.0, 5.0, 20.0, 1.0])
    there, back = stats.entropy(generated, real), stats.entropy(real, generated)
    assert mode_divergence(generated, real).item() == pytest.approx(there, rel=1e-12) and back == math.inf
    assert mode_divergence(real, generated) == math.inf
    metric = StackedModes(torch.arange(1000))
    metric.update(logits_of(torch.tensor([500, 500, 900])))
    expected = stats.entropy([2 / 3, 1 / 3, 0], [500 / 499500, 900 / 499500, 1 - 1400 / 499500])
    assert metric.compute()[1].item() == pytest.approx(expected, rel=1e-12)


def test_perfect_samples_are_as_far_from_even_as_the_docstring_says() -> None:
    modes = torch.from_numpy(np.random.default_rng(0).integers(0, 1000, 26_000))
    counts = modes.bincount(minlength=1000)
    assert mode_count(counts) == 1000
    assert mode_divergence(counts).item() == pytest.approx(999 / 52_000, rel=0.1)


def test_channels_are_classified_one_by_one() -> None:
    images = torch.randint(256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    extractor = PixelFeatures()
    logits = stacked_logits(extractor, images)
    assert logits.shape == (5, 3, 10)
    for channel in range(3):
        alone = extractor(images[:, channel : channel + 1]).logits
        torch.testing.assert_close(logits[:, channel], alone)
    with pytest.raises(ValueError, match=r"images \[5, 1, 8, 8\], expected \[N, 3, H, W\]: one digit in each channel"):
        stacked_logits(extractor, images[:, :1])
    with pytest.raises(ValueError, match="'pixels' has 7 classes, expected the 10 digits: use 'stackedmnist'"):
        stacked_logits(PixelFeatures(num_classes=7), images)


def test_a_trained_classifier_reads_stacked_digits(trained: tuple[ClassifierFeatures, str]) -> None:
    digits = Digits(batch_size=1, resolution=16).dataset()
    members = torch.randint(1797, (300, 3), generator=torch.Generator().manual_seed(0))
    batch = StackedSet(digits, members).fetch(torch.arange(300))
    found = stacked_classes(stacked_logits(trained[0], batch["image"]))
    assert (found == batch["label"]).double().mean() > 0.9


def mixture(points: Tensor, centres: Tensor, sigma: float) -> tuple[float, float]:
    metric = MixtureModes(centres, sigma)
    for part in points.split(100):
        metric.update(part)
    return tuple(value.item() for value in metric.compute())


@pytest.mark.parametrize(("centres", "sigma"), [(ring(), RING_SIGMA), (grid(), GRID_SIGMA)])
def test_the_data_itself_covers_all_modes_with_the_share_of_a_disc_of_three_sigmas(
    centres: Tensor, sigma: float
) -> None:
    modes, share = mixture(sample_mixture(centres, sigma, n=20_000), centres, sigma)
    assert modes == len(centres) and share == pytest.approx(stats.chi2(2).cdf(9), abs=0.003)


def test_only_samples_of_high_quality_find_a_mode() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = torch.tensor([[3.0, 0.0], [0.0, -2.9], [10.0, 3.1], [5.0, 5.0], [2.9, 10.0], [math.nan, 0], [math.inf, 0]])
    assert mixture(points, centres, 1.0) == (2, 3 / 7)
    assert mixture(centres, centres, 1.0) == (3, 1)
    assert mixture(points[3:4], centres, 1.0) == (0, 0)


def test_where_discs_overlap_the_nearest_centre_is_the_mode_found() -> None:
    centres = torch.tensor([[0.0], [2.0]])
    assert mixture(torch.tensor([[0.9]]), centres, 1.0) == (1, 1)
    metric = MixtureModes(centres, 1.0)
    metric.update(torch.tensor([[1.1], [2.5], [0.1]]))
    assert metric.found.tolist() == [1, 2]


def test_processes_add_up() -> None:
    points, modes = sample_mixture(grid(), 0.1, n=90), torch.arange(0, 900, 10)
    for build, rows in ((lambda: MixtureModes(grid(), 0.05), points), (StackedModes, logits_of(modes))):
        whole, parts = build(), [build() for _ in range(3)]
        whole.update(rows)
        for metric, part in zip(parts, rows.split(40), strict=True):
            metric.update(part)
        for metric in parts[1:]:
            parts[0].merge_state(metric)
        assert parts[0].compute() == whole.compute()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"logits of shape \[4, 10\], expected \[N, 3, 10\]"):
        StackedModes().update(torch.zeros(4, 10))
    stacked, mixture_modes = StackedModes(), MixtureModes(ring(), 1.0)
    stacked.update(torch.zeros(0, 3, 10))
    with pytest.raises(ValueError, match="counts of shape .1000. with sum 0, expected .1000. frequencies .* not all 0"):
        stacked.compute()
    with pytest.raises(ValueError, match=r"reference of shape \[10\] with sum 10, expected \[1000\] frequencies"):
        StackedModes(torch.ones(10))
    with pytest.raises(ValueError, match=r"reference of shape \[2\] .*expected \[2\] frequencies of 0 or more"):
        mode_divergence(torch.ones(2), torch.tensor([-1, 3]))
    with pytest.raises(ValueError, match=r"centres of shape \[2\], expected \[K, D\]"):
        MixtureModes(torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match="sigma is 0; it must be above 0"):
        MixtureModes(ring(), 0)
    with pytest.raises(ValueError, match=r"points of shape \[4, 3\], expected \[N, 2\]"):
        mixture_modes.update(torch.zeros(4, 3))
    mixture_modes.update(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="one point or more, got none"):
        mixture_modes.compute()


def test_the_protocol_says_how_well_digits_are_told_apart(trained: tuple[ClassifierFeatures, str]) -> None:
    labels = torch.arange(1000)
    read = {"classifier_accuracy": trained[0].held_out_accuracy}
    for extractor, known in ((trained[0], read), (PixelFeatures(), {})):
        context = SimpleNamespace(classes=Classes(1000, labels), extractor=extractor, device=torch.device("cpu"))
        assert ModeMeasure(context).settings() == known
