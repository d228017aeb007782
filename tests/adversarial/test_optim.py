"""Lazy Adam and learning rates on the image clock."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lit_gans.adversarial import lazy_adam, learning_rate_factor
from lit_gans.adversarial.optim import SMALL, repair, repair_together
from tests.waits import DEVICE, Operators


def test_lazy_adam_corrects_rate_and_betas() -> None:
    """Karras et al., 2020: with R1 every 16 steps, lr and betas take the ratio 16 / 17."""
    group = lazy_adam(nn.Linear(2, 2).parameters(), lr=0.002, betas=(0.0, 0.99), interval=16).param_groups[0]
    assert group["lr"] == pytest.approx(0.002 * 16 / 17)
    assert group["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_without_interval_it_is_adam() -> None:
    group = lazy_adam(nn.Linear(2, 2).parameters(), lr=0.002, betas=(0, 0.99)).param_groups[0]
    assert (group["lr"], group["betas"]) == (0.002, (0.0, 0.99))
    assert isinstance(group["betas"][0], float)


def test_fused_adam_equals_the_plain_one() -> None:
    networks = [nn.Linear(5, 3), nn.Linear(5, 3)]
    networks[1].load_state_dict(networks[0].state_dict())
    for network, fused in zip(networks, (True, False), strict=True):
        optimizer = lazy_adam(network.parameters(), lr=0.01, betas=(0.5, 0.9), fused=fused)
        for i in range(5):
            optimizer.zero_grad()
            network(torch.full((2, 5), float(i))).square().sum().backward()
            optimizer.step()
    assert torch.allclose(networks[0].weight, networks[1].weight, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "kimg", "expected"),
    [
        ("constant", 90, 1.0), ("linear", 0, 1.0), ("linear", 50, 1.0), ("linear", 75, 0.5), ("linear", 100, 0.0),
        ("cosine", 75, 0.5), ("cosine", 100, 0.0), ("cosine", 200, 0.0),
    ],
)  # fmt: skip
def test_learning_rate_factor(schedule: str, kimg: float, expected: float) -> None:
    found = learning_rate_factor(kimg, schedule=schedule, total_kimg=100, decay_from_kimg=50)
    assert found == pytest.approx(expected, abs=1e-12)


def test_warm_up() -> None:
    assert learning_rate_factor(5, schedule="constant", total_kimg=100, warmup_kimg=10) == 0.5
    assert learning_rate_factor(20, schedule="constant", total_kimg=100, warmup_kimg=10) == 1.0


@pytest.mark.parametrize("mend", [repair, repair_together])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_are_repaired_in_place_and_all_else_stays(mend: Callable, dtype: torch.dtype) -> None:
    nan, inf = float("nan"), float("inf")
    given = torch.tensor([[nan, inf, -inf], [2e5, -3e30, -0.0]], dtype=dtype)
    gradients = [given.clone(), given[0, 0].clone(), given.t().clone(memory_format=torch.preserve_format)]
    mend(gradients)
    expected = torch.tensor([[0.0, 1e5, -1e5], [2e5, -3e30, -0.0]], dtype=dtype)
    assert torch.equal(gradients[0], expected) and gradients[0][1, 2].signbit()
    assert gradients[1].item() == 0 and torch.equal(gradients[2], expected.t())


def test_small_gradients_on_a_gpu_are_repaired_at_once() -> None:
    with Operators() as seen:
        repair([torch.empty(n, device=DEVICE) for n in [64] * 50 + [2 * SMALL] * 2])
    assert (seen.calls["nan_to_num_"], seen.calls["_foreach_copy_"]) == (3, 1)
