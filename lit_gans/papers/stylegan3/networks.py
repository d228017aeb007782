"""The generator of StyleGAN3 (Karras et al., 2021), configurations T and R; its discriminator is StyleGAN2's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from lit_gans.base.checks import power_of_two
from lit_gans.metrics.sources import StyleLayer
from lit_gans.nn.bias_act import bias_act
from lit_gans.nn.equalized import EqualizedLinear
from lit_gans.nn.resample import no_autocast
from lit_gans.papers.stylegan2.networks import Half, MappingNetwork, check_choice, computed_in, unit_second_moment
from lit_gans.papers.stylegan3.filtered_lrelu import filtered_lrelu

# ---- what a layer's signal holds (Sec. 3.2, Fig. 4) ------------------------------------------------------------------


@dataclass(frozen=True)
class Signal:
    """What a layer hands on: frequencies up to `cutoff`, gone at `cutoff + half_width`, in cycles per image.

    `size` pixels a side, of which `sampling_rate` make the image; the others are the margin around it. `critical`: it
    holds all frequencies that its rate can.
    """

    channels: int
    size: int
    sampling_rate: int
    cutoff: float
    half_width: float
    critical: bool


def schedule(
    resolution: int,
    *,
    channels: int,
    channel_base: int = 32768,
    channel_max: int = 512,
    num_layers: int = 14,
    num_critical: int = 2,
    first_cutoff: float = 2.0,
    first_stopband: float = 2**2.1,
    last_stopband_rel: float = 2**0.3,
    margin_px: int = 10,
) -> list[Signal]:
    """Of each layer, the last of which makes colours.

    Cutoff and stopband grow geometrically from the first layer to the `num_critical` last, which are sampled
    critically: the cutoff is half the rate. The others are sampled at twice the stopband or more, but not above the
    resolution; the transition band has the room that is left (Sec. 3.2, App. C).

    Raises:
        ValueError: the resolution is not a power of two from 16, or no layer is left before the critical ones.
    """
    power_of_two("resolution", resolution, least=16, why="StyleGAN3's sampling rates do: use 16, 32, ..., 1024")
    if not 0 <= num_critical < num_layers:
        raise ValueError(f"num_critical {num_critical} of num_layers {num_layers}: some layers must come before them")
    last_cutoff = resolution / 2
    last_stopband = last_cutoff * last_stopband_rel
    found = []
    for i in range(num_layers + 1):
        t = min(i / (num_layers - num_critical), 1.0)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** t
        stopband = first_stopband * (last_stopband / first_stopband) ** t
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, resolution)))
        found.append(
            Signal(
                channels=channels if i == num_layers else round(min(channel_base / 2 / cutoff, channel_max)),
                size=resolution if i >= num_layers - 1 else rate + 2 * margin_px,
                sampling_rate=rate,
                cutoff=cutoff,
                half_width=max(stopband, rate / 2) - cutoff,
                critical=i >= num_layers - num_critical,
            )
        )
    return found


def lowpass_filter(taps: int, *, cutoff: float, width: float, rate: float, radial: bool = False) -> Tensor | None:
    """A filter for signals of `rate` that ends within a transition band of `width` around `cutoff`: [taps], or radial
    [taps, taps]; None, the identity, for one tap.

    The ideal filter, a sinc or in two dimensions a jinc, under Kaiser's window (App. C).
    """
    if taps == 1:
        return None
    n = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    window = torch.kaiser_window(taps, periodic=False, beta=kaiser_beta(taps, width / (rate / 2)), dtype=torch.float64)
    if radial:
        r = math.pi * torch.hypot(n, n[:, None]) / rate  # never 0: the number of taps is even
        f = torch.special.bessel_j1(2 * cutoff * r) / r * window.outer(window)
    else:
        f = torch.sinc(2 * cutoff / rate * n) * window
    return (f / f.sum()).float()


def kaiser_beta(taps: int, width: float) -> float:
    """The parameter of Kaiser's window for a transition band of `width`, a share of half the sampling rate (App. C)."""
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # in decibels
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21) if attenuation > 21 else 0.0


# ---- the synthesis network -------------------------------------------------------------------------------------------


class SynthesisInput(nn.Module):
    """w [N, W] -> Fourier features [N, C, S, S], turned and shifted as w says, and as the user says (Sec. 3.2, App. F).

    `transform` [3, 3] is the user's, from places in the picture to places in the features: the inverse of what happens
    to the picture, which is 1 wide and 1 high with its centre at 0.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, w_dim: int, signal: Signal) -> None:
        super().__init__()
        self.size, self.sampling_rate, self.bandwidth = signal.size, signal.sampling_rate, signal.cutoff
        self.weight = nn.Parameter(torch.randn(signal.channels, signal.channels))
        self.affine = EqualizedLinear(w_dim, 4)  # cosine and sine of an angle, and the shift
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
        self.register_buffer("transform", torch.eye(3))
        freqs = torch.randn(signal.channels, 2)
        radius = freqs.norm(dim=1, keepdim=True)
        # Even over the disc of the bandwidth: of a normal vector exp(-radius^2 / 2) is uniform; its root is the radius.
        self.register_buffer("freqs", signal.cutoff * freqs / radius * (-radius.square() / 4).exp())
        self.register_buffer("phases", torch.rand(signal.channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        with no_autocast(w):
            waves = self.waves(self.affine(w.to(self.weight.dtype)))
            return (self.weight / math.sqrt(len(self.weight)) @ waves).unflatten(2, (self.size, self.size))

    def waves(self, t: Tensor) -> Tensor:
        """t [N, 4] -> sines [N, C, S * S] before the learned mixing."""
        cosine, sine, *shift = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(1)  # each [N]
        turn = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
        move = turn @ -torch.stack(shift, 1)[:, :, None]
        places = torch.cat([turn, move], 2) @ self.transform  # [N, 2, 3]: the user's first, then the shift and the turn
        freqs = self.freqs @ places[:, :, :2]  # [C, 2] @ [N, 2, 2]
        phases = self.phases[:, None] + self.freqs @ places[:, :, 2:]  # [N, C, 1]
        # What the user's transform enlarges beyond the band fades out; at the sampling rate's limit it is gone.
        room = self.sampling_rate / 2 - self.bandwidth
        amplitudes = (1 - (freqs.norm(dim=2, keepdim=True) - self.bandwidth) / room).clamp(0, 1)
        return amplitudes * (2 * math.pi * (freqs @ self.grid(freqs) + phases)).sin()

    def grid(self, like: Tensor) -> Tensor:
        """x and y of each pixel [2, S * S], in images."""
        line = torch.arange(self.size, dtype=like.dtype, device=like.device) + 0.5 - self.size / 2
        return torch.stack([line.repeat(self.size), line.repeat_interleave(self.size)]) / self.sampling_rate


def modulated(
    x: Tensor, weight: Tensor, styles: Tensor, *, gain: Tensor, demodulate: bool = True, padding: int = 0
) -> Tensor:
    """x [N, I, H, W], weight [O, I, k, k], styles [N, I] -> [N, O, H', W'] of x's dtype.

    As `nn.modulated.modulated_conv2d`, with `gain` (a scalar, [I] or [N, I]) on the input's channels, which the
    demodulation does not take out again (App. C). Weight and styles are brought to one size beforehand, so that half
    precision does not overflow; demodulation takes that out. The official code gives all styles of a batch one size
    together, here each sample's have their own: it does not depend on the others.
    """
    with no_autocast(x):
        styles = styles.to(weight.dtype)
        if demodulate:
            weight = weight * weight.square().sum((1, 2, 3), keepdim=True).rsqrt()
            styles = unit_second_moment(styles)
            norms = (styles.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()  # [N, I] @ [I, O]
    y = conv2d(x * (styles * gain).to(x.dtype)[:, :, None, None], weight.to(x.dtype), padding=padding)
    return y * norms.to(y.dtype)[:, :, None, None] if demodulate else y


class ModulatedLayer(nn.Module):
    """What layers have that a style modulates; `magnitude_ema` is the running mean square of what comes in."""

    magnitude_ema: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, w_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("magnitude_ema", torch.ones(()))

    @torch.no_grad()
    def track(self, magnitude: Tensor, *, decay: float) -> None:
        """Moves the running mean towards the mean square of a batch."""
        self.magnitude_ema.lerp_(magnitude.to(self.magnitude_ema), 1 - decay)


class SynthesisLayer(ModulatedLayer):
    """Modulated convolution and filtered nonlinearity from one signal to the next (Fig. 4b).

    The filters are those of the paper, twice the rate of the higher signal in between: the upsampling one ends the
    incoming signal's band, the downsampling one the outgoing one's.
    """

    up_filter: Tensor
    down_filter: Tensor

    def __init__(
        self, before: Signal, after: Signal, *, w_dim: int, kernel_size: int, radial: bool, filter_size: int,
        half: torch.dtype | None, conv_clamp: float | None,
    ) -> None:  # fmt: skip
        super().__init__(before.channels, after.channels, kernel_size, w_dim=w_dim)
        self.half, self.conv_clamp, self.radial = half, conv_clamp, radial
        between = 2 * max(before.sampling_rate, after.sampling_rate)
        self.up, self.down = between // before.sampling_rate, between // after.sampling_rate
        up_taps, down_taps = filter_size * self.up, filter_size * self.down
        bands = {"up_filter": (up_taps, before, False), "down_filter": (down_taps, after, radial)}
        for name, (taps, signal, round_) in bands.items():
            width = 2 * signal.half_width
            f = lowpass_filter(taps, cutoff=signal.cutoff, width=width, rate=between, radial=round_)
            self.register_buffer(name, f, persistent=False)
        total = (after.size - 1) * self.down + 1 - (before.size + kernel_size - 1) * self.up + up_taps + down_taps - 2
        first = (total + self.up) // 2  # App. C.3: samples stand for the middle of their pixel
        self.padding = (first, total - first, first, total - first)

    def forward(self, x: Tensor, w: Tensor, *, force_fp32: bool) -> Tensor:
        """x [N, I, S, S], w [N, W] -> [N, O, S', S']."""
        x = x.to(computed_in(self.half, self.weight, force_fp32=force_fp32))
        x = modulated(
            x, self.weight, self.affine(w), gain=self.magnitude_ema.rsqrt(), padding=self.weight.shape[-1] - 1
        )
        return filtered_lrelu(
            x, self.up_filter, self.down_filter, self.bias, up=self.up, down=self.down, padding=self.padding,
            clamp=self.conv_clamp,
        )  # fmt: skip


class ToRGB(ModulatedLayer):
    """Modulated 1x1 convolution without demodulation: features -> colours."""

    def __init__(
        self, before: Signal, after: Signal, *, w_dim: int, half: torch.dtype | None, conv_clamp: float | None
    ) -> None:
        super().__init__(before.channels, after.channels, 1, w_dim=w_dim)
        self.half, self.conv_clamp = half, conv_clamp

    def forward(self, x: Tensor, w: Tensor, *, force_fp32: bool) -> Tensor:
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])  # demodulation does this scaling elsewhere
        x = x.to(computed_in(self.half, self.weight, force_fp32=force_fp32))
        x = modulated(x, self.weight, styles, gain=self.magnitude_ema.rsqrt(), demodulate=False)
        return bias_act(x, self.bias, clamp=self.conv_clamp)


def layers_of(
    signals: Sequence[Signal], start: Signal, *, resolution: int, w_dim: int, conv_kernel: int = 3,
    radial_filters: bool = False, filter_size: int = 6, num_half_res: int = 0, half_dtype: Half = "float16",
    conv_clamp: float | None = 256,
) -> list[nn.Module]:  # fmt: skip
    """A layer for each signal in turn, the first of which takes `start`, and the last makes colours.

    Raises:
        ValueError: sizes or a precision that there are not.
    """
    check_choice("half_dtype", half_dtype, Half)
    if conv_kernel % 2 == 0 or filter_size % 2:
        raise ValueError(f"conv_kernel {conv_kernel} must be odd, and filter_size {filter_size} even")
    modules = list[nn.Module]()
    for before, after in zip([start, *signals[:-1]], signals, strict=True):
        in_half = after.sampling_rate * 2**num_half_res > resolution
        shared = {"w_dim": w_dim, "half": getattr(torch, half_dtype) if in_half else None, "conv_clamp": conv_clamp}
        if after is signals[-1]:
            modules.append(ToRGB(before, after, **shared))
            continue
        radial = radial_filters and not after.critical  # a critical layer keeps the frequencies of the corners
        shape = {"kernel_size": conv_kernel, "filter_size": filter_size, "radial": radial}
        modules.append(SynthesisLayer(before, after, **shape, **shared))
    return modules


class SynthesisNetwork(nn.Module):
    """ws [N, L, W] -> images [N, C, R, R], around [-1, 1] but not confined to it; L is `num_ws`.

    Args:
        resolution: a power of two from 16.
        conv_kernel, radial_filters: 3 and separable filters for T, 1 and radial ones for R, which also has twice the
            feature maps.
        num_layers, ..., margin_px: see `schedule`. filter_size: taps per sample of the lower rate.
        output_scale: of the colours. num_half_res, half_dtype, conv_clamp: see `StyleGAN2`.
    """

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        channels: int,
        conv_kernel: int = 3,
        radial_filters: bool = False,
        filter_size: int = 6,
        output_scale: float = 0.25,
        num_half_res: int = 0,
        half_dtype: Half = "float16",
        conv_clamp: float | None = 256,
        **layers: Any,
    ) -> None:
        super().__init__()
        self.signals = schedule(resolution, channels=channels, **layers)
        self.input, self.output_scale = SynthesisInput(w_dim, self.signals[0]), output_scale
        self.num_ws, shape = len(self.signals) + 1, {"w_dim": w_dim, "resolution": resolution}
        shape |= {"conv_kernel": conv_kernel, "radial_filters": radial_filters, "filter_size": filter_size}
        shape |= {"num_half_res": num_half_res, "half_dtype": half_dtype, "conv_clamp": conv_clamp}
        self.layers = nn.ModuleList(layers_of(self.signals, self.signals[0], **shape))

    def style_layers(self) -> dict[str, StyleLayer]:
        """See `HasLayers`; row 0 of ws turns and moves the input, and is no layer's."""
        named = enumerate(self.feature_layers().items())
        return {name: StyleLayer(layer.affine, 1 + i, colours=isinstance(layer, ToRGB)) for i, (name, layer) in named}

    def feature_layers(self) -> dict[str, nn.Module]:
        """See `HasLayers`: the layers, by their numbers."""
        return dict(self.layers.named_children())

    def feature_margins(self) -> dict[str, int]:
        """See `HasMargins`."""
        pairs = zip(self.feature_layers(), self.signals, strict=True)
        return {name: (signal.size - signal.sampling_rate) // 2 for name, signal in pairs}

    def forward(self, ws: Tensor, *, squares: list[Tensor] | None = None, force_fp32: bool = False) -> Tensor:
        """squares: takes the mean square of what comes into each layer, for `ModulatedLayer.track`."""
        each = ws.unbind(1)  # [N, L, W] -> L of [N, W]
        x = self.input(each[0])
        for layer, w in zip(self.layers.children(), each[1:], strict=True):
            if squares is not None:
                squares.append(x.detach().float().square().mean())
            x = layer(x, w, force_fp32=force_fp32)
        return self.output_scale * x.to(torch.promote_types(x.dtype, torch.float32))


class Generator(nn.Module):
    """z [N, Z] (and labels [N] or conditions [N, C]) -> images; see `SynthesisNetwork`, and StyleGAN2's mapping."""

    def __init__(
        self,
        *,
        resolution: int,
        channels: int = 3,
        z_dim: int = 512,
        c_dim: int = 0,
        w_dim: int = 512,
        mapping_layers: int = 2,
        lr_multiplier: float = 0.01,
        w_avg_decay: float = 0.998,
        **synthesis: Any,
    ) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(w_dim=w_dim, resolution=resolution, channels=channels, **synthesis)
        self.mapping = MappingNetwork(
            z_dim=z_dim,
            c_dim=c_dim,
            w_dim=w_dim,
            num_ws=self.synthesis.num_ws,
            num_layers=mapping_layers,
            lr_multiplier=lr_multiplier,
            w_avg_decay=w_avg_decay,
        )

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        force_fp32: bool = False,
    ) -> Tensor:
        return self.synthesis(self.mapping(z, c, psi=psi, cutoff=cutoff), force_fp32=force_fp32)
