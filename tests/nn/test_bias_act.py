"""Bias, activation, gain and clamp, one after the other."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from lit_gans.nn.bias_act import ACTIVATIONS, activation_gain, bias_act

X = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
B = torch.randn(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
BY_HAND = {
    "linear": lambda x: x,
    "relu": lambda x: x.clamp_min(0) * math.sqrt(2),
    "lrelu": lambda x: torch.where(x > 0, x, 0.2 * x) * math.sqrt(2),
    "tanh": lambda x: 1 - 2 / ((2 * x).exp() + 1),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1)),
    "softplus": lambda x: (1 + x.exp()).log(),
    "swish": lambda x: x / (1 + (-x).exp()) * math.sqrt(2),
}


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_each_activation(act: str) -> None:
    y = bias_act(X, B, act=act)
    assert torch.allclose(y, BY_HAND[act](X + B[:, None]), atol=1e-12)
    assert torch.allclose(bias_act(X, act=act), BY_HAND[act](X), atol=1e-12)
    scaled = y / activation_gain(act) * 3
    assert torch.allclose(bias_act(X, B, act=act, gain=3), scaled)
    assert torch.allclose(bias_act(X, B, act=act, gain=3, clamp=0.5), scaled.clamp(-0.5, 0.5))


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_derivatives(act: str) -> None:
    x, b = X[:1, :, :2].clone().requires_grad_(), B.clone().requires_grad_()

    def run(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x, b, act=act, gain=0.7, clamp=1.1).square()

    assert gradcheck(run, (x, b)) and gradgradcheck(run, (x, b))


def test_slope_dimension_and_no_clamp() -> None:
    assert torch.allclose(bias_act(X, act="lrelu", alpha=0.01, gain=1), F.leaky_relu(X, 0.01))
    last = torch.arange(5.0)
    assert torch.equal(bias_act(X, last, dim=-1), X + last)
    assert torch.equal(bias_act(X, last, dim=2), X + last)
    assert bias_act(X, clamp=0).abs().max() == 0


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_the_dtype_of_x_is_kept(act: str) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert bias_act(X.to(dtype), B, act=act, clamp=1).dtype == dtype
            assert bias_act(X.float(), B, act=act).dtype == torch.float32


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="activation 'gelu' is not known: use one of lrelu, linear"):
        bias_act(X, act="gelu")
    with pytest.raises(ValueError, match=r"bias of shape \(4,\) does not fit dimension 2"):
        bias_act(X, B, dim=2)
    with pytest.raises(ValueError, match="does not fit dimension 3"):
        bias_act(X, B, dim=3)
    with pytest.raises(ValueError, match="clamp -1 is negative"):
        bias_act(X, clamp=-1)
