"""Layers with an equalised learning rate (Karras et al., 2018), https://arxiv.org/abs/1710.10196, Section 4.1.

Weights are stored with unit variance and scaled by He's constant at each call, so that the optimiser's step size means
the same for every layer. Layers end in `bias_act`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_gans.nn.bias_act import activation_gain, bias_act
from lit_gans.nn.resample import conv2d_resample, fir_filter


class EqualizedLinear(nn.Module):
    """x [..., in_features] -> [..., out_features], activation included.

    The weight in use is `weight * lr_multiplier / sqrt(in_features)`, the bias `bias * lr_multiplier`. The stored
    weight starts at N(0, 1 / lr_multiplier^2), the stored bias at `bias_init`, which StyleGAN2-ADA does not divide by
    lr_multiplier.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        activation_gain(activation)  # an unknown activation fails here
        self.activation, self.lr_multiplier = activation, lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init))) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (self.lr_multiplier / sqrt(self.weight.shape[1]))
        bias = None if self.bias is None else (self.bias * self.lr_multiplier).to(x.dtype)
        return bias_act(F.linear(x, weight.to(x.dtype), bias), act=self.activation)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}, activation={self.activation}, lr_multiplier={self.lr_multiplier}"


class EqualizedConv2d(nn.Module):
    """x [N, I, H, W] -> [N, O, H * up / down, W * up / down] with "same" padding, activation included.

    The weight in use is `weight / sqrt(I * k^2)`. `gain` at the call multiplies the activation's gain and the clamp.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is even and has no centre: use 1, 3, ...")
        self.activation, self.activation_gain = activation, activation_gain(activation)
        self.up, self.down, self.conv_clamp = up, down, conv_clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", fir_filter(resample_filter), persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        y = conv2d_resample(
            x,
            self.weight / sqrt(self.weight[0].numel()),
            self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.weight.shape[-1] // 2,
            flip_weight=self.up == 1,  # the official upsampling layers convolve, all others correlate
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        bias = None if self.bias is None else self.bias.to(y.dtype)
        return bias_act(y, bias, act=self.activation, gain=self.activation_gain * gain, clamp=clamp)

    def extra_repr(self) -> str:
        o, i, k, _ = self.weight.shape
        return f"{i}, {o}, {k}, activation={self.activation}, up={self.up}, down={self.down}"
