"""Minibatch standard deviation against loops over groups."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from lit_gans.nn.minibatch_std import MinibatchStd, minibatch_std

X = torch.randn(8, 6, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("group_size", "num_channels"), [(4, 1), (2, 3), (None, 2), (32, 1), (8, 6)])
def test_equals_a_loop_over_groups(group_size: int | None, num_channels: int) -> None:
    y = MinibatchStd(group_size, num_channels)(X)
    assert y.shape == (8, 6 + num_channels, 3, 2) and torch.equal(y[:, :6], X)
    g = min(group_size or 8, 8)
    for first in range(8 // g):
        members = list(range(first, 8, 8 // g))
        for part, values in enumerate(X[members].chunk(num_channels, dim=1)):
            expected = (values.var(0, unbiased=False) + 1e-8).sqrt().mean()
            assert torch.allclose(y[members, 6 + part], expected)


def test_samples_that_do_not_differ() -> None:
    same = MinibatchStd(4)(X[:1].expand(4, -1, -1, -1))[:, -1]
    assert torch.allclose(same, torch.tensor(1e-4, dtype=X.dtype))
    assert torch.allclose(MinibatchStd(4)(X[:1])[:, -1], torch.tensor(1e-4, dtype=X.dtype))


def test_derivatives() -> None:
    x = X[:4, :2, :1].clone().requires_grad_()
    assert gradcheck(MinibatchStd(2, 2), x) and gradgradcheck(MinibatchStd(2, 2), x)


def test_half_precision_does_not_overflow() -> None:
    x = 300 * X.half()  # a variance of 9e4 is beyond float16
    y = minibatch_std(x, group_size=4)
    assert y.dtype == torch.float16
    assert torch.allclose(y.double(), minibatch_std(x.double(), group_size=4), rtol=2e-3)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 8 .* groups of 3"):
        MinibatchStd(3)(X)
    with pytest.raises(ValueError, match="6 channels .* 4 parts"):
        MinibatchStd(4, 4)(X)
    with pytest.raises(ValueError, match="must be 1 or more"):
        MinibatchStd(0)
