"""Against torch-fidelity and torchmetrics, run side by side on the same features and images."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_gans.metrics import class_score, kernel_distance, manifold_overlap
from lit_gans.metrics.kernel import squared_mmd
from lit_gans.metrics.score import class_scores

GENERATOR = torch.Generator().manual_seed(0)
REAL, FAKE = torch.randn(300, 24, generator=GENERATOR), torch.randn(260, 24, generator=GENERATOR) * 0.9 + 0.1
LOGITS = 3 * torch.randn(503, 20, generator=GENERATOR)


def test_kernel_distance_of_torch_fidelity() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    size, subsets = 100, 7
    theirs = kid_features_to_metric(
        FAKE, REAL, kid_subsets=subsets, kid_subset_size=size, kid_kernel="poly", kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, rng_seed=2020, verbose=False,
    )  # fmt: skip
    rng, drawn = np.random.RandomState(2020), []
    for _ in range(subsets):
        rows = [torch.from_numpy(rng.choice(len(side), size, replace=False)) for side in (FAKE, REAL)]
        drawn.append(squared_mmd(FAKE[rows[0]], REAL[rows[1]]))
    assert torch.stack(drawn).mean().item() == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)
    # Ours draws with torch's generator; over many subsets both estimate the same number.
    many = kernel_distance(REAL, FAKE, subsets=400, subset_size=size, seed=1).item()
    whole = squared_mmd(FAKE, REAL).item()
    assert many == pytest.approx(whole, rel=0.15)


def test_kernel_distance_of_torchmetrics() -> None:
    from torchmetrics.image.kid import poly_mmd

    theirs = poly_mmd(REAL[:260].double(), FAKE.double())
    assert squared_mmd(REAL[:260], FAKE).item() == pytest.approx(theirs.item(), rel=1e-9)


def test_inception_score_of_torch_fidelity() -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    theirs = isc_features_to_metric(LOGITS, splits=10, shuffle=False)
    assert class_score(LOGITS).item() == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    deviation = class_scores(LOGITS).std(correction=0).item()
    assert deviation == pytest.approx(theirs["inception_score_std"], rel=1e-5)


@pytest.mark.parametrize("k", [3, 5])
def test_precision_and_recall_of_torch_fidelity(k: int) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    theirs = prc_features_to_metric(FAKE, REAL, prc_neighborhood=k, prc_batch_size=97, verbose=False)
    found = manifold_overlap(REAL, FAKE, k=k)
    assert found.precision.item() == pytest.approx(theirs["precision"], abs=1e-6)
    assert found.recall.item() == pytest.approx(theirs["recall"], abs=1e-6)


def pictures() -> tuple[Tensor, Tensor]:
    images = torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    noisy = (smooth + 0.05 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    return tuple((x * 255).round().byte() for x in (noisy, smooth))


def test_psnr_and_ssim_of_torchmetrics() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    from lit_gans.metrics.paired import psnr, ssim

    fake, real = pictures()
    for i in range(len(fake)):
        theirs = peak_signal_noise_ratio(fake[i].double(), real[i].double(), data_range=255.0)
        assert psnr(fake, real)[i].item() == pytest.approx(theirs.item(), rel=1e-6)
    _, whole = structural_similarity_index_measure(
        fake.double(), real.double(), data_range=255.0, reduction="none", return_full_image=True
    )
    windows = whole[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))  # where the whole window lies in the image
    assert torch.allclose(ssim(fake, real), windows, rtol=1e-5)
