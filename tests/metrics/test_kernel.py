import pytest
import torch

from lit_gans.metrics import KernelDistance, kernel_distance


def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x @ y / len(x) + 1) ** 3)


def test_equals_the_double_sum() -> None:
    a, b = (torch.randn(7, 5, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    pairs = [(i, j) for i in range(7) for j in range(7)]
    inside = sum(kernel(x[i], x[j]) for x in (a, b) for i, j in pairs if i != j) / 42
    across = sum(kernel(a[i], b[j]) for i, j in pairs) / 49
    assert kernel_distance(a, b).item() == pytest.approx(inside - 2 * across, rel=1e-12)


def test_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    real, fake = torch.randn(60, 4), torch.randn(50, 4) + 1
    before = torch.get_rng_state()
    first, second = (kernel_distance(real, fake, subsets=5, subset_size=20) for _ in range(2))
    assert first == second != kernel_distance(real, fake, subsets=5, subset_size=20, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_order_of_arrival_does_not_matter_where_indices_are_given() -> None:
    real, fake, order = torch.randn(60, 4), torch.randn(50, 4), torch.randperm(50)
    values = []
    for rows in (torch.arange(50), order):
        metric = KernelDistance(4, subsets=3, subset_size=20)
        metric.update(real, real=True)
        for part in rows.split(13):
            metric.update(fake[part], real=False, index=part)
        values.append(metric.compute())
    assert values[0] == values[1]


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="two images or more on each side, got 1 and 9"):
        kernel_distance(torch.zeros(1, 4), torch.zeros(9, 4))
    with pytest.raises(ValueError, match=r"shape \[3, 5\], expected \[N, 4\]"):
        KernelDistance(4).update(torch.zeros(3, 5), real=True)
