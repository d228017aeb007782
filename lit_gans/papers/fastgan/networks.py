"""FastGAN's networks: the generator in the forms that Projected GAN's code has of it, and the paper's discriminator."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, interpolate

from lit_gans.base.checks import power_of_two
from lit_gans.base.random import derive_seed, random_noise
from lit_gans.nn import BatchNorm
from lit_gans.nn.spectral_norm import SpectralConv2d, SpectralConvTranspose2d, SpectralLinear
from lit_gans.papers.stylegan2.networks import unit_second_moment

NoiseMode = Literal["random", "const"]
MULTIPLES = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2}  # of the width; beyond, 128 / resolution
EXCITED_BY = {64: 4, 128: 8, 256: 16, 512: 32}  # resolution of the features that scale the channels of others (Fig. 3)


def check_resolution(resolution: int) -> None:
    """Raises ValueError unless it is a power of two from 32 to 1024."""
    why = "FastGAN's blocks double it from 4: use 32, 64, 128, 256, 512 or 1024"
    power_of_two("resolution", resolution, least=32, most=1024, why=why)


def maps(resolution: int, *, width: int) -> int:
    """Feature maps of the generator at a resolution."""
    return max(int(width * MULTIPLES.get(resolution, 128 / resolution)), 1)


# ---- layers ----------------------------------------------------------------------------------------------------------


class Noise(nn.Module):
    """Adds noise to x [N, C, R, R], one map for all channels, by a learned strength that begins at 0.

    `noise_const` is what is added where samples shall depend on their latents alone: it is of the layer, and not saved.
    """

    noise_const: Tensor

    def __init__(self, resolution: int, *, number: int = 0) -> None:
        """number: of this layer among those of the resolution."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        generator = torch.Generator().manual_seed(derive_seed("fastgan", "noise", resolution, number))
        const = torch.randn(resolution, resolution, generator=generator, device="cpu")
        self.register_buffer("noise_const", const, persistent=False)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + self.weight * noise


class GLU(nn.Module):
    """The first half of the channels through gates of the second."""

    def forward(self, x: Tensor) -> Tensor:
        return glu(x, 1)


class ConditionalBatchNorm(BatchNorm):
    """Batch norm of x [N, C, H, W] whose gain, around 1, and shift follow from a vector c [N, E]."""

    def __init__(self, channels: int, embed_dim: int) -> None:
        super().__init__(channels, affine=False)
        # Its momentum is fixed: nobody reads the counter, which the official code has not.
        self.register_buffer("num_batches_tracked", torch.tensor(0), persistent=False)
        self.gain, self.shift = SpectralLinear(embed_dim, channels), SpectralLinear(embed_dim, channels)

    def _load_from_state_dict(self, *args: object) -> None:
        nn.Module._load_from_state_dict(self, *args)  # type: ignore[arg-type]  # that of batch norms wants the counter

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        gain, shift = 1 + self.gain(c), self.shift(c)
        return super().forward(x) * gain[:, :, None, None] + shift[:, :, None, None]


def conv3x3(fan_in: int, fan_out: int) -> nn.Module:
    return SpectralConv2d(fan_in, fan_out, 3, padding=1, bias=False)


class UpBlock(nn.Sequential):
    """x [N, I, R / 2, R / 2] -> [N, O, R, R] by nearest neighbours, then twice: convolution, noise, batch norm, gate.

    lite: once, and without noise.
    """

    def __init__(self, fan_in: int, fan_out: int, *, resolution: int, lite: bool) -> None:
        layers: list[nn.Module] = [nn.Upsample(scale_factor=2)]
        for number, channels in enumerate((fan_in,) if lite else (fan_in, fan_out)):
            noise = () if lite else (Noise(resolution, number=number),)
            layers += [conv3x3(channels, 2 * fan_out), *noise, BatchNorm(2 * fan_out), GLU()]
        super().__init__(*layers)

    def forward(self, x: Tensor, c: Tensor | None, noise: Iterator[Tensor]) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, next(noise)) if isinstance(layer, Noise) else layer(x)
        return x


class ConditionalUpBlock(nn.Module):
    """As `UpBlock`, with batch norms that are told a vector c [N, E], and one strength for the noise of both halves."""

    def __init__(self, fan_in: int, fan_out: int, *, resolution: int, lite: bool, embed_dim: int) -> None:
        super().__init__()
        channels = (fan_in,) if lite else (fan_in, fan_out)
        self.convs = nn.ModuleList(conv3x3(n, 2 * fan_out) for n in channels)
        self.norms = nn.ModuleList(ConditionalBatchNorm(2 * fan_out, embed_dim) for _ in channels)
        self.noise = None if lite else Noise(resolution)

    def forward(self, x: Tensor, c: Tensor | None, noise: Iterator[Tensor]) -> Tensor:
        x = interpolate(x, scale_factor=2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            x = x if self.noise is None else self.noise(x, next(noise))
            x = glu(norm(x, c), 1)
        return x


class SkipExcitation(nn.Sequential):
    """Scales the channels of x [N, O, R, R] by what it sees in features [N, I, r, r] of lower resolution (Eq. 2)."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        squeeze = SpectralConv2d(fan_in, fan_out, 4, bias=False)
        excite = SpectralConv2d(fan_out, fan_out, 1, bias=False)
        super().__init__(nn.AdaptiveAvgPool2d(4), squeeze, nn.SiLU(), excite, nn.Sigmoid())

    def forward(self, low: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return x * super().forward(low)


# ---- the generator (Fig. 3) ------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """z [N, Z] (and labels [N] or one-hot [N, C]) -> images [N, C, R, R], around [-1, 1] but not confined to it.

    Args:
        resolution: a power of two from 32 to 1024.
        num_classes: 0 for an unconditional generator.
        embeddings: of classes in the table, where it has more than there are classes.
        width: feature maps at 128 pixels; see `maps`.
        lite: one convolution at each resolution instead of two, and no noise: for small sets of images.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channels: int = 3,
        z_dim: int = 256,
        num_classes: int = 0,
        embeddings: int | None = None,
        width: int = 128,
        lite: bool = False,
    ) -> None:
        super().__init__()
        check_resolution(resolution)
        if embeddings is not None and embeddings < num_classes:
            raise ValueError(f"embeddings {embeddings} are fewer than num_classes {num_classes}: each class needs one")
        self.resolution, self.channels, self.z_dim, self.num_classes = resolution, channels, z_dim, num_classes
        self.stem = nn.Sequential(
            SpectralConvTranspose2d(z_dim, 2 * maps(4, width=width), 4, bias=False),
            BatchNorm(2 * maps(4, width=width)),
            GLU(),
        )
        # At 128 pixels the official code has the layers of 256 too, and uses none: weights go both ways with them.
        built = 256 if resolution == 128 else resolution
        self.blocks, self.excitations = nn.ModuleDict(), nn.ModuleDict()
        for r in (2**level for level in range(3, built.bit_length())):
            shape = (maps(r // 2, width=width), maps(r, width=width))
            self.blocks[str(r)] = (
                ConditionalUpBlock(*shape, resolution=r, lite=lite, embed_dim=z_dim)
                if num_classes
                else UpBlock(*shape, resolution=r, lite=lite)
            )
            if r in EXCITED_BY:
                self.excitations[str(r)] = SkipExcitation(maps(EXCITED_BY[r], width=width), shape[1])
        if built > resolution:
            self.blocks[str(built)].requires_grad_(False)
            self.excitations[str(built)].requires_grad_(False)
        self.to_rgb = SpectralConv2d(maps(resolution, width=width), channels, 3, padding=1)
        self.embed = nn.Embedding(embeddings or num_classes, z_dim) if num_classes else None

    def forward(self, z: Tensor, labels: Tensor | None = None, *, noise: NoiseMode | None = None) -> Tensor:
        """noise: anew at each call ("random"), or each layer's own ("const"); None is the latter in evaluation."""
        c, x = self._embedded(labels), self.stem(unit_second_moment(z)[:, :, None, None])
        noises, features = iter(self._noise_maps(z.shape[0], noise)), {4: x}
        for name, block in self.blocks.items():
            if (r := int(name)) > self.resolution:
                break
            x = block(x, c, noises)
            if r in EXCITED_BY:
                x = self.excitations[name](features[EXCITED_BY[r]], x)
            features[r] = x
        return self.to_rgb(x)

    def _embedded(self, labels: Tensor | None) -> Tensor | None:
        if self.embed is None:
            return None
        if labels is None:
            raise ValueError(f"this generator is conditional: give labels [N] of its {self.num_classes} classes")
        return self.embed(labels.argmax(1) if labels.dim() == 2 else labels)

    def _noise_maps(self, n: int, noise: NoiseMode | None) -> Sequence[Tensor]:
        """One for each convolution that takes one, drawn before any is used: so all layers compile into one graph."""
        if noise not in ("random", "const", None):
            raise ValueError(f"noise {noise!r} is not one of random, const")
        stored = list[Tensor]()
        for name, block in self.blocks.items():
            if int(name) <= self.resolution:
                own = [layer.noise_const for layer in block.modules() if isinstance(layer, Noise)]
                stored += own * (2 if self.embed is not None else 1)
        anew = noise == "random" or (noise is None and self.training)
        return random_noise(n, like=stored) if anew else stored


# ---- the discriminator (Fig. 4) --------------------------------------------------------------------------------------

ENTRY_PX, FEATURES_PX, REBUILT_PX = 256, 8, 128  # where its residual blocks begin and end, and the size decoders reach


def judged_maps(px: int, *, width: int) -> int:
    """Feature maps of the discriminator at so many pixels."""
    return max(width * 64 // px, 1)


def normed(fan_in: int, fan_out: int, kernel_size: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Convolution, batch norm, leaky rectifier."""
    conv = SpectralConv2d(fan_in, fan_out, kernel_size, stride, padding, bias=False)
    return nn.Sequential(conv, BatchNorm(fan_out), nn.LeakyReLU(0.2))


class DownBlock(nn.Module):
    """x [N, I, R, R] -> [N, O, R / 2, R / 2]: the mean of a path of two convolutions and one of pooling."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.main = nn.Sequential(normed(fan_in, fan_out, 4, 2, 1), normed(fan_out, fan_out, 3, 1, 1))
        self.direct = nn.Sequential(nn.AvgPool2d(2), normed(fan_in, fan_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x) + self.direct(x)) / 2


class Decoder(nn.Sequential):
    """Features [N, I, 8, 8] -> images [N, C, P, P] in [-1, 1], P at most 128 (Sec. 3.2)."""

    def __init__(self, fan_in: int, *, channels: int, width: int, px: int) -> None:
        w = [fan_in, *(max(width * multiple // 2, 1) for multiple in (4, 2, 2, 1))]
        w, layers = w[: (px // FEATURES_PX).bit_length()], list[nn.Module]()
        for before, after in itertools.pairwise(w):
            layers += [nn.Upsample(scale_factor=2), conv3x3(before, 2 * after), BatchNorm(2 * after), GLU()]
        super().__init__(*layers, conv3x3(w[-1], channels), nn.Tanh())


class Discriminator(nn.Module):
    """Images [N, C, R, R] -> logits [N, 25], of 5 x 5 places; it is an encoder too, of which decoders make the images.

    With quarters [N], numbers from 0 to 3, -> (logits, whole [N, C, P, P], part [N, C, P, P]): what the decoders make
    of its features of 8 pixels, and of that quarter of its features of 16 pixels (Fig. 4); P is `rebuilt_px`.

    The official code adds skip excitations, and a second discriminator of the image at 128 pixels with a decoder of its
    own; the paper has neither.
    """

    def __init__(self, *, resolution: int, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        check_resolution(resolution)
        self.rebuilt_px = min(resolution, REBUILT_PX)
        entry, layers, w = min(resolution, ENTRY_PX), list[nn.Module](), channels
        for px in (2**level for level in reversed(range(entry.bit_length(), resolution.bit_length()))):
            # Strided convolutions down to 256 pixels (Fig. 4), the first without a norm.
            after = judged_maps(px // 2, width=width)
            first = [SpectralConv2d(w, after, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
            layers += first if not layers else [normed(w, after, 4, 2, 1)]
            w = after
        if not layers:
            w = judged_maps(entry, width=width)
            layers = [SpectralConv2d(channels, w, 3, padding=1, bias=False), nn.LeakyReLU(0.2)]
        self.entry = nn.Sequential(*layers)
        sizes = [2**level for level in reversed(range(3, entry.bit_length() - 1))]
        w_each = [w, *(judged_maps(px, width=width) for px in sizes)]
        self.blocks = nn.ModuleList(DownBlock(*pair) for pair in itertools.pairwise(w_each))
        self.head = nn.Sequential(
            normed(w_each[-1], 2 * w_each[-1], 1), SpectralConv2d(2 * w_each[-1], 1, 4, bias=False), nn.Flatten()
        )
        decoder = {"channels": channels, "width": width, "px": self.rebuilt_px}
        self.whole, self.part = Decoder(w_each[-1], **decoder), Decoder(w_each[-2], **decoder)

    def forward(self, images: Tensor, quarters: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        x = before = self.entry(images)
        for block in self.blocks:
            before, x = x, block(x)
        logits = self.head(x)
        if quarters is None:
            return logits
        return logits, self.whole(x), self.part(quarter(before, quarters))


def quarter(x: Tensor, quarters: Tensor) -> Tensor:
    """x [N, C, H, W] -> [N, C, H / 2, W / 2]: of each the quarter of that number: 0, 1 above, 2, 3 below."""
    parts = x.unflatten(3, (2, -1)).unflatten(2, (2, -1))  # [N, C, 2, H / 2, 2, W / 2]
    return parts[torch.arange(len(x), device=x.device), :, quarters // 2, :, quarters % 2]
