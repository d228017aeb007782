"""Small helpers of the data tests: where the real data lies, and sets that show what was asked of them."""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lit_gans.data import ImageSet, TranslationData

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


def taken(data: TranslationData, count: int, workers: int = 0, **place: int) -> dict[str, Tensor]:
    """`count` batches of the training stream, by side one after the other."""
    loader = DataLoader(data.stream(**place), batch_size=None, num_workers=workers)
    batches = list(islice(loader, count))
    return {side: torch.cat([batch[side] for batch in batches]) for side in batches[0]}


def assert_worlds_agree(build: Callable[[], TranslationData], *, count: int = 7) -> None:
    """Processes, workers and a restart change no batch: sample p is the same sample whoever draws it."""
    data = build()
    whole = taken(data, count)
    size = data.batch_size
    ranks = [taken(data, count, rank=r, world=3) for r in range(3)]
    with_workers, resumed = taken(data, count, workers=2), taken(data, count - 3, start=3 * size)
    for side, pictures in whole.items():
        shares = torch.stack([rank[side].unflatten(0, (count, size // 3)) for rank in ranks], 1)
        assert torch.equal(shares.flatten(0, 2), pictures)
        assert torch.equal(with_workers[side], pictures)
        assert torch.equal(resumed[side], pictures[3 * size :])
