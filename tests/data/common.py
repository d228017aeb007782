"""Small helpers of the data tests: where the real data lies, and sets that show what was asked of them."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_gans.data import ImageSet

REAL = Path(os.environ.get("LIT_GANS_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def real(name: str) -> Path:
    """The folder of a real data set; skips the test where there is none."""
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set LIT_GANS_DATA to its folder")
    return folder


class Numbers(ImageSet):
    """Picture i is 1 x 2: i on the left, 255 - i on the right, so that order and flips can be read off."""

    def __init__(self, length: int) -> None:
        self.labels = torch.arange(length) % 3
        self.length = length

    def __len__(self) -> int:
        return self.length

    def images(self, indices: Tensor) -> Tensor:
        return torch.stack([indices, 255 - indices], -1).to(torch.uint8)[:, None, None]

    def digest(self) -> str:
        return str(self.length)
