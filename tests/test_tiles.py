"""Images brought to a stride and cut into tiles, and put together again."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_gans.base.tiles import in_tiles, reflect_to, tile_size


def images(height: int, width: int, *, channels: int = 2) -> Tensor:
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("height", "width", "stride"), [(7, 10, 4), (8, 8, 4), (3, 5, 16), (1, 2, 8), (700, 1, 64)])
def test_reflection_is_numpys_and_is_cut_off_exactly(height: int, width: int, stride: int) -> None:
    x = images(height, width)
    padded, top, left = reflect_to(x, stride)
    assert padded.shape[-2] % stride == padded.shape[-1] % stride == 0
    assert padded.shape[-2] - height < stride and padded.shape[-1] - width < stride
    assert torch.equal(padded[..., top : top + height, left : left + width], x)
    after = (padded.shape[-2] - height - top, padded.shape[-1] - width - left)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (top, after[0]), (left, after[1])), mode="reflect")
    assert np.array_equal(padded.numpy(), expected) and 0 <= after[0] - top <= 1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 112), (136, 72), (16, 200)])
@pytest.mark.parametrize(("tile", "overlap", "stride"), [(48, 16, 8), (64, 10, 8), (16, 0, 8), (48, 40, 8)])
def test_pixelwise_work_is_the_same_in_tiles(height: int, width: int, tile: int, overlap: int, stride: int) -> None:
    x, seen, told = images(height, width), [], []

    def work(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape[-2:]))
        return 1 - part.square()

    made = in_tiles(work, x, tile=tile, overlap=overlap, stride=stride, told=told.append)
    torch.testing.assert_close(made, 1 - x.square(), rtol=0, atol=1e-6)
    assert set(seen) == {(min(tile, height), min(tile, width))} and len(told) == len(seen) and told[-1] == 1
    assert in_tiles(work, x, tile=0, overlap=overlap, stride=stride).equal(1 - x.square())


def test_tiles_overlap_enough_begin_at_strides_and_cover_all() -> None:
    places = torch.arange(200.0).expand(1, 1, 16, 200)
    starts: list[int] = []
    in_tiles(lambda part: starts.append(int(part[0, 0, 0, 0])) or part, places, tile=64, overlap=20, stride=8)
    assert starts == [0, 40, 80, 120, 136]
    assert all(later - earlier <= 64 - 20 for earlier, later in zip(starts, starts[1:], strict=False))


def test_one_tile_fades_linearly_into_the_next() -> None:
    numbers = iter(range(9))
    made = in_tiles(lambda part: torch.full_like(part, next(numbers)), images(8, 24), tile=16, overlap=8, stride=8)
    rise = torch.arange(1, 9) / 9
    torch.testing.assert_close(made[0, 0, 0], torch.cat([torch.zeros(8), rise, torch.ones(8)]))
    assert torch.equal(made[0, 0], made[0, 1])


def test_sizes_of_tiles() -> None:
    assert tile_size(4, tile=None, overlap=64) == 1024 and tile_size(256, tile=None, overlap=64) == 1024
    assert tile_size(512, tile=None, overlap=64) == 1024 and tile_size(48, tile=None, overlap=64) == 1056
    assert tile_size(256, tile=0, overlap=64) == 0 and tile_size(32, tile=96, overlap=64) == 96
    for tile, overlap, message in [
        (500, 64, "tile 500 is no multiple of the model's stride of 256 px: use 512, or 0 for none"),
        (-256, 64, "tile -256 is no multiple .* use 512"),
        (
            256,
            64,
            "256 px that overlap by 64 .* stride of 256 px: use a tile of 512 or more, or an overlap of 0 or less",
        ),
        (512, -1, "overlap is -1: give 0 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            tile_size(256, tile=tile, overlap=overlap)
