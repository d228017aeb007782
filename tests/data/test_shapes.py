"""Shapes: the pictures, their attributes and their captions agree."""

import pytest
import torch

from lit_gans.data import Shapes
from lit_gans.data.shapes import ATTRIBUTES, BACKGROUNDS, COLOURS, POSITIONS, SHAPES, held_out


def shapes(**options: object) -> Shapes:
    return Shapes(**{"batch_size": 4, "resolution": 64, "images": 200, "test_images": 100, **options})


EVERY = torch.arange(200)


@pytest.mark.parametrize("rotate", [False, True])
def test_colour_at_the_centre_and_background_in_the_corners(rotate: bool) -> None:
    data = shapes(rotate=rotate)
    image, numbers = data.dataset().fetch(EVERY)["image"], data.attributes(EVERY)
    x, y = (data.dataset().geometry[:, :2].T * 64).long()
    colours, grounds = (torch.tensor(list(table.values()), dtype=torch.uint8) for table in (COLOURS, BACKGROUNDS))
    assert torch.equal(image[EVERY, :, y, x], colours[numbers["colour"]])
    for corner in ((0, 0), (0, 63), (63, 0), (63, 63)):
        assert torch.equal(image[:, :, *corner], grounds[numbers["background"]])


@pytest.mark.parametrize("rotate", [False, True])
def test_the_whole_shape_is_inside(rotate: bool) -> None:
    image = shapes(rotate=rotate).dataset().fetch(EVERY)["image"]
    edges = torch.cat([image[:, :, 0], image[:, :, -1], image[..., 0], image[..., -1]], -1)
    assert torch.equal(edges, edges[:, :, :1].expand_as(edges))


def test_position_and_size_are_where_and_how_large_the_pixels_are() -> None:
    data = shapes()
    image, numbers = data.dataset().fetch(EVERY)["image"].int(), data.attributes(EVERY)
    covered = (image != image[:, :, :1, :1]).any(1).float()
    mass = covered.sum((1, 2))
    places = torch.tensor(list(POSITIONS.values()))[numbers["position"]]
    for axis, across in ((0, covered.sum(1)), (1, covered.sum(2))):
        centre = (across * torch.arange(64)).sum(1) / mass
        for side, low, high in ((0, 0, 30), (1, 25, 39), (2, 34, 64)):
            there = centre[places[:, axis] == side]
            assert low < there.min() and there.max() < high
    for shape in range(len(SHAPES)):
        areas = [mass[(numbers["shape"] == shape) & (numbers["size"] == size)] for size in range(3)]
        assert areas[0].max() < areas[1].min() and areas[1].max() < areas[2].min()


def test_captions_say_what_the_attributes_are() -> None:
    data = shapes()
    numbers = data.attributes(EVERY)
    for i, caption in enumerate(data.captions(EVERY)):
        for name, values in ATTRIBUTES.items():
            assert f" {values[numbers[name][i]]}" in caption
    assert data.captions(torch.tensor([1])) == ["a small yellow circle at the right on black"]
    assert shapes(channels=1).captions(torch.tensor([1])) == ["a small circle at the right"]
    assert {"at the top left", "in the centre", "at the bottom"} <= set(POSITIONS)


def test_a_picture_depends_on_seed_split_and_number_alone() -> None:
    whole = shapes().dataset().fetch(EVERY)["image"]
    one_by_one = torch.cat([shapes(images=7 + i).dataset().fetch(torch.tensor([i]))["image"] for i in (0, 3, 6)])
    assert torch.equal(one_by_one, whole[[0, 3, 6]])
    assert torch.equal(shapes(images=9000).dataset().fetch(EVERY)["image"], whole)
    assert not torch.equal(shapes(seed=1).dataset().fetch(EVERY)["image"], whole)
    assert not torch.equal(shapes(images=100).dataset("test").fetch(EVERY[:100])["image"], whole[:100])
    assert shapes().fingerprint() == shapes().fingerprint() != shapes(seed=1).fingerprint()


def test_every_value_of_every_attribute_occurs_about_equally_often() -> None:
    data = Shapes(batch_size=1, images=4000)
    for name, numbers in data.attributes(torch.arange(4000)).items():
        counts = numbers.bincount(minlength=len(ATTRIBUTES[name]))
        assert len(counts) == len(ATTRIBUTES[name]) and counts.min() > 0.8 * counts.float().mean()


def pairs(data: Shapes, split: str) -> set[tuple[int, int]]:
    numbers = data.attributes(torch.arange(data.counts[split]), split)
    return set(zip(numbers["shape"].tolist(), numbers["colour"].tolist(), strict=True))


def test_holdout_keeps_combinations_apart() -> None:
    data = shapes(images=3000, test_images=500, holdout=True)
    train, test = pairs(data, "train"), pairs(data, "test")
    assert (len(train), len(test)) == (40, 8) and not train & test
    assert {s for s, _ in train} == {s for s, _ in test} == set(range(6))
    assert {c for _, c in train} == {c for _, c in test} == set(range(8))
    assert all(held_out(*pair) for pair in test)


@pytest.mark.parametrize("label", [*ATTRIBUTES, None])
def test_any_attribute_may_be_the_class(label: str | None) -> None:
    data = shapes(label=label)
    batch = next(data.batches())
    if label is None:
        assert "label" not in batch and data.num_classes == 0
    else:
        assert torch.equal(batch["label"], data.attributes(torch.arange(64))[label])
        assert data.class_names == ATTRIBUTES[label]


@pytest.mark.parametrize("resolution", [4, 8, 32, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_resolution_grey_or_colour(resolution: int, channels: int) -> None:
    image = shapes(resolution=resolution, channels=channels).dataset().fetch(torch.arange(20))["image"]
    assert image.shape == (20, channels, resolution, resolution) and image.dtype == torch.uint8
    assert image.flatten(1).float().std(1).min() > 2


def test_edges_are_antialiased_and_sizes_agree_between_resolutions() -> None:
    small, large = (shapes(resolution=r, channels=1).dataset().fetch(EVERY)["image"].float() for r in (16, 256))
    averaged = torch.nn.functional.avg_pool2d(large, 16)
    assert (small - averaged).abs().mean() < 0.6 and (small - averaged).abs().max() < 80
    assert shapes(images=1).dataset().fetch(torch.tensor([0]))["image"].unique().numel() > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "taste"}, "label is 'taste'; it must be one of shape, colour, size, position, background, or None"),
        ({"channels": 2}, "channels is 2; it must be 1 or 3"),
        ({"channels": 1, "label": "colour"}, "label 'colour' cannot be told from grey pictures: use channels=3"),
        ({"mirror": True, "label": "position"}, "mirror swaps left and right, .* use mirror=False"),
        ({"images": 0}, "images is 0; it must be a whole number of 1 or more"),
        ({"test_images": -1}, "test_images is -1"),
    ],
)
def test_options_are_checked_at_once(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shapes(**options)


def test_only_some_values_of_attributes_are_drawn() -> None:
    kept = {"position": ["in the centre", "at the top"], "size": ["large"], "colour": ["red", "pink"]}
    data = Shapes(batch_size=4, images=200, only=kept, label=None)
    found = data.attributes(torch.arange(200))
    for name, values in data.ATTRIBUTES.items():
        drawn = {values[i] for i in found[name].tolist()}
        assert drawn == set(kept.get(name, values)), name


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"place": ["top"]}, "only is {'place': .*shape, colour, size, position, background"),
        ({"size": ["huge"]}, "only is {'size': .*small, medium, large"),
        ({"size": []}, "small, medium, large"),
    ],
)
def test_values_that_there_are_not(only: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shapes(batch_size=4, only=only)


def test_values_that_leave_a_split_no_picture() -> None:
    data = Shapes(batch_size=4, only={"shape": ["circle"], "colour": ["red"]}, holdout=True)
    with pytest.raises(ValueError, match="only leaves split 'train' no pair of shape and colour"):
        data.setup()
