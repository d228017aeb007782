"""Shapes for translators: edges and fillings, maps, and two domains with a known change of hue."""

import pytest
import torch

from lit_gans.data import ShapeDomains, ShapePairs
from lit_gans.data.shapes import COLOURS

from .common import assert_worlds_agree, taken

EVERY = torch.arange(60)


def pairs(**options: object) -> ShapePairs:
    return ShapePairs(**{"batch_size": 6, "resolution": 32, "images": 60, "test_images": 60, "seed": 2, **options})


def domains(**options: object) -> ShapeDomains:
    return ShapeDomains(**{"batch_size": 6, "resolution": 32, "images": 60, "test_images": 60, "seed": 2, **options})


# ---- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [64, 200])
def test_edges_lie_around_the_mask_and_have_the_colour_of_the_filling(resolution: int) -> None:
    data = pairs(resolution=resolution)
    batch, masks = data.dataset().fetch(EVERY), data.masks(EVERY, "train")
    a, b = batch["a"].int(), batch["b"].int()
    assert a.shape == b.shape == (60, 3, resolution, resolution) and masks.shape == (60, resolution, resolution)
    distance = data.dataset().shapes.distance(EVERY)[:, 0]
    outside = (distance > 3 + resolution / 32)[:, None].expand_as(a)
    assert torch.equal(a[outside], b[outside])
    on_line = distance.abs() < 0.4
    assert torch.equal(a.movedim(1, -1)[on_line], data.dataset().colours(EVERY)[on_line.nonzero()[:, 0]].int())
    if resolution == 64:
        inner = (distance < -6)[:, None].expand_as(a)
        ground = a[:, :, :1, :1].expand_as(a)
        assert inner.sum() > 1000 and torch.equal(a[inner], ground[inner]), "the inside is empty"


def test_masks_are_found_in_the_right_answer_and_not_in_the_input() -> None:
    data = pairs(rotate=True)
    whole = data.dataset("test").fetch(EVERY)
    masks = data.masks(EVERY)

    def iou(images: torch.Tensor) -> float:
        found = data.found_masks(images, EVERY)
        return ((found & masks).sum() / (found | masks).sum()).item()

    assert iou(whole["b"]) > 0.99 and iou(whole["a"]) < 0.8


def test_maps_tell_ground_colour_and_shape() -> None:
    data = pairs(inputs="labels")
    batch = data.dataset().fetch(EVERY)
    attributes, masks = data.dataset().shapes.attributes, data.masks(EVERY, "train")
    assert list(batch) == ["label", "instance", "b"] and data.num_labels == 11
    assert torch.equal(batch["instance"].bool(), masks)
    for i in EVERY.tolist():
        assert batch["label"][i][masks[i]].unique().tolist() == [3 + attributes["colour"][i]]
        assert batch["label"][i][~masks[i]].unique().tolist() == [attributes["background"][i]]
    moved = data.on_after_batch_transfer(batch, 0)
    assert moved["label"].dtype == moved["instance"].dtype == torch.int64 and moved["b"].dtype == torch.float32


def test_test_pairs_are_held_out() -> None:
    data = pairs(images=400)
    train, test = (
        {(s, c) for s, c in zip(*(d.shapes.attributes[n].tolist() for n in ("shape", "colour")), strict=True)}
        for d in (data.dataset(), data.dataset("test"))
    )
    assert not train & test and len(test) <= 8 and len({c for _, c in train}) == len(COLOURS)


@pytest.mark.parametrize("inputs", ["edges", "labels"])
def test_pairs_of_any_number_of_processes_are_those_of_one(inputs: str) -> None:
    assert_worlds_agree(lambda: pairs(inputs=inputs, mirror=True))


def test_flips_are_those_of_both_sides() -> None:
    plain, mirrored = (taken(pairs(mirror=m), 5) for m in (False, True))
    flipped = (plain["b"] != mirrored["b"]).flatten(1).any(1)
    assert 0 < flipped.sum() < len(flipped)
    for side in ("a", "b"):
        assert torch.equal(mirrored[side][flipped], plain[side][flipped].flip(-1))
        assert torch.equal(mirrored[side][~flipped], plain[side][~flipped])


# ---- domains ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hues", [1, 2, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_hues_of_b_are_those_of_a_turned_by_half_a_circle(hues: int, tied: bool) -> None:
    data = domains(hues=hues, tied=tied)
    a, b = (data.hues(name, EVERY) for name in "ab")
    assert a.unique().tolist() == pytest.approx([180 * i / hues for i in range(hues)])
    assert torch.equal(b.unique(), a.unique() + 180)
    if tied:
        shapes = data.dataset("test").a.shapes.attributes["shape"]
        assert all(len(a[shapes == s].unique()) == 1 for s in shapes.unique())


def test_right_colours_are_those_of_the_known_counterpart() -> None:
    data = domains(hues=3)
    drawn = data.dataset("test").a
    given = drawn.fetch(EVERY)["a"]
    hues = drawn.hues.clone()
    drawn.hues = hues + 180
    counterpart = drawn.fetch(EVERY)["a"]
    drawn.hues = hues + 240  # the counterpart of a neighbour
    neighbour = drawn.fetch(EVERY)["a"]
    drawn.hues = hues
    assert data.right_colours(counterpart, EVERY).all()
    assert not data.right_colours(given, EVERY).any() and not data.right_colours(neighbour, EVERY).any()
    grey = counterpart.float().mean(1, keepdim=True).expand(-1, 3, -1, -1).to(torch.uint8)
    assert not data.right_colours(grey, EVERY).any()
    assert not data.right_colours(data.dataset("test").b.fetch(EVERY)["b"], EVERY, direction="ba").any()


def test_domains_have_sizes_and_pictures_of_their_own() -> None:
    data = domains(images_b=25)
    a, b = (data.domain(name).dataset() for name in "ab")
    assert (len(a), len(b), len(data.dataset())) == (60, 25, 60)
    assert not torch.equal(data.dataset().a.shapes.geometry[:25], data.dataset().b.shapes.geometry)
    assert_worlds_agree(lambda: domains(images_b=25, mirror=True))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: domains(hues=7), "hues is 7; with more than 6"),
        (lambda: pairs(inputs="lines"), "inputs is 'lines'; it must be one of 'edges', 'labels'"),
        (lambda: pairs().domain("c"), "a domain is 'a' or 'b', not 'c'"),
        (
            lambda: pairs(inputs="labels").domain("a").dataset(),
            "no side 'a' in these data; there are label, instance, b",
        ),
        (lambda: domains(images=0), "images is 0"),
    ],
)
def test_options_are_checked(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
