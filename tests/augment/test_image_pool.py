"""The image pool: the recorded decisions of the official one, its place in a checkpoint, and what is shared out."""

import json
import random

import pytest
import torch
from torch import Tensor, nn

from lit_gans.augment import ImagePool, pool_buffers
from lit_gans.nn import Draws
from tests.parity.golden import FOLDER


def numbered(ids: list[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.float32).view(-1, 1, 1, 1)


def ids(images: Tensor) -> list[int]:
    return images.flatten().long().tolist()


def traces() -> list[dict]:
    """The cases of every recorded trace of a pool: files are known by their entries."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and "image_pool" in content.get("source", ""):
            found += content["cases"]
    return found


def official_numbers(generator: random.Random, count: int, stored: int, size: int) -> tuple[list[float], list[float]]:
    """Python's random numbers in the official order: none while the pool fills, a place only after an exchange."""
    chance, place = [0.0] * count, [0.0] * count
    for i in range(max(size - stored, 0), count):
        chance[i] = generator.uniform(0, 1)
        if chance[i] > 0.5:
            place[i] = (generator.randint(0, size - 1) + 0.5) / size
    return chance, place


@pytest.mark.parametrize("case", traces() or [pytest.param({}, marks=pytest.mark.skip("no recorded trace"))])
def test_decisions_are_the_recorded_ones(case: dict) -> None:
    pool, generator = ImagePool(case["pool_size"]), random.Random(case["python_random_seed"])
    for step in case["trace"]:
        images = numbered(step["query"])
        if pool.size == 0:
            assert ids(pool.query(images, Draws(0))) == step["returned"]
            continue
        chance, place = official_numbers(generator, len(images), len(pool.images), pool.size)
        assert ids(pool.exchange(images, chance=chance, place=place)) == step["returned"]
        assert ids(pool.images) == step["pool"]


def test_half_of_the_images_are_former_ones_and_each_place_is_as_likely() -> None:
    pool = ImagePool(4)
    pool.query(numbered([-1] * 4), Draws(0))
    places = [0] * 4
    former = 0
    for i in range(2000):
        before = ids(pool.images)
        former += ids(pool.query(numbered([i]), Draws(i))) != [i]
        places = [n + (a != b) for n, a, b in zip(places, before, ids(pool.images), strict=True)]
    assert 900 < former < 1100 and sum(places) == former
    assert min(places) > 0.8 * former / 4


def test_what_is_shown_is_detached_and_stays_what_it_was() -> None:
    pool, images = ImagePool(2), torch.zeros(2, 1, 2, 2, requires_grad=True)
    shown = pool.query(images, Draws(0))
    assert not shown.requires_grad
    pool.exchange(torch.ones(2, 1, 2, 2), chance=[1.0, 1.0], place=[0.0, 0.9])
    assert shown.sum() == 0 and pool.images.sum() == 8


def test_decisions_follow_from_the_draws_alone() -> None:
    def run() -> list[int]:
        pool = ImagePool(3)
        return [i for k in range(20) for i in ids(pool.query(numbered([2 * k, 2 * k + 1]), Draws(1, k, "pool")))]

    torch.manual_seed(0)
    first, ambient = run(), torch.get_rng_state()
    assert run() == first and torch.equal(torch.get_rng_state(), ambient)


def test_a_pool_goes_on_from_its_state_dict() -> None:
    whole, half = nn.ModuleDict({"pool": ImagePool(3)}), nn.ModuleDict({"pool": ImagePool(3)})
    for k in range(5):
        whole["pool"].query(numbered([2 * k, 2 * k + 1]), Draws(k))
    half.load_state_dict(whole.state_dict())
    assert pool_buffers(whole) == {"pool.images"} == set(whole.state_dict())
    one, two = ([m["pool"].query(numbered([90 + k]), Draws(k)) for k in range(9)] for m in (whole, half))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    half.load_state_dict({"pool.images": torch.empty(0)})
    assert ids(half["pool"].query(numbered([7]), Draws(0))) == [7]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="pool size -1 is negative; 0 keeps"):
        ImagePool(-1)
    pool = ImagePool(2)
    pool.query(torch.zeros(1, 3, 4, 4), Draws(0))
    with pytest.raises(ValueError, match=r"stores images of shape \(3, 4, 4\), and now they are \(3, 8, 8\)"):
        pool.query(torch.zeros(1, 3, 8, 8), Draws(0))
    with pytest.raises(AssertionError, match="not with a micro-batch"):
        pool.query(torch.zeros(1, 3, 4, 4), Draws(0, share=1, shares=2))
