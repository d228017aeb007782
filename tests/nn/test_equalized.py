"""Layers with an equalised learning rate against torch's functions on the scaled weight."""

import math

import pytest
import torch
from torch.nn import functional as F

from lit_gans.nn.equalized import EqualizedConv2d, EqualizedLinear
from lit_gans.nn.resample import downsample2d, fir_filter


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("activation", "gain"), [("linear", 1), ("lrelu", math.sqrt(2))])
def test_linear_uses_the_scaled_weight(activation: str, gain: float) -> None:
    layer, x = EqualizedLinear(12, 5, activation=activation, lr_multiplier=0.01, bias_init=3), normal(4, 12)
    y = F.linear(x, layer.weight * 0.01 / math.sqrt(12), torch.full((5,), 0.03))
    assert torch.allclose(layer(x), (y if activation == "linear" else F.leaky_relu(y, 0.2)) * gain, atol=1e-6)
    assert torch.equal(layer.bias, torch.full((5,), 3.0))  # the multiplier does not divide it
    rows = layer(x.unflatten(0, (2, 2)))
    assert torch.allclose(rows.flatten(0, 1), layer(x))


def test_weights_start_with_unit_variance_over_the_multiplier() -> None:
    torch.manual_seed(0)
    assert EqualizedLinear(200, 100, lr_multiplier=0.01).weight.std().item() == pytest.approx(100, rel=0.02)
    conv = EqualizedConv2d(40, 50, 3)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.02) and conv.bias.abs().max() == 0
    assert conv(normal(2, 40, 16, 16))[:, :, 1:-1, 1:-1].std().item() == pytest.approx(1, rel=0.1)


def test_names_in_the_state_dict() -> None:
    for layer in (EqualizedLinear(2, 3), EqualizedConv2d(2, 3, 3, up=2)):
        assert list(layer.state_dict()) == ["weight", "bias"]
    assert list(EqualizedLinear(2, 3, bias=False).state_dict()) == ["weight"]
    assert list(EqualizedConv2d(2, 3, 1, bias=False).state_dict()) == ["weight"]


def test_convolution_with_gain_and_clamp() -> None:
    layer, x = EqualizedConv2d(4, 6, 3, activation="lrelu", conv_clamp=0.8), normal(2, 4, 8, 8)
    torch.nn.init.normal_(layer.bias)
    y = F.leaky_relu(F.conv2d(x, layer.weight / 6, layer.bias, padding=1), 0.2) * math.sqrt(2)
    assert torch.allclose(layer(x), y.clamp(-0.8, 0.8), atol=1e-6)
    assert torch.allclose(layer(x, gain=0.5), (0.5 * y).clamp(-0.4, 0.4), atol=1e-6)
    assert layer(x).abs().max().item() == pytest.approx(0.8)


def test_resampling_convolutions() -> None:
    x = normal(2, 4, 8, 8)
    skip = EqualizedConv2d(4, 6, 1, bias=False, down=2)
    expected = F.conv2d(downsample2d(x, fir_filter([1, 3, 3, 1])), skip.weight / 2)
    assert torch.allclose(skip(x), expected, atol=1e-6)
    assert EqualizedConv2d(4, 6, 3, down=2)(x).shape == (2, 6, 4, 4)
    # up convolves: with a single tap at the kernel's corner the image moves against a correlation's direction
    up = EqualizedConv2d(1, 1, 3, up=2, resample_filter=(1,))
    with torch.no_grad():
        up.weight.zero_()[0, 0, 0, 0] = 3
    impulse = torch.zeros(1, 1, 4, 4)
    impulse[0, 0, 2, 2] = 1
    moved = up(impulse).squeeze().nonzero().tolist()
    assert moved == [[4, 4]]  # 2 * 2, plus one of padding, minus one of the tap
    with torch.no_grad():
        up.weight.copy_(up.weight.flip((2, 3)))
    assert up(impulse).squeeze().nonzero().tolist() == [[6, 6]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_keep_their_dtype(dtype: torch.dtype) -> None:
    linear, conv = EqualizedLinear(8, 4, activation="lrelu"), EqualizedConv2d(8, 4, 3, up=2, conv_clamp=256)
    x = normal(2, 8, 4, 4)
    for layer, given in ((linear, x[:, :, 0, 0]), (conv, x)):
        y = layer(given.to(dtype))
        assert y.dtype == dtype
        assert torch.allclose(y.float(), layer(given), atol=0.05)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="activation 'gelu' is not known"):
        EqualizedLinear(2, 3, activation="gelu")
    with pytest.raises(ValueError, match="kernel_size 4 is even"):
        EqualizedConv2d(2, 3, 4)
