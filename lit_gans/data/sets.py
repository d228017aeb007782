"""Sets of pictures, read a batch of indices at a time."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.data.stream import permutation

_KEEP_BYTES = 2**30


class ImageSet(ABC):
    """A finite set of pictures, read a batch of indices at a time. `labels` is int64 [len] or None."""

    labels: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def images(self, indices: Tensor) -> Tensor:
        """indices int64 [N] -> uint8 [N, C, R, R]."""

    @abstractmethod
    def digest(self) -> str:
        """Hex digits that change with the content, the labels or their order."""

    def at(self, resolution: int) -> ImageSet:
        """The same pictures, from their files at this size where they have any; else as they are."""
        return self

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """int64 [len]: the order in which training sees them in one epoch."""
        return permutation(seed, epoch, len(self))

    def fetch(self, indices: Tensor) -> dict[str, Tensor]:
        """indices int64 [N] -> {"image": uint8 [N, C, R, R]} and, with labels, "label": int64 [N]."""
        batch = {"image": self.images(indices)}
        if self.labels is not None:
            batch["label"] = self.labels[indices]
        return batch


class TensorSet(ImageSet):
    """Pictures in memory: pixels uint8 [N, C, H, W], scaled to `resolution`: once if under 1 GiB, else per batch."""

    def __init__(self, pixels: Tensor, labels: Tensor | None = None, *, resolution: int | None = None) -> None:
        assert pixels.dtype == torch.uint8 and pixels.ndim == 4, (pixels.dtype, pixels.shape)
        assert labels is None or (labels.dtype == torch.int64 and labels.shape == pixels.shape[:1])
        self.labels = labels
        self.resolution = resolution or pixels.shape[-1]
        small = len(pixels) * pixels.shape[1] * self.resolution**2 <= _KEEP_BYTES
        self.pixels = resize(pixels, self.resolution) if small else pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: Tensor) -> Tensor:
        return resize(self.pixels[indices], self.resolution)

    def digest(self) -> str:
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        content = hashlib.sha256(str(list(self.pixels.shape)).encode() + labels)
        content.update(self.pixels.contiguous().numpy())
        return content.hexdigest()


def resize(pixels: Tensor, resolution: int) -> Tensor:
    """uint8 [N, C, H, W] -> uint8 [N, C, R, R], antialiased bicubic, clamped; the same tensor where nothing changes."""
    if tuple(pixels.shape[-2:]) == (resolution, resolution):
        return pixels
    size = (resolution, resolution)
    scaled = [
        F.interpolate(part.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
        for part in pixels.split(4096)
    ]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in scaled])
