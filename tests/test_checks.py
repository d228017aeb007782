"""Checks of arguments that several constructors have."""

import pytest

from lit_gans.base.checks import power_of_two
from lit_gans.base.processes import share_of


def test_a_power_of_two_is_told_by_its_logarithm() -> None:
    assert [power_of_two("resolution", value, least=4, most=64) for value in (4, 8, 64)] == [2, 3, 6]


@pytest.mark.parametrize("value", [2, 12, 128, 0, -8])
def test_another_number_is_refused_with_the_way_out(value: int) -> None:
    with pytest.raises(ValueError, match=f"width {value} is not a power of two from 4 to 64; use 8, 16"):
        power_of_two("width", value, least=4, most=64, why="use 8, 16")


def test_processes_share_everything_and_some_may_have_nothing() -> None:
    assert [share_of(5, rank=rank, world=2).tolist() for rank in range(2)] == [[0, 2, 4], [1, 3]]
    assert [share_of(1, rank=rank, world=3).tolist() for rank in range(3)] == [[0], [], []]
