"""Drawn shapes with captions of which it is known, exactly, whether a picture fits them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.data.captioned import CaptionedSet, Encode, Partners, TextData, Wrong
from lit_gans.data.captions import Captions, Encoding
from lit_gans.data.shapes import (
    ATTRIBUTES,
    COLOURS,
    MARGIN,
    PLACES,
    POSITIONS,
    SHAPES,
    Shapes,
    ShapeSet,
    palette,
)

# Each names colour, shape and position; the size and the ground only some do.
FORMS = (
    "a {size} {colour} {shape} {position} on {background}",
    "this picture shows a {colour} {shape} {position}",
    "{position} there is a {size} {colour} {shape}",
    "there is one {shape} {position} and its colour is {colour}",
    "on a {background} ground lies a {colour} {shape} {position}",
)
TOLD = ("colour", "shape", "position")
_FAR = 64.0  # of 442, the distance of black and white: farther from every colour, a shape has none of them
_LEAST_FIT = 0.7  # intersection over union with the best template; below, it is no shape at all
_NOTHING = 40.0  # pixels nearer than this to the ground's colour are ground
_TURNS = 24  # of the templates, where shapes may be turned


class CaptionedShapes(CaptionedSet):
    """Shapes drawn when asked for, each in every form of sentence.

    A wrong partner differs in one thing that captions name, shape, colour or position by turns; the size and ground,
    which only some of them name, are free. Where there is no such picture it is one of another shape or colour.
    """

    def __init__(self, shapes: ShapeSet, captions: Captions, encoding: Encoding, labels: Tensor | None) -> None:
        pairs = shapes.attributes["shape"] * len(COLOURS) + shapes.attributes["colour"]
        super().__init__(captions, encoding, pairs, labels)
        self.shapes = shapes
        told = [shapes.attributes[name] for name in TOLD]
        self._near = [Partners(100 * told[k - 2] + told[k - 1], told[k]) for k in range(3)]  # the two others agree

    def others(self, indices: np.ndarray, share: np.ndarray) -> np.ndarray:
        turn = (share * len(self._near)).astype(np.int64)
        rest = share * len(self._near) - turn
        chosen = super().others(indices, share)
        for k, partners in enumerate(self._near):
            rows = (turn == k) & (partners.count(indices) > 0)
            chosen[rows] = partners.draw(indices[rows], rest[rows])
        return chosen

    def images(self, indices: Tensor) -> Tensor:
        return self.shapes.images(indices)

    def windows(self, indices: Tensor, *, across: np.ndarray, down: np.ndarray) -> Tensor:
        return self.shapes.images(indices)  # drawn at the crop's size, so there is no margin

    def pictures_digest(self) -> str:
        return self.shapes.digest()


class ShapeCaptions(TextData):
    """The pictures of `Shapes` with captions in several forms, all of which name colour, shape and position.

    Picture and captions of sample i depend on (seed, split, i) alone. `holdout` keeps 8 of the 48 combinations of shape
    and colour for split "test": pictures of them show whether a model puts together what it has learnt apart. `read`
    says what a picture shows (without fail for drawn ones of 32 pixels or more), `right` whether that is what a caption
    asks for, the function `parse` what that is. A wrong partner differs in shape, colour or position alone, by turns:
    see `CaptionedShapes`. Options as those of `Shapes` and of `TextData`.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        resolution: int = 64,
        images: int = 10_000,
        test_images: int = 2_000,
        label: str | None = None,
        rotate: bool = False,
        holdout: bool = True,
        only: dict[str, list[str]] | None = None,
        encode: Encode = "words",
        max_words: int = 18,
        max_characters: int = 201,
        min_count: int = 1,
        vocabulary: list[str] | str | None = None,
        embeddings: str | None = None,
        wrong: Wrong = "none",
        mirror: bool = False,
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size, resolution=resolution, encode=encode, max_words=max_words,
            max_characters=max_characters, min_count=min_count, vocabulary=vocabulary, embeddings=embeddings,
            wrong=wrong, mirror=mirror, num_workers=num_workers, seed=seed,
        )  # fmt: skip
        if mirror:
            raise ValueError("mirror swaps left and right, which the captions name: use mirror=False")
        self.shapes = Shapes(
            batch_size=batch_size, resolution=resolution, label=label, images=images, test_images=test_images,
            rotate=rotate, holdout=holdout, only=only, seed=seed,
        )  # fmt: skip
        self.class_names = self.shapes.class_names

    def transform(self) -> dict[str, object]:
        return {**super().transform(), "drawing": 1}

    def read_captions(self, split: str) -> Captions:
        values = self.attributes(torch.arange(self.shapes.counts[split]), split)
        names = {name: [ATTRIBUTES[name][i] for i in numbers.tolist()] for name, numbers in values.items()}
        rows = [dict(zip(names, row, strict=True)) for row in zip(*names.values(), strict=True)]
        texts = [[form.format(**row) for form in FORMS] for row in rows]
        return Captions(texts, [f"picture {i}" for i in range(len(rows))])

    def captioned(self, split: str, captions: Captions, encoding: Encoding) -> CaptionedShapes:
        self.shapes.resolution = self.resolution  # training that grows asks for one after the other
        shapes = self.shapes.dataset(split)
        assert isinstance(shapes, ShapeSet)
        return CaptionedShapes(shapes, captions, encoding, shapes.labels)

    def attributes(self, indices: Tensor, split: str = "train") -> dict[str, Tensor]:
        """indices int64 [N] -> {"shape", "colour", "size", "position", "background": int64 [N]}, as in ATTRIBUTES."""
        return self.shapes.attributes(indices, split)

    def read(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 [N, 3, R, R] of any origin -> {"shape", "colour", "position": int64 [N]}; -1 where there is none."""
        found = [read_shape(image, turned=self.shapes.rotate) for image in images]
        return {name: torch.tensor([one[name] for one in found], dtype=torch.int64) for name in TOLD}

    def right(self, images: Tensor, attributes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """uint8 [N, 3, R, R], what their captions ask for int64 [N] by name -> bool [N] by name.

        Under "all": every one of "colour", "shape" and "position" that `attributes` has.
        """
        asked = [name for name in TOLD if name in attributes]
        if not asked or any(len(attributes[name]) != len(images) for name in asked):
            raise ValueError(
                f"attributes are {', '.join(attributes) or 'none'} for {len(images)} images: give one or more of "
                f"{', '.join(TOLD)}, a number per image"
            )
        found = self.read(images)
        right = {name: found[name] == attributes[name].cpu() for name in asked}
        return {**right, "all": torch.stack(list(right.values())).all(0)}


def parse(captions: Sequence[str]) -> dict[str, Tensor]:
    """N captions -> {"colour", "shape", "position": int64 [N]} as in ATTRIBUTES.

    ValueError for a caption that does not name each of them exactly once.
    """
    return {name: torch.tensor([_named(caption, name) for caption in captions], dtype=torch.int64) for name in TOLD}


def _named(caption: str, name: str) -> int:
    """The number of the value of an attribute that a caption names; of positions the longest, "at the top left"."""
    pattern = "|".join(sorted(map(re.escape, ATTRIBUTES[name]), key=len, reverse=True))
    found = re.findall(rf"\b({pattern})\b", caption.lower())
    if len(found) != 1:
        raise ValueError(
            f"the caption {caption!r:.80} names {', '.join(found) or 'no'} {name}; it must name one of "
            f"{', '.join(ATTRIBUTES[name])}"
        )
    return ATTRIBUTES[name].index(found[0])


# ---- what a picture shows --------------------------------------------------------------------------------------------


def read_shape(image: Tensor, *, turned: bool = False) -> dict[str, int]:
    """uint8 [3, R, R] -> {"shape", "colour", "position"} by number; -1 for all where the picture shows no such shape.

    The ground is the median colour of the border, the shape's colour the median of what differs most from it, told by
    the nearest of `COLOURS`. How far each pixel has gone from the one to the other is how much the shape covers it. Its
    kind is that of the template, drawn where area and centre of mass say, that covers the same pixels best.
    """
    nothing = dict.fromkeys(TOLD, -1)
    pixels = image.double()
    edge = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], 1)
    ground = edge.median(1).values
    away = (pixels - ground[:, None, None]).square().sum(0).sqrt()
    far = away > max(_NOTHING, 0.75 * away.quantile(0.998).item())
    if not far.any():
        return nothing
    colour = pixels[:, far].median(1).values
    distances = (palette(COLOURS).double() - colour).norm(dim=1)
    step = (colour - ground)[:, None, None]
    cover = ((pixels - ground[:, None, None]) * step).sum(0).div(step.square().sum()).clamp(0, 1)
    near = F.max_pool2d((cover > 0.5).double()[None], 3, stride=1, padding=1)[0]
    cover = cover * near  # without the grain of the ground
    if distances.min() > _FAR or not 0 < cover.mean() < 0.5:
        return nothing
    fits = {shape: max(_fits(cover, shape, turned)) for shape in range(len(SHAPES))}
    shape = max(fits, key=lambda each: fits[each][0])
    fit, x, y, radius = fits[shape]
    if fit < _LEAST_FIT:
        return nothing
    return {"shape": shape, "colour": int(distances.argmin()), "position": _position(x, y, radius)}


def _fits(cover: Tensor, shape: int, turned: bool) -> Iterator[tuple[float, float, float, float]]:
    """(intersection over union, x, y, radius) of the templates of one shape, whose area and centre are the cover's."""
    area, centre_x, centre_y = _moments(cover)
    ours, own_x, own_y = _template(shape)
    radius = (area / ours) ** 0.5
    angles = torch.arange(_TURNS if turned else 1) * (2 * torch.pi / _TURNS)
    for angle in angles.tolist():
        cos, sin = np.cos(angle), np.sin(angle)
        x = centre_x - radius * (cos * own_x - sin * own_y)
        y = centre_y - radius * (sin * own_x + cos * own_y)
        drawn = _drawn(shape, x, y, radius, angle, len(cover))
        yield (torch.minimum(cover, drawn).sum() / torch.maximum(cover, drawn).sum()).item(), x, y, radius


def _moments(cover: Tensor) -> tuple[float, float, float]:
    """Area, and x and y of the centre of mass, as shares of the picture's."""
    ticks = (torch.arange(len(cover), dtype=cover.dtype) + 0.5) / len(cover)
    mass = cover.sum()
    x, y = (cover.sum(0) * ticks).sum() / mass, (cover.sum(1) * ticks).sum() / mass
    return (mass / cover.numel()).item(), x.item(), y.item()


@cache
def _template(shape: int) -> tuple[float, float, float]:
    """Area and centre of mass of a shape of radius 1 around the origin."""
    radius = 0.3
    area, x, y = _moments(_drawn(shape, 0.5, 0.5, radius, 0.0, 256))
    return area / radius**2, (x - 0.5) / radius, (y - 0.5) / radius


def _drawn(shape: int, x: float, y: float, radius: float, angle: float, resolution: int) -> Tensor:
    """float64 [R, R]: how much of each pixel the shape covers."""
    geometry = torch.tensor([[x, y, radius, angle]], dtype=torch.float64)
    one = ShapeSet({"shape": torch.tensor([shape])}, geometry, None, resolution=resolution, channels=3)
    return one.cover(torch.tensor([0]))[0, 0].double()


def _position(x: float, y: float, radius: float) -> int:
    """The place whose range the centre is in or nearest to, by what the margins leave: see `Shapes`."""
    edge = radius + MARGIN
    room = max(1 - 2 * edge, 1e-6)
    middles = [(low + high) / 2 for low, high in PLACES]
    column, row = (min(range(3), key=lambda i: abs((c - edge) / room - middles[i])) for c in (x, y))
    return list(POSITIONS.values()).index((column, row))
