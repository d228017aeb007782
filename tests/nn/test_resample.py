"""Resampling against scipy, its own definition, and finite differences."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from lit_gans.nn import resample
from lit_gans.nn.resample import conv2d_resample, downsample2d, filter2d, fir_filter, upfirdn2d, upsample2d

TAPS = [[1.0, 2.0, 0.5], [3.0, 4.0, 1.0]]  # neither symmetric nor square nor of rank one


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_scipy(x: Tensor, f: Tensor, up: list[int], down: list[int], padding: list[int], flip_filter: bool) -> Tensor:
    """The definition: zeros after each sample, pad or crop, "valid" convolution of each plane, every down-th sample."""
    from scipy.signal import convolve2d

    n, c, h, w = x.shape
    zeros = np.zeros((n, c, h * up[1], w * up[0]))
    zeros[:, :, :: up[1], :: up[0]] = x.numpy()
    x0, x1, y0, y1 = padding
    zeros = np.pad(zeros, [(0, 0), (0, 0), (max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))])
    zeros = zeros[:, :, max(-y0, 0) : zeros.shape[2] - max(-y1, 0), max(-x0, 0) : zeros.shape[3] - max(-x1, 0)]
    taps = f.numpy()[::-1, ::-1] if flip_filter else f.numpy()
    planes = [convolve2d(plane, taps, mode="valid") for plane in zeros.reshape(n * c, *zeros.shape[2:])]
    y = torch.from_numpy(np.stack(planes)).unflatten(0, (n, c))
    return y[:, :, :: down[1], :: down[0]]


@pytest.mark.parametrize("seed", range(60))
def test_equals_scipy(seed: int) -> None:
    draw = random.Random(seed)
    up, down = ([draw.choice([1, 1, 2, 3]) for _ in range(2)] for _ in range(2))
    padding = [draw.randint(-3, 7) for _ in range(4)]
    x = normal(2, draw.choice([1, 3, 16]), 9, 8, seed=seed)
    f = normal(draw.randint(1, 4), draw.randint(1, 2), seed=seed + 100)
    flip = draw.random() < 0.5
    found = upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip)
    assert torch.allclose(found, by_scipy(x, f, up, down, padding, flip), rtol=0, atol=1e-12)


GEOMETRIES = [
    {"padding": 1},
    {"up": 2, "padding": [2, 1, 2, 1]},
    {"down": 2, "padding": [1, 1, 2, 0]},
    {"up": [3, 1], "down": [2, 2], "padding": [3, -1, 0, 6]},
    {"up": 2, "padding": [-4, 3, -1, -2]},
    {"padding": [-1, 0, 5, 0], "flip_filter": True},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("taps", [TAPS, [1.0, 2.0, 3.0]])
def test_first_and_second_derivatives(geometry: dict, taps: list) -> None:
    f = fir_filter(taps, separable=isinstance(taps[0], float)).double()
    x = normal(2, 2, 5, 4).requires_grad_()
    run = lambda x: upfirdn2d(x, f, gain=1.5, **geometry).sin()  # noqa: E731
    assert gradcheck(run, x, check_forward_ad=True)
    assert gradgradcheck(run, x)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_filter_can_be_learned(geometry: dict) -> None:
    f = fir_filter(TAPS).double().requires_grad_()
    x = normal(2, 2, 5, 4).requires_grad_()
    assert gradcheck(lambda x, f: upfirdn2d(x, f, **geometry).sin(), (x, f))


def test_the_gradient_is_the_transpose() -> None:
    x, f = normal(1, 3, 6, 5).requires_grad_(), fir_filter(TAPS).double()
    y = upfirdn2d(x, f, up=2, padding=[2, 1, 3, 0])
    g = normal(*y.shape, seed=1)
    (found,) = torch.autograd.grad(y, x, g)
    by_torch = resample.fir(x, f.flip((0, 1)), (2, 2), (1, 1), (2, 1, 3, 0))  # differentiated by torch itself
    assert torch.allclose(found, torch.autograd.grad(by_torch, x, g)[0], atol=1e-12)


def test_filters() -> None:
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    assert torch.allclose(fir_filter([1, 3, 3, 1]), taps.outer(taps))
    assert fir_filter(range(1, 9)).shape == (8,) and fir_filter(range(1, 9), separable=False).shape == (8, 8)
    assert fir_filter([1, 3, 3, 1], gain=4).sum().item() == pytest.approx(4)
    separable = fir_filter([1, 2, 4], separable=True, gain=4, flip=True)
    assert torch.allclose(separable.outer(separable), fir_filter([1, 2, 4], gain=4, flip=True))
    assert torch.equal(fir_filter(TAPS, normalize=False), torch.tensor(TAPS))
    assert torch.equal(fir_filter(None), torch.ones(1, 1))
    with pytest.raises(ValueError, match=r"expected \[k\] or \[kh, kw\]"):
        fir_filter([])
    with pytest.raises(ValueError, match="separable filter needs one dimension"):
        fir_filter(TAPS, separable=True)


def test_separable_filters_equal_their_outer_product() -> None:
    x, taps = normal(2, 3, 9, 8), [1, 2, 4, 3]
    for geometry in GEOMETRIES:
        filters = [fir_filter(taps, separable=separable).double() for separable in (True, False)]
        one, two = (upfirdn2d(x, f, gain=3, **geometry) for f in filters)
        assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [1, 2, 1], [1], [1, 2, 3, 4, 4, 3, 2, 1]])
def test_a_constant_stays_away_from_the_borders(taps: list[int]) -> None:
    x, f = torch.full((1, 2, 24, 20), 0.7), fir_filter(taps)
    for y in (filter2d(x, f), downsample2d(x, f), downsample2d(x, f, down=[1, 2])):
        assert torch.allclose(y[:, :, 6:-6, 4:-4], torch.tensor(0.7))
    assert (filter2d(x, f).shape, downsample2d(x, f, down=[1, 2]).shape) == ((1, 2, 24, 20), (1, 2, 12, 20))
    y = upsample2d(x, f, up=[1, 2])
    assert y.shape == (1, 2, 48, 20)
    assert y[:, :, 8:-8, 4:-4].mean().item() == pytest.approx(0.7)


def test_no_filter_and_padding_forms() -> None:
    x = normal(1, 2, 4, 4)
    assert torch.equal(upfirdn2d(x, None), x)
    assert torch.equal(upfirdn2d(x, None, padding=[1, -1, 0, 2]), F.pad(x, (1, -1, 0, 2)))
    assert torch.equal(upfirdn2d(x, None, padding=[1, 2]), upfirdn2d(x, None, padding=[1, 1, 2, 2]))
    assert torch.equal(upfirdn2d(x, None, up=2)[:, :, ::2, ::2], x)


def by_definition(x: Tensor, w: Tensor, f: Tensor | None, *, up: int, down: int, padding: int, groups: int) -> Tensor:
    """Upsample, correlate, filter and drop, one after the other, each with "same" padding but for the border's cut."""
    taps = 1 if f is None else len(f)
    p = [padding, padding]
    p = [p[0] + (taps + up - 1) // 2, p[1] + (taps - up) // 2] if up > 1 else p
    p = [p[0] + (taps - down + 1) // 2, p[1] + (taps - down) // 2] if down > 1 else p
    x = upfirdn2d(x, f if up > 1 else None, up=up, padding=p * 2, gain=up**2)
    x = F.conv2d(x, w, groups=groups)
    return upfirdn2d(x, f if down > 1 else None, down=down)


@pytest.mark.parametrize(
    ("kernel", "up", "down", "groups", "filtered"), itertools.product([1, 3], [1, 2], [1, 2], [1, 2], [True, False])
)
def test_convolution_equals_its_definition(kernel: int, up: int, down: int, groups: int, filtered: bool) -> None:
    x, w = normal(2, 4, 6, 8).requires_grad_(), normal(6, 4 // groups, kernel, kernel, seed=1).requires_grad_()
    f = fir_filter([1, 2, 4, 3]).double() if filtered else None
    geometry = {"up": up, "down": down, "padding": kernel // 2, "groups": groups}
    expected, found = by_definition(x, w, f, **geometry), conv2d_resample(x, w, f, **geometry)
    assert found.shape == (2, 6, 6 * up // down, 8 * up // down)
    assert torch.allclose(found, expected, atol=1e-12)
    g = normal(*expected.shape, seed=2)
    for a, b in zip(torch.autograd.grad(found, (x, w), g), torch.autograd.grad(expected, (x, w), g), strict=True):
        assert torch.allclose(a, b, atol=1e-11)
    flipped = conv2d_resample(x, w.flip((2, 3)), f, flip_weight=False, **geometry)
    assert torch.allclose(flipped, expected, atol=1e-12)


def test_uneven_padding_of_a_plain_convolution() -> None:
    x, w = normal(1, 2, 6, 6), normal(3, 2, 3, 3, seed=1)
    for f, down in ((None, 1), (None, 2), (fir_filter([1, 2, 1]).double(), 1)):
        found = conv2d_resample(x, w, f, down=down, padding=[2, 0, -1, 1])
        extra = (1 - down + 1) // 2, (1 - down) // 2
        padded = F.pad(x, (2 + extra[0], extra[1], extra[0] - 1, 1 + extra[1]) if down > 1 else (2, 0, -1, 1))
        assert torch.allclose(found, F.conv2d(padded, w, stride=down), atol=1e-12)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_convolution_derivatives(up: int, down: int) -> None:
    x, w = normal(1, 2, 4, 4).requires_grad_(), normal(1, 2, 3, 3, seed=1).requires_grad_()
    f = fir_filter([1, 2, 1]).double()
    run = lambda x, w: conv2d_resample(x, w, f, up=up, down=down, padding=1).sin()  # noqa: E731
    assert gradcheck(run, (x, w)) and gradgradcheck(run, (x, w))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_of_x_is_kept_even_under_autocast(dtype: torch.dtype) -> None:
    x, f = normal(2, 3, 8, 8).to(dtype).requires_grad_(), fir_filter([1, 3, 3, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = upsample2d(x, f)
        (grad,) = torch.autograd.grad(y.float().sum(), x)
    assert y.dtype == grad.dtype == dtype
    exact = upsample2d(x.double(), f)
    assert (y.double() - exact).abs().max() < 3 * torch.finfo(dtype).eps * exact.abs().max()


def test_channels_last_stays() -> None:
    x = normal(2, 16, 8, 8).to(memory_format=torch.channels_last)
    y = upfirdn2d(x, fir_filter([1, 3, 3, 1]), padding=[2, 1])
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(y, upfirdn2d(x.contiguous(), fir_filter([1, 3, 3, 1]), padding=[2, 1]))


def test_function_transforms() -> None:
    x, f = normal(3, 2, 1, 5, 5), fir_filter(TAPS).double()
    energy = lambda x: upfirdn2d(x, f, up=2, padding=1).square().sum()  # noqa: E731
    each = torch.vmap(torch.func.grad(energy), in_dims=1, out_dims=2)(x)
    whole = torch.func.grad(energy)(x.flatten(0, 1)).reshape(3, 2, 1, 5, 5)
    assert torch.allclose(each, whole.transpose(1, 2))
    small = x[0, 0, :, :3, :3]
    hessian = torch.func.hessian(lambda x: energy(x[None]))(small)
    assert torch.allclose(hessian, torch.autograd.functional.hessian(lambda x: energy(x[None]), small))
    with pytest.raises(ValueError, match="one filter for all"):
        torch.vmap(lambda f: upfirdn2d(x[0], f))(torch.stack([f, f]))


@pytest.mark.slow
def test_compiled_convolution_and_penalty() -> None:
    x, w, f = normal(2, 3, 8, 8).requires_grad_(), normal(4, 3, 3, 3, seed=1).requires_grad_(), fir_filter([1, 3, 3, 1])
    energy = lambda x: conv2d_resample(x, w, f, down=2, padding=1).sin().sum()  # noqa: E731
    penalty = lambda x: torch.func.grad(energy)(x).square().sum()  # noqa: E731
    for run in (energy, penalty):
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        (found,), (expected,) = torch.autograd.grad(compiled(x), w), torch.autograd.grad(run(x), w)
        assert torch.allclose(found, expected, atol=1e-10)


def test_what_is_refused() -> None:
    x, f = torch.zeros(1, 1, 4, 4), fir_filter([1, 3, 3, 1])
    with pytest.raises(ValueError, match=r"expected \[N, C, H, W\]"):
        upfirdn2d(x[0], f)
    with pytest.raises(ValueError, match="up 0 must be 1 or more"):
        upfirdn2d(x, f, up=0)
    with pytest.raises(ValueError, match="padding .* has 3 numbers"):
        upfirdn2d(x, f, padding=[1, 2, 3])
    with pytest.raises(ValueError, match="pad more"):
        upfirdn2d(x, f, padding=[-1, 0, 0, 0])
