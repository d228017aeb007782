"""Resampling with FIR filters: up, pad or crop, filter, down; alone or joined with a convolution.

The blurred up- and downsampling of the StyleGAN family (Karras et al., 2019, Section 4; Zhang, 2019). A filter runs as
one strided or transposed depthwise convolution. Its gradient is again such an operation, with up and down exchanged and
the filter flipped, and is written as one, so that gradient penalties differentiate it any number of times at one price.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_gans.nn import kernels

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def fir_filter(
    taps: Tensor | Sequence[float] | Sequence[Sequence[float]] | float | None,
    *,
    normalize: bool = True,
    flip: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Tensor:
    """A filter for `upfirdn2d`, float32: [k] if separable, otherwise [kh, kw].

    1-D taps stay separable from 8 taps on, below they become their outer product (separable None); None is the
    identity. normalize: taps sum to 1 before the gain, which is the gain of the whole two-dimensional filter.

    Raises:
        ValueError: taps are empty or have more than two dimensions, or separable filters are asked of 2-D taps.
    """
    f = torch.as_tensor(1.0 if taps is None else taps, dtype=torch.float32)
    f = f[None] if f.dim() == 0 else f
    if f.dim() > 2 or f.numel() == 0:
        raise ValueError(f"filter taps of shape {tuple(f.shape)}: expected [k] or [kh, kw]")
    separable = f.dim() == 1 and len(f) >= 8 if separable is None else separable
    if separable and f.dim() == 2:
        raise ValueError(f"taps of shape {tuple(f.shape)}: a separable filter needs one dimension")
    f = f.outer(f) if f.dim() == 1 and not separable else f  # [k] -> [k, k]
    f = f / f.sum() if normalize else f
    f = f.flip(tuple(range(f.dim()))) if flip else f
    return f * gain ** (f.dim() / 2)  # a separable filter runs twice, each time with the root of the gain


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """x [N, C, H, W] -> [N, C, H', W'] of x's dtype: zero-insert, pad or crop, filter, keep every down-th sample.

    H' = (H * up + pad - kh) // down + 1. `up` and `down` are one factor or [x, y]; up puts up - 1 zeros after each
    sample. `padding` is one number, [x, y] or [x before, x after, y before, y after] in upsampled pixels; negative
    crops. f [kh, kw], [k] (separable) or None (identity) is convolved, with flip_filter correlated.

    Raises:
        ValueError: x or f has the wrong dimensions, a factor is below 1, or the padded x is smaller than f.
    """
    up, down, (x0, x1, y0, y1) = _factors(up, "up"), _factors(down, "down"), as_padding(padding)
    f = x.new_ones(1, 1) if f is None else f
    if x.dim() != 4 or f.dim() not in (1, 2):
        shapes = f"{tuple(x.shape)} and {tuple(f.shape)}"
        raise ValueError(f"x and filter of shapes {shapes}: expected [N, C, H, W] and [k] or [kh, kw]")
    f = (f.to(torch.promote_types(f.dtype, x.dtype)) * gain ** (f.dim() / 2)).to(x.dtype)
    f = f if flip_filter else f.flip(tuple(range(f.dim())))  # from here on correlated
    if f.dim() == 2:
        return _filtered(x, f, up, down, (x0, x1, y0, y1))
    x = _filtered(x, f[None], (up[0], 1), (down[0], 1), (x0, x1, 0, 0))  # [1, k]: along x
    return _filtered(x, f[:, None], (1, up[1]), (1, down[1]), (0, 0, y0, y1))  # [k, 1]: along y


def filter2d(
    x: Tensor, f: Tensor | None, *, padding: int | Sequence[int] = 0, flip_filter: bool = False, gain: float = 1.0
) -> Tensor:
    """x [N, C, H, W] filtered to its own size, plus `padding` (see `upfirdn2d`)."""
    kw, kh = _filter_size(f)
    p = _added(as_padding(padding), (kw // 2, (kw - 1) // 2, kh // 2, (kh - 1) // 2))
    return upfirdn2d(x, f, padding=p, flip_filter=flip_filter, gain=gain)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """x [N, C, H, W] -> [N, C, H * up, W * up], plus `padding` in output pixels; keeps the mean (see `upfirdn2d`)."""
    factors = _factors(up, "up")
    p = _added(as_padding(padding), _up_padding(_filter_size(f), factors))
    return upfirdn2d(x, f, up=factors, padding=p, flip_filter=flip_filter, gain=gain * factors[0] * factors[1])


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    *,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """x [N, C, H, W] -> [N, C, H / down, W / down]; `padding` is in input pixels (see `upfirdn2d`)."""
    factors = _factors(down, "down")
    p = _added(as_padding(padding), _down_padding(_filter_size(f), factors))
    return upfirdn2d(x, f, down=factors, padding=p, flip_filter=flip_filter, gain=gain)


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """x [N, I, H, W], w [O, I / groups, kh, kw] -> [N, O, H * up / down, W * up / down]: a convolution that resamples.

    Upsampling (filtered by f) comes before the convolution, downsampling (filtered) after it; the sizes above hold for
    "same" padding. `padding` is relative to the upsampled image. flip_weight True is correlation, torch's conv2d;
    False is convolution, which StyleGAN2's upsampling layers use.

    Raises:
        ValueError: as `upfirdn2d`.
    """
    (kh, kw), taps = w.shape[2:], _filter_size(f)
    up2, down2 = _factors(up, "up"), _factors(down, "down")
    p = as_padding(padding)
    p = _added(p, _up_padding(taps, up2)) if up > 1 else p
    p = _added(p, _down_padding(taps, down2)) if down > 1 else p
    w = w.to(x.dtype)
    if (kh, kw) == (1, 1) and up == 1 and down > 1:  # fewer pixels through the convolution
        return _conv(upfirdn2d(x, f, down=down, padding=p, flip_filter=flip_filter), w, groups=groups)
    if (kh, kw) == (1, 1) and up > 1 and down == 1:
        return upfirdn2d(_conv(x, w, groups=groups), f, up=up, padding=p, flip_filter=flip_filter, gain=up**2)
    if up == 1:
        return _conv_down(x, w, f, down, p, groups=groups, flip_weight=flip_weight, flip_filter=flip_filter)
    # Zero-insertion followed by the convolution is one transposed convolution; the filter commutes with it.
    x = _conv_transpose(x, w, stride=up, groups=groups, flip_weight=flip_weight)
    p = _added(p, (1 - kw, up - kw, 1 - kh, up - kh))
    x = upfirdn2d(x, f, padding=p, flip_filter=flip_filter, gain=up**2)  # of up^2 samples all but one are zeros
    return x if down == 1 else upfirdn2d(x, f, down=down, flip_filter=flip_filter)


def _conv_down(
    x: Tensor,
    w: Tensor,
    f: Tensor | None,
    down: int,
    padding: Padding,
    *,
    groups: int,
    flip_weight: bool,
    flip_filter: bool,
) -> Tensor:
    x0, x1, y0, y1 = padding
    w = w if flip_weight else w.flip((2, 3))
    unfiltered = down == 1 or f is None
    if unfiltered and x0 == x1 >= 0 and y0 == y1 >= 0:
        return _conv(x, w, stride=down, padding=(y0, x0), groups=groups)
    x = F.pad(x, padding) if unfiltered else upfirdn2d(x, f, padding=padding, flip_filter=flip_filter)
    return _conv(x, w, stride=down, groups=groups)


def _conv(x: Tensor, w: Tensor, *, stride: int = 1, padding: Pair = (0, 0), groups: int = 1) -> Tensor:
    return F.conv2d(x, w, stride=stride, padding=padding, groups=groups)


def _conv_transpose(x: Tensor, w: Tensor, *, stride: int, groups: int, flip_weight: bool) -> Tensor:
    """Zero-insertion and convolution with every overlap kept: [N, O, (H - 1) * stride + kh, ...]."""
    w = w.flip((2, 3)) if flip_weight else w
    w = w.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # torch wants [I, O / groups, kh, kw]
    return F.conv_transpose2d(x, w, stride=stride, groups=groups)


# ---- the filter, whose gradient is a filter --------------------------------------------------------------------------


def _filtered(x: Tensor, f: Tensor, up: Pair, down: Pair, padding: Padding) -> Tensor:
    # Filters are constants but for those who learn them; torch.compile refuses functions with forward-mode derivatives.
    run = fir if f.requires_grad or torch.compiler.is_compiling() else _Fir.apply
    return run(x, f, up, down, padding)


class _Fir(torch.autograd.Function):
    """`fir` whose gradient is `fir`, at every order. torch's own takes the gradient of the filter along."""

    @staticmethod
    def forward(x: Tensor, f: Tensor, up: Pair, down: Pair, padding: Padding) -> Tensor:
        return fir(x, f, up, down, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Pair, Pair, Padding], output: Tensor) -> None:
        x, f, *ctx.geometry = inputs
        ctx.save_for_backward(f)
        ctx.save_for_forward(f)
        ctx.sizes = x.shape[2:], output.shape[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (f,), (up, down, padding) = ctx.saved_tensors, ctx.geometry
        opposite = opposite_padding(f, up, down, padding, *ctx.sizes)
        return _Fir.apply(grad, f.flip((0, 1)), down, up, opposite), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *constants: None) -> Tensor:
        return _Fir.apply(tangent, *ctx.saved_tensors, *ctx.geometry)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], x: Tensor, f: Tensor, *geometry: Any) -> tuple[Tensor, int]:
        if in_dims[1] is not None:
            raise ValueError("vmap over filters is not possible: use one filter for all of the batch")
        assert in_dims[0] is not None  # something is mapped, and it is not f
        x = x.movedim(in_dims[0], 0)
        return _Fir.apply(x.flatten(0, 1), f, *geometry).unflatten(0, x.shape[:2]), 0  # [V, N, ...] as [V N, ...]


def fir(x: Tensor, f: Tensor, up: Pair, down: Pair, padding: Padding) -> Tensor:
    """`upfirdn2d` by correlation with f [kh, kw]: one kernel, or one depthwise convolution, transposed to upsample."""
    (n, c), (h, w) = x.shape[:2], filtered_size(x, f, up=up, down=down, padding=padding)
    if kernels.available(x, f):
        return kernels.fir(x, f, up=up, down=down, padding=padding)
    # CPUs take channels in blocks: RGB is faster as one image of N * C. An exported graph would be of one N alone.
    if n > 1 and c % 16 and x.is_contiguous() and not torch.compiler.is_exporting():
        x = x.reshape(1, n * c, *x.shape[2:])
    with no_autocast(x):
        y = _fir_down(x, f, down, padding) if up == (1, 1) else _fir_up(x, f, up, padding)[..., :: down[1], :: down[0]]
    return y.reshape(n, c, h, w)


def _fir_down(x: Tensor, f: Tensor, down: Pair, padding: Padding) -> Tensor:
    x0, x1, y0, y1 = padding
    if min(padding) < 0 or max(abs(x0 - x1), abs(y0 - y1)) > 2:
        x, x0, x1, y0, y1 = F.pad(x, padding), 0, 0, 0, 0
    # Slightly different paddings become equal ones by zero taps, without a copy of x.
    f = F.pad(f, (max(x1 - x0, 0), max(x0 - x1, 0), max(y1 - y0, 0), max(y0 - y1, 0)))
    return F.conv2d(x, _planes(f, x), stride=down[::-1], padding=(max(y0, y1), max(x0, x1)), groups=x.shape[1])


def _fir_up(x: Tensor, f: Tensor, up: Pair, padding: Padding) -> Tensor:
    crop_x, extra_x, *rest_x = _transposed_padding(f.shape[1], up[0], *padding[:2])
    crop_y, extra_y, *rest_y = _transposed_padding(f.shape[0], up[1], *padding[2:])
    y = F.conv_transpose2d(
        x,
        _planes(f.flip((0, 1)), x),
        stride=up[::-1],
        padding=(crop_y, crop_x),
        output_padding=(extra_y, extra_x),
        groups=x.shape[1],
    )
    return F.pad(y, rest_x + rest_y) if any(rest_x + rest_y) else y


def _transposed_padding(taps: int, up: int, before: int, after: int) -> tuple[int, int, int, int]:
    """A transposed convolution's padding and output_padding, and what to pad before and after it (negative: crop).

    The padding stays small enough for torch when one side crops much more than the other.
    """
    start, end = taps - 1 - before, taps - up - after  # the first and the last samples that are not wanted
    crop = max(min(start, end + up - 1), 0)
    extra = min(max(crop - end, 0), up - 1)
    return crop, extra, crop - start, crop - extra - end


def _planes(f: Tensor, x: Tensor) -> Tensor:
    """f [kh, kw] for each channel of x: [C, 1, kh, kw]."""
    return f.expand(x.shape[1], 1, -1, -1)


def filtered_size(
    x: Tensor, f: Tensor, *, up: Pair = (1, 1), down: Pair = (1, 1), padding: Sequence[int] = (0, 0, 0, 0)
) -> Pair:
    """(height, width) of x [..., H, W] that f [kh, kw] or [k] has filtered. ValueError where nothing is left."""
    (kw, kh), (x0, x1, y0, y1) = _filter_size(f), padding
    height = (x.shape[-2] * up[1] + y0 + y1 - kh) // down[1] + 1
    width = (x.shape[-1] * up[0] + x0 + x1 - kw) // down[0] + 1
    if height < 1 or width < 1:
        raise ValueError(
            f"x of shape {tuple(x.shape)}, with up {list(up)} and padding {list(padding)} (x before, x after, y "
            f"before, y after), is smaller than the filter ({kh}, {kw}): pad more"
        )
    return height, width


def opposite_padding(
    f: Tensor, up: Pair, down: Pair, padding: Sequence[int], size: Sequence[int], to_size: Sequence[int]
) -> Padding:
    """Of the gradient, which goes from `to_size` (height, width) back to `size`: up by `down`, down by `up`."""
    (kw, kh), (x0, _, y0, _), (h, w), (to_h, to_w) = _filter_size(f), padding, size, to_size
    return (
        kw - 1 - x0,
        w * up[0] - to_w * down[0] + x0 - up[0] + 1,
        kh - 1 - y0,
        h * up[1] - to_h * down[1] + y0 - up[1] + 1,
    )


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Operations on x's device keep their inputs' precision inside."""
    device = x.device.type
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()  # exported graphs hold no context for nothing


# ---- arguments -------------------------------------------------------------------------------------------------------


def _factors(value: int | Sequence[int], name: str) -> Pair:
    x, y = (value, value) if isinstance(value, int) else value
    if x < 1 or y < 1:
        raise ValueError(f"{name} {value} must be 1 or more, one factor or [x, y]")
    return x, y


def as_padding(value: int | Sequence[int]) -> Padding:
    """(x before, x after, y before, y after). ValueError for another number of numbers than 1, 2 or 4."""
    p = (value,) if isinstance(value, int) else tuple(value)
    if len(p) not in (1, 2, 4):
        raise ValueError(f"padding {value} has {len(p)} numbers: expected one, [x, y] or [x0, x1, y0, y1]")
    p = p * 2 if len(p) == 1 else p
    return p if len(p) == 4 else (p[0], p[0], p[1], p[1])


def _added(a: Padding, b: Padding) -> Padding:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


def _filter_size(f: Tensor | None) -> Pair:
    """(kw, kh)."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def _up_padding(size: Pair, up: Pair) -> Padding:
    (kw, kh), (ux, uy) = size, up
    return (kw + ux - 1) // 2, (kw - ux) // 2, (kh + uy - 1) // 2, (kh - uy) // 2


def _down_padding(size: Pair, down: Pair) -> Padding:
    (kw, kh), (dx, dy) = size, down
    return (kw - dx + 1) // 2, (kw - dx) // 2, (kh - dy + 1) // 2, (kh - dy) // 2
