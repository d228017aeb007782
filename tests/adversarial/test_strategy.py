"""Averaging of gradients, as far as one process can tell."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lit_gans.adversarial.strategy import average_gradients
from tests.waits import DEVICE, noting


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is sent to another process, which has the same."""
    sent: list[int] = []
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda x: sent.append(x.numel()) or x.mul_(2))
    return sent


def parameter(*values: float, device: str | torch.device = "cpu", grad: bool = True) -> nn.Parameter:
    found = nn.Parameter(torch.tensor(values, device=device))
    found.grad = torch.full_like(found, 7.0) if grad else None
    return found


def test_averaging_waits_for_nothing(alone: list[int]) -> None:
    frozen = parameter(1.0, 2.0, device=DEVICE, grad=False).requires_grad_(False)
    parameters, seen = [parameter(1.0, 2.0, device=DEVICE), parameter(3.0, device=DEVICE), frozen], []
    with noting(seen.append):
        average_gradients(parameters)
    assert seen == [] and alone == [2 + 1 + 2], "a flag for each, and nothing of what is frozen"


def test_missing_gradients_stay_missing_where_no_process_has_one(alone: list[int]) -> None:
    there, missing = parameter(1.0, 2.0), parameter(3.0, grad=False)
    average_gradients([there, missing])
    assert there.grad.tolist() == [7.0, 7.0] and missing.grad is None and alone == [2 + 1 + 2]
