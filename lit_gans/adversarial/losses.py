"""Adversarial losses: pure functions of logits.

Each takes `real_logits` and `fake_logits` ([N] or any equal shapes, unbounded scores) and returns the scalars
`(discriminator_loss, generator_loss)`; a step uses the one whose networks it is updating. Where a loss pairs real with
fake, the generator's loss depends on `real_logits` too; the others ignore them for the generator.

`is_real`, `is_fake` and `divergence` are the terms from which the text-to-image systems put their own together.
"""

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

AdversarialLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def non_saturating(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic loss; the generator maximises log D(G(z)) (Goodfellow et al., 2014, Sec. 3)."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean(), softplus(-fake_logits).mean()


def minimax(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic loss; the generator minimises log(1 - D(G(z))) (Goodfellow et al., 2014, Eq. 1)."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean(), -softplus(fake_logits).mean()


def least_squares(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares with targets 0 and 1 (Mao et al., 2017, Eq. 9)."""
    d_loss = 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())
    return d_loss, 0.5 * (fake_logits - 1).square().mean()


def wasserstein(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The critic's estimate of the earth mover's distance, negated (Arjovsky et al., 2017, Eq. 3)."""
    return fake_logits.mean() - real_logits.mean(), -fake_logits.mean()


def hinge(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Hinge loss (Lim and Ye, 2017; Miyato et al., 2018, Eq. 16 and 17)."""
    return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean(), -fake_logits.mean()


def relativistic(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Relativistic pairing: fake i is judged against real i (Jolicoeur-Martineau, 2019)."""
    gap = real_logits - fake_logits
    return softplus(-gap).mean(), softplus(gap).mean()


def relativistic_average_hinge(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Each sample is judged against the mean of the other side (Jolicoeur-Martineau, 2019, Eq. 17 and 18)."""
    real, fake = real_logits - fake_logits.mean(), fake_logits - real_logits.mean()
    return relu(1 - real).mean() + relu(1 + fake).mean(), relu(1 + real).mean() + relu(1 - fake).mean()


def is_real(logits: Tensor) -> Tensor:
    """Binary cross-entropy of logits with target 1, a scalar in single precision."""
    return softplus(-logits.float()).mean()


def is_fake(logits: Tensor) -> Tensor:
    """Binary cross-entropy of logits with target 0, a scalar in single precision."""
    return softplus(logits.float()).mean()


def divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mu, exp(logvar)) from N(0, 1) (StackGAN, Eq. 2), mu and logvar [N, C].

    A scalar in single precision. The mean over dimensions too, where the paper has their sum, as in the official code
    of StackGAN, StackGAN++ and AttnGAN, to which their weights belong.
    """
    mu, logvar = mu.float(), logvar.float()
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).mean()


def loss_by_path(path: str) -> AdversarialLoss:
    """The function that an import path such as `lit_gans.adversarial.losses.hinge` names.

    Raises:
        ValueError: the path leads nowhere, or to something that does not return two scalars for two logit vectors.
    """
    module, _, name = path.rpartition(".")
    known = [f"{__name__}.{f.__name__}" for f in _SHIPPED]
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"loss {path!r} cannot be imported ({error}); shipped: {', '.join(known)}") from error
    if not callable(function):
        raise ValueError(f"loss {path!r} is a {type(function).__name__}, not a function; shipped: {', '.join(known)}")
    result = function(torch.zeros(2), torch.zeros(2))
    if not (isinstance(result, tuple) and len(result) == 2 and all(isinstance(r, Tensor) for r in result)):
        raise ValueError(f"loss {path!r} must return (discriminator_loss, generator_loss), found {result!r}")
    return function


_SHIPPED = (non_saturating, minimax, least_squares, wasserstein, hinge, relativistic, relativistic_average_hinge)
