"""Randomness that is derived."""

import pytest
import torch
from torch import nn

from lit_gans.nn import BatchNorm, Draws, Dropout, Maxout, drawing
from lit_gans.nn.mode import evaluating


def test_shares_are_slices_of_the_global_batch() -> None:
    whole = Draws(1, 2, "z").normal(12, 3)
    for shares in (2, 3, 4):
        parts = [Draws(1, 2, "z", share=i, shares=shares).normal(12 // shares, 3) for i in range(shares)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_every_part_of_the_key_matters(kind: str) -> None:
    draws = [getattr(Draws(*key), kind)(4, 2) for key in ((1, 2, "z"), (2, 2, "z"), (1, 3, "z"), (1, 2, "y"))]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_streams_advance_and_repeat() -> None:
    draws = Draws(0, "x")
    first, second = draws.uniform(5), draws.uniform(5)
    assert not torch.equal(first, second)
    assert torch.equal(Draws(0, "x").uniform(5), first)


def test_dropout_takes_its_mask_from_the_enclosing_draws() -> None:
    dropout, x = Dropout(0.25), torch.ones(8, 100)
    with drawing(Draws(7)):
        whole = dropout(x)
    parts = []
    for i in range(2):
        with drawing(Draws(7, share=i, shares=2)):
            parts.append(dropout(x[:4]))
    assert torch.equal(torch.cat(parts), whole)
    assert whole.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (whole == 0).float().mean().item() == pytest.approx(0.25, abs=0.06)
    assert torch.equal(dropout.eval()(x), x)
    with pytest.raises(ValueError, match="not in"):
        Dropout(1.0)


def test_maxout_is_the_largest_piece() -> None:
    layer = Maxout(3, 2, pieces=4)
    x = torch.randn(5, 3)
    linear = layer.linear(x)
    expected = torch.stack([linear[:, :4].max(1).values, linear[:, 4:].max(1).values], dim=1)
    assert torch.equal(layer(x), expected)


def test_batch_norm_on_one_process_is_torchs() -> None:
    ours, theirs, x = BatchNorm(3), nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5)
    assert torch.equal(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    with pytest.raises(ValueError, match="found"):
        ours(torch.randn(3))


def test_evaluating_restores_each_modules_mode() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout().eval()))
    network[1].train(False)
    with evaluating(network):
        assert not any(m.training for m in network.modules())
    assert [m.training for m in network.modules()] == [True, True, False, False]
