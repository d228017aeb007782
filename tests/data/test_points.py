"""Points of mixtures as pictures of one pixel with two channels."""

import pytest
import torch

from lit_gans.data.mixtures import GRID_SIGMA, RING_SIGMA, ring, sample_mixture
from lit_gans.data.points import MIXTURES, Mixture, Points


@pytest.mark.parametrize(("name", "count", "sigma"), [("ring", 8, RING_SIGMA), ("grid", 25, GRID_SIGMA)])
def test_batches_are_points_of_the_mixture_in_minus_one_to_one(name: str, count: int, sigma: float) -> None:
    mixture = MIXTURES[name]
    assert (len(mixture.centres), mixture.sigma) == (count, sigma)
    data = Points(name, points=2000, batch_size=500, seed=3)
    data.setup()
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)["image"]
    assert batch.shape == (500, 2, 1, 1) and batch.dtype == torch.float32 and batch.abs().max() < 1
    # 3 deviations of an extreme of 2,000 points are more than any lies from its centre but for one in a million.
    away = (mixture.as_points(batch)[:, None] - mixture.centres).norm(dim=2).min(dim=1).values
    assert away.max() < 6 * sigma and away.square().mean().sqrt() == pytest.approx(2**0.5 * sigma, rel=0.1)


def test_points_are_those_of_the_sampler_and_an_epoch_has_each_once() -> None:
    data = Points("grid", points=40, batch_size=20, seed=5)
    wanted = MIXTURES["grid"].as_pictures(sample_mixture(MIXTURES["grid"].centres, GRID_SIGMA, n=40, seed=5))
    stream = data.stream()
    epoch = torch.cat([stream.batch(0)["image"], stream.batch(1)["image"]]).flatten(1)
    assert sorted(epoch.tolist()) == sorted(wanted.flatten(1).tolist())
    assert torch.equal(data.stream(start=20).batch(0)["image"], stream.batch(1)["image"])  # as after a resume
    assert torch.equal(Points("grid", points=40, batch_size=4, seed=5).dataset().pictures, wanted)


def test_fingerprints_tell_mixture_seed_and_length() -> None:
    mixtures = ("ring", "grid", Mixture(ring(), RING_SIGMA, 5.0))
    prints = {Points(m, points=50, batch_size=1).fingerprint() for m in mixtures}
    prints |= {Points("ring", points=n, batch_size=1, seed=s).fingerprint() for n, s in ((50, 1), (51, 0))}
    assert len(prints) == 5


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="mixture 'circle' is neither of ring, grid, nor a Mixture"):
        Points("circle", batch_size=1)
    with pytest.raises(ValueError, match="points is 0"):
        Points("ring", points=0, batch_size=1)
    with pytest.raises(ValueError, match="mirror is of pictures"):
        Points("ring", batch_size=1, mirror=True)
