"""Modulated convolution against the definition: one weight per sample."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from lit_gans.nn.modulated import modulated_conv2d
from lit_gans.nn.resample import conv2d_resample, fir_filter

FILTER = fir_filter([1, 3, 3, 1])
GEOMETRIES = [{"padding": 1}, {"padding": 1, "up": 2, "flip_weight": False}, {"padding": 1, "down": 2}]


def tensors(dtype: torch.dtype = torch.float64, size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """x [3, 4, size, size], weight [5, 4, 3, 3], styles [3, 4]."""
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*s, generator=g, dtype=dtype) for s in ((3, 4, size, size), (5, 4, 3, 3), (3, 4)))


def by_definition(x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool, **geometry: object) -> Tensor:
    """Eq. 1 and 3 of the paper, literally."""
    samples = []
    for sample, style in zip(x, styles, strict=True):
        w = weight * style[:, None, None]
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        samples.append(conv2d_resample(sample[None], w, FILTER, **geometry))
    return torch.cat(samples)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equals_one_weight_per_sample(geometry: dict, demodulate: bool) -> None:
    inputs = [t.requires_grad_() for t in tensors()]
    expected = by_definition(*inputs, demodulate=demodulate, **geometry)
    found = modulated_conv2d(*inputs, resample_filter=FILTER, demodulate=demodulate, **geometry)
    assert torch.allclose(found, expected, atol=1e-10)
    g = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=expected.dtype)
    for a, b in zip(torch.autograd.grad(found, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_single_precision_is_close_to_the_definition() -> None:
    x, weight, styles = tensors(torch.float32)
    found = modulated_conv2d(x, weight, styles, padding=1)
    expected = by_definition(x, weight, styles, demodulate=True, padding=1)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_demodulated_outputs_of_unit_noise_have_unit_variance() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(4, 8, 32, 32, generator=g), 100 * torch.randn(6, 8, 3, 3, generator=g)
    y = modulated_conv2d(x, weight, torch.rand(4, 8, generator=g) + 5)
    assert y.std((2, 3)).sub(1).abs().max() < 0.15


def test_noise_is_added_last() -> None:
    x, weight, styles = tensors()
    y = modulated_conv2d(x, weight, styles, padding=1)
    for noise in (torch.randn(6, 6), torch.randn(3, 1, 6, 6)):
        for demodulate in (True, False):
            plain = modulated_conv2d(x, weight, styles, padding=1, demodulate=demodulate)
            noisy = modulated_conv2d(x, weight, styles, padding=1, demodulate=demodulate, noise=noise)
            assert torch.allclose(noisy - plain, noise.to(y.dtype).expand_as(y))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_derivatives(geometry: dict) -> None:
    x, weight, styles = tensors(size=2)
    inputs = [t.clone().requires_grad_() for t in (x[:2, :2], weight[:2, :2], styles[:2, :2])]
    noise = torch.tensor(0.3, dtype=x.dtype).requires_grad_()

    def run(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
        return modulated_conv2d(x, weight, styles, noise=noise, resample_filter=FILTER, **geometry).sin()

    assert gradcheck(run, (*inputs, noise))
    assert gradgradcheck(run, (*inputs, noise))


@pytest.mark.parametrize("autocast", [True, False])
def test_float16_does_not_overflow(autocast: bool) -> None:
    """Styles of 1e5 are beyond float16; demodulation makes the result independent of their size."""
    x, weight, styles = tensors(torch.float32)
    exact = modulated_conv2d(x, weight, styles, padding=1)
    with torch.autocast("cpu", dtype=torch.float16, enabled=autocast):
        y = modulated_conv2d(x if autocast else x.half(), weight, 1e5 * styles, padding=1)
    assert y.dtype == torch.float16
    assert (y - exact).abs().max() < 5e-3 * exact.abs().max()


def test_float16_takes_zero_styles_and_weights() -> None:
    x, weight, styles = tensors(torch.float32)
    styles[0], weight[1] = 0, 0
    y = modulated_conv2d(x.half(), weight, styles, padding=1)
    assert torch.isfinite(y).all() and (y[0] == 0).all() and (y[:, 1] == 0).all() and (y[1:, 0] != 0).any()


def test_bfloat16_norms_are_computed_in_single_precision() -> None:
    x, weight, styles = tensors(torch.float32)
    exact = modulated_conv2d(x, weight, styles, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, x.bfloat16()):
            y = modulated_conv2d(given, weight, styles, padding=1)
            assert y.dtype == torch.bfloat16
            assert (y - exact).abs().max() < 2e-2 * exact.abs().max()


def test_shapes_that_do_not_fit() -> None:
    x, weight, styles = tensors()
    with pytest.raises(ValueError, match=r"needs styles \[3, 4\]"):
        modulated_conv2d(x, weight, styles[:2])
    with pytest.raises(ValueError, match=r"weight \[O, 4, kh, kw\]"):
        modulated_conv2d(x, weight[:, :3], styles)
