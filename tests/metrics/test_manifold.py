import pytest
import torch
from torch import Tensor

from lit_gans.metrics import PrecisionRecall, manifold, precision_recall


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
@pytest.mark.parametrize("elements", [2**25, 100])
def test_equals_brute_force_in_one_chunk_and_in_many(k: int, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "_CHUNK_ELEMENTS", elements)
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
    metric.update(fake, real=False)
    assert metric.compute() == precision_recall(real, fake, k=2)


def test_known_radii_stand_for_those_found() -> None:
    real, fake = torch.randn(40, 3), torch.randn(30, 3)
    metric = PrecisionRecall(3, k=2)
    metric.load_real(real, manifold.neighbour_radii(real, k=2))
    metric.update(fake, real=False)
    assert metric.compute() == precision_recall(real, fake, k=2)
    metric.real_radii = [torch.zeros(40, dtype=torch.float64)]
    metric._computed = None
    assert metric.compute()[0] == 0


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="5 neighbours need more than 5 images on each side, got 5 and 9"):
        precision_recall(torch.zeros(5, 2), torch.zeros(9, 2))
