"""Networks as R3GAN's training pickles them: by reference to classes of the repository, under its names."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu


def kernel() -> Tensor:
    taps = torch.tensor([1.0, 3, 3, 1])
    return taps.outer(taps) / 64


class BiasedActivationReference(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Bias = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(x + self.Bias[:, None, None], 0.2)


class Convolution(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, size: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.Layer = nn.Conv2d(fan_in, fan_out, size, padding=size // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.Layer(x)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.LinearLayer1 = Convolution(channels, 2 * channels)
        self.LinearLayer2 = Convolution(2 * channels, 2 * channels, 3, groups)
        self.LinearLayer3 = Convolution(2 * channels, channels)
        self.NonLinearity1 = BiasedActivationReference(2 * channels)
        self.NonLinearity2 = BiasedActivationReference(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.NonLinearity2(self.LinearLayer2(self.NonLinearity1(self.LinearLayer1(x))))
        return x + self.LinearLayer3(y)


class InterpolativeUpsamplerReference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("Kernel", kernel())
        self.FilterRadius = 1

    def forward(self, x: Tensor) -> Tensor:
        planes, k = x.flatten(0, 1)[:, None], 4 * self.Kernel[None, None]
        return conv_transpose2d(planes, k, stride=2, padding=1)[:, 0].unflatten(0, x.shape[:2])


class InterpolativeDownsamplerReference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("Kernel", kernel())
        self.FilterRadius = 1

    def forward(self, x: Tensor) -> Tensor:
        planes = x.flatten(0, 1)[:, None]
        return conv2d(planes, self.Kernel[None, None], stride=2, padding=1)[:, 0].unflatten(0, x.shape[:2])


class UpsampleLayer(nn.Module):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.Resampler = InterpolativeUpsamplerReference()
        if fan_in != fan_out:
            self.LinearLayer = Convolution(fan_in, fan_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.Resampler(self.LinearLayer(x) if hasattr(self, "LinearLayer") else x)


class DownsampleLayer(nn.Module):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.Resampler = InterpolativeDownsamplerReference()
        if fan_in != fan_out:
            self.LinearLayer = Convolution(fan_in, fan_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Resampler(x)
        return self.LinearLayer(x) if hasattr(self, "LinearLayer") else x


class GenerativeBasis(nn.Module):
    def __init__(self, fan_in: int, channels: int) -> None:
        super().__init__()
        self.Basis = nn.Parameter(torch.randn(channels, 4, 4))
        self.LinearLayer = nn.Linear(fan_in, channels, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.Basis * self.LinearLayer(z)[:, :, None, None]


class DiscriminativeBasis(nn.Module):
    def __init__(self, channels: int, fan_out: int) -> None:
        super().__init__()
        self.Basis = nn.Conv2d(channels, channels, 4, groups=channels, bias=False)
        self.LinearLayer = nn.Linear(channels, fan_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.LinearLayer(self.Basis(x).flatten(1))


class GeneratorStage(nn.Module):
    def __init__(self, layers: Sequence[nn.Module], data_type: torch.dtype) -> None:
        super().__init__()
        self.Layers, self.DataType = nn.ModuleList(layers), data_type

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.Layers:
            x = layer(x)
        return x


class DiscriminatorStage(GeneratorStage):
    pass


def blocks(width: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(width, width // 4) for _ in range(count)]


class Model(nn.Module):
    """R3GAN.Networks.Generator, which a training's own class of that name holds."""

    def __init__(self, z_dim: int, widths: Sequence[int], counts: Sequence[int], classes: int) -> None:
        super().__init__()
        starts = [GenerativeBasis(z_dim + (z_dim if classes else 0), widths[0])]
        starts += [UpsampleLayer(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        parts = enumerate(zip(starts, widths, counts, strict=True))
        self.MainLayers = nn.ModuleList(
            GeneratorStage([start, *blocks(w, n)], torch.bfloat16 if i else torch.float32) for i, (start, w, n) in parts
        )
        self.AggregationLayer = Convolution(widths[-1], 3)
        if classes:
            self.EmbeddingLayer = nn.Linear(classes, z_dim, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = torch.cat([x, self.EmbeddingLayer(y)], 1) if hasattr(self, "EmbeddingLayer") else x
        for layer in self.MainLayers:
            x = layer(x)
        return self.AggregationLayer(x)


class Judge(nn.Module):
    """R3GAN.Networks.Discriminator; widths from the image on."""

    def __init__(self, widths: Sequence[int], counts: Sequence[int], classes: int) -> None:
        super().__init__()
        ends = [DownsampleLayer(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        ends.append(DiscriminativeBasis(widths[-1], widths[-1] if classes else 1))
        parts = zip(ends, widths, counts, strict=True)
        self.ExtractionLayer = Convolution(3, widths[0])
        self.MainLayers = nn.ModuleList(DiscriminatorStage([*blocks(w, n), end], torch.float32) for end, w, n in parts)
        if classes:
            self.EmbeddingLayer = nn.Linear(classes, widths[-1], bias=False)  # as wide as the stage of 4 px

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.ExtractionLayer(x)
        for layer in self.MainLayers:
            x = layer(x)
        return (x * self.EmbeddingLayer(y)).sum(1) if hasattr(self, "EmbeddingLayer") else x[:, 0]


class Generator(nn.Module):
    def __init__(self, widths: Sequence[int], counts: Sequence[int], *, classes: int = 0, z_dim: int = 6) -> None:
        super().__init__()
        self.Model = Model(z_dim, widths, counts, classes)
        self.z_dim, self.c_dim, self.img_resolution = z_dim, classes, 4 * 2 ** (len(widths) - 1)

    def forward(self, x: Tensor, c: Any) -> Tensor:
        return self.Model(x, c)


class Discriminator(nn.Module):
    def __init__(self, widths: Sequence[int], counts: Sequence[int], *, classes: int = 0) -> None:
        super().__init__()
        self.Model = Judge(widths[::-1], counts[::-1], classes)

    def forward(self, x: Tensor, c: Any) -> Tensor:
        return self.Model(x, c)


Model.__name__ = Model.__qualname__ = "Generator"
Judge.__name__ = Judge.__qualname__ = "Discriminator"


def classes_of(package: str, trainings: str) -> tuple[tuple[str, type], ...]:
    """Module and class of all that a file names: the released ones name the repository by an older name."""
    own = (Convolution, ResidualBlock, UpsampleLayer, DownsampleLayer, GenerativeBasis, DiscriminativeBasis,
           GeneratorStage, DiscriminatorStage, Model, Judge)  # fmt: skip
    resamplers = (InterpolativeUpsamplerReference, InterpolativeDownsamplerReference)
    return (
        *((f"{package}.Networks", each) for each in own),
        *((f"{package}.Resamplers", each) for each in resamplers),
        (f"{package}.FusedOperators", BiasedActivationReference),
        (trainings, Generator), (trainings, Discriminator),
    )  # fmt: skip
