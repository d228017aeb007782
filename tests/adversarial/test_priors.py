"""Latents: their distributions, alone and in shares."""

import pytest
import torch

from lit_gans.adversarial.priors import (
    Bernoulli,
    CensoredNormal,
    Normal,
    Prior,
    TruncatedNormal,
    Uniform,
    prior_of,
    truncated,
)
from lit_gans.base.random import Draws

PRIORS = [Normal(), Uniform(), TruncatedNormal(0.7), CensoredNormal(), Bernoulli()]


@pytest.mark.parametrize("prior", PRIORS)
def test_two_shares_are_one_batch(prior: Prior) -> None:
    whole = prior.draw(Draws("z"), 6, 5)
    shares = [prior.draw(Draws("z", share=i, shares=2), 3, 5) for i in range(2)]
    assert torch.equal(torch.cat(shares), whole)


@pytest.mark.parametrize("prior", PRIORS)
def test_a_seeds_latent_has_the_distribution_of_training(prior: Prior) -> None:
    drawn = prior.draw(Draws("z"), 4000, 5).flatten().sort().values
    seeded = torch.cat([prior.seeded(torch.Generator().manual_seed(i), 5) for i in range(4000)]).sort().values
    assert (drawn - seeded).abs().mean() < 0.02


def test_normal_numbers_beyond_the_bound_are_left_out_and_the_others_keep_their_shape() -> None:
    z, free = TruncatedNormal(1.5).draw(Draws("z"), 20_000, 4), Normal().draw(Draws("y"), 20_000, 4)
    assert z.abs().max() <= 1.5
    assert z.std().item() == pytest.approx(free[free.abs() <= 1.5].std().item(), rel=0.01)


def test_a_bound_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="bound 0 of a truncated normal prior is not positive"):
        TruncatedNormal(0)


def test_priors_have_the_names_of_configs() -> None:
    named = {"normal": Normal, "uniform": Uniform, "censored": CensoredNormal, "bernoulli": Bernoulli}
    assert {name: type(prior_of(name)) for name in named} == named
    with pytest.raises(ValueError, match="prior 'gaussian' is none of normal, uniform, censored, bernoulli"):
        prior_of("gaussian")


def test_censored_and_coin_tossed_numbers() -> None:
    free = Normal().draw(Draws("z"), 5000, 4)
    assert torch.equal(CensoredNormal().draw(Draws("z"), 5000, 4), free.clamp(min=0))
    coins = Bernoulli().draw(Draws("z"), 5000, 4)
    assert coins.unique().tolist() == [0.0, 1.0] and coins.mean().item() == pytest.approx(0.5, abs=0.02)
    for prior in (CensoredNormal(), Bernoulli()):
        z = prior.draw(Draws("z"), 5, 4)
        assert torch.equal(prior.nearest(z), z) and not torch.equal(prior.nearest(free[:5]), free[:5])


@pytest.mark.parametrize("bound", [0.04, 0.5, 2.0])
def test_truncated_numbers_keep_their_order_and_have_the_truncated_distribution(bound: float) -> None:
    z = Normal().draw(Draws("z"), 20_000, 1).flatten().sort().values
    moved = truncated(z, bound)
    assert moved.abs().max() <= bound and (moved.diff() >= 0).all()
    drawn = TruncatedNormal(bound).draw(Draws("y"), 20_000, 1).flatten().sort().values
    assert (moved - drawn).abs().max() < 0.05 * bound
    assert torch.allclose(truncated(z, 9.0), z, atol=1e-5)  # beyond 9 there is nothing to draw again
    with pytest.raises(ValueError, match="truncation at 0 leaves no latent"):
        truncated(z, 0)
