"""Adaptive augmentation beside its recorded values, which tests/parity holds: laws that must hold for any image."""

import colorsys
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.augment import PRESETS, AdaptiveAugment
from lit_gans.augment.ada import GEOM
from lit_gans.augment.transforms import (
    EXPECTED_POWER,
    _margins,
    along_grey,
    cut_square,
    filter_bank,
    geometry_filter,
    hue_rotation,
    recolor,
    refilter,
    rotation,
    scaling,
    translation,
    warp,
)
from lit_gans.nn import Draws, drawing

TAPS, BANK = geometry_filter(), filter_bank()


def picture(n: int = 2, *, channels: int = 3, side: int = 32, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth images in [-1, 1], no two alike."""
    generator = torch.Generator().manual_seed(n + channels)
    coarse = torch.rand(n, channels, side // 4, side // 4, generator=generator, dtype=dtype) * 2 - 1
    return F.interpolate(coarse, side, mode="bilinear", align_corners=True)


def augmented(augment: AdaptiveAugment, images: Tensor, seed: int = 0) -> Tensor:
    with drawing(Draws(seed)):
        return augment(images)


def every_transform(p: float) -> AdaptiveAugment:
    return AdaptiveAugment.preset("bgcfnc", p=p)


# ---- filters and matrices --------------------------------------------------------------------------------------------


def test_the_geometry_filter_is_an_orthogonal_wavelet() -> None:
    products = [(TAPS[2 * k :] * TAPS[: len(TAPS) - 2 * k]).sum().item() for k in range(6)]
    assert products == pytest.approx([0.5, 0, 0, 0, 0, 0], abs=1e-9)
    assert TAPS.sum().item() == pytest.approx(1)


def test_the_bands_are_octaves_that_add_up_to_the_image() -> None:
    impulse = torch.zeros(43, dtype=torch.float64)
    impulse[21] = 1
    torch.testing.assert_close(BANK.sum(0), impulse, atol=1e-11, rtol=0)
    response = torch.fft.rfft(BANK, 512).abs()
    for band, peak in enumerate([0.0, 0.09, 0.19, 0.5]):  # in cycles per pixel
        assert response[band].argmax().item() / 512 == pytest.approx(peak, abs=0.04)


def test_equal_gains_scale_the_image() -> None:
    images = picture(dtype=torch.float64)
    torch.testing.assert_close(refilter(images, torch.full((2, 4), 3.0).double(), BANK), 9 * images)


def test_shifts_by_pixels_are_exact_and_reflected_at_the_edge() -> None:
    images = picture(1)
    moved = warp(images, translation(torch.tensor([-5.0]), torch.tensor([2.0])), TAPS.float())
    torch.testing.assert_close(moved[..., :-2, 5:], images[..., 2:, :-5], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[..., :-2, :5], images[..., 2:, 1:6].flip(3), atol=1e-5, rtol=0)
    identity = warp(images[..., :20], rotation(torch.zeros(1)), TAPS.float())
    torch.testing.assert_close(identity, images[..., :20], atol=1e-5, rtol=0)


def test_quarter_turns_and_mirrors() -> None:
    """As near as the taps are to symmetry, which no orthogonal wavelet has: sym6 is the least asymmetric one."""
    images, ones = picture(1), torch.ones(1)
    oblong = images[..., :20]
    for given, matrix, expected in (
        (images, rotation(ones * math.pi / 2), images.rot90(1, (2, 3))),
        (oblong, rotation(ones * math.pi), oblong.flip((2, 3))),
        (oblong, scaling(-ones, ones), oblong.flip(3)),
    ):
        torch.testing.assert_close(warp(given, matrix, TAPS.float()), expected, atol=0.1, rtol=0)


def test_hue_turns_around_the_grey_axis() -> None:
    third = hue_rotation(torch.tensor([2 * math.pi / 3], dtype=torch.float64))[0]
    red, green, blue = torch.eye(4, dtype=torch.float64)[:3]
    torch.testing.assert_close(third @ red, green)
    torch.testing.assert_close(third @ green, blue)
    half = (
        hue_rotation(torch.tensor([math.pi], dtype=torch.float64))[0, :3, :3] @ torch.tensor([0.5, 0.2, 0.2]).double()
    )
    expected = colorsys.rgb_to_hsv(0.5, 0.2, 0.2)[0] + 0.5
    assert colorsys.rgb_to_hsv(*half.tolist())[0] == pytest.approx(expected)


def test_parts_of_a_colour() -> None:
    images, minus = picture(dtype=torch.float64), -torch.ones(2, dtype=torch.float64)
    grey = images.mean(1, keepdim=True)
    torch.testing.assert_close(recolor(images, along_grey(minus, grey=True)), images - 2 * grey)
    torch.testing.assert_close(recolor(images, along_grey(0 * minus, grey=False)), grey.expand_as(images))
    # A grey image takes what the channels take on average.
    matrix = along_grey(minus, grey=True)
    torch.testing.assert_close(recolor(grey, matrix), recolor(grey.expand_as(images), matrix).mean(1, keepdim=True))


def test_a_square_is_cut_out() -> None:
    ones = torch.ones(2, 1, 8, 12)
    found = cut_square(ones, torch.tensor([0.5, 0.0]), torch.tensor([[0.5, 0.25], [0.5, 0.5]]))
    expected = ones.clone()
    expected[0, :, :4, 3:9] = 0
    assert torch.equal(found, expected)


# ---- the module ------------------------------------------------------------------------------------------------------


def test_without_probability_or_transforms_images_pass_untouched() -> None:
    images = picture()
    assert every_transform(0.0)(images) is images
    assert AdaptiveAugment(p=1.0)(images) is images


class Elsewhere(Tensor):
    """As on a GPU, whose numbers are not asked for; and so is what is computed with it."""

    is_cpu = False


@pytest.mark.parametrize("p", [0.0, 0.7])
def test_images_elsewhere_are_augmented_alike(p: float) -> None:
    """Without a look at p or at how far the corners reach; with margins as wide as can be."""
    images, here, there = picture(3), every_transform(p), every_transform(p)
    there.p = there.p.as_subclass(Elsewhere)
    expected, found = (augmented(augment, images.clone().requires_grad_(True)) for augment in (here, there))
    torch.testing.assert_close(found.as_subclass(Tensor), expected, atol=2e-5, rtol=0)
    assert p > 0 or torch.equal(found, images)


def test_margins_elsewhere_are_the_widest_that_can_be() -> None:
    far, none = scaling(torch.tensor([9.0]), torch.tensor([9.0])), torch.eye(3)[None]
    assert _margins(far, 20, 32, 6) == _margins(none.as_subclass(Elsewhere), 20, 32, 6) == [19, 19, 31, 31]
    assert _margins(none, 20, 32, 6) == [6, 6, 6, 6]


def test_rejected_draws_leave_the_image() -> None:
    """All paths are taken, and every transform is neutral."""
    images = picture()
    torch.testing.assert_close(augmented(every_transform(1e-12), images), images, atol=1e-5, rtol=0)


def test_no_geometry_no_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gans.augment.ada.warp", lambda *_: pytest.fail("resampled"))
    assert not torch.equal(augmented(AdaptiveAugment.preset("color", p=1.0), picture()), picture())


def test_multipliers_and_p_are_the_chance_of_each_transform() -> None:
    images = torch.ones(4000, 1, 4, 4)
    images[:, :, :, 0] = -1
    for p, multiplier in ((1.0, 1.0), (0.5, 0.5), (3.0, 0.25)):
        found = augmented(AdaptiveAugment(xflip=multiplier, p=p), images)
        share = (found[:, 0, 0, 0] > 0).float().mean().item()
        assert share == pytest.approx(min(p * multiplier, 1) / 2, abs=0.03)


def test_below_certainty_upright_images_stay_the_most_frequent() -> None:
    """Sec. 2.2: rotations with p < 1 do not leak, since the clean orientation can be told by its frequency."""
    images = torch.zeros(2000, 1, 4, 4)
    images[:, :, 0, 0] = 1
    found = augmented(AdaptiveAugment(rotate90=1.0, p=0.8), images)[:, 0]
    corners = torch.stack([found[:, 0, 0], found[:, -1, 0], found[:, -1, -1], found[:, 0, -1]], dim=1)
    share = F.one_hot(corners.argmax(1), 4).double().mean(0)
    assert share.tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.04)
    # The mixture of shares over orientations has an inverse, so the clean distribution follows from the augmented one.
    mixing = torch.stack([share.roll(i) for i in range(4)])
    assert torch.linalg.svdvals(mixing).min() > 0.1


def test_two_turns_together_have_the_chance_of_one() -> None:
    images = picture(1, channels=1, side=16).expand(3000, -1, -1, -1)
    found = augmented(AdaptiveAugment(rotate=1.0, p=0.3), images)
    turned = (found - images).abs().amax((1, 2, 3)) > 1e-3
    assert turned.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_a_change_of_one_band_keeps_the_expected_power() -> None:
    augment, images = AdaptiveAugment(imgfilter=1.0, imgfilter_bands=(0, 0, 1, 0)), picture(dtype=torch.float64)
    strength = 2 ** torch.erfinv(torch.tensor(0.4, dtype=torch.float64))
    gains = torch.ones(4, dtype=torch.float64)
    gains[2] = strength
    gains = gains / (torch.tensor(EXPECTED_POWER) * gains.square()).sum().sqrt()
    expected = refilter(images, gains.expand(2, 4), augment.bank.double())
    torch.testing.assert_close(augment(images, percentile=0.7), expected, atol=1e-6, rtol=0)
    assert (torch.tensor(EXPECTED_POWER) * gains.square()).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("shares", [2, 4])
def test_processes_see_the_rows_that_one_would(shares: int) -> None:
    images, augment = picture(4), every_transform(0.7)
    whole, again = augmented(augment, images, seed=5), augmented(augment, images, seed=5)
    assert torch.equal(whole, again)
    assert not torch.equal(whole, augmented(augment, images, seed=6))
    parts = []
    for i, part in enumerate(images.chunk(shares)):
        with drawing(Draws(5, share=i, shares=shares)):
            parts.append(augment(part))
    torch.testing.assert_close(torch.cat(parts), whole, atol=2e-6, rtol=0)


def test_first_and_second_derivatives() -> None:
    images, augment = picture(1, channels=1, side=24, dtype=torch.float64), every_transform(1.0).double()
    images.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: augmented(augment, x), (images,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: augmented(augment, x.sin()), (images,), fast_mode=True)


def test_r1_goes_through_to_the_discriminator() -> None:
    from lit_gans.adversarial.penalties import r1

    torch.manual_seed(0)
    discriminator = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Flatten(0)
    )
    with drawing(Draws(0)):
        r1(lambda x: discriminator(every_transform(0.9)(x)).view(len(x), -1).sum(1), picture()).backward()
    assert all(p.grad.abs().max() > 0 for p in discriminator.parameters())


def test_half_precision_comes_back_as_it_came() -> None:
    images = picture().to(torch.bfloat16)
    found = augmented(every_transform(1.0), images)
    assert found.dtype == torch.bfloat16 and found.isfinite().all()


def test_grey_images_take_neither_hue_nor_saturation() -> None:
    images = picture(channels=1)
    assert torch.equal(augmented(AdaptiveAugment(hue=1.0, saturation=1.0, p=1.0), images), images)
    augment = AdaptiveAugment(brightness=1.0)
    torch.testing.assert_close(augment(images, percentile=0.5), images)
    moved = augment(images, percentile=0.7) - images
    torch.testing.assert_close(moved, torch.full_like(moved, 0.2 * torch.erfinv(torch.tensor(0.4)).item()))


def test_p_is_saved_and_the_filters_are_not() -> None:
    augment = AdaptiveAugment.preset("bgc", p=0.25)
    assert list(augment.state_dict()) == ["p"]
    other = AdaptiveAugment.preset("bgc")
    other.load_state_dict(augment.state_dict())
    assert other.p.item() == 0.25
    assert "xflip=1" in repr(other)


def test_observed_signs() -> None:
    augment = AdaptiveAugment()
    assert augment.take_observed() == (None, 0)
    augment.observe(torch.tensor([1.0, 2.0, -0.5, 0.0]))
    augment.observe(torch.tensor([[3.0], [float("nan")]]))
    signs, logits = augment.take_observed()
    assert (signs.item(), logits) == (2.0, 6)
    assert augment.take_observed() == (None, 0)


def test_presets_switch_on_what_they_name() -> None:
    assert {n for n, m in AdaptiveAugment.preset("geom").multipliers.items() if m} == set(GEOM)
    assert PRESETS["bgc"] == PRESETS["blit"] + PRESETS["geom"] + PRESETS["color"]
    with pytest.raises(ValueError, match="no preset 'bcg' of augmentations; there are blit, geom"):
        AdaptiveAugment.preset("bcg")


def test_errors_name_what_was_found() -> None:
    with pytest.raises(ValueError, match="rotate is -1"):
        AdaptiveAugment(rotate=-1)
    with pytest.raises(ValueError, match="imgfilter_bands has 3 numbers; give 4"):
        AdaptiveAugment(imgfilter_bands=(1, 1, 1))
    augment = AdaptiveAugment(imgfilter=1.0, p=1.0)
    with pytest.raises(ValueError, match="images have 2 channels"):
        augment(torch.zeros(1, 2, 32, 32))
    with pytest.raises(ValueError, match="from the enclosing `drawing`, and there is none"):
        augment(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="imgfilter reflects 21 pixels at the edges, and the images have 16 x 16"):
        augmented(augment, torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="percentile 1 does not lie"):
        augment(torch.zeros(1, 3, 32, 32), percentile=1)
