import pytest
import torch

from lit_gans.metrics.features import FeatureSet

ROWS = torch.arange(30.0).view(10, 3)


def filled(capacity: int, *, shuffled: bool = False) -> FeatureSet:
    metric = FeatureSet(3, capacity=capacity)
    index = torch.randperm(10, generator=torch.Generator().manual_seed(0)) if shuffled else torch.arange(10)
    for part in index.split(4):
        metric.update(ROWS[part], part)
    return metric


@pytest.mark.parametrize("capacity", [0, 5, 10, 20])
@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_come_in_the_order_of_their_index(capacity: int, shuffled: bool) -> None:
    assert torch.equal(filled(capacity, shuffled=shuffled).compute(), ROWS)


def test_rows_in_a_block_are_joined_without_a_copy() -> None:
    metric = filled(10)
    assert metric.gathered().data_ptr() == metric.features[0].data_ptr() == metric._block.data_ptr()
    partly = filled(5)
    assert partly.gathered().data_ptr() != partly._block.data_ptr()


def test_order_of_arrival_is_the_default_and_reset_forgets() -> None:
    metric = FeatureSet(3, capacity=4)
    for part in ROWS.split(3):
        metric.update(part)
    first = metric.compute()
    assert torch.equal(first, ROWS)
    metric.reset()
    metric.update(ROWS[5:7])
    assert torch.equal(metric.compute(), ROWS[5:7]) and torch.equal(first, ROWS)


def test_forward_keeps_what_was_there() -> None:
    metric = FeatureSet(3, capacity=10)
    for part in ROWS.split(4):
        assert torch.equal(metric(part), part)
    assert torch.equal(metric.compute(), ROWS)


def test_a_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"features of shape \[2, 4\], expected \[N, 3\]"):
        FeatureSet(3).update(torch.zeros(2, 4))
