"""Bias, activation, gain and clamp in one call, as every layer of the StyleGAN family ends."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_gans.nn import kernels

# The gain keeps the variance of a unit normal roughly at one; only these three have a gain of their own.
_GAINS = {"relu": sqrt(2), "lrelu": sqrt(2), "swish": sqrt(2)}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "swish": F.silu,
}
ACTIVATIONS = ("lrelu", *_ACTIVATIONS)


def activation_gain(act: str) -> float:
    """The default gain of an activation: sqrt(2) for relu, lrelu and swish, otherwise 1.

    Raises:
        ValueError: there is no such activation.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"activation {act!r} is not known: use one of {', '.join(ACTIVATIONS)}")
    return _GAINS.get(act, 1.0)


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """clamp(gain * act(x + b)), of x's shape and dtype; b [x.shape[dim]] is added along `dim`.

    alpha is the slope of lrelu below zero (None: 0.2; other activations ignore it). gain None: the activation's own
    (`activation_gain`). clamp c limits the result to [-c, c], after the gain (Karras et al., 2020, StyleGAN2-ADA).

    Raises:
        ValueError: an unknown activation, a bias of another length than x along `dim`, or a negative clamp.
    """
    gain = activation_gain(act) if gain is None else gain
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp {clamp} is negative; it is the largest absolute value: use None for no limit")
    if act in kernels.ACTIVATIONS and kernels.available(x):
        return kernels.bias_act(x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
    if b is not None and gain > 0 and act in kernels.ACTIVATIONS:  # linear in pieces: the gain goes along with the bias
        y, gain = torch.add(_along(b * gain, x, dim).to(x.dtype), x, alpha=gain), 1.0
    else:
        y = x if b is None else x + _along(b, x, dim).to(x.dtype)
    y = F.leaky_relu(y, 0.2 if alpha is None else alpha) if act == "lrelu" else _ACTIVATIONS[act](y)
    y = y if gain == 1 else y * gain
    y = y if clamp is None else y.clamp(-clamp, clamp)
    return y.to(x.dtype)  # autocast computes softplus in single precision


def _along(b: Tensor, x: Tensor, dim: int) -> Tensor:
    if not -x.dim() <= dim < x.dim() or b.dim() != 1 or len(b) != x.shape[dim]:
        raise ValueError(f"bias of shape {tuple(b.shape)} does not fit dimension {dim} of {tuple(x.shape)}")
    return b.reshape([-1 if i == dim % x.dim() else 1 for i in range(x.dim())])  # [C] -> [1, C, 1, 1] for dim 1 of 4
