"""Metrics against numbers of the official code, each known by the name under which it was recorded."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_gans.metrics import FrechetDistance, manifold_overlap
from lit_gans.metrics.features import Moments
from lit_gans.metrics.frechet import frechet_distance
from lit_gans.metrics.kernel import squared_mmd
from lit_gans.metrics.manifold import neighbour_radii
from lit_gans.metrics.score import class_scores
from tests.parity.golden import Golden, cases

TOLERANCE = 1e-6  # everything is in float64, but some official numbers were rounded to float32


def frechet(real: Tensor, fake: Tensor) -> Tensor:
    metric = FrechetDistance(real.shape[1])
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute()


def kernel_subsets(real: Tensor, fake: Tensor, subsets: str, size: str, seed: str) -> Tensor:
    """The official loop with its own draws: fakes first, by numpy's legacy generator."""
    rng, drawn, n = np.random.RandomState(int(seed)), [], min(int(size), len(real), len(fake))
    for _ in range(int(subsets)):
        rows = [torch.from_numpy(rng.choice(len(side), n, replace=False)) for side in (fake, real)]
        drawn.append(squared_mmd(fake[rows[0]], real[rows[1]]))
    return torch.stack(drawn)


def overlap(real: Tensor, fake: Tensor, k: str, name: str) -> Tensor:
    """The official codes differ in whether a border is inside, which no recorded set has a point on."""
    return getattr(manifold_overlap(real, fake, k=int(k)), name)


OF_FEATURES: dict[str, Callable[..., Tensor]] = {
    r"fid_(?:cleanfid|eig|studiogan)": frechet,
    r"kid_full_polynomial_unbiased": squared_mmd,
    r"kid_stylegan3_(\d+)x(\d+)_npseed(\d+)": lambda *x: kernel_subsets(*x).mean(),
    r"kid_torchfidelity_(\d+)x(\d+)_seed(\d+)_mean": lambda *x: kernel_subsets(*x).mean(),
    r"kid_torchfidelity_(\d+)x(\d+)_seed(\d+)_std": lambda *x: kernel_subsets(*x).std(correction=0),
    r"kynkaanniemi_k(\d+)_(precision|recall)": overlap,
    r"prdc_k(\d+)_(precision|recall|density|coverage)": overlap,
}


def found_by_name(golden: Golden, functions: dict[str, Callable[..., Tensor]], *inputs: Tensor) -> dict[str, Tensor]:
    """For each recorded name that a pattern fits, its function of the inputs and of the pattern's groups."""
    matches = ((re.fullmatch(pattern, name), f) for name in golden.outputs for pattern, f in functions.items())
    return {match[0]: f(*inputs, *match.groups()) for match, f in matches if match}


@pytest.mark.parametrize("golden", cases("metrics.metric_utils.FeatureStats"))
def test_distances_with_the_covariance_of_stylegans_code(golden: Golden) -> None:
    """Divided by the number of images, which is what our distances differ in; spatial ones flattened by channels."""
    given, count = golden.config, golden.config["n"] - golden.config["drop"]

    def taken(side: str) -> tuple[Tensor, Tensor]:
        rows = golden.inputs[side][:count, :7].flatten(1) if side.endswith("_map") else golden.inputs[side][:count]
        moments = Moments(rows.shape[1])
        for part in rows.double().split(given["chunk"]):
            moments.update(part)
        _, mean, scatter = moments.compute()
        return mean, scatter / count

    real, fake, *maps = (taken(side) for side in ("real", "fake", "real_map", "fake_map"))
    found = {"mu_real": real[0], "sigma_real": real[1], "fid_biased_cov": frechet_distance(*real, *fake)}
    golden.compare(found | {"sfid": frechet_distance(*maps[0], *maps[1])}, tolerance=TOLERANCE)


@pytest.mark.parametrize("golden", cases("metrics.prdc"))
def test_metrics_of_features(golden: Golden) -> None:
    real, fake = golden.inputs["real"].double(), golden.inputs["fake"].double()
    k = golden.config.get("k", 5)
    radii = {"radii_real": neighbour_radii(real, k=k), "radii_fake": neighbour_radii(fake, k=k)}
    golden.compare(radii | found_by_name(golden, OF_FEATURES, real, fake), tolerance=TOLERANCE)


def shuffled(logits: Tensor, splits: str, seed: str) -> Tensor:
    order = torch.from_numpy(np.random.RandomState(int(seed)).permutation(len(logits)))
    return class_scores(logits[order], splits=int(splits))


OF_LOGITS: dict[str, Callable[..., Tensor]] = {
    r"is_(?:studiogan|stylegan3)_splits(\d+)_mean": lambda x, n: class_scores(x, splits=int(n)).mean(),
    r"is_\w+_splits(\d+)_std_unbiased": lambda x, n: class_scores(x, splits=int(n)).std(correction=1),
    r"is_\w+_splits(\d+)_std_biased": lambda x, n: class_scores(x, splits=int(n)).std(correction=0),
    r"is_torchfidelity_splits(\d+)_shuffled_seed(\d+)_mean": lambda *x: shuffled(*x).mean(),
    r"is_torchfidelity_splits(\d+)_shuffled_seed(\d+)_std": lambda *x: shuffled(*x).std(correction=0),
}


@pytest.mark.parametrize("golden", cases("metric_isc"))
def test_class_score(golden: Golden) -> None:
    golden.compare(found_by_name(golden, OF_LOGITS, golden.inputs["logits"].double()), tolerance=TOLERANCE)
