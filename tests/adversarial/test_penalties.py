"""Penalties against closed forms for linear and quadratic discriminators."""

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial import penalties
from lit_gans.nn import BatchNorm

IMAGES = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(16, generator=torch.Generator().manual_seed(1))


def linear(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHT


def quadratic(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1) / 2  # its gradient is x


def test_r1_of_a_linear_discriminator_is_the_squared_norm_of_its_weight() -> None:
    assert penalties.r1(linear, IMAGES).item() == pytest.approx(WEIGHT.square().sum().item(), rel=1e-6)


def test_r1_and_r2_of_a_quadratic_are_the_mean_squared_norm_of_the_images() -> None:
    expected = IMAGES.square().flatten(1).sum(1).mean().item()
    assert penalties.r1(quadratic, IMAGES).item() == pytest.approx(expected, rel=1e-6)
    assert penalties.r2(quadratic, IMAGES).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_penalty_looks_between_real_and_fake() -> None:
    mix = torch.tensor([0.0, 1.0, 0.5, 0.25, 0.1, 0.9])
    between = mix.view(-1, 1, 1, 1) * IMAGES + (1 - mix).view(-1, 1, 1, 1) * -2 * IMAGES
    expected = (between.flatten(1).norm(dim=1) - 1).square().mean().item()
    found = penalties.gradient_penalty(quadratic, IMAGES, -2 * IMAGES, mix=mix)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_dragan_looks_around_the_reals() -> None:
    noise, mix = torch.rand(6, 1, 4, 4), torch.rand(6)
    around = IMAGES + mix.view(-1, 1, 1, 1) * 0.5 * IMAGES.std() * noise
    expected = (around.flatten(1).norm(dim=1) - 1).square().mean().item()
    found = penalties.dragan(quadratic, IMAGES, mix=mix, noise=noise)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_dead_critic_has_a_finite_gradient() -> None:
    weight = torch.zeros(16, requires_grad=True)
    penalty = penalties.gradient_penalty(lambda x: x.flatten(1) @ weight, IMAGES, IMAGES, mix=torch.rand(6))
    penalty.backward()
    assert torch.isfinite(weight.grad).all()


def test_lecam() -> None:
    found = penalties.lecam(
        torch.tensor([1.0, 3.0]), torch.tensor([-1.0]), real_anchor=torch.tensor(2.0), fake_anchor=torch.tensor(0.0)
    )
    assert found.item() == pytest.approx(5 + 9)


def test_r1_is_differentiable_and_single_precision_under_autocast() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), BatchNorm(4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = penalties.r1(network, IMAGES)
    assert penalty.dtype == torch.float32
    outside = penalties.r1(network, IMAGES)
    assert penalty.item() == pytest.approx(outside.item(), rel=1e-6)
    penalty.backward()
    assert all(torch.isfinite(p.grad).all() for p in network[0].parameters() if p.grad is not None)
    assert network[0].weight.grad.abs().sum() > 0


def test_r1_gradient_equals_finite_differences() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softplus(), nn.Flatten(), nn.Linear(8, 1)).double()
    images = IMAGES.double()
    penalties.r1(network, images).backward()
    parameter, step = network[0].weight, 1e-6
    with torch.no_grad():
        parameter[0, 0, 0, 0] += step
        above = penalties.r1(network, images)
        parameter[0, 0, 0, 0] -= 2 * step
        below = penalties.r1(network, images)
    assert parameter.grad[0, 0, 0, 0].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-6)
