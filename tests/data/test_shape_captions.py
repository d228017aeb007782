"""Captions of drawn shapes: sentences and pictures agree, and the checker reads any picture right."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_gans.data import ShapeCaptions
from lit_gans.data.captioned import Partners
from lit_gans.data.shapes import ATTRIBUTES, COLOURS, SHAPES, held_out
from lit_gans.data.shapes_captions import FORMS, TOLD, parse

from .common import assert_worlds_agree


def shapes(**options: object) -> ShapeCaptions:
    return ShapeCaptions(**{"batch_size": 6, "resolution": 32, "images": 200, "test_images": 100, **options})


def both(data: ShapeCaptions, split: str = "train", count: int = 100) -> tuple[Tensor, dict[str, Tensor]]:
    indices = torch.arange(count)
    return data.dataset(split).images(indices), data.attributes(indices, split)


def test_every_form_tells_colour_shape_and_position() -> None:
    data = shapes()
    captions, attributes = data.split_captions("train"), data.attributes(torch.arange(200))
    assert (captions.counts == len(FORMS)).all() and len(set(captions.of(0))) == len(FORMS)
    told = parse(captions.all)
    for name in TOLD:
        assert torch.equal(told[name], attributes[name].repeat_interleave(len(FORMS)))
    assert data.captions(torch.tensor([1]))[0] == captions.of(1)[0]


@pytest.mark.parametrize(
    "caption", ["a bird", "a red blue circle in the centre", "a red circle", "a red heart and a star at the top"]
)
def test_other_captions_are_refused(caption: str) -> None:
    with pytest.raises(ValueError, match="it must name one of"):
        parse(["a red circle in the centre", caption])


@pytest.mark.parametrize(
    ("resolution", "rotate"),
    [(32, False), *(pytest.param(*each, marks=pytest.mark.slow) for each in [(32, True), (64, False), (64, True)])],
)
def test_drawn_pictures_are_read_without_fail(resolution: int, rotate: bool) -> None:
    data = shapes(resolution=resolution, rotate=rotate, holdout=False)
    images, attributes = both(data, count=200 if not rotate else 60)
    right = data.right(images, {name: values[: len(images)] for name, values in attributes.items()})
    assert set(right) == {*TOLD, "all"} and right["all"].all()


def test_imperfect_pictures_are_read_too() -> None:
    data = shapes(resolution=64)
    images, attributes = both(data)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    noisy = (images + 12 * noise).clamp(0, 255).to(torch.uint8)
    blurred = torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1, count_include_pad=False).to(torch.uint8)
    assert data.right(noisy, attributes)["all"].float().mean() > 0.97
    assert data.right(blurred, attributes)["all"].float().mean() > 0.97


def test_every_wrong_attribute_is_found_out() -> None:
    data = shapes()
    images, attributes = both(data)
    for name in TOLD:
        wrong = {**attributes, name: (attributes[name] + 1) % len(ATTRIBUTES[name])}
        right = data.right(images, wrong)
        assert not right[name].any() and not right["all"].any()
        assert all(right[other].all() for other in TOLD if other != name)
    assert set(data.right(images, {"shape": attributes["shape"]})) == {"shape", "all"}


def test_pictures_of_nothing_are_right_for_no_caption() -> None:
    data, generator = shapes(), torch.Generator().manual_seed(0)
    flat = torch.full((3, 3, 32, 32), 128, dtype=torch.uint8)
    noise = torch.randint(0, 256, (20, 3, 32, 32), generator=generator, dtype=torch.uint8)
    halves = flat.clone()
    halves[..., 16:] = torch.tensor(COLOURS["red"], dtype=torch.uint8)[:, None, None]
    bar = flat.clone()
    bar[..., 14:16, 2:30] = torch.tensor(COLOURS["red"], dtype=torch.uint8)[:, None, None]
    pale = flat.clone()
    pale[..., 10:20, 10:20] = torch.tensor([0, 90, 0], dtype=torch.uint8)[:, None, None]  # a colour that none is
    for images in (flat, noise, halves, bar, pale):
        assert all((values == -1).all() for values in data.read(images).values())


def test_attributes_must_fit_the_images() -> None:
    data = shapes()
    images, attributes = both(data, count=4)
    for given in ({}, {"shape": attributes["shape"][:2]}, {"size": attributes["size"]}):
        with pytest.raises(ValueError, match="give one or more of colour, shape, position, a number per image"):
            data.right(images, given)


def test_held_out_combinations_are_for_the_test_split_alone() -> None:
    data = shapes(images=1000, test_images=300)
    for split, out in (("train", False), ("test", True)):
        numbers = data.attributes(torch.arange(300), split)
        assert all(
            held_out(s, c) == out for s, c in zip(numbers["shape"].tolist(), numbers["colour"].tolist(), strict=True)
        )
    assert not set(data.split_captions("test").tokens) & set(data.split_captions("train").tokens)
    unknown = [w for words in data.split_captions("test").tokens for w in words if w not in data.vocabulary.numbers]
    assert not unknown  # every word of them is learnt from other combinations


@pytest.mark.parametrize("wrong", ["image", "caption"])
def test_a_wrong_partner_differs_in_one_thing_by_turns(wrong: str) -> None:
    data = shapes(wrong=wrong, images=20_000)
    counts = dict.fromkeys(TOLD, 0)
    for batch in islice(iter(data.stream()), 10):
        own = parse([data.vocabulary.decode(row.tolist()) for row in batch["words"]])
        assert data.right(batch["image"], own)["all"].all()
        if wrong == "image":
            other = data.read(batch["wrong"])
        else:
            other = parse([data.vocabulary.decode(row.tolist()) for row in batch["wrong_words"]])
        different = torch.stack([own[name] != other[name] for name in TOLD])
        assert (different.sum(0) == 1).all()
        counts = {name: counts[name] + int(rows.sum()) for name, rows in zip(TOLD, different, strict=True)}
    assert min(counts.values()) > 0.2 * sum(counts.values())


def test_where_no_picture_differs_in_one_thing_alone_partners_are_wrong_all_the_same() -> None:
    data = shapes(wrong="caption", images=6)
    for batch in islice(iter(data.stream()), 3):
        own, other = (
            parse([data.vocabulary.decode(row.tolist()) for row in batch[name]]) for name in ("words", "wrong_words")
        )
        assert torch.stack([own[name] != other[name] for name in TOLD]).any(0).all()


def test_all_partners_of_a_bucket_are_equally_likely_and_no_others() -> None:
    bucket, value = torch.tensor([1, 0, 1, 1, 0, 1, 1]), torch.tensor([2, 5, 1, 2, 5, 3, 1])
    partners = Partners(bucket, value)
    assert partners.count(np.arange(7)).tolist() == [3, 0, 3, 3, 0, 4, 3]
    share = (np.arange(12) + 0.5) / 12
    for own, expected in ((0, [2, 5, 6]), (2, [0, 3, 5]), (5, [0, 2, 3, 6])):
        drawn = partners.draw(np.full(12, own), share)
        assert sorted(set(drawn.tolist())) == expected
        assert set(np.bincount(drawn)[expected].tolist()) == {12 // len(expected)}


def test_processes_workers_and_restarts_change_nothing() -> None:
    assert_worlds_agree(lambda: shapes(wrong="image", resolution=16))  # type: ignore[arg-type, return-value]


def test_resolution_may_grow_and_labels_may_be_had() -> None:
    data = shapes(label="shape", resolution=16)
    assert data.class_names == SHAPES and data.dataset().fetch(torch.arange(3))["image"].shape[-1] == 16
    data.resolution = 32
    batch = data.dataset().fetch(torch.arange(3))
    assert batch["image"].shape == (3, 3, 32, 32)
    assert torch.equal(batch["label"], data.attributes(torch.arange(3))["shape"])


def test_mirror_would_make_captions_lie() -> None:
    with pytest.raises(ValueError, match="mirror swaps left and right, which the captions name"):
        shapes(mirror=True)
