"""Sliced Wasserstein distance against scipy, and its independence of order, batches and processes."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy import ndimage, stats
from torch import Tensor

from lit_gans.metrics.sliced_wasserstein import (
    SlicedWasserstein,
    descriptors,
    enlarge,
    laplacian_pyramid,
    normalise,
    pyramid_sizes,
    shrink,
    sliced_wasserstein,
)
from tests.distributed.launch import run_processes

SETTINGS = {"patches": 8, "directions": 10, "repeats": 2, "seed": 3}


def pictures(count: int, seed: int, *, px: int = 32, channels: int = 3) -> Tensor:
    """Random bytes, smoothed a little so that neighbours have to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, channels, px + 2, px + 2, generator=generator)
    return (255 * torch.nn.functional.avg_pool2d(noise, 3, 1)).byte()


def distance(real: Tensor, fake: Tensor, **settings) -> dict[str, float]:
    metric = SlicedWasserstein(real.shape[-1], real.shape[1], **{**SETTINGS, **settings})
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return {level: value.item() for level, value in metric.compute().items()}


@pytest.mark.parametrize(
    ("px", "sizes"), [(64, (64, 32, 16)), (32, (32, 16)), (28, (28,)), (16, (16,)), (50, (50, 25))]
)
def test_the_pyramid_gives_the_image_back(px: int, sizes: tuple[int, ...]) -> None:
    images = pictures(2, 0, px=px).float()
    levels = laplacian_pyramid(images)
    assert tuple(level.shape[-1] for level in levels) == pyramid_sizes(px) == sizes
    image = levels[-1]
    for level in levels[-2::-1]:
        image = level + enlarge(image)
    torch.testing.assert_close(image, images, rtol=0, atol=1e-4)


def test_halving_and_doubling_are_scipys_mirrored_convolution() -> None:
    x = pictures(2, 0).double()
    binomial = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])[None, None] / 256
    smooth = ndimage.convolve(x.numpy(), binomial, mode="mirror")
    torch.testing.assert_close(shrink(x), torch.from_numpy(smooth[:, :, ::2, ::2]))
    spread = np.zeros((2, 3, 64, 64))
    spread[:, :, ::2, ::2] = x.numpy()
    torch.testing.assert_close(enlarge(x), torch.from_numpy(ndimage.convolve(spread, 4 * binomial, mode="mirror")))


def test_a_band_of_detail_shows_in_its_own_level_alone() -> None:
    flat = laplacian_pyramid(torch.full((1, 1, 64, 64), 200.0))
    assert not flat[0].any() and not flat[1].any() and (flat[2] == 200).all()
    checkers = 100.0 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)[None, None]
    energy = [level.var().item() for level in laplacian_pyramid(checkers)]
    assert energy[0] > 1000 * max(energy[1:])


def test_patches_are_cut_whole_from_everywhere() -> None:
    numbered = torch.arange(2 * 16 * 16).view(1, 2, 16, 16).float()
    cut = descriptors(numbered.expand(50, -1, -1, -1), torch.arange(50), patches=40)
    assert cut.shape == (50, 40, 2, 7, 7)
    corner = cut[:, :, :1, :1, :1]
    inside = torch.arange(2)[:, None, None] * 256 + torch.arange(7)[:, None] * 16 + torch.arange(7)
    assert torch.equal(cut, corner + inside)
    rows, columns = corner.long().flatten() // 16, corner.long().flatten() % 16
    for places in (rows, columns):
        assert places.unique().tolist() == list(range(10))
        assert stats.chisquare(places.bincount().numpy()).pvalue > 1e-4


def test_normalised_patches_have_unit_channels_and_flat_ones_are_zero() -> None:
    patches = torch.randn(200, 3, 7, 7) * torch.tensor([1.0, 5.0, 0.0])[:, None, None] + 40
    rows = normalise(patches).view(200, 3, 49)
    expected = (patches - patches.mean((0, 2, 3), keepdim=True)) / patches.std((0, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(rows[:, :2], expected.flatten(2)[:, :2], rtol=1e-4, atol=1e-4)
    assert not rows[:, 2].any()


def test_in_one_dimension_it_is_scipys_wasserstein_distance() -> None:
    a, b = (torch.randn(50, 1, generator=torch.Generator().manual_seed(s)).double() * (s + 1) for s in (0, 1))
    expected = stats.wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy())
    assert sliced_wasserstein(a, b).item() == pytest.approx(expected, rel=1e-12)


def test_a_shift_counts_by_the_mean_length_of_its_projection() -> None:
    a = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    found = sliced_wasserstein(a, a + torch.tensor([0.0, 4.0, 0.0]), directions=4000, repeats=2)
    assert found.item() == pytest.approx(4 / 2, rel=0.02)  # E|u_y| of a direction in space is 1/2
    assert sliced_wasserstein(a, a) == 0 and sliced_wasserstein(a, a.flip(0)).item() == pytest.approx(0, abs=1e-14)


def test_the_whole_metric_equals_its_definition_in_numpy() -> None:
    real, fake = pictures(6, 0), pictures(6, 1)
    fake[:, 0] //= 2
    metric = SlicedWasserstein(32, **SETTINGS)
    sides = []
    for images, is_real in ((real, True), (fake, False)):
        metric.update(images, real=is_real)
        kept = metric.real_16 if is_real else metric.fake_16
        cut = torch.cat(kept).view(-1, 3, 7, 7).double().numpy()
        cut = (cut - cut.mean((0, 2, 3), keepdims=True)) / cut.std((0, 2, 3), keepdims=True)
        sides.append(cut.reshape(len(cut), -1))
    many = np.random.default_rng(0).standard_normal((4000, 147))
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    expected = np.mean([stats.wasserstein_distance(sides[0] @ u, sides[1] @ u) for u in many])
    metric.directions, metric.repeats = 1000, 4
    assert metric.compute()["16"].item() == pytest.approx(1000 * expected, rel=0.02)


def test_is_zero_for_equal_sets_and_grows_with_blur_finest_level_first() -> None:
    real = pictures(24, 0)
    assert distance(real, real) == {"32": 0, "16": 0, "mean": 0}
    values = []
    for sigma in (0.4, 0.7, 1.2, 2.0):
        blurred = ndimage.gaussian_filter(real.numpy().astype(float), (0, 0, sigma, sigma))
        values.append(distance(real, torch.from_numpy(blurred.round()).byte(), directions=64))
    for level in ("32", "mean"):
        found = [value[level] for value in values]
        assert found == sorted(found) and found[0] > 0 and found[-1] > 2 * found[0]
    assert values[0]["16"] < values[0]["32"]
    assert values[0]["mean"] == pytest.approx((values[0]["16"] + values[0]["32"]) / 2, rel=1e-12)


def test_batches_order_and_processes_do_not_matter() -> None:
    real, fake, order = pictures(13, 0), pictures(13, 1), torch.randperm(13)
    whole, in_parts = distance(real, fake), [SlicedWasserstein(32, **SETTINGS) for _ in range(2)]
    for metric, numbers in zip(in_parts, (order[:9], order[9:]), strict=True):
        for part in numbers.split(2):
            metric.update(real[part], real=True, index=part)
        metric.update(fake[numbers], real=False, index=numbers)
    in_parts[0].update(fake[:0], real=False, index=order[:0])
    in_parts[0].merge_state(in_parts[1])
    merged = {level: value.item() for level, value in in_parts[0].compute().items()}
    assert merged == pytest.approx(whole, rel=1e-6)
    assert distance(real, fake, seed=4) != pytest.approx(whole, rel=1e-6)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    distance(pictures(2, 0), pictures(2, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_grey_images_with_one_channel_or_with_three_and_a_constant_generator() -> None:
    real, fake = pictures(10, 0, channels=1), pictures(10, 1, channels=1) // 2
    one = distance(real, fake, directions=200)
    three = distance(real.expand(-1, 3, -1, -1), fake, directions=200)
    assert three == pytest.approx(one, rel=0.25)
    assert 0 < distance(real, torch.full_like(real, 128))["32"] < 1000


def test_bad_input_is_refused() -> None:
    metric = SlicedWasserstein(32, **SETTINGS)
    with pytest.raises(ValueError, match=r"expected \[N, C, 32, 32\]"):
        metric.update(pictures(1, 0, px=16), real=True)
    with pytest.raises(ValueError, match="expected uint8"):
        metric.update(pictures(1, 0).float(), real=True)
    with pytest.raises(ValueError, match="got 0 real and 0 generated: use the same number of each"):
        metric.compute()
    metric.update(pictures(5, 0), real=True)
    metric.update(pictures(3, 0), real=False)
    with pytest.raises(ValueError, match="equally many images, got 5 real and 3 generated: use 3 of each"):
        metric.compute()
    with pytest.raises(ValueError, match="images of 8 pixels are below the smallest level of 16"):
        SlicedWasserstein(8)
    with pytest.raises(ValueError, match="resolution 66 does not halve down to 16 pixels .33 is odd.: use a power of"):
        SlicedWasserstein(66)
    with pytest.raises(ValueError, match="patches of 17 pixels do not fit into the smallest level of 16"):
        SlicedWasserstein(32, patch_px=17)
    with pytest.raises(ValueError, match=r"shapes \[3, 2\] and \[4, 2\], expected twice the same"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_a_group_of_processes_finds_what_one_finds(world: int) -> None:
    outputs = run_processes(world, ["-m", "tests.metrics.test_sliced_wasserstein"])
    for output in outputs:
        found = json.loads(output.splitlines()[-1])
        assert found == pytest.approx(distance(pictures(7, 0), pictures(7, 1)), rel=1e-6)


def main() -> None:
    """One of several processes: every `world`-th image of the same sets."""
    dist.init_process_group("gloo")
    mine = torch.arange(dist.get_rank(), 7, dist.get_world_size())
    metric = SlicedWasserstein(32, **SETTINGS)
    metric.update(pictures(7, 0)[mine], real=True, index=mine)
    metric.update(pictures(7, 1)[mine], real=False, index=mine)
    print(json.dumps({level: value.item() for level, value in metric.compute().items()}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
