"""Adversarial losses against closed forms."""

import math

import pytest
import torch

from lit_gans.adversarial import losses

REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def mean(*values: float) -> float:
    return sum(values) / len(values)


def test_non_saturating() -> None:
    d, g = losses.non_saturating(REAL, FAKE)
    assert d.item() == pytest.approx(mean(softplus(-2), softplus(1)) + mean(softplus(0.5), softplus(-3)))
    assert g.item() == pytest.approx(mean(softplus(-0.5), softplus(3)))


def test_minimax_generator_minimises_log_one_minus_d() -> None:
    probability = FAKE.sigmoid()
    assert losses.minimax(REAL, FAKE)[1].item() == pytest.approx((1 - probability).log().mean().item())


def test_least_squares() -> None:
    d, g = losses.least_squares(REAL, FAKE)
    assert d.item() == pytest.approx(0.5 * (mean(1, 4) + mean(0.25, 9)))
    assert g.item() == pytest.approx(0.5 * mean(0.25, 16))


def test_wasserstein_and_hinge() -> None:
    assert losses.wasserstein(REAL, FAKE)[0].item() == pytest.approx(-1.25 - 0.5)
    assert losses.wasserstein(REAL, FAKE)[1].item() == pytest.approx(1.25)
    d, g = losses.hinge(REAL, FAKE)
    assert d.item() == pytest.approx(mean(0, 2) + mean(1.5, 0))
    assert g.item() == pytest.approx(1.25)


def test_relativistic_pairs_sample_by_sample() -> None:
    d, g = losses.relativistic(REAL, FAKE)
    assert d.item() == pytest.approx(mean(softplus(-1.5), softplus(-2)))
    assert g.item() == pytest.approx(mean(softplus(1.5), softplus(2)))


def test_relativistic_average_hinge() -> None:
    d, g = losses.relativistic_average_hinge(REAL, FAKE)  # means: 0.5 and -1.25
    assert d.item() == pytest.approx(mean(0, 0.75) + mean(1.0, 0))
    assert g.item() == pytest.approx(mean(4.25, 1.25) + mean(1.0, 4.5))


@pytest.mark.parametrize("loss", losses._SHIPPED, ids=lambda f: f.__name__)
def test_both_players_pull_the_fake_logit_in_opposite_directions(loss: losses.AdversarialLoss) -> None:
    for player, sign in ((0, 1), (1, -1)):
        fake = torch.full((4,), 0.5, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(torch.zeros(4), fake)[player], fake)
        assert (gradient * sign > 0).all()


def test_loss_by_path_finds_functions_and_explains_failures() -> None:
    assert losses.loss_by_path("lit_gans.adversarial.losses.hinge") is losses.hinge
    with pytest.raises(ValueError, match="cannot be imported.*shipped: .*non_saturating"):
        losses.loss_by_path("lit_gans.adversarial.losses.hingee")
    with pytest.raises(ValueError, match="must return"):
        losses.loss_by_path("torch.maximum")
    with pytest.raises(ValueError, match="not a function"):
        losses.loss_by_path("math.pi")
