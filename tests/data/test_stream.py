"""The stream's promise: batches depend on (seed, image clock) alone."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lit_gans.data import Stream
from lit_gans.data.stream import permutation, random_bits, uniform

from .common import Numbers


def take(stream: Stream, count: int, workers: int = 0) -> list[dict[str, torch.Tensor]]:
    return list(islice(DataLoader(stream, batch_size=None, num_workers=workers), count))


def pixels(batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    return torch.cat([batch["image"] for batch in batches])


@pytest.mark.parametrize("length", [1, 7, 12, 50])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_slices_of_processes_make_up_the_global_batch(length: int, world: int) -> None:
    whole = take(Stream(Numbers(length), 12, mirror=True), 9)
    ranks = [take(Stream(Numbers(length), 12, rank=r, world=world, mirror=True), 9) for r in range(world)]
    for k, batch in enumerate(whole):
        for name in batch:
            assert torch.equal(torch.cat([rank[k][name] for rank in ranks]), batch[name])


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_workers_change_nothing(workers: int) -> None:
    stream = Stream(Numbers(10), 4, mirror=True, seed=3)
    assert torch.equal(pixels(take(stream, 11, workers)), pixels(take(stream, 11)))


@pytest.mark.parametrize("start", [4, 40, 44, 400])
def test_resume_from_any_batch(start: int) -> None:
    unbroken = pixels(take(Stream(Numbers(10), 4, mirror=True), 120))
    resumed = pixels(take(Stream(Numbers(10), 4, mirror=True, start=start), 5))
    assert torch.equal(resumed, unbroken[start : start + 20])


def test_the_batch_size_may_change_on_the_way() -> None:
    """As a growing network's does: sample p is the same sample at every batch size."""
    unbroken = pixels(take(Stream(Numbers(10), 4), 12))
    assert torch.equal(pixels(take(Stream(Numbers(10), 3, start=8), 4)), unbroken[8:20])


@pytest.mark.parametrize("length", [1, 2, 7, 33])
def test_every_epoch_is_another_permutation(length: int) -> None:
    seen = pixels(take(Stream(Numbers(length), 5), 60))[: length * 9, 0, 0, 0].view(9, length)
    assert torch.equal(seen.sort(-1).values, torch.arange(length, dtype=torch.uint8).expand(9, length))
    if length > 2:
        assert len({tuple(epoch.tolist()) for epoch in seen}) == 9


def test_labels_go_with_their_images() -> None:
    for batch in take(Stream(Numbers(10), 4), 5):
        assert torch.equal(batch["image"][:, 0, 0, 0] % 3, batch["label"])


def test_seeds_give_other_orders() -> None:
    first, second = (pixels(take(Stream(Numbers(50), 50, seed=seed), 1)) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_mirror_flips_half_of_the_samples_and_another_half_each_epoch() -> None:
    flipped, plain = (pixels(take(Stream(Numbers(100), 100, mirror=m), 10)) for m in (True, False))
    assert torch.equal(flipped[:, 0, 0].sort(-1).values, plain[:, 0, 0].sort(-1).values)
    flips = (flipped != plain).any(-1).flatten()
    assert 400 < flips.sum() < 600
    first = [flips[e * 100 + plain[e * 100 : (e + 1) * 100, 0, 0, 0].argsort()] for e in range(2)]
    assert not torch.equal(*first)


def test_random_bits_are_pinned() -> None:
    """A resumed run must find the bits of the run it resumes, whatever was updated in between."""
    assert random_bits(0, "mirror", np.arange(2)).tolist() == [4594042054373352527, 3931439049017386481]
    values = uniform(1, "any", np.arange(10_000))
    assert 0 <= values.min() and values.max() < 1 and abs(values.mean() - 0.5) < 0.01


def test_permutations_are_uniform() -> None:
    firsts = np.bincount([permutation(0, epoch, 4)[0] for epoch in range(2000)], minlength=4)
    assert firsts.min() > 420


def test_it_has_no_length() -> None:
    """Lightning would count epochs by it."""
    with pytest.raises(TypeError):
        len(Stream(Numbers(3), 2))


def test_what_the_user_gave_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="batch size 5 does not divide into 2 processes: use a multiple of 2"):
        Stream(Numbers(3), 5, world=2)
    with pytest.raises(ValueError, match="0 images"):
        Stream(Numbers(0), 5)
