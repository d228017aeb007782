import numpy as np
import pytest
import torch
from torch import Tensor

from lit_gans.metrics import PrecisionRecall, manifold, manifold_overlap, precision_recall


def brute_force(real: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    def covered(points: Tensor, centres: Tensor) -> float:
        inside = 0
        for x in points:
            for i, c in enumerate(centres):
                others = torch.cat([centres[:i], centres[i + 1 :]])
                radius = (others - c).norm(dim=1).sort().values[k - 1]
                if (x - c).norm() <= radius:
                    inside += 1
                    break
        return inside / len(points)

    return covered(fake, real), covered(real, fake)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("tile", [(2048, 8192), (7, 11), (1, 2)])
def test_equals_brute_force_in_one_tile_and_in_many(
    k: int, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in zip(("_ROWS", "_COLUMNS", "_BLOCK"), (*tile, tile[1]), strict=True):
        monkeypatch.setattr(manifold, name, size)
    generator = torch.Generator().manual_seed(k)
    real, fake = (torch.randn(n, 6, generator=generator).double() for n in (45, 38))
    fake = fake * 0.7 + 0.6
    values = tuple(value.item() for value in precision_recall(real, fake, k=k))
    assert values == pytest.approx(brute_force(real, fake, k))
    assert 0 < min(values) and min(values) < 1


def test_extremes() -> None:
    x = torch.randn(30, 4)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)
    collapsed = x[:1].repeat(20, 1)  # radius 0: only the point itself is on the manifold of the fakes
    precision, recall = precision_recall(x * 1000, collapsed * 1000)
    assert (precision.item(), recall.item()) == (1, pytest.approx(1 / 30))


def test_metric_gathers_batches() -> None:
    real, fake = torch.randn(40, 3), torch.randn(30, 3)
    metric = PrecisionRecall(3, k=2)
    for part in real.split(11):
        metric.update(part, real=True)
    metric(fake, real=False)
    assert metric.compute() == precision_recall(real, fake, k=2)


def test_known_radii_stand_for_those_found() -> None:
    real, fake = torch.randn(40, 3), torch.randn(30, 3)
    metric = PrecisionRecall(3, k=2)
    metric.load_real(real, manifold.neighbour_radii(real, k=2))
    metric.update(fake, real=False)
    assert metric.compute() == precision_recall(real, fake, k=2)
    metric.reset()
    metric.load_real(real, torch.zeros(40, dtype=torch.float64))
    metric.update(fake, real=False)
    assert metric.compute()[0] == 0


def prdc(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    """Density and coverage by their definitions, with scikit-learn's distances."""
    from sklearn.metrics import pairwise_distances

    own = np.sort(pairwise_distances(real), axis=1)[:, k]  # column 0 is the point itself
    between = pairwise_distances(real, fake)
    inside = between < own[:, None]
    return {"density": inside.sum(0).mean() / k, "coverage": (between.min(1) < own).mean()}


@pytest.mark.parametrize("tile", [(2048, 8192), (7, 11)])
def test_density_and_coverage(tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in zip(("_ROWS", "_COLUMNS", "_BLOCK"), (*tile, tile[1]), strict=True):
        monkeypatch.setattr(manifold, name, size)
    generator = torch.Generator().manual_seed(3)
    real, fake = (torch.randn(n, 4, generator=generator).double() for n in (60, 45))
    found = manifold_overlap(real, fake * 0.8 + 0.3, k=4)
    expected = prdc(real.numpy(), (fake * 0.8 + 0.3).numpy(), 4)
    assert found.density.item() == pytest.approx(expected["density"]) and 0 < expected["coverage"] < 1
    assert found.coverage.item() == pytest.approx(expected["coverage"])


def test_a_border_is_inside_for_precision_and_outside_for_density() -> None:
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])  # radii 1 for k = 1
    found = manifold_overlap(real, torch.tensor([[4.0], [5.0]]), k=1)
    assert (found.precision.item(), found.density.item(), found.coverage.item()) == (0.5, 0, 0)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(
        ValueError, match="5 neighbours need 1 or more, and more than 5 images on each side, got 5 and 9"
    ):
        precision_recall(torch.zeros(5, 2), torch.zeros(9, 2))
