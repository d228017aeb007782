"""Convolutions whose weight a style modulates (Karras et al., 2020), https://arxiv.org/abs/1912.04958, Section 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_gans.nn.resample import conv2d_resample, no_autocast


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
) -> Tensor:
    """x [N, I, H, W], weight [O, I, kh, kw], styles [N, I] -> [N, O, H * up / down, W * up / down] of x's dtype.

    Sample n is convolved with w[n] = weight * styles[n] (Eq. 1), each output channel of which is divided by its norm
    sqrt(sum(w[n]^2) + 1e-8) if `demodulate` (Eq. 3). The styles scale the input's channels and the norms the output's,
    around one convolution that all samples share. `noise`, broadcast to the output, is added last. For the other
    arguments see `conv2d_resample`. Convolutions in float16, by x's dtype or autocast, do not overflow if `demodulate`.

    Raises:
        ValueError: styles or weight do not fit the channels of x.
    """
    n, channels = x.shape[:2]
    if tuple(styles.shape) != (n, channels) or weight.shape[1] != channels:
        raise ValueError(
            f"x of shape {tuple(x.shape)} needs styles [{n}, {channels}] and a weight [O, {channels}, kh, kw], "
            f"found {tuple(styles.shape)} and {tuple(weight.shape)}"
        )
    half = _computes_in_half(x)
    with no_autocast(x):
        if demodulate and half:
            weight, styles = _within_half_range(weight, styles)
        norms = _inverse_norms(weight, styles) if demodulate else None
    y = conv2d_resample(
        x * styles.to(x.dtype)[:, :, None, None],  # [N, I] -> [N, I, 1, 1]: Eq. 1 on the input, not on the weight
        weight,
        resample_filter,
        up=up,
        down=down,
        padding=padding,
        flip_weight=flip_weight,
    )
    noise = None if noise is None else noise.to(y.dtype)
    if norms is None:
        return y if noise is None else y + noise
    norms = norms.to(y.dtype)[:, :, None, None]  # [N, O] -> [N, O, 1, 1]
    return y * norms if noise is None else torch.addcmul(noise, y, norms)  # Eq. 3 on the output


def _inverse_norms(weight: Tensor, styles: Tensor) -> Tensor:
    """1 / sqrt(sum over I, kh, kw of (weight * styles)^2 + 1e-8): [N, O], by one small matrix product."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return (styles.to(dtype).square() @ weight.to(dtype).square().sum((2, 3)).T + 1e-8).rsqrt()  # [N, I] @ [I, O]


def _computes_in_half(x: Tensor) -> bool:
    """Whether a convolution of x runs in float16, by x's own dtype or by autocast."""
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return (torch.get_autocast_dtype(device) if autocast else x.dtype) == torch.float16


def _within_half_range(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and styles scaled so that float16 sums do not overflow; the norms take the scale out again.

    As the official code does: the largest weight of each output channel becomes 1 / sqrt(I * kh * kw), the largest
    style of each sample 1. The bound keeps channels and samples that are all zero from becoming NaN.
    """
    largest = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-8)
    weight = weight / (weight[0].numel() ** 0.5 * largest)
    return weight, styles / styles.abs().amax(1, keepdim=True).clamp_min(1e-8)
