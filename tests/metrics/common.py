"""Cheap stand-ins for the tests of metrics: an extractor of pixel averages and a model on 8-pixel digits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.data import Digits
from lit_gans.metrics import Extractor, Features
from lit_gans.papers.cgan import CGAN
from lit_gans.papers.gan import VanillaGAN


class PixelFeatures(Extractor):
    """Averages over a 4x4 grid through a fixed random layer: 8 features, `num_classes` logits (None for 0)."""

    num_features = 8
    resize = "average pooling to 4"

    def __init__(self, *, name: str = "pixels", num_classes: int = 10, seed: int = 0) -> None:
        super().__init__()
        self.name, self.num_classes = name, num_classes
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(8, 16, generator=generator))
        self.head = nn.Parameter(torch.randn(max(num_classes, 1), 8, generator=generator))
        self.images = 0
        self.freeze()

    def forward(self, images: Tensor) -> Features:
        self.images += len(images)
        pooled = F.adaptive_avg_pool2d(images.float().mean(dim=1, keepdim=True) / 255, 4).flatten(1)
        features = pooled @ self.weight.T
        return Features(features, features @ self.head.T if self.num_classes else None)


class SpatialFeatures(PixelFeatures):
    """Stands in for Inception: a second set of features for the spatial distance."""

    num_spatial = 5

    def forward(self, images: Tensor) -> Features:
        plain = super().forward(images)
        return Features(plain.features, plain.logits, plain.features[:, :5] * 2)


def squared(a: Tensor, b: Tensor) -> Tensor:
    """A distance for path lengths."""
    return (a - b).square().flatten(1).sum(1)


def brightness(images: Tensor) -> Tensor:
    """An attribute that about half of an untrained model's images have."""
    return images.float().mean(dim=(1, 2, 3)) - 127.5


def digits(resolution: int = 8) -> Digits:
    return Digits(batch_size=16, resolution=resolution)


def unconditional() -> VanillaGAN:
    torch.manual_seed(0)
    return VanillaGAN(resolution=8, hidden=16, units=8, pieces=2, z_dim=4)


def conditional(resolution: int = 8) -> CGAN:
    torch.manual_seed(0)
    return CGAN(resolution=resolution, channels=1, form="mlp", z_dim=4)
