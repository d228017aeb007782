"""The networks of StyleGAN2 (Karras et al., 2020a), configuration F, and the variants that ADA's code has of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from lit_gans.base.checks import power_of_two
from lit_gans.base.random import random_noise
from lit_gans.metrics.sources import StyleLayer
from lit_gans.nn.bias_act import bias_act
from lit_gans.nn.equalized import EqualizedConv2d, EqualizedLinear
from lit_gans.nn.minibatch_std import MinibatchStd
from lit_gans.nn.modulated import modulated_conv2d
from lit_gans.nn.resample import downsample2d, fir_filter, upsample2d
from lit_gans.papers.stylegan1 import truncate

Architecture = Literal["skip", "resnet", "orig"]  # Figure 7
Noise = Literal["random", "const", "none"]
Half = Literal["float16", "bfloat16"]

# ---- what both networks use ------------------------------------------------------------------------------------------


def resolutions(resolution: int) -> list[int]:
    """4, 8, ..., resolution.

    Raises:
        ValueError: the resolution is not a power of two from 8.
    """
    why = "StyleGAN2's blocks double it from 4: use 32, 64, 128, 256, 512 or 1024"
    levels = power_of_two("resolution", resolution, least=8, why=why)
    return [2**level for level in range(2, levels + 1)]


def widths(resolution: int, *, channel_base: int, channel_max: int) -> dict[int, int]:
    """Feature maps at each resolution: `channel_base / resolution`, at most `channel_max`."""
    return {r: min(channel_base // r, channel_max) for r in resolutions(resolution)}


def has_fast_half(device: torch.device) -> bool:
    """Whether half precision is faster there; a CPU takes 70 times as long for float16 as for float32."""
    return device.type == "cuda"


def computed_in(half: torch.dtype | None, weight: Tensor, *, force_fp32: bool) -> torch.dtype:
    """What a block that is to compute in `half` (None: in full) computes in; full precision where half is slow."""
    return half if half is not None and not force_fp32 and has_fast_half(weight.device) else weight.dtype


def half_resolutions(resolution: int, count: int) -> set[int]:
    """The `count` highest resolutions, whose blocks compute in half precision; never 4 (ADA, Appendix D)."""
    lowest = max(2 * resolution // 2**count, 8)
    return {r for r in resolutions(resolution) if r >= lowest}


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises ValueError unless `value` is one of a Literal's."""
    if value not in get_args(choices):
        raise ValueError(f"{name} {value!r} is not one of {', '.join(get_args(choices))}")


def unit_second_moment(x: Tensor) -> Tensor:
    """Each row [N, D] divided by the root of its mean square."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def as_condition(labels: Tensor, size: int) -> Tensor:
    """Class labels [N] int64 -> one-hot [N, size]; a condition [N, size] as it is.

    Raises:
        ValueError: another shape.
    """
    c = one_hot(labels, size).float() if labels.dim() == 1 and not labels.is_floating_point() else labels
    if c.dim() != 2 or c.shape[1] != size:
        raise ValueError(f"condition of shape {tuple(labels.shape)}: expected class labels [N] or vectors [N, {size}]")
    return c


# ---- the mapping network ---------------------------------------------------------------------------------------------


class MappingNetwork(nn.Module):
    """z [N, Z] and condition c -> ws [N, L, W]; [N, W] where num_ws is None (the discriminator's, without average).

    z_dim 0 maps the condition alone, c_dim 0 the latent alone. `w_avg` is the average of w, to which `psi` truncates;
    training moves it by `track`.
    """

    w_avg: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_dim: int | None = None,
        hidden_dim: int | None = None,
        lr_multiplier: float = 0.01,
        w_avg_decay: float = 0.995,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws, self.w_avg_decay = z_dim, c_dim, num_ws, w_avg_decay
        embed_dim = 0 if c_dim == 0 else w_dim if embed_dim is None else embed_dim
        self.embed = EqualizedLinear(c_dim, embed_dim) if c_dim else None
        w = [z_dim + embed_dim, *[hidden_dim or w_dim] * (num_layers - 1), w_dim]
        self.layers = nn.ModuleList(
            EqualizedLinear(fan_in, fan_out, activation="lrelu", lr_multiplier=lr_multiplier)
            for fan_in, fan_out in zip(w[:-1], w[1:], strict=True)
        )
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self, z: Tensor | None, c: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """psi pulls w towards the average (Karras et al., 2019, App. B), in the first `cutoff` layers or in all."""
        parts = [unit_second_moment(z)] if z is not None and self.z_dim else []
        if self.embed is not None:
            if c is None:
                raise ValueError(f"this network is conditional: give labels [N] or conditions [N, {self.c_dim}]")
            # Latent and label are normalised apart, so that neither drowns the other.
            parts.append(unit_second_moment(self.embed(as_condition(c, self.c_dim))))
        w = torch.cat(parts, 1)
        for layer in self.layers:
            w = layer(w)
        if self.num_ws is None:
            return w
        ws = w[:, None].expand(-1, self.num_ws, -1)  # [N, W] -> [N, L, W]
        return ws if psi == 1 else truncate(ws, self.w_avg, psi=psi, cutoff=cutoff)

    @torch.no_grad()
    def track(self, mean: Tensor) -> None:
        """Moves the average towards the mean w [W] of a batch."""
        self.w_avg.lerp_(mean.to(self.w_avg.dtype), 1 - self.w_avg_decay)


# ---- the synthesis network (Figures 2d and 7) ------------------------------------------------------------------------


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky rectifier (Figure 2d)."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        up: int,
        conv_clamp: float | None,
        resample_filter: Sequence[float],
    ) -> None:
        super().__init__()
        self.up, self.conv_clamp = up, conv_clamp
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", fir_filter(resample_filter), persistent=False)

    def forward(self, x: Tensor, w: Tensor, *, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """x [N, I, R / up, R / up], w [N, W], noise [..., R, R] -> [N, O, R, R]."""
        x = modulated_conv2d(
            x,
            self.weight,
            self.affine(w),  # styles [N, I]
            noise=None if noise is None else noise * self.noise_strength,
            up=self.up,
            padding=1,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,  # upsampling layers convolve, all others correlate, as in the official code
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, self.bias, act="lrelu", gain=math.sqrt(2) * gain, clamp=clamp)  # sqrt(2) keeps the variance


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: features -> colours."""

    def __init__(self, in_channels: int, channels: int, *, w_dim: int, conv_clamp: float | None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])  # demodulation does this scaling elsewhere
        x = modulated_conv2d(x, self.weight, styles, demodulate=False)
        return bias_act(x, self.bias, clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    """Two layers at one resolution, of which the first doubles it; at 4 pixels a constant and one layer."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        channels: int,
        is_last: bool,
        architecture: Architecture,
        half: torch.dtype | None,
        conv_clamp: float | None,
        resample_filter: Sequence[float],
    ) -> None:
        super().__init__()
        self.architecture, self.half = architecture, half
        self.register_buffer("resample_filter", fir_filter(resample_filter), persistent=False)
        layer = {"w_dim": w_dim, "resolution": resolution, "conv_clamp": conv_clamp, "resample_filter": resample_filter}
        self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution)) if in_channels == 0 else None
        self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, **layer) if in_channels else None
        self.conv1 = SynthesisLayer(out_channels, out_channels, up=1, **layer)
        has_rgb = is_last or architecture == "skip"
        self.to_rgb = ToRGB(out_channels, channels, w_dim=w_dim, conv_clamp=conv_clamp) if has_rgb else None
        residual = in_channels and architecture == "resnet"
        skip = {"bias": False, "up": 2, "resample_filter": resample_filter}
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, **skip) if residual else None
        self.num_convs = 2 if in_channels else 1

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
        dtype = computed_in(self.half, self.conv1.weight, force_fp32=force_fp32)
        if x is None:
            assert self.const is not None
            x = self.const.to(dtype).expand(ws[0].shape[0], -1, -1, -1)  # [O, 4, 4] -> [N, O, 4, 4]
            x = self.conv1(x, ws[0], noise=noise[0])
        else:
            assert self.conv0 is not None
            x = x.to(dtype)
            y = self.conv0(x, ws[0], noise=noise[0])
            if self.skip is None:
                x = self.conv1(y, ws[1], noise=noise[1])
            else:  # both branches by the root of 1/2: the sum keeps the variance
                x = self.skip(x, gain=math.sqrt(0.5)) + self.conv1(y, ws[1], noise=noise[1], gain=math.sqrt(0.5))
        if image is not None:
            image = upsample2d(image, self.resample_filter)
        if self.to_rgb is not None:
            y = self.to_rgb(x, ws[self.num_convs])
            y = y.to(torch.promote_types(y.dtype, torch.float32))  # images add up in full precision
            image = y if image is None else image + y
        return x, image


def seen_through(const: Tensor, transform: Tensor) -> Tensor:
    """const [C, S, S] -> the same at the places to which `transform` [3, 3] leads: see `Transforms`.

    The constant is 1 wide and high, with its middle at 0, and goes on periodically; between its points it is the sum of
    waves that goes through them.
    """
    size = const.shape[-1]
    line = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], 2) @ transform.cpu().double()[:2].T  # [S, S, 2]
    waves = torch.arange(size // 2 + 1, dtype=torch.float64)  # both ways, the fastest, its own mirror, once
    often = (2.0 - ((waves == 0) | (waves == size // 2)).double()) / size
    phases = 2 * math.pi * (places[..., None] - line)[..., None] * waves  # [S, S, 2, S, waves]
    along_x, along_y = (phases.cos() @ often).to(const).unbind(2)  # [S, S, S]: what each point gives to each place
    return torch.einsum("crs,yxs,yxr->cyx", const, along_x, along_y)


class SynthesisNetwork(nn.Module):
    """ws [N, L, W] -> images [N, C, R, R], around [-1, 1] but not confined to it; L is `num_ws`."""

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: Architecture = "skip",
        num_half_res: int = 0,
        half_dtype: Half = "float16",
        conv_clamp: float | None = None,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
    ) -> None:
        super().__init__()
        check_choice("architecture", architecture, Architecture)
        check_choice("half_dtype", half_dtype, Half)
        maps = widths(resolution, channel_base=channel_base, channel_max=channel_max)
        in_half = half_resolutions(resolution, num_half_res)
        self.blocks = nn.ModuleDict(
            {
                str(r): SynthesisBlock(
                    maps[r // 2] if r > 4 else 0,
                    maps[r],
                    w_dim=w_dim,
                    resolution=r,
                    channels=channels,
                    is_last=r == resolution,
                    architecture=architecture,
                    half=getattr(torch, half_dtype) if r in in_half else None,
                    conv_clamp=conv_clamp,
                    resample_filter=resample_filter,
                )
                for r in maps
            }
        )
        self.num_ws = sum(block.num_convs for block in self.blocks.values()) + 1

    def forward(self, ws: Tensor, *, noise: Noise = "random", force_fp32: bool = False) -> Tensor:
        """noise: anew at each call ("random"), the stored maps ("const"), or "none"."""
        each, maps, start = ws.unbind(1), self.noise_maps(ws.shape[0], noise), 0  # [N, L, W] -> L of [N, W]
        x, image = None, None
        for block in self.blocks.values():
            end = start + block.num_convs
            # A block's colours take the w that the next block's first layer also takes.
            x, image = block(x, image, each[start : end + 1], noise=maps[start:end], force_fp32=force_fp32)
            start = end
        assert image is not None
        return image

    def style_layers(self) -> dict[str, StyleLayer]:
        """See `HasLayers`."""
        layers, row = dict[str, StyleLayer](), 0
        for r, block in self.blocks.items():
            for name in ("conv0", "conv1"):
                if (layer := getattr(block, name)) is not None:
                    layers[f"{r}.{name}"] = StyleLayer(layer.affine, row)
                    row += 1
            if block.to_rgb is not None:
                layers[f"{r}.to_rgb"] = StyleLayer(block.to_rgb.affine, row, colours=True)
        return layers

    def feature_layers(self) -> dict[str, nn.Module]:
        """See `HasLayers`: the blocks, by their resolutions."""
        return dict(self.blocks.items())

    def noise_maps(self, n: int, noise: Noise) -> Sequence[Tensor | None]:
        """One for each layer, drawn before any is used: so all layers compile into one graph."""
        check_choice("noise", noise, Noise)
        pairs = [(block.conv0, block.conv1) for block in self.blocks.values()]
        stored = [layer.noise_const for pair in pairs for layer in pair if layer is not None]
        if noise == "random":
            return random_noise(n, like=stored)
        return stored if noise == "const" else [None] * len(stored)


class Generator(nn.Module):
    """z [N, Z] (and labels [N] or conditions [N, C]) -> images; see `MappingNetwork` and `SynthesisNetwork`."""

    def __init__(
        self,
        *,
        resolution: int,
        channels: int = 3,
        z_dim: int = 512,
        c_dim: int = 0,
        w_dim: int = 512,
        num_layers: int = 8,
        embed_dim: int | None = None,
        hidden_dim: int | None = None,
        lr_multiplier: float = 0.01,
        w_avg_decay: float = 0.995,
        **synthesis: Any,
    ) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(w_dim=w_dim, resolution=resolution, channels=channels, **synthesis)
        self.mapping = MappingNetwork(
            z_dim=z_dim,
            c_dim=c_dim,
            w_dim=w_dim,
            num_ws=self.synthesis.num_ws,
            num_layers=num_layers,
            embed_dim=embed_dim,
            hidden_dim=hidden_dim,
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
        noise: Noise = "random",
        force_fp32: bool = False,
    ) -> Tensor:
        ws = self.mapping(z, c, psi=psi, cutoff=cutoff)
        return self.synthesis(ws, noise=noise, force_fp32=force_fp32)


# ---- the discriminator (Figure 7) ------------------------------------------------------------------------------------


class DiscriminatorBlock(nn.Module):
    """Two convolutions at one resolution, of which the second halves it (Figure 7)."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        channels: int,
        architecture: Architecture,
        half: torch.dtype | None,
        conv_clamp: float | None,
        resample_filter: Sequence[float],
    ) -> None:
        super().__init__()
        self.architecture, self.half = architecture, half
        self.register_buffer("resample_filter", fir_filter(resample_filter), persistent=False)
        conv = {"activation": "lrelu", "conv_clamp": conv_clamp, "resample_filter": resample_filter}
        sees_image = in_channels == 0 or architecture == "skip"
        self.from_rgb = EqualizedConv2d(channels, mid_channels, 1, **conv) if sees_image else None
        self.conv0 = EqualizedConv2d(mid_channels, mid_channels, 3, **conv)
        self.conv1 = EqualizedConv2d(mid_channels, out_channels, 3, down=2, **conv)
        skip = {"bias": False, "down": 2, "resample_filter": resample_filter}
        residual = architecture == "resnet"
        self.skip = EqualizedConv2d(mid_channels, out_channels, 1, **skip) if residual else None

    def forward(self, x: Tensor | None, image: Tensor | None, *, force_fp32: bool) -> tuple[Tensor, Tensor | None]:
        dtype = computed_in(self.half, self.conv0.weight, force_fp32=force_fp32)
        x = None if x is None else x.to(dtype)
        if self.from_rgb is not None:
            assert image is not None
            image = image.to(dtype)
            y = self.from_rgb(image)
            x = y if x is None else x + y
            image = downsample2d(image, self.resample_filter) if self.architecture == "skip" else None
        assert x is not None
        if self.skip is None:
            return self.conv1(self.conv0(x)), image
        return self.skip(x, gain=math.sqrt(0.5)) + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), image


class DiscriminatorEpilogue(nn.Module):
    """Minibatch standard deviation, a convolution and two linear layers at 4 pixels -> [N, out_features]."""

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        channels: int,
        architecture: Architecture,
        mbstd_group_size: int | None,
        mbstd_channels: int,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        sees_image = architecture == "skip"
        # Without the clamp that all other layers of this kind have: so is the official code.
        self.from_rgb = EqualizedConv2d(channels, in_channels, 1, activation="lrelu") if sees_image else None
        self.minibatch_std = MinibatchStd(mbstd_group_size, mbstd_channels) if mbstd_channels else nn.Identity()
        conv = {"activation": "lrelu", "conv_clamp": conv_clamp}
        self.conv = EqualizedConv2d(in_channels + mbstd_channels, in_channels, 3, **conv)
        self.fc = EqualizedLinear(in_channels * 16, in_channels, activation="lrelu")
        self.out = EqualizedLinear(in_channels, out_features)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        x = x.to(self.conv.weight.dtype)  # always in full precision
        if self.from_rgb is not None:
            assert image is not None
            x = x + self.from_rgb(image.to(x.dtype))
        return self.out(self.fc(self.conv(self.minibatch_std(x)).flatten(1)))  # [N, C, 4, 4] -> [N, 16 C] -> [N, O]


class Discriminator(nn.Module):
    """images [N, C, R, R] (and labels [N] or conditions [N, c_dim]) -> logits [N].

    A conditional one projects its features on the mapped label (ADA, App. C). mbstd_group_size None: one group of all.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channels: int = 3,
        c_dim: int = 0,
        architecture: Architecture = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_half_res: int = 0,
        half_dtype: Half = "float16",
        conv_clamp: float | None = None,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        mbstd_group_size: int | None = 4,
        mbstd_channels: int = 1,
        cmap_dim: int | None = None,
        **mapping: Any,
    ) -> None:
        super().__init__()
        check_choice("architecture", architecture, Architecture)
        check_choice("half_dtype", half_dtype, Half)
        maps = widths(resolution, channel_base=channel_base, channel_max=channel_max)
        in_half = half_resolutions(resolution, num_half_res)
        shared = {"channels": channels, "architecture": architecture, "conv_clamp": conv_clamp}
        self.blocks = nn.ModuleDict(
            {
                str(r): DiscriminatorBlock(
                    maps[r] if r < resolution else 0,
                    maps[r],
                    maps[r // 2],
                    half=getattr(torch, half_dtype) if r in in_half else None,
                    resample_filter=resample_filter,
                    **shared,
                )
                for r in sorted(maps, reverse=True)
                if r > 4
            }
        )
        cmap_dim = 0 if c_dim == 0 else maps[4] if cmap_dim is None else cmap_dim
        mbstd = {"mbstd_group_size": mbstd_group_size, "mbstd_channels": mbstd_channels}
        self.epilogue = DiscriminatorEpilogue(maps[4], cmap_dim or 1, **mbstd, **shared)
        self.mapping = MappingNetwork(z_dim=0, c_dim=c_dim, w_dim=cmap_dim, num_ws=None, **mapping) if c_dim else None

    def forward(self, images: Tensor, c: Tensor | None = None, *, force_fp32: bool = False) -> Tensor:
        x, image = None, images
        for block in self.blocks.values():
            x, image = block(x, image, force_fp32=force_fp32)
        features = self.epilogue(x, image)
        if self.mapping is None:
            return features.flatten()
        mapped = self.mapping(None, c)
        return (features * mapped).sum(1) / math.sqrt(mapped.shape[1])  # both [N, M]; the root keeps the variance
