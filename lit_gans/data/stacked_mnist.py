"""Stacked MNIST: colour pictures of three digits, one to a channel, with 1,000 modes that can be counted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_gans.data.base import ImageData
from lit_gans.data.checks import _whole
from lit_gans.data.mnist import MNIST
from lit_gans.data.sets import ImageSet
from lit_gans.data.stream import uniform


class StackedSet(ImageSet):
    """Stacks of three pictures of a grey set with labels 0 to 9, put together when asked for.

    `members` int64 [N, 3]: which picture of `digits` is channel 0, 1 and 2.
    """

    def __init__(self, digits: ImageSet, members: Tensor) -> None:
        assert digits.labels is not None and members.ndim == 2 and members.shape[1] == 3
        self.digits, self.members = digits, members
        self.labels = (digits.labels[members] * torch.tensor([100, 10, 1])).sum(dim=1)

    def __len__(self) -> int:
        return len(self.members)

    def images(self, indices: Tensor) -> Tensor:
        channels = self.digits.images(self.members[indices].flatten())
        return channels.view(len(indices), 3, *channels.shape[2:])

    def digest(self) -> str:
        return hashlib.sha256(self.digits.digest().encode() + self.members.numpy().tobytes()).hexdigest()


class StackedMNIST(ImageData):
    """RGB pictures whose channels are three MNIST digits (Metz et al., 2017, Sec. 3.3.1), in 1,000 classes.

    Label 100 a + 10 b + c for the digits a, b, c in red, green and blue. Picture i depends on (seed, split, i) alone:
    each channel is drawn from all of MNIST's split, with replacement. Split "train" has the usual 128,000, "test" the
    26,000 on which modes are counted. Files, resolutions and `download` as for `MNIST`. Modes are counted by
    `lit_gans.metrics.modes.StackedModes`: metric "modes" of an evaluation, with the extractor "stackedmnist".
    """

    class_names = tuple(f"{label:03d}" for label in range(1000))

    def __init__(
        self,
        root: str = "data",
        *,
        resolution: int = 32,
        images: int = 128_000,
        test_images: int = 26_000,
        download: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(resolution=resolution, **options)
        self.root, self.download = Path(root), download
        self.counts = {"train": _whole("images", images, 1), "test": _whole("test_images", test_images, 1)}

    def digits(self) -> MNIST:
        """The MNIST that the channels come from, at the present resolution; also what a digit classifier trains on."""
        return MNIST(str(self.root), batch_size=1, resolution=self.resolution, download=self.download)

    def prepare_data(self) -> None:
        """Fetches what is missing, if asked to. Raises ConnectionError where that fails."""
        self.digits().prepare_data()

    def load(self, split: str) -> StackedSet:
        """Raises FileNotFoundError or ValueError, with the file's name, where MNIST's files are missing or broken."""
        digits, numbers = self.digits().dataset(split), np.arange(self.counts[split])
        draws = [uniform(self.seed, f"stacked {split} channel {channel}", numbers) for channel in range(3)]
        return StackedSet(digits, torch.from_numpy((np.stack(draws, axis=1) * len(digits)).astype(np.int64)))
