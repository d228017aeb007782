"""The filtered nonlinearity (Karras et al., 2021, Sec. 3.2): bias, upsampling, leaky ReLU and downsampling in one.

Rectified at a higher sampling rate, and filtered on the way down, a signal grows no frequencies that its own rate
cannot hold. `plain` is the definition. On a CPU an operator of `torch.library` stands in for it: it takes some
channels at a time, so that the samples in between, 4 or 16 times as many, are not all there at once, upsamples them
in both directions together, and keeps one byte of each for the backward pass. Its gradient is linear and of the same
kind (up, scale, down), so that one further operator serves all derivatives. They are what a fused kernel of another
device would be registered for; there is none yet, and `filtered_lrelu` takes them on a CPU alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_gans.nn.bias_act import bias_act
from lit_gans.nn.resample import Padding, as_padding, filtered_size, fir, opposite_padding, upfirdn2d

_TOGETHER = 2**22  # samples between the filters: more than 32 MB are taken from the system and given back each time
_BLOCK = 16  # channels that a CPU filters together


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = 2**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> Tensor:
    """x [N, C, H, W] -> [N, C, H', W']: + b [C], up by fu, clamp(gain * lrelu(x)), down by fd.

    fu [k], [kh, kw] or None (identity) works at `up` times the rate of x, with a gain of up^2, on x padded or cropped
    as `upfirdn2d` does; fd likewise, before every `down`-th sample is kept. flip_filter: correlate with both.

    Raises:
        ValueError: as `upfirdn2d` and `bias_act`.
    """
    lean = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and gain > 0
    learned = any(f is not None and f.requires_grad for f in (fu, fd))
    if not lean or learned or torch.compiler.is_compiling():
        return plain(x, fu, fd, b, up=up, down=down, padding=padding, gain=gain, slope=slope, clamp=clamp,
                     flip_filter=flip_filter)  # fmt: skip
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp {clamp} is negative; it is the largest absolute value: use None for no limit")
    b = x.new_zeros(x.shape[1]) if b is None else b
    fu, fd = (_correlated(f, x, flip=not flip_filter) for f in (fu, fd))
    save = torch.is_grad_enabled() and (x.requires_grad or b.requires_grad)
    return _FilteredLrelu.apply(x, b, fu, fd, up, down, as_padding(padding), gain, slope, clamp, save)[0]


def plain(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None = None,
    *,
    up: int,
    down: int,
    padding: int | Sequence[int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
) -> Tensor:
    """`filtered_lrelu` step by step."""
    x = upfirdn2d(bias_act(x, b), fu, up=up, padding=padding, gain=up**2, flip_filter=flip_filter)
    x = bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp)
    return upfirdn2d(x, fd, down=down, flip_filter=flip_filter)


def _correlated(f: Tensor | None, x: Tensor, *, flip: bool) -> Tensor:
    f = x.new_ones(1) if f is None else f.to(x.dtype)
    return f.flip(tuple(range(f.dim()))) if flip else f


# ---- the operators ---------------------------------------------------------------------------------------------------
# Filters are correlated, [k] where separable; up and down are the same in both directions.


@torch.library.custom_op("lit_gans::filtered_lrelu", mutates_args=())
def _filtered_lrelu(
    x: Tensor, b: Tensor, fu: Tensor, fd: Tensor, up: int, down: int, padding: Sequence[int], gain: float,
    slope: float, clamp: float | None, save: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The result, and what became of each sample between the filters, as in `nn.kernels`; empty unless save.

    int8 [N, C, H, W]; 0: clamped, 1: multiplied by the gain, 2: by the gain and the slope.
    """
    y, mask = _outputs(x, b, fu, fd, up, down, padding, gain, slope, clamp, save)
    n, c = x.shape[:2]
    marks = mask.view(1, n * c, *mask.shape[2:]) if save else None

    def rectified(samples: Tensor, part: slice) -> None:
        _rectify(samples, None if marks is None else marks[:, part], slope=slope, clamp=clamp)

    x = x + b.to(x.dtype)[:, None, None]
    _up_and_down(x, fu * (up**2 * gain) ** (fu.dim() / 2), fd, up, down, padding, (0, 0, 0, 0), rectified, y)
    return y, mask


@torch.library.custom_op("lit_gans::filtered_scale", mutates_args=())
def _filtered_scale(
    x: Tensor, mask: Tensor, fu: Tensor, fd: Tensor, up: int, down: int, padding_up: Sequence[int],
    padding_down: Sequence[int], positive: float, negative: float,
) -> Tensor:  # fmt: skip
    """x up by fu, times 0, `positive` or `negative` as the mask says, down by fd: the gradient, and its own."""
    y = _scaled_output(x, mask, fu, fd, up, down, padding_up, padding_down, positive, negative)
    marks = mask.view(1, mask.shape[0] * mask.shape[1], *mask.shape[2:])

    def scaled(samples: Tensor, part: slice) -> None:
        mark = marks[:, part]
        samples.mul_(torch.where(mark == 2, samples.new_tensor(negative), samples.new_tensor(positive)))
        if mark.min() == 0:
            samples.masked_fill_(mark == 0, 0)

    _up_and_down(x, fu, fd, up, down, padding_up, padding_down, scaled, y)
    return y


def _up_and_down(
    x: Tensor, fu: Tensor, fd: Tensor, up: int, down: int, padding_up: Sequence[int], padding_down: Sequence[int],
    between: Callable[[Tensor, slice], None], y: Tensor,
) -> None:  # fmt: skip
    """Writes to y: x up by fu, changed in place by `between`, down by fd; some channels of the batch after another."""
    n, c, h, w = x.shape
    images, results = x.reshape(1, n * c, h, w), y.view(1, n * c, *y.shape[2:])
    fu = fu.outer(fu) if fu.dim() == 1 else fu  # a CPU upsamples faster in both directions at once
    height, width = filtered_size(x, fu, up=(up, up), padding=padding_up)
    together = max(_TOGETHER // (height * width) // _BLOCK, 1) * _BLOCK
    for start in range(0, n * c, together):
        part = slice(start, start + together)
        samples = fir(images[:, part], fu, (up, up), (1, 1), padding_up)
        between(samples, part)
        results[:, part] = _down(samples, fd, down, padding_down)


def _down(x: Tensor, f: Tensor, down: int, padding: Sequence[int]) -> Tensor:
    if f.dim() == 2:
        return fir(x, f, (1, 1), (down, down), padding)
    x = fir(x, f[None], (1, 1), (down, 1), (*padding[:2], 0, 0))
    return fir(x, f[:, None], (1, 1), (1, down), (0, 0, *padding[2:]))


def _rectify(samples: Tensor, mask: Tensor | None, *, slope: float, clamp: float | None) -> None:
    """In place, with the gain in the samples already."""
    if mask is not None:
        torch.le(samples, 0, out=mask.view(torch.bool))
        mask.add_(1)
    F.leaky_relu_(samples, slope)
    if clamp is None or samples.abs().max() < clamp:
        return
    if mask is not None:
        mask.masked_fill_(samples.abs() >= clamp, 0)
    samples.clamp_(-clamp, clamp)


@_filtered_lrelu.register_fake
def _outputs(
    x: Tensor, b: Tensor, fu: Tensor, fd: Tensor, up: int, down: int, padding: Sequence[int], gain: float,
    slope: float, clamp: float | None, save: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    between = x.new_empty(*x.shape[:2], *filtered_size(x, fu, up=(up, up), padding=padding), dtype=torch.int8)
    y = x.new_empty(*x.shape[:2], *filtered_size(between, fd, down=(down, down)))
    return y, between if save else x.new_empty(0, dtype=torch.int8)


@_filtered_scale.register_fake
def _scaled_output(
    x: Tensor, mask: Tensor, fu: Tensor, fd: Tensor, up: int, down: int, padding_up: Sequence[int],
    padding_down: Sequence[int], positive: float, negative: float,
) -> Tensor:  # fmt: skip
    return x.new_empty(*x.shape[:2], *filtered_size(mask, fd, down=(down, down), padding=padding_down))


# ---- their derivatives -----------------------------------------------------------------------------------------------


class _FilteredLrelu(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, b: Tensor, fu: Tensor, fd: Tensor, up: int, down: int, padding: Padding, gain: float, slope: float,
        clamp: float | None, save: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return _filtered_lrelu(x, b, fu, fd, up, down, padding, gain, slope, clamp, save)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, b, fu, fd, ctx.up, ctx.down, ctx.padding, ctx.gain, ctx.slope, _, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], fu, fd)
        ctx.sizes, ctx.bias_dtype = (x.shape[2:], output[0].shape[2:]), b.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (mask, fu, fd), (size, to_size) = ctx.saved_tensors, ctx.sizes
        fu = fu * ctx.up ** fu.dim()  # the gain of upsampling, up^2
        there = (fu, fd, ctx.up, ctx.down, ctx.padding, (0, 0, 0, 0))
        dx = _FilteredScale.apply(
            grad, mask, *_back(there, size, mask.shape[2:], to_size), ctx.gain, ctx.gain * ctx.slope
        )
        db = dx.sum((0, 2, 3)).to(ctx.bias_dtype) if ctx.needs_input_grad[1] else None
        return dx, db, *[None] * 9


class _FilteredScale(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, mask: Tensor, *rest: Any) -> Tensor:
        return _filtered_scale(x, mask, *rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, mask, fu, fd, *ctx.rest = inputs
        ctx.save_for_backward(mask, fu, fd)
        ctx.sizes = x.shape[2:], output.shape[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (mask, fu, fd), (size, to_size), (*geometry, positive, negative) = ctx.saved_tensors, ctx.sizes, ctx.rest
        back = _back((fu, fd, *geometry), size, mask.shape[2:], to_size)
        return _FilteredScale.apply(grad, mask, *back, positive, negative), *[None] * 9


def _back(there: tuple[Any, ...], size: Sequence[int], between: Sequence[int], to_size: Sequence[int]) -> tuple:
    """Filters, factors and paddings of the opposite way: up by what went down, down by what went up."""
    fu, fd, up, down, padding_up, padding_down = there
    into = opposite_padding(fd, (1, 1), (down, down), padding_down, between, to_size)
    out = opposite_padding(fu, (up, up), (1, 1), padding_up, size, between)
    fu, fd = (f.flip(tuple(range(f.dim()))) for f in (fu, fd))
    return fd, fu, down, up, into, out
