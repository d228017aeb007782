"""Differentiable augmentation beside its recorded values, which tests/parity holds."""

import pytest
import torch
from torch import Tensor

from lit_gans.augment import DiffAugment
from lit_gans.augment.diffaug import cut_out, scale_contrast, scale_saturation, shift_brightness, translate
from lit_gans.nn import Draws, drawing


def picture(n: int = 4, *, channels: int = 3, height: int = 8, width: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.rand(n, channels, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def augmented(augment: DiffAugment, images: Tensor, *, seed: int = 0, share: int = 0, shares: int = 1) -> Tensor:
    with drawing(Draws(seed, share=share, shares=shares)):
        return augment(images)


def test_colours_by_their_definitions() -> None:
    images, factor = picture(), torch.tensor([0.0, 0.5, 1.0, 2.0]).double()
    torch.testing.assert_close(shift_brightness(images, factor)[1], images[1] + 0.5)
    saturated = scale_saturation(images, factor)
    torch.testing.assert_close(saturated[0], images[0].mean(0, keepdim=True).expand(3, 8, 10))
    torch.testing.assert_close(saturated.mean(1), images.mean(1))
    contrasted = scale_contrast(images, factor)
    torch.testing.assert_close(contrasted.mean((1, 2, 3)), images.mean((1, 2, 3)))
    torch.testing.assert_close(contrasted.std((1, 2, 3)), images.std((1, 2, 3)) * factor)
    for transform in (scale_saturation, scale_contrast):
        torch.testing.assert_close(transform(images, factor)[2], images[2])


def test_translation_fills_with_zeros() -> None:
    images = picture()
    found = translate(images, torch.tensor([0, 2, -3, 8]), torch.tensor([0, -1, 4, 0]))
    expected = torch.zeros_like(images)
    expected[0] = images[0]
    expected[1, :, :6, 1:] = images[1, :, 2:, :9]
    expected[2, :, 3:, :6] = images[2, :, :5, 4:]
    assert torch.equal(found, expected)


def test_cutout_stops_at_the_edges() -> None:
    ones = torch.ones(3, 1, 8, 10)
    found = cut_out(ones, torch.tensor([4, 0, 8]), torch.tensor([5, 10, 0]), size=(4, 4))
    expected = ones.clone()
    expected[0, :, 2:6, 3:7] = 0
    expected[1, :, :2, 8:] = 0
    expected[2, :, 6:, :2] = 0
    assert torch.equal(found, expected)


def test_ranges_of_the_draws() -> None:
    n = 2000
    point = torch.zeros(n, 1, 16, 16, dtype=torch.float64)
    point[:, :, 8, 8] = 1
    moved = augmented(DiffAugment(["translation"]), point).flatten(1).argmax(1)
    for shift in (moved // 16 - 8, moved % 16 - 8):
        assert shift.unique().tolist() == [-2, -1, 0, 1, 2]
    cut = augmented(DiffAugment(["cutout"]), torch.ones(n, 1, 16, 16)) == 0
    assert cut.flatten(1).sum(1).max() == 64 and cut.flatten(1).sum(1).min() == 16
    assert cut[:, 0, 0, 0].float().mean().item() == pytest.approx((5 / 17) ** 2, abs=0.03)
    colours = augmented(DiffAugment(["color"]), torch.ones(n, 1, 2, 2))
    assert colours.min() >= 0.5 and colours.max() <= 1.5  # of a flat image only the brightness changes
    assert colours.mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("shares", [2, 4])
def test_processes_see_the_rows_that_one_would(shares: int) -> None:
    images, augment = picture(), DiffAugment()
    whole = augmented(augment, images, seed=3)
    assert torch.equal(whole, augmented(augment, images, seed=3))
    assert not torch.equal(whole, augmented(augment, images, seed=4))
    parts = [augmented(augment, x, seed=3, share=i, shares=shares) for i, x in enumerate(images.chunk(shares))]
    assert torch.equal(torch.cat(parts), whole)


def test_first_and_second_derivatives() -> None:
    images, augment = picture(2).requires_grad_(True), DiffAugment()
    assert torch.autograd.gradcheck(lambda x: augmented(augment, x), (images,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: augmented(augment, x.sin()), (images,), fast_mode=True)


def test_the_order_of_the_policy_counts() -> None:
    images = picture()
    cut_last = augmented(DiffAugment(["color", "cutout"]), images)
    cut_first = augmented(DiffAugment(["cutout", "color"]), images)
    assert (cut_last == 0).any() and not (cut_first == 0).any()
    assert torch.equal(augmented(DiffAugment([]), images), images)


def test_errors_name_what_was_found() -> None:
    with pytest.raises(ValueError, match="policy .*'colour'.* is not a list of color, translation, cutout"):
        DiffAugment(["colour"])
    with pytest.raises(ValueError, match="policy 'color' is not a list"):
        DiffAugment("color")
    with pytest.raises(ValueError, match="cutout 2 is not a share"):
        DiffAugment(cutout=2)
    with pytest.raises(ValueError, match="DiffAugment takes its random numbers from the enclosing `drawing`"):
        DiffAugment()(picture())
