import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_gans.metrics import Plan, evaluate_gan
from lit_gans.metrics.equivariance import (
    GROUP,
    bandlimit_filter,
    decibels,
    measure_equivariance,
    rotated,
    rotation,
    squared_error,
    translated,
    translated_by_pixels,
)
from lit_gans.papers import StyleGAN2, StyleGAN3
from lit_gans.papers.stylegan2.networks import seen_through

from .common import conditional, digits
from .waves import KINDS, Waves

PX = 32


def picture(px: int = PX) -> Tensor:
    """[1, 2, px, px] of waves, none of whose symmetries is one of its moves."""
    return Waves(px).synthesize(torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(1)))


# ---- moved pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y"), [(3, -2), (-5, 0), (0, 0), (40, 1)])
def test_translated_by_pixels_is_a_roll_where_it_is_known(x: int, y: int) -> None:
    moved, known = translated_by_pixels(picture(), x, y)
    assert torch.equal(moved[..., known], picture().roll((y, x), (2, 3))[..., known])
    assert known.sum() == max(PX - abs(x), 0) * max(PX - abs(y), 0) and not moved[..., ~known].any()


def test_whole_pixels_are_fractions_too() -> None:
    moved, known = translated(picture(), 3 / PX, -2 / PX)
    expected, also = translated_by_pixels(picture(), 3, -2)
    assert torch.allclose(moved[..., known], expected[..., known], atol=1e-6) and bool(also[known].all())


@pytest.mark.parametrize(
    ("move", "transform"),
    [
        (lambda x: translated(x, 0.071, -0.03), torch.tensor([[1, 0, -0.071], [0, 1, 0.03], [0, 0, 1]])),
        (lambda x: rotated(x, 0.4), rotation(-0.4)),
        (lambda x: rotated(x, -2.0), rotation(2.0)),
    ],
)
def test_moves_are_those_of_what_waves_are_made_of(move: Callable, transform: Tensor) -> None:
    waves, w = Waves(PX), torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(1))
    moved, known = move(waves.synthesize(w))
    expected = waves.synthesize_transformed(w, transform)
    assert known.float().mean() > 0.25
    assert (moved - expected)[..., known].abs().max() < 0.02 * expected.abs().max()
    back = waves.synthesize_transformed(w, transform.double().inverse())
    assert (moved - back)[..., known].abs().max() > 0.2  # the other way is another picture


def test_a_quarter_turn_is_one_of_the_grid() -> None:
    moved, known = rotated(picture(), math.pi / 2)
    assert (moved - picture().rot90(1, (2, 3)))[..., known].abs().max() < 0.02


def test_the_bandlimit_filter_keeps_the_mean_of_each_set_of_taps() -> None:
    f = torch.nn.functional.pad(bandlimit_filter(rotation(0.3), up=4), (0, 1, 0, 1))
    assert f.shape == (48, 48)
    assert torch.allclose(f.view(12, 4, 12, 4).sum((0, 2)), torch.full((4, 4), 1 / 16), atol=1e-6)


# ---- the metric ------------------------------------------------------------------------------------------------------


def test_decibels() -> None:
    assert decibels(4.0, 1) == 0 and decibels(0.04, 1) == pytest.approx(20) and decibels(0.0, 3) == math.inf


@pytest.mark.parametrize(("kind", "least"), [("eq_t", 100), ("eq_t_frac", 40), ("eq_r", 40)])
def test_what_moves_with_its_input_is_told_from_what_does_not(kind: str, least: float) -> None:
    """A picture that stays, and one that goes the other way, score as two unlike pictures do."""
    measured = {move: measure_equivariance(Waves(PX, move), kind, num_samples=32) for move in ("with", "stay", "back")}
    assert measured["with"] > least
    assert 0 < measured["stay"] < 20 and 0 < measured["back"] < 20


def test_means_are_of_errors_not_of_decibels() -> None:
    model, ws = Waves(PX, "stay"), torch.randn(GROUP, 1, 6, generator=torch.Generator().manual_seed(2))
    error, count = squared_error(model, ws, "eq_t", torch.tensor([1.0, 0.5, 0, 0, 0]))
    shift = round(0.125 * PX)
    image = model.synthesize(ws)
    by_hand = (image[..., : PX - shift] - image[..., shift:]).double().square()
    assert count == by_hand.numel() and error == pytest.approx(by_hand.sum().item())


def test_a_number_repeats_and_follows_from_the_seed() -> None:
    one, other = (measure_equivariance(Waves(PX, "stay"), "eq_r", num_samples=10, seed=seed) for seed in (0, 1))
    assert measure_equivariance(Waves(PX, "stay"), "eq_r", num_samples=10) == one != other


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(ValueError, match="num_samples is 0"):
        measure_equivariance(Waves(PX), "eq_t", num_samples=0)
    with pytest.raises(ValueError, match="Waves's images are too small"):
        measure_equivariance(Waves(8), "eq_r", num_samples=4)
    with pytest.raises(ValueError, match="eq_t move what an image is made of; a CGAN cannot"):
        evaluate_gan(conditional(), digits(), extractor=None, plan=Plan(metrics=["eq_t"], num_images=2))


def test_an_evaluation_measures_it_and_stamps_it() -> None:
    gan = StyleGAN3(resolution=16, channels=1, z_dim=8, w_dim=8, num_layers=3, channel_base=64, channel_max=4)
    plan = Plan(metrics=KINDS, num_images=2, equivariance_samples=6, seed=3, psi=0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = evaluate_gan(gan, digits(16), extractor=None, plan=plan)
    for kind in KINDS:
        assert found.values[kind] == measure_equivariance(gan, kind, num_samples=6, seed=3, psi=0.7)
        assert found.stamp(kind)["equivariance_samples"] == 6 and found.stamp(kind)["psi"] == 0.7


# ---- generators that move --------------------------------------------------------------------------------------------


def test_stylegan3_moves_where_it_is_told() -> None:
    torch.manual_seed(0)
    size = {"z_dim": 8, "w_dim": 8, "num_layers": 4, "channel_base": 256, "channel_max": 8}
    for configuration, kinds in {"T": ["eq_t", "eq_t_frac"], "R": KINDS}.items():
        gan = StyleGAN3(resolution=PX, configuration=configuration, **size)
        for kind in kinds:
            assert measure_equivariance(gan, kind, num_samples=8) > 40, (configuration, kind)
    still = gan.synthesize(gan.styles(gan.seeded_latents([0])))
    gan.generator_ema.synthesis.input.transform.copy_(rotation(1.0))
    assert torch.equal(gan.synthesize_transformed(gan.styles(gan.seeded_latents([0])), torch.eye(3)), still)


def test_stylegan2_moves_its_constant() -> None:
    """Half a picture is two of its four points; its zeros around it and its grids do not move with it."""
    torch.manual_seed(0)
    gan = StyleGAN2(resolution=PX, z_dim=8, w_dim=8, num_layers=1, channel_base=256, channel_max=8)
    const = gan.generator_ema.synthesis.blocks["4"].const
    half = torch.tensor([[1, 0, -0.5], [0, 1, 0.25], [0, 0, 1]])  # to the right by half, up by a quarter
    assert torch.allclose(seen_through(const, torch.eye(3)), const, atol=1e-5)
    assert torch.allclose(seen_through(const, half), const.roll((-1, 2), (1, 2)), atol=1e-5)
    ws = gan.styles(gan.seeded_latents([0, 1]))
    assert torch.allclose(gan.synthesize_transformed(ws, torch.eye(3)), gan.synthesize(ws), atol=1e-5)
    assert not torch.allclose(gan.synthesize_transformed(ws, half), gan.synthesize(ws), atol=1e-2)
