# MIT License
#
# Copyright (c) 2026 the lit_gans authors
#
# Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
# documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
# rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
# persons to whom the Software is furnished to do so, subject to the following conditions:
#
# The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
# Software.
#
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
# WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
# COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
# OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""StyleGAN2's networks in one file that needs torch alone, with the interface of stylegan2-ada-pytorch and stylegan3.

Network pickles of those repositories carry their networks' source, which the loader runs: files that lit_gans writes
carry this text. So it imports nothing of lit_gans, and does without what torch 1.7 or Python 3.7 do not know. Names of
modules, tensors and arguments are the official ones, since tools reach into networks by them.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIXED = {"activation": "lrelu", "kernel_size": 3, "use_noise": True, "freeze_layers": 0}
NO_EFFECT = ("fp16_channels_last", "fused_modconv_default")  # a memory layout, an order of operations


def keeps_arguments(cls: type) -> type:
    """The class, whose objects keep what they were built with; by the loader's own decorator where there is one.

    That decorator also pickles them with this source again.
    """
    decorator = getattr(sys.modules.get("torch_utils.persistence"), "persistent_class", None)
    if decorator is not None:
        return decorator(cls)
    build = cls.__init__

    @functools.wraps(build)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        self._init_args, self._init_kwargs = args, kwargs

    cls.__init__ = __init__
    return cls


def check_fixed(arguments: dict) -> None:
    """ValueError for official arguments that these networks have at one value alone; TypeError for unknown ones."""
    for name, value in arguments.items():
        if name in NO_EFFECT:
            continue
        if name not in FIXED:
            raise TypeError(f"{name!r} is no argument of these networks")
        if value != FIXED[name]:
            raise ValueError(f"{name} is {value!r}; these networks have {FIXED[name]!r} alone")


# ---- operations ------------------------------------------------------------------------------------------------------


def fir_filter(taps: Sequence[float]) -> Tensor:
    """Taps that sum to 1: [k, k] of the outer product, [k] from 8 taps on."""
    f = torch.as_tensor(taps, dtype=torch.float32)
    f = f.ger(f) if f.dim() == 1 and f.numel() < 8 else f
    return f / f.sum()


def upfirdn2d(
    x: Tensor, f: Tensor, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0), gain: float = 1.0
) -> Tensor:
    """x [N, C, H, W] with up - 1 zeros after each sample, padded (before, after), filtered, every down-th sample."""
    n, c, h, w = x.shape
    if up > 1:
        spread = x.new_zeros(n, c, h * up, w * up)
        spread[:, :, ::up, ::up] = x
        x = spread
    x = F.pad(x, [*padding, *padding])
    f = (f.to(torch.float32) * gain ** (f.dim() / 2)).to(x.dtype).flip(list(range(f.dim())))
    if f.dim() == 2:
        return F.conv2d(x, f.expand(c, 1, -1, -1), stride=down, groups=c)
    x = F.conv2d(x, f[None].expand(c, 1, -1, -1), stride=(1, down), groups=c)
    return F.conv2d(x, f[:, None].expand(c, 1, -1, -1), stride=(down, 1), groups=c)


def around_up(f: Tensor, up: int = 2) -> tuple[int, int]:
    """Padding (before, after) of an upsampling that keeps pictures in their place."""
    taps = f.shape[-1]
    return (taps + up - 1) // 2, (taps - up) // 2


def around_down(f: Tensor, down: int = 2) -> tuple[int, int]:
    """Padding (before, after) of a downsampling that keeps pictures in their place."""
    taps = f.shape[-1]
    return (taps - down + 1) // 2, (taps - down) // 2


def resampled_convolution(x: Tensor, w: Tensor, f: Tensor | None, up: int = 1, down: int = 1) -> Tensor:
    """A "same" convolution after filtered upsampling, which convolves, or before filtered downsampling; w [O, I, k, k].

    Without upsampling it correlates, as torch's own.
    """
    w, size = w.to(x.dtype), w.shape[-1]
    if up > 1:
        before, after = (size // 2 + p for p in around_up(f, up))
        if size == 1:
            return upfirdn2d(F.conv2d(x, w), f, up=up, padding=(before, after), gain=up**2)
        x = F.conv_transpose2d(x, w.transpose(0, 1), stride=up)  # zeros put between, and the convolution, in one
        return upfirdn2d(x, f, padding=(before + 1 - size, after + up - size), gain=up**2)
    if down > 1:
        before, after = (size // 2 + p for p in around_down(f, down))
        if size == 1:
            return F.conv2d(upfirdn2d(x, f, down=down, padding=(before, after)), w)
        return F.conv2d(upfirdn2d(x, f, padding=(before, after)), w, stride=down)
    return F.conv2d(x, w, padding=size // 2)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    f: Tensor | None = None,
    demodulate: bool = True,
) -> Tensor:
    """x [N, I, H, W] convolved with weight [O, I, k, k] * styles [N, I], normed if `demodulate`, plus noise."""
    if demodulate and x.dtype == torch.float16:  # sums in float16 must not overflow; the norms take the scale out
        largest = weight.abs().flatten(1).max(1)[0].clamp(min=1e-8).reshape(-1, 1, 1, 1)
        weight = weight / (math.sqrt(weight[0].numel()) * largest)
        styles = styles / styles.abs().max(1, keepdim=True)[0].clamp(min=1e-8)
    y = resampled_convolution(x * styles.to(x.dtype)[:, :, None, None], weight, f, up=up)
    if demodulate:
        norms = (styles.square() @ weight.square().sum((2, 3)).t() + 1e-8).rsqrt()
        y = y * norms.to(y.dtype)[:, :, None, None]
    return y if noise is None else y + noise.to(y.dtype)


def bias_act(
    x: Tensor, b: Tensor | None = None, activation: str = "linear", gain: float = 1.0, clamp: float | None = None
) -> Tensor:
    """x [N, C, ...] with bias, activation, gain and a clamp at +-clamp."""
    if b is not None:
        x = x + b.to(x.dtype).reshape([1, -1] + [1] * (x.dim() - 2))
    x = F.leaky_relu(x, 0.2) if activation == "lrelu" else x
    x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def variance_gain(activation: str) -> float:
    """The gain that keeps the variance."""
    gains = {"linear": 1.0, "lrelu": math.sqrt(2)}
    if activation not in gains:
        raise ValueError(f"activation is {activation!r}; these networks have {' and '.join(gains)} alone")
    return gains[activation]


def unit_second_moment(x: Tensor) -> Tensor:
    """Each row [N, D] divided by the root of its mean square."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def half_resolutions(resolution: int, count: int) -> set:
    """The `count` highest resolutions, whose blocks compute in float16; never 4."""
    log2 = int(math.log2(resolution))
    return {2**i for i in range(3, log2 + 1) if i > log2 - count}


def widths(resolution: int, channel_base: int, channel_max: int) -> dict:
    """Feature maps at 4, 8, ..., resolution. ValueError where that is no power of two."""
    if resolution < 4 or resolution & (resolution - 1):
        raise ValueError(f"img_resolution {resolution} is no power of two from 4")
    return {2**i: min(channel_base // 2**i, channel_max) for i in range(2, int(math.log2(resolution)) + 1)}


def dtype_of(x: Tensor, use_fp16: bool, force_fp32: bool) -> torch.dtype:
    """What a block computes in: float16 is for GPUs."""
    return torch.float16 if use_fp16 and not force_fp32 and x.is_cuda else torch.float32


# ---- layers ----------------------------------------------------------------------------------------------------------


@keeps_arguments
class FullyConnectedLayer(nn.Module):
    """x [N, in_features] -> [N, out_features]; stored weights have unit variance."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        variance_gain(activation)
        self.in_features, self.out_features, self.activation = in_features, out_features, activation
        self.weight = nn.Parameter(torch.randn([out_features, in_features]) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init))) if bias else None
        self.weight_gain, self.bias_gain = lr_multiplier / math.sqrt(in_features), lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.bias_gain
        y = x.matmul((self.weight * self.weight_gain).to(x.dtype).t())
        return bias_act(y, bias, self.activation, variance_gain(self.activation))


@keeps_arguments
class Conv2dLayer(nn.Module):
    """x [N, I, H, W] -> [N, O, H * up / down, W * up / down]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.activation = in_channels, out_channels, activation
        self.up, self.down, self.conv_clamp, self.padding = up, down, conv_clamp, kernel_size // 2
        self.register_buffer("resample_filter", fir_filter(resample_filter))
        self.weight_gain, self.act_gain = 1 / math.sqrt(in_channels * kernel_size**2), variance_gain(activation)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, kernel_size, kernel_size]))
        self.bias = nn.Parameter(torch.zeros([out_channels])) if bias else None

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        x = resampled_convolution(x, self.weight * self.weight_gain, self.resample_filter, up=self.up, down=self.down)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, self.bias, self.activation, self.act_gain * gain, clamp)


@keeps_arguments
class MappingNetwork(nn.Module):
    """z [N, Z] and condition c [N, C] -> ws [N, num_ws, W], or [N, W] where num_ws is None."""

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.995,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta = num_layers, w_avg_beta
        embed_features = 0 if c_dim == 0 else w_dim if embed_features is None else embed_features
        layer_features = w_dim if layer_features is None else layer_features
        sizes = [z_dim + embed_features] + [layer_features] * (num_layers - 1) + [w_dim]
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        for i in range(num_layers):
            layer = FullyConnectedLayer(sizes[i], sizes[i + 1], activation=activation, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        skip_w_avg_update: bool = False,
        update_emas: bool | None = None,
    ) -> Tensor:
        """stylegan3 says by `update_emas` when the average moves; the older code moves it in training mode."""
        parts = [unit_second_moment(z.to(torch.float32))] if self.z_dim > 0 else []
        if self.c_dim > 0:
            parts.append(unit_second_moment(self.embed(c.to(torch.float32))))
        x = torch.cat(parts, 1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if self.num_ws is None:
            return x
        if (self.training and not skip_w_avg_update) if update_emas is None else update_emas:
            if self.w_avg_beta is not None:
                self.w_avg.add_((x.detach().mean(0) - self.w_avg) * (1 - self.w_avg_beta))
        ws = torch.stack([x] * self.num_ws, 1)
        if truncation_psi == 1:
            return ws
        kept = torch.full((self.num_ws, 1), float(truncation_psi), device=ws.device)  # of the way from the average
        if truncation_cutoff is not None:
            kept[truncation_cutoff:] = 1
        return self.w_avg + kept * (ws - self.w_avg)


# ---- the generator ---------------------------------------------------------------------------------------------------


@keeps_arguments
class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky rectifier."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        up: int = 1,
        activation: str = "lrelu",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.w_dim, self.resolution = in_channels, out_channels, w_dim, resolution
        self.up, self.use_noise, self.activation, self.conv_clamp = up, True, activation, conv_clamp
        self.register_buffer("resample_filter", fir_filter(resample_filter))
        self.padding, self.act_gain = 1, variance_gain(activation)
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 3, 3]))
        self.register_buffer("noise_const", torch.randn([resolution, resolution]))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros([out_channels]))

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str = "random", fused_modconv: bool | None = True, gain: float = 1.0
    ) -> Tensor:
        if noise_mode not in ("random", "const", "none"):
            raise ValueError(f"noise_mode {noise_mode!r} is not one of random, const, none")
        noise = None
        if self.use_noise and noise_mode != "none":
            shape = (len(x), 1, self.resolution, self.resolution)
            maps = self.noise_const if noise_mode == "const" else torch.randn(shape, device=x.device)
            noise = self.noise_strength * maps
        x = modulated_conv2d(x, self.weight, self.affine(w), noise, self.up, self.resample_filter)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, self.bias, self.activation, self.act_gain * gain, clamp)


@keeps_arguments
class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution without demodulation: features -> colours."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, conv_clamp: float | None = None) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.w_dim, self.conv_clamp = in_channels, out_channels, w_dim, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 1, 1]))
        self.bias = nn.Parameter(torch.zeros([out_channels]))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor, fused_modconv: bool | None = True) -> Tensor:
        x = modulated_conv2d(x, self.weight, self.affine(w) * self.weight_gain, demodulate=False)
        return bias_act(x, self.bias, clamp=self.conv_clamp)


@keeps_arguments
class SynthesisBlock(nn.Module):
    """Two layers at one resolution, of which the first doubles it; at 4 pixels a constant and one layer."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = "skip",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        **fixed: Any,
    ) -> None:
        super().__init__()
        check_fixed(fixed)
        self.in_channels, self.w_dim, self.resolution, self.img_channels = in_channels, w_dim, resolution, img_channels
        self.is_last, self.architecture, self.use_fp16, self.channels_last = is_last, architecture, use_fp16, False
        self.register_buffer("resample_filter", fir_filter(resample_filter))
        self.num_conv, self.num_torgb = 2 if in_channels else 1, int(is_last or architecture == "skip")
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn([out_channels, resolution, resolution]))
        layer = dict(w_dim=w_dim, resolution=resolution, conv_clamp=conv_clamp)
        if in_channels != 0:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, resample_filter=resample_filter, **layer)
        # Without upsampling no filter is used; the official layer has the default one there.
        self.conv1 = SynthesisLayer(out_channels, out_channels, **layer)
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim=w_dim, conv_clamp=conv_clamp)
        if in_channels != 0 and architecture == "resnet":
            self.skip = Conv2dLayer(in_channels, out_channels, 1, bias=False, up=2, resample_filter=resample_filter)

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        ws: Tensor,
        force_fp32: bool = False,
        fused_modconv: bool | None = None,
        update_emas: bool | None = False,
        **layer_kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """x, img at half the resolution (None at 4 pixels), ws [N, num_conv + num_torgb, W] -> both at it."""
        each, dtype = iter(ws.unbind(1)), dtype_of(ws, self.use_fp16, force_fp32)
        if self.in_channels == 0:
            x = self.const.to(dtype).unsqueeze(0).repeat([ws.shape[0], 1, 1, 1])
            x = self.conv1(x, next(each), **layer_kwargs)
        else:
            x = x.to(dtype)
            gains = dict(gain=math.sqrt(0.5)) if self.architecture == "resnet" else {}
            y = self.skip(x, **gains) if gains else None
            x = self.conv0(x, next(each), **layer_kwargs)
            x = self.conv1(x, next(each), **gains, **layer_kwargs)
            x = x if y is None else y + x
        if img is not None:
            img = upfirdn2d(img, self.resample_filter, up=2, padding=around_up(self.resample_filter), gain=4)
        if self.num_torgb:
            y = self.torgb(x, next(each)).to(torch.float32)
            img = y if img is None else img + y
        return x, img


@keeps_arguments
class SynthesisNetwork(nn.Module):
    """ws [N, num_ws, W] -> images [N, C, R, R]."""

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        **block_kwargs: Any,
    ) -> None:
        super().__init__()
        maps = widths(img_resolution, channel_base, channel_max)
        in_half = half_resolutions(img_resolution, num_fp16_res)
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.img_resolution_log2, self.num_fp16_res = int(math.log2(img_resolution)), num_fp16_res
        self.block_resolutions = list(maps)
        self.num_ws = 0
        for res in self.block_resolutions:
            block = SynthesisBlock(
                maps[res // 2] if res > 4 else 0,
                maps[res],
                w_dim=w_dim,
                resolution=res,
                img_channels=img_channels,
                is_last=res == img_resolution,
                use_fp16=res in in_half,
                **block_kwargs,
            )
            self.num_ws += block.num_conv + (block.num_torgb if block.is_last else 0)
            setattr(self, f"b{res}", block)

    def forward(self, ws: Tensor, **block_kwargs: Any) -> Tensor:
        ws, start, x, img = ws.to(torch.float32), 0, None, None
        if list(ws.shape[1:]) != [self.num_ws, self.w_dim]:
            raise ValueError(f"ws of shape {list(ws.shape)}: expected [N, {self.num_ws}, {self.w_dim}]")
        for res in self.block_resolutions:
            block = getattr(self, f"b{res}")
            x, img = block(x, img, ws.narrow(1, start, block.num_conv + block.num_torgb), **block_kwargs)
            start += block.num_conv
        return img


@keeps_arguments
class Generator(nn.Module):
    """z [N, Z], c [N, C] (None where c_dim is 0) -> images [N, img_channels, R, R], around [-1, 1].

    Arguments of the synthesis network are taken in a dictionary, as by stylegan2-ada-pytorch, or one by one, as by
    stylegan3.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict | None = None,
        synthesis_kwargs: dict | None = None,
        **more_synthesis_kwargs: Any,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        synthesis, mapping = dict(synthesis_kwargs or {}, **more_synthesis_kwargs), dict(mapping_kwargs or {})
        if "fused_modconv_default" in synthesis:  # the code that knows it has other defaults
            synthesis = dict(dict(num_fp16_res=4, conv_clamp=256), **synthesis)
            mapping = dict(dict(w_avg_beta=0.998), **mapping)
        self.synthesis = SynthesisNetwork(
            w_dim=w_dim, img_resolution=img_resolution, img_channels=img_channels, **synthesis
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_ws=self.num_ws, **mapping)

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        update_emas: bool | None = None,
        **synthesis_kwargs: Any,
    ) -> Tensor:
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas=update_emas)
        return self.synthesis(ws, **synthesis_kwargs)


# ---- the discriminator -----------------------------------------------------------------------------------------------


@keeps_arguments
class DiscriminatorBlock(nn.Module):
    """Two convolutions at one resolution, of which the second halves it."""

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        resolution: int,
        img_channels: int,
        first_layer_idx: int,
        architecture: str = "resnet",
        activation: str = "lrelu",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        **fixed: Any,
    ) -> None:
        super().__init__()
        check_fixed(fixed)
        self.in_channels, self.resolution, self.img_channels = in_channels, resolution, img_channels
        self.first_layer_idx, self.architecture = first_layer_idx, architecture
        self.use_fp16, self.channels_last = use_fp16, False
        self.register_buffer("resample_filter", fir_filter(resample_filter))
        conv = dict(activation=activation, conv_clamp=conv_clamp)
        if in_channels == 0 or architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, tmp_channels, 1, **conv)
        self.conv0 = Conv2dLayer(tmp_channels, tmp_channels, 3, **conv)
        self.conv1 = Conv2dLayer(tmp_channels, out_channels, 3, down=2, resample_filter=resample_filter, **conv)
        if architecture == "resnet":
            self.skip = Conv2dLayer(tmp_channels, out_channels, 1, bias=False, down=2, resample_filter=resample_filter)
        self.num_layers = len(list(self.children()))

    def forward(self, x: Tensor | None, img: Tensor | None, force_fp32: bool = False) -> tuple[Tensor, Tensor | None]:
        dtype = dtype_of(img if x is None else x, self.use_fp16, force_fp32)
        x = None if x is None else x.to(dtype)
        if self.in_channels == 0 or self.architecture == "skip":
            img = img.to(dtype)
            y = self.fromrgb(img)
            x = y if x is None else x + y
            f = self.resample_filter
            img = upfirdn2d(img, f, down=2, padding=around_down(f)) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            y = self.skip(x, gain=math.sqrt(0.5))
            return y + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), img
        return self.conv1(self.conv0(x)), img


@keeps_arguments
class MinibatchStdLayer(nn.Module):
    """x [N, C, H, W] -> [N, C + num_channels, H, W]: how much the samples of a group differ, appended."""

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size, self.num_channels = group_size, num_channels

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        group = n if self.group_size is None else min(self.group_size, n)
        y = x.reshape(group, -1, self.num_channels, c // self.num_channels, h, w)
        y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean([2, 3, 4])
        return torch.cat([x, y.reshape(-1, self.num_channels, 1, 1).repeat(group, 1, h, w)], 1)


@keeps_arguments
class DiscriminatorEpilogue(nn.Module):
    """x [N, C, 4, 4], and the mapped condition -> logits [N, 1]."""

    def __init__(
        self,
        in_channels: int,
        cmap_dim,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.cmap_dim, self.resolution = in_channels, cmap_dim, resolution
        self.img_channels, self.architecture = img_channels, architecture
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation=activation)
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        conv = dict(activation=activation, conv_clamp=conv_clamp)
        self.conv = Conv2dLayer(in_channels + mbstd_num_channels, in_channels, 3, **conv)
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, 1 if cmap_dim == 0 else cmap_dim)

    def forward(self, x: Tensor, img: Tensor | None, cmap: Tensor | None, force_fp32: bool = False) -> Tensor:
        x = x.to(torch.float32)
        if self.architecture == "skip":
            x = x + self.fromrgb(img.to(torch.float32))
        x = x if self.mbstd is None else self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        return (x * cmap).sum(1, keepdim=True) / math.sqrt(self.cmap_dim) if self.cmap_dim > 0 else x


@keeps_arguments
class Discriminator(nn.Module):
    """img [N, img_channels, R, R], c [N, C] (None where c_dim is 0) -> logits [N, 1]."""

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        cmap_dim=None,
        block_kwargs: dict | None = None,
        mapping_kwargs: dict | None = None,
        epilogue_kwargs: dict | None = None,
    ) -> None:
        super().__init__()
        maps = widths(img_resolution, channel_base, channel_max)
        in_half = half_resolutions(img_resolution, num_fp16_res)
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.img_resolution_log2 = int(math.log2(img_resolution))
        self.block_resolutions = [res for res in reversed(list(maps)) if res > 4]
        cmap_dim = 0 if c_dim == 0 else maps[4] if cmap_dim is None else cmap_dim
        common = dict(img_channels=img_channels, architecture=architecture, conv_clamp=conv_clamp)
        layers = 0
        for res in self.block_resolutions:
            block = DiscriminatorBlock(
                maps[res] if res < img_resolution else 0,
                maps[res],
                maps[res // 2],
                resolution=res,
                first_layer_idx=layers,
                use_fp16=res in in_half,
                **dict(block_kwargs or {}, **common),
            )
            layers += block.num_layers
            setattr(self, f"b{res}", block)
        if c_dim > 0:
            mapping = dict(mapping_kwargs or {}, w_avg_beta=None)
            self.mapping = MappingNetwork(z_dim=0, c_dim=c_dim, w_dim=cmap_dim, num_ws=None, **mapping)
        epilogue = dict(epilogue_kwargs or {}, **common)
        self.b4 = DiscriminatorEpilogue(maps[4], cmap_dim=cmap_dim, resolution=4, **epilogue)

    def forward(
        self, img: Tensor | None, c: Tensor | None, update_emas: bool | None = False, **block_kwargs: Any
    ) -> Tensor:
        x = None
        for res in self.block_resolutions:
            x, img = getattr(self, f"b{res}")(x, img, **block_kwargs)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, img, cmap)
