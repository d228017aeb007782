"""Latents: their distributions, alone and in shares."""

import pytest
import torch

from lit_gans.adversarial.priors import Normal, Prior, TruncatedNormal, Uniform, prior_of
from lit_gans.base.random import Draws

PRIORS = [Normal(), Uniform(), TruncatedNormal(0.7)]


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
    assert type(prior_of("normal")) is Normal and type(prior_of("uniform")) is Uniform
    with pytest.raises(ValueError, match="prior 'gaussian' is neither"):
        prior_of("gaussian")
