"""Tensors to pictures and back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gans.base.grids import grid
from lit_gans.base.images import from_uint8, save_png, to_uint8


def test_ends_and_middle_of_the_range() -> None:
    assert to_uint8(torch.tensor([-2.0, -1.0, 0.0, 1.0, 5.0])).tolist() == [0, 0, 128, 255, 255]


def test_round_trip_is_exact() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(values)), values)


def test_grid_is_row_by_row_with_black_blanks() -> None:
    images = torch.arange(1, 4, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 0, 0], [3, 3, 0, 0]]
    assert grid(images, 2)[0].tolist() == expected
    wide = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 1, 2)
    assert grid(wide, 3)[0].tolist() == [[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]
    assert grid(images[:1], 1, min_cell_px=5).shape == (1, 6, 6)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_pixels(channels: int, tmp_path: Path) -> None:
    image = torch.randint(256, (channels, 4, 6), dtype=torch.uint8)
    path = save_png(image, tmp_path / "sub" / "a.png")
    read = np.asarray(Image.open(path))
    assert np.array_equal(read.reshape(4, 6, channels), image.permute(1, 2, 0).numpy())
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
