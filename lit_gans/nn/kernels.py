"""Triton kernels for `bias_act`, with derivatives of every order, and for the filter of `resample`.

Layers of a StyleGAN end in bias, activation, gain and clamp, and begin or end with a small filter: plain PyTorch reads
and writes the image once for each, a kernel once for all. The plain forms in `bias_act` and `resample` are the
definition; these are checked against them. Both are linear, or linear in pieces, so that the gradient of each is the
same kind of operation again, and each derivative in reverse mode costs one kernel. `resample` differentiates the
filter, in forward mode too, which `bias_act` has not.

Inside torch.compile the plain forms run: its second derivatives through functions that differentiate themselves are
silently wrong (torch 2.14), and its own kernels are fused as well. Graphs that make_fx has traced hold the operators.

Sums are taken in single precision, for float64 in double; the scalars of `bias_act` are always in single precision.
Triton is imported when a kernel is first launched. With TRITON_INTERPRET=1 it runs them on CPU tensors, slowly.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]

ACTIVATIONS = ("linear", "relu", "lrelu")
MAX_TAPS = 64  # loops over taps are unrolled: 8 x 8, or a longer row or column
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_BLOCK = 1024  # elements of a program: 8 for each thread of 4 warps

tl: Any = None  # triton.language, from the first launch on; Triton looks names up in the globals of this file


def available(x: Tensor, f: Tensor | None = None) -> bool:
    """Whether the kernels may stand in for the plain forms for x, and for `fir` with the filter f.

    They may on CUDA tensors in single or half precision of less than 2^31 elements, if Triton is installed and can run
    (`_usable`), if f has at most MAX_TAPS taps and is not learned, outside of torch.compile, and if LIT_GANS_KERNELS=1
    is set: they are asked for as long as they have been checked in Triton's interpreter alone, and not on a GPU.
    """
    if torch.compiler.is_compiling() or not x.is_cuda or x.dtype not in _DTYPES or not 0 < x.numel() < 2**31:
        return False
    if f is not None and (f.requires_grad or f.numel() > MAX_TAPS):
        return False
    return os.environ.get("LIT_GANS_KERNELS") == "1" and _usable(x.device.index)


@cache
def _usable(device: int) -> bool:
    """Whether Triton is installed, supports the device, and finds what it needs to build its launcher.

    That is a C compiler and Python's headers, once per machine. Without them nobody is asked to install them: the
    plain forms run instead.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    headers = Path(sysconfig.get_config_var("INCLUDEPY") or "", "Python.h").exists()
    supported = torch.cuda.get_device_capability(device) >= (8, 0)
    return find_spec("triton") is not None and supported and bool(compiler) and headers


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    """clamp(gain * act(x + b)), of x's shape and dtype: one kernel; see `lit_gans.nn.bias_act.bias_act`.

    The backward pass needs one byte per element, or none without activation and clamp. b may have another dtype than x.
    The default gain is 1 for every activation.

    Raises:
        ValueError: an activation that has no kernel, a bias that does not fit, or x is not on a CUDA device.
        RuntimeError: called inside torch.compile.
    """
    _refuse_to_be_compiled()
    if act not in ACTIVATIONS:
        raise ValueError(f"activation {act!r} has no kernel: use one of {', '.join(ACTIVATIONS)}, or nn.bias_act")
    if b is not None and (not -x.dim() <= dim < x.dim() or b.dim() != 1 or len(b) != x.shape[dim]):
        raise ValueError(f"bias of shape {tuple(b.shape)} does not fit dimension {dim} of {tuple(x.shape)}")
    slope = {"linear": 1.0, "relu": 0.0, "lrelu": 0.2 if alpha is None else alpha}[act]
    save = torch.is_grad_enabled() and (act != "linear" or clamp is not None)
    dim = 0 if b is None else dim % x.dim()
    return _BiasAct.apply(x, b, dim, act == "relu", slope, gain, clamp, save)[0]


def fir(x: Tensor, f: Tensor, *, up: Pair = (1, 1), down: Pair = (1, 1), padding: Padding = (0, 0, 0, 0)) -> Tensor:
    """x [N, C, H, W] -> [N, C, H', W'] of x's dtype: zero-insert, pad or crop, correlate with f [kh, kw], drop.

    The forward operation alone, without a gradient: `lit_gans.nn.resample` runs it and differentiates it. The order and
    H' are those of `upfirdn2d` there; up and down are (x, y), padding is (x before, x after, y before, y after). x may
    be contiguous or channels_last and the result is the same.

    Raises:
        ValueError: f has too many taps, or x is not on a CUDA device.
    """
    if not 0 < f.numel() <= MAX_TAPS:
        raise ValueError(f"a filter of shape {tuple(f.shape)}: the kernel takes {MAX_TAPS} taps at most")
    return _fir(x, f, up, down, padding)


def _refuse_to_be_compiled() -> None:
    if torch.compiler.is_compiling():
        raise RuntimeError("the kernels are not for torch.compile, which differentiates them wrongly: ask `available`")


def _launch(kernel: Callable[..., None], x: Tensor, programs: int, *args: Any, **constants: Any) -> None:
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"x is on {x.device}: kernels need a CUDA device (for tests, TRITON_INTERPRET=1 needs none)")
    with torch.cuda.device_of(x):  # Triton launches on the current device, which need not be x's
        _jitted(kernel)[(programs,)](*args, **constants)


@cache
def _jitted(kernel: Callable[..., None]) -> Any:
    global tl
    import triton

    tl = triton.language
    return triton.jit(kernel)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_2(n: int, *, most: int) -> int:
    """The smallest power of two that is n or more, but `most` at most."""
    return min(1 << max(n - 1, 0).bit_length(), most)


def _channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _dense(x: Tensor) -> Tensor:
    return x if x.is_contiguous() or _channels_last(x) else x.contiguous()


# Bias and activation. The tensor is a table of rows and columns in the order of its memory. The bias changes either
# with the columns (channels_last, or the last dimension) or with the rows, one for each channel of each sample, so that
# no element has to find its channel by division.


def _bias_act_kernel(
    x,
    b,
    y,
    mask,
    rows,
    cols,
    channels,
    slope,
    gain,
    clamp,
    BIAS: tl.constexpr,
    RELU: tl.constexpr,
    CLAMP: tl.constexpr,
    SAVE: tl.constexpr,
    DOUBLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    blocks = tl.cdiv(cols, COLS)
    row = (tl.program_id(0) // blocks) * ROWS + tl.arange(0, ROWS)
    col = (tl.program_id(0) % blocks).to(tl.int64) * COLS + tl.arange(0, COLS)
    inside = (row < rows)[:, None] & (col < cols)[None, :]
    at = row.to(tl.int64)[:, None] * cols + col[None, :]
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float64 if DOUBLE else tl.float32)
    if BIAS == "rows":
        v += tl.load(b + row % channels, mask=row < rows, other=0.0).to(v.dtype)[:, None]
    if BIAS == "cols":
        v += tl.load(b + col, mask=col < cols, other=0.0).to(v.dtype)[None, :]
    negative = v <= 0  # not a NaN, which passes through
    u = tl.where(negative, 0.0 if RELU else v * slope, v) * gain
    sign = tl.where(negative, 0 if RELU else 2, 1)  # 0: no gradient, 1: the gain, 2: the gain times the slope
    if CLAMP:  # tl.clamp would lose a NaN; torch has no gradient at the limit itself
        sign = tl.where((u >= clamp) | (u <= -clamp), 0, sign)
        u = tl.where(u > clamp, clamp, tl.where(u < -clamp, -clamp, u))
    tl.store(y + at, u.to(y.dtype.element_ty), mask=inside)
    if SAVE:
        tl.store(mask + at, sign.to(tl.int8), mask=inside)


def _scale_kernel(grad, mask, y, size, positive, negative, DOUBLE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float64 if DOUBLE else tl.float32)
    sign = tl.load(mask + at, mask=inside, other=0)
    g = tl.where(sign == 0, 0.0, g * tl.where(sign == 1, positive, negative))
    tl.store(y + at, g.to(y.dtype.element_ty), mask=inside)


@torch.library.custom_op("lit_gans::bias_act", mutates_args=())
def _bias_act(
    x: Tensor,
    b: Tensor | None,
    dim: int,
    relu: bool,
    slope: float,
    gain: float,
    clamp: float | None,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """The result, and the mask int8 of x's shape (empty unless save)."""
    x = _dense(x)
    y, mask = _bias_act_outputs(x, save)
    size = x.numel()
    inner = max(x.stride(dim), 1) if b is not None and len(b) > 1 else size
    channels = 1 if b is None else len(b)
    cols = channels if inner == 1 else inner
    across = _power_of_2(cols, most=_BLOCK)
    down = _BLOCK // across
    _launch(
        _bias_act_kernel,
        x,
        _ceil_div(size // cols, down) * _ceil_div(cols, across),
        x,
        x if b is None else b.contiguous(),
        y,
        mask,
        size // cols,
        cols,
        channels,
        slope,
        gain,
        0.0 if clamp is None else clamp,
        BIAS="none" if b is None else "cols" if inner == 1 < channels else "rows",
        RELU=relu,
        CLAMP=clamp is not None,
        SAVE=save,
        DOUBLE=x.dtype == torch.float64,
        ROWS=down,
        COLS=across,
    )
    return y, mask


def _bias_act_outputs(x: Tensor, save: bool) -> tuple[Tensor, Tensor]:
    mask = torch.empty_like(x, dtype=torch.int8) if save else x.new_empty(0, dtype=torch.int8)
    return torch.empty_like(x), mask


@_bias_act.register_fake
def _(x, b, dim, relu, slope, gain, clamp, save):
    return _bias_act_outputs(_dense(x), save)


class _BiasAct(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        b: Tensor | None,
        dim: int,
        relu: bool,
        slope: float,
        gain: float,
        clamp: float | None,
        save: bool,
    ) -> tuple[Tensor, Tensor]:
        return _bias_act(x, b, dim, relu, slope, gain, clamp, save)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        _, b, ctx.dim, _, ctx.slope, ctx.gain, _, ctx.save = inputs
        ctx.bias_dtype = None if b is None else b.dtype
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        dx = _Scale.apply(grad, mask, ctx.gain, ctx.gain * ctx.slope) if ctx.save else grad * ctx.gain
        db = _bias_gradient(dx, ctx.dim, ctx.bias_dtype) if ctx.needs_input_grad[1] else None
        return dx, db, None, None, None, None, None, None


def _bias_gradient(dx: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    rest = [i for i in range(dx.dim()) if i != dim]
    return (dx.sum(rest, dtype=torch.promote_types(dx.dtype, dtype)) if rest else dx).to(dtype)


@_bias_act.register_vmap
def _(info, in_dims, x, b, dim, *scalars):
    if in_dims[1] is not None:
        raise ValueError("vmap over biases is not possible: use one bias for all of the batch")
    (y, mask) = _bias_act(x.movedim(in_dims[0], 0), b, dim + 1, *scalars)
    return (y, mask), (0, 0 if scalars[-1] else None)


@torch.library.custom_op("lit_gans::bias_act_scale", mutates_args=())
def _scale(grad: Tensor, mask: Tensor, positive: float, negative: float) -> Tensor:
    """grad times 0, positive or negative, as the mask (0, 1, 2) says: the gradient of `_bias_act`, and its own."""
    mask = _dense(mask)
    y = torch.empty_like(mask, dtype=grad.dtype)
    grad = grad if grad.stride() == mask.stride() else torch.empty_like(y).copy_(grad)
    programs = _ceil_div(grad.numel(), _BLOCK)
    double = grad.dtype == torch.float64
    _launch(_scale_kernel, y, programs, grad, mask, y, y.numel(), positive, negative, DOUBLE=double, BLOCK=_BLOCK)
    return y


@_scale.register_fake
def _(grad, mask, positive, negative):
    return torch.empty_like(_dense(mask), dtype=grad.dtype)


@_scale.register_vmap
def _(info, in_dims, grad, mask, positive, negative):
    grad, mask = (
        t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
        for t, d in zip((grad, mask), in_dims[:2], strict=True)
    )
    return _scale(grad, mask, positive, negative), 0


class _Scale(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, mask: Tensor, positive: float, negative: float) -> Tensor:
        return _scale(grad, mask, positive, negative)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float, float], output: Tensor) -> None:
        _, mask, *ctx.scalars = inputs
        ctx.save_for_backward(mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Scale.apply(grad, *ctx.saved_tensors, *ctx.scalars), None, None, None


# The filter. A contiguous tensor is N * C images of one channel, a channels_last tensor N images of C channels, and one
# kernel does both: a program computes a tile of BY rows and BX columns of BC channels.


def _fir_kernel(
    x,
    f,
    y,
    channels,
    h,
    w,
    to_h,
    to_w,
    lead_x,
    lead_y,
    first_x,
    first_y,
    KX: tl.constexpr,
    KY: tl.constexpr,
    UPX: tl.constexpr,
    UPY: tl.constexpr,
    DOWNX: tl.constexpr,
    DOWNY: tl.constexpr,
    DOUBLE: tl.constexpr,
    BY: tl.constexpr,
    BX: tl.constexpr,
    BC: tl.constexpr,
):
    tiles_c, tiles_x, tiles_y = tl.cdiv(channels, BC), tl.cdiv(to_w, BX), tl.cdiv(to_h, BY)
    tile = tl.program_id(0)
    image = (tile // (tiles_c * tiles_x * tiles_y)).to(tl.int64)
    to_y = tile // (tiles_c * tiles_x) % tiles_y * BY + tl.arange(0, BY)
    to_x = tile // tiles_c % tiles_x * BX + tl.arange(0, BX * BC) // BC
    c = tile % tiles_c * BC + tl.arange(0, BX * BC) % BC
    # Zeros are never read. Of the taps over an output, the first that meets a sample is tap_x, and that sample from_x;
    # then every UPX-th tap meets the next sample. Positions count from a multiple of UPX that keeps them from being
    # negative, since division rounds towards zero.
    left, top = to_x * DOWNX + first_x, to_y * DOWNY + first_y
    from_x, from_y = (left + UPX - 1) // UPX, (top + UPY - 1) // UPY
    tap_x, tap_y = from_x * UPX - left, from_y * UPY - top
    from_x -= lead_x
    from_y -= lead_y
    wanted_y, wanted_x = to_y < to_h, (to_x < to_w) & (c < channels)
    x += image * h * w * channels
    total = tl.zeros([BY, BX * BC], dtype=tl.float64 if DOUBLE else tl.float32)
    for i in tl.static_range((KY + UPY - 1) // UPY):
        for j in tl.static_range((KX + UPX - 1) // UPX):
            at_y, at_x, ky, kx = from_y + i, from_x + j, tap_y + i * UPY, tap_x + j * UPX
            inside_y = wanted_y & (at_y >= 0) & (at_y < h) & (ky < KY)
            inside_x = wanted_x & (at_x >= 0) & (at_x < w) & (kx < KX)
            inside = inside_y[:, None] & inside_x[None, :]
            v = tl.load(x + (at_y * w * channels)[:, None] + (at_x * channels + c)[None, :], mask=inside, other=0.0)
            if UPX * UPY == 1:
                tap = tl.load(f + (i * KX + j))
            else:
                tap = tl.load(
                    f + (ky * KX)[:, None] + kx[None, :], mask=(ky < KY)[:, None] & (kx < KX)[None, :], other=0.0
                )
            total += v.to(total.dtype) * tap.to(total.dtype)
    y += image * to_h * to_w * channels
    at = (to_y * to_w * channels)[:, None] + (to_x * channels + c)[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=wanted_y[:, None] & wanted_x[None, :])


@torch.library.custom_op("lit_gans::fir", mutates_args=())
def _fir(x: Tensor, f: Tensor, up: Sequence[int], down: Sequence[int], padding: Sequence[int]) -> Tensor:
    x, f = _dense(x), f.contiguous()
    y = _fir_output(x, f, up, down, padding)
    channels = x.shape[1] if _channels_last(x) else 1
    (h, w), (to_h, to_w) = x.shape[2:], y.shape[2:]
    bc = _power_of_2(channels, most=32)
    bx = _power_of_2(to_w, most=8 if bc > 1 else 64)
    by = _power_of_2(to_h, most=_BLOCK // (bc * bx))
    lead_x, lead_y = (max(_ceil_div(before, factor), 0) for before, factor in zip(padding[::2], up, strict=True))
    _launch(
        _fir_kernel,
        x,
        x.shape[0] * x.shape[1] // channels * _ceil_div(channels, bc) * _ceil_div(to_w, bx) * _ceil_div(to_h, by),
        x,
        f,
        y,
        channels,
        h,
        w,
        to_h,
        to_w,
        lead_x,
        lead_y,
        lead_x * up[0] - padding[0],
        lead_y * up[1] - padding[2],
        KX=f.shape[1],
        KY=f.shape[0],
        UPX=up[0],
        UPY=up[1],
        DOWNX=down[0],
        DOWNY=down[1],
        DOUBLE=x.dtype == torch.float64,
        BY=by,
        BX=bx,
        BC=bc,
        num_warps=_power_of_2(by * bx * bc // 256, most=4),
    )
    return y


def _fir_size(x: Tensor, f: Tensor, up: Sequence[int], down: Sequence[int], padding: Sequence[int]) -> Pair:
    (h, w), (kh, kw), (x0, x1, y0, y1) = x.shape[2:], f.shape, padding
    return (h * up[1] + y0 + y1 - kh) // down[1] + 1, (w * up[0] + x0 + x1 - kw) // down[0] + 1


@_fir.register_fake
def _fir_output(x: Tensor, f: Tensor, up: Sequence[int], down: Sequence[int], padding: Sequence[int]) -> Tensor:
    layout = torch.channels_last if _channels_last(x) else torch.contiguous_format
    size = (*x.shape[:2], *_fir_size(x, f, up, down, padding))
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
