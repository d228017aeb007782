"""The 1,797 handwritten digits of scikit-learn: real pictures with nothing to download."""

from __future__ import annotations

from typing import Any

import torch

from lit_gans.data.base import ImageData
from lit_gans.data.sets import ImageSet, TensorSet


class Digits(ImageData):
    """8x8 grey digits (Alpaydin and Kaynak, 1998; `sklearn.datasets.load_digits`) in 10 classes, scaled bicubically.

    Split "train" has all 1,797; with `holdout` every fifth (indices 4, 9, ...) is kept out of it as split "test".
    """

    channels = 1
    class_names = tuple("0123456789")

    def __init__(self, *, resolution: int = 32, holdout: bool = False, **options: Any) -> None:
        super().__init__(resolution=resolution, **options)
        self.holdout = holdout

    def load(self, split: str) -> ImageSet:
        """Raises ValueError for split "test" without `holdout`."""
        from sklearn.datasets import load_digits

        if split == "test" and not self.holdout:
            raise ValueError("Digits keeps no split 'test' unless holdout=True: every picture is in 'train'")
        digits = load_digits()
        pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        test = torch.arange(len(labels)) % 5 == 4
        chosen = test if split == "test" else ~test if self.holdout else torch.ones_like(test)
        return TensorSet(pixels[chosen], labels[chosen], resolution=self.resolution)
