"""The generator of StyleGAN-T (Sauer et al., 2023, Sec. 3.1): half of its convolutions are residual."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_gans.base.checks import power_of_two
from lit_gans.base.random import random_noise
from lit_gans.metrics.sources import StyleLayer
from lit_gans.nn.bias_act import activation_gain, bias_act
from lit_gans.nn.equalized import EqualizedLinear
from lit_gans.nn.modulated import modulated_conv2d
from lit_gans.nn.resample import fir_filter, upsample2d
from lit_gans.papers.stylegan1 import truncate
from lit_gans.papers.stylegan2.networks import Half, Noise, check_choice, computed_in, unit_second_moment
from lit_gans.papers.stylegan3.networks import Signal, SynthesisInput

Architecture = Literal["skip", "orig"]
Phase = Literal["all", "text_encoder", "freeze64"]
BANDWIDTH = 2.0  # of the Fourier features, in cycles per image
RESIDUAL_GAIN = math.sqrt(0.5)  # of the activations of all convolutions that keep the resolution


# ---- the mapping network ---------------------------------------------------------------------------------------------


class MappingNetwork(nn.Module):
    """z [N, Z] and sentences c [N, C] -> ws [N, L, Z + C]: the text passes beside the network that maps z (Sec. 3.1).

    So w is (mapped z, c). `x_avg` [Z] is the average of mapped z; `psi` truncates to it and leaves the text as it is:
    psi 0 is the mean image of a text. Training moves it by `track`. The last layer is linear. c_dim 0 is without text.
    """

    x_avg: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        num_ws: int,
        num_layers: int = 2,
        lr_multiplier: float = 0.01,
        x_avg_decay: float = 0.995,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws, self.x_avg_decay = z_dim, c_dim, num_ws, x_avg_decay
        self.layers = nn.ModuleList(
            EqualizedLinear(z_dim, z_dim, activation=activation, lr_multiplier=lr_multiplier)
            for activation in ["lrelu"] * (num_layers - 1) + ["linear"]
        )
        self.register_buffer("x_avg", torch.zeros(z_dim))

    def forward(
        self, z: Tensor, c: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """psi pulls mapped z towards its average, in the first `cutoff` rows or in all."""
        x = unit_second_moment(z)
        for layer in self.layers:
            x = layer(x)
        if self.c_dim and (c is None or c.dim() != 2 or c.shape[1] != self.c_dim):
            found = "none" if c is None else f"of shape {tuple(c.shape)}"
            raise ValueError(f"this network is conditional: give sentences [N, {self.c_dim}]; found {found}")
        xs = x[:, None].expand(-1, self.num_ws, -1)  # [N, Z] -> [N, L, Z]
        xs = xs if psi == 1 else truncate(xs, self.x_avg, psi=psi, cutoff=cutoff)
        if not self.c_dim or c is None:
            return xs
        return torch.cat([xs, c[:, None].expand(-1, self.num_ws, -1).to(xs.dtype)], 2)

    @torch.no_grad()
    def track(self, mean: Tensor) -> None:
        """Moves the average towards the mean mapped z [Z] of a batch."""
        self.x_avg.lerp_(mean.to(self.x_avg.dtype), 1 - self.x_avg_decay)


# ---- layers ----------------------------------------------------------------------------------------------------------


class Modulation(nn.Module):
    """w [N, W] -> styles [N, C], of second order: a * b + c of three affine maps, whose biases are 1 (Sec. 3.1)."""

    def __init__(self, w_dim: int, channels: int) -> None:
        super().__init__()
        self.proj = EqualizedLinear(w_dim, 3 * channels, bias_init=1.0)

    def forward(self, w: Tensor) -> Tensor:
        a, b, c = self.proj(w).chunk(3, 1)
        return a * b + c


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias, activation, as StyleGAN2's; with `residual`, a branch beside its input.

    Then x is normalised in `gn_groups` groups of channels first, and what is added to it is (in the beginning almost
    nothing) scaled by `gamma` for each channel (Sec. 3.1; Touvron et al., 2021). As in the official code the skip
    carries the normalised x, and the sum is enlarged by the root of 2.
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        up: int = 1,
        residual: bool = False,
        kernel_size: int = 3,
        noise: bool = True,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        layer_scale: float = 1e-5,
        gn_groups: int = 32,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is even and has no centre: use 1, 3, ...")
        if residual and out_channels % gn_groups:
            raise ValueError(
                f"{out_channels} channels at {resolution} px cannot be normalised in {gn_groups} groups: give "
                "gn_groups that divides the channels of every resolution, or other channel_base and channel_max"
            )
        self.up, self.conv_clamp, self.activation = up, conv_clamp, activation
        self.gain, self.padding = activation_gain(activation), kernel_size // 2
        self.affine = Modulation(w_dim, in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(())) if noise else None
        if noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", fir_filter(resample_filter), persistent=False)
        self.norm = nn.GroupNorm(gn_groups, out_channels) if residual else None
        self.gamma = nn.Parameter(torch.full((1, out_channels, 1, 1), layer_scale)) if residual else None

    def forward(self, x: Tensor, w: Tensor, *, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """x [N, I, R / up, R / up], w [N, W], noise [..., R, R] -> [N, O, R, R] of x's dtype."""
        dtype = x.dtype
        if self.norm is not None:
            x = self.norm(x.float()).to(dtype)  # in full precision, whatever the convolutions compute in
        y = modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            noise=None if noise is None or self.noise_strength is None else noise * self.noise_strength,
            up=self.up,
            padding=self.padding,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,  # upsampling layers convolve, all others correlate, as in the official code
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        y = bias_act(y, self.bias, act=self.activation, gain=self.gain * gain, clamp=clamp)
        if self.gamma is None:
            return y
        return ((self.gamma * y).to(dtype) + x) * math.sqrt(2)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: features -> colours, a tenth of them in the beginning."""

    def __init__(self, in_channels: int, channels: int, *, w_dim: int, conv_clamp: float | None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = Modulation(w_dim, in_channels)
        self.weight = nn.Parameter(0.1 * torch.randn(channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])  # demodulation does this scaling elsewhere
        x = modulated_conv2d(x, self.weight, styles, demodulate=False)
        return bias_act(x, self.bias, clamp=self.conv_clamp)


# ---- the synthesis network -------------------------------------------------------------------------------------------


class SynthesisBlock(nn.Module):
    """Of one resolution: a layer that doubles it, or Fourier features, then pairs of a plain and a residual layer."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        channels: int,
        has_rgb: bool,
        num_res_blocks: int,
        half: torch.dtype | None,
        conv_clamp: float | None,
        resample_filter: Sequence[float],
        **layer: Any,
    ) -> None:
        super().__init__()
        self.half = half
        self.register_buffer("resample_filter", fir_filter(resample_filter), persistent=False)
        layer |= {"w_dim": w_dim, "resolution": resolution}
        layer |= {"conv_clamp": conv_clamp, "resample_filter": resample_filter}
        signal = Signal(out_channels, resolution, resolution, BANDWIDTH, half_width=0.0, critical=False)  # no margin
        self.input = None if in_channels else SynthesisInput(w_dim, signal)
        self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, **layer) if in_channels else None
        pairs = [False, True] * num_res_blocks
        self.convs = nn.ModuleList(SynthesisLayer(out_channels, out_channels, residual=r, **layer) for r in pairs)
        self.to_rgb = ToRGB(out_channels, channels, w_dim=w_dim, conv_clamp=conv_clamp) if has_rgb else None
        self.num_convs = 1 + len(pairs)  # the input counts as one

    def layers(self) -> list[tuple[str, SynthesisLayer]]:
        """Those with noise, by name, in the order of synthesis."""
        first = [] if self.conv0 is None else [("conv0", self.conv0)]
        return [*first, *((f"convs.{i}", layer) for i, layer in enumerate(self.convs))]  # type: ignore[misc]

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        ws: Sequence[Tensor],
        *,
        noise: Sequence[Tensor | None],
        force_fp32: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """x [N, I, R/2, R/2], image [N, C, R/2, R/2], ws of this block and the next w -> both at R."""
        weight = self.convs[0].weight if self.conv0 is None else self.conv0.weight
        dtype = computed_in(self.half, weight, force_fp32=force_fp32)
        if self.input is not None:
            x, maps = self.input(ws[0]).to(dtype), iter(noise)
        else:
            assert x is not None and self.conv0 is not None
            x, maps = self.conv0(x.to(dtype), ws[0], noise=noise[0]), iter(noise[1:])
        for layer, w in zip(self.convs, ws[1 : self.num_convs], strict=True):
            x = layer(x, w, noise=next(maps), gain=RESIDUAL_GAIN)
        if image is not None:
            image = upsample2d(image, self.resample_filter)
        if self.to_rgb is not None:
            y = self.to_rgb(x, ws[self.num_convs])
            y = y.to(torch.promote_types(y.dtype, torch.float32))  # images add up in full precision
            image = y if image is None else image + y
        assert x is not None
        return x, image


class SynthesisNetwork(nn.Module):
    """ws [N, L, W] -> images [N, C, R, R], around [-1, 1] but not confined to it; L is `num_ws`.

    Args:
        w_dim: W, of mapped z and the text together.
        channel_base, channel_max: there are `channel_base / resolution` maps, at most `channel_max`.
        num_res_blocks: pairs of a plain and a residual convolution at each resolution.
        base_px: where the Fourier features lie.
        architecture: "skip" adds up the colours of all resolutions, "orig" has those of the last alone.
        num_half_res, half_dtype: so many highest resolutions compute in half precision, where that is fast.
        **layer: kernel_size, noise, activation, layer_scale, gn_groups of `SynthesisLayer`.

    Raises:
        ValueError: a resolution that is no power of two above base_px, or channels that gn_groups does not divide.
    """

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        channels: int = 3,
        channel_base: int = 65536,
        channel_max: int = 2048,
        num_res_blocks: int = 3,
        base_px: int = 8,
        architecture: Architecture = "skip",
        num_half_res: int = 0,
        half_dtype: Half = "float16",
        conv_clamp: float | None = 256,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        **layer: Any,
    ) -> None:
        super().__init__()
        check_choice("architecture", architecture, Architecture)
        check_choice("half_dtype", half_dtype, Half)
        if num_res_blocks < 1:
            raise ValueError(f"num_res_blocks {num_res_blocks}: each resolution has one or more, 3 as published")
        power_of_two("base_px", base_px, least=4, why="blocks double the resolution: use 8")
        power_of_two("resolution", resolution, least=base_px, why=f"blocks double it from {base_px}: use 64, 256, ...")
        sides = [2**k for k in range(base_px.bit_length() - 1, resolution.bit_length())]
        maps = {r: min(channel_base // r, channel_max) for r in sides}
        lowest_half = max(2 * resolution // 2**num_half_res, 8)
        self.base_px = base_px
        self.blocks = nn.ModuleDict(
            {
                str(r): SynthesisBlock(
                    maps[r // 2] if r > base_px else 0,
                    maps[r],
                    w_dim=w_dim,
                    resolution=r,
                    channels=channels,
                    has_rgb=architecture == "skip" or r == resolution,
                    num_res_blocks=num_res_blocks,
                    half=getattr(torch, half_dtype) if r >= lowest_half else None,
                    conv_clamp=conv_clamp,
                    resample_filter=resample_filter,
                    **layer,
                )
                for r in sides
            }
        )
        self.num_ws = sum(block.num_convs for block in self.blocks.values()) + 1

    def forward(self, ws: Tensor, *, noise: Noise = "random", force_fp32: bool = False) -> Tensor:
        """noise: anew at each call ("random"), the stored maps ("const"), or "none"."""
        each, maps = ws.unbind(1), iter(self.noise_maps(ws.shape[0], noise))  # [N, L, W] -> L of [N, W]
        x, image, start = None, None, 0
        for block in self.blocks.values():
            end = start + block.num_convs
            own = [next(maps) for _ in block.layers()]
            # A block's colours take the w that the next block's first layer also takes.
            x, image = block(x, image, each[start : end + 1], noise=own, force_fp32=force_fp32)
            start = end
        assert image is not None
        return image

    def noise_maps(self, n: int, noise: Noise) -> Sequence[Tensor | None]:
        """One for each layer, drawn before any is used: so all layers compile into one graph."""
        check_choice("noise", noise, Noise)
        layers = [layer for block in self.blocks.values() for _, layer in block.layers()]
        if noise == "none" or layers[0].noise_strength is None:
            return [None] * len(layers)
        stored = [layer.noise_const for layer in layers]
        return random_noise(n, like=stored) if noise == "random" else stored

    def style_layers(self) -> dict[str, StyleLayer]:
        """See `HasLayers`; row 0 of ws turns and moves the input, and is no layer's. Their maps are of second order."""
        layers, row = dict[str, StyleLayer](), 1
        for r, block in self.blocks.items():
            for name, layer in block.layers():
                layers[f"{r}.{name}"] = StyleLayer(layer.affine, row)
                row += 1
            if block.to_rgb is not None:
                layers[f"{r}.to_rgb"] = StyleLayer(block.to_rgb.affine, row, colours=True)
        return layers

    def feature_layers(self) -> dict[str, nn.Module]:
        """See `HasLayers`: the blocks, by their resolutions."""
        return dict(self.blocks.items())


class Generator(nn.Module):
    """z [N, Z] (and sentences [N, C]) -> images; see `MappingNetwork` and `SynthesisNetwork`."""

    def __init__(
        self,
        *,
        resolution: int,
        channels: int = 3,
        z_dim: int = 64,
        c_dim: int = 0,
        mapping_layers: int = 2,
        lr_multiplier: float = 0.01,
        x_avg_decay: float = 0.995,
        **synthesis: Any,
    ) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(w_dim=z_dim + c_dim, resolution=resolution, channels=channels, **synthesis)
        self.mapping = MappingNetwork(
            z_dim=z_dim,
            c_dim=c_dim,
            num_ws=self.synthesis.num_ws,
            num_layers=mapping_layers,
            lr_multiplier=lr_multiplier,
            x_avg_decay=x_avg_decay,
        )

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        noise: Noise = "random",
        force_fp32: bool = False,
    ) -> Tensor:
        ws = self.mapping(z, c, psi=psi, cutoff=cutoff)
        return self.synthesis(ws, noise=noise, force_fp32=force_fp32)

    def trained(self, phase: Phase, *, primary_px: int = 64) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that a phase trains.

        All; none where the text encoder alone is trained (Sec. 3.3); or the blocks above `primary_px` and the colours
        of all resolutions, as in the official code.
        """
        if phase == "text_encoder":
            return
        above = tuple(f"synthesis.blocks.{r}." for r in self.synthesis.blocks if int(r) > primary_px)
        for name, parameter in self.named_parameters():
            if phase == "all" or name.startswith(above) or ".to_rgb." in name:
                yield name, parameter

    def take(self, state: Mapping[str, Tensor], *, phase: Phase, primary_px: int = 64) -> None:
        """All but the blocks that are new from the generator of the phase before, whose state dict this is.

        Raises:
            ValueError: it lacks more than blocks that this phase trains.
        """
        ours, known = self.state_dict(), {name.split(".")[2] for name in state if name.startswith("synthesis.blocks.")}
        least = {"all": 0, "freeze64": primary_px, "text_encoder": max(map(int, self.synthesis.blocks))}[phase]
        new = tuple(f"synthesis.blocks.{r}." for r in self.synthesis.blocks if r not in known and int(r) > least)
        fits = {name: t for name, t in state.items() if name in ours and ours[name].shape == t.shape}
        if wrong := [name for name in ours if name not in fits and not name.startswith(new)]:
            raise ValueError(
                f"the phase before does not have {len(wrong)} tensors of this one ({', '.join(wrong[:3])}): give both "
                f"the same channels, num_res_blocks, z_dim and text encoder; new in phase {phase!r} may be blocks "
                f"above {least} pixels alone"
            )
        self.load_state_dict(fits, strict=False)
