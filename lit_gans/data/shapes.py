"""Drawn shapes: pictures with known attributes and captions, at any resolution, with nothing to download."""

from __future__ import annotations

import hashlib
import math
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.data.base import ImageData
from lit_gans.data.checks import _whole
from lit_gans.data.sets import ImageSet
from lit_gans.data.stream import uniform

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
COLOURS = {
    "red": (220, 40, 40), "orange": (245, 140, 30), "yellow": (250, 225, 60), "green": (40, 165, 70),
    "cyan": (60, 205, 220), "blue": (45, 85, 225), "purple": (135, 55, 175), "pink": (250, 130, 185),
}  # fmt: skip
SIZES = {"small": (0.11, 0.14), "medium": (0.18, 0.22), "large": (0.28, 0.32)}  # radius, as a share of the width
POSITIONS = {
    f"{'at the ' if (row or column) else ''}{' '.join(filter(None, (row, column))) or 'in the centre'}": (x, y)
    for y, row in enumerate(("top", "", "bottom"))
    for x, column in enumerate(("left", "", "right"))
}
BACKGROUNDS = {"black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128)}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "position": tuple(POSITIONS),
    "background": tuple(BACKGROUNDS),
}
PLACES = ((0.0, 0.15), (0.42, 0.58), (0.85, 1.0))  # of the centre, between the margins
MARGIN = 0.03
_TEXTURE, _EXTENT = 128, 2.0


def held_out(shape: int, colour: int) -> bool:
    """Whether a combination belongs to the test split under `holdout`: 8 of 48, every colour once, every shape."""
    return shape == colour % len(SHAPES)


def _outline(shape: str) -> np.ndarray:
    """float64 [V, 2]: the corners of a shape of radius about 1 around the origin, x to the right, y down."""
    turn = 2 * math.pi * np.arange(60) / 60
    if shape == "square":
        return 0.75 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    if shape == "triangle":
        return np.array([(0, -1), (math.sqrt(0.75), 0.5), (-math.sqrt(0.75), 0.5)])
    if shape == "star":
        turn = 2 * math.pi * np.arange(10) / 10
        return np.stack([np.sin(turn), -np.cos(turn)], 1) * np.where(np.arange(10) % 2, 0.45, 1)[:, None]
    if shape == "cross":
        a, b = 0.35, 0.95
        quarter = np.array([(-a, -b), (a, -b), (a, -a)])
        return np.concatenate([quarter @ np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))])
    if shape == "heart":
        x = 16 * np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return np.stack([x, -y - 2], 1) / 16
    assert shape == "circle"
    return np.stack([np.sin(turn), -np.cos(turn)], 1)


def _distance(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """points [P, 2], corners [V, 2] -> [P]: distance to the polygon's edge, negative inside."""
    following = np.roll(corners, -1, 0)
    edge, to_point = following - corners, points[:, None] - corners
    along = np.clip((to_point * edge).sum(-1) / (edge**2).sum(-1), 0, 1)
    nearest = np.linalg.norm(to_point - along[..., None] * edge, axis=-1).min(1)
    above, below = points[:, None, 1] < corners[:, 1], points[:, None, 1] < following[:, 1]
    side = edge[:, 0] * to_point[..., 1] - edge[:, 1] * to_point[..., 0]
    crossings = (above != below) & ((side > 0) == (edge[:, 1] < 0))
    return np.where(crossings.sum(1) % 2 == 1, -nearest, nearest)


@cache
def _textures() -> Tensor:
    """float32 [shapes, 1, T, T]: distances in [-2, 2] x [-2, 2] around each shape, in radii."""
    ticks = (np.arange(_TEXTURE) + 0.5) / _TEXTURE * 2 * _EXTENT - _EXTENT
    points = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    maps = [_distance(points, _outline(shape)).reshape(1, _TEXTURE, _TEXTURE) for shape in SHAPES]
    return torch.from_numpy(np.stack(maps)).float()


class ShapeSet(ImageSet):
    """Shapes drawn when asked for. `attributes`: {name: int64 [N]}; `geometry` float64 [N, 4]: x, y, radius, angle."""

    def __init__(
        self, attributes: dict[str, Tensor], geometry: Tensor, labels: Tensor | None, *, resolution: int, channels: int
    ) -> None:
        self.attributes, self.geometry, self.labels = attributes, geometry, labels
        self.resolution, self.channels = resolution, channels

    def __len__(self) -> int:
        return len(self.geometry)

    def images(self, indices: Tensor) -> Tensor:
        """Colour where the shape covers a pixel, background where it does not, mixed linearly on the edge."""
        colour = palette(COLOURS)[self.attributes["colour"][indices]]
        image = self.painted(indices, colour, self.cover(indices))
        if self.channels == 1:
            image = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        return image.round().to(torch.uint8)

    def digest(self) -> str:
        content = hashlib.sha256(self.geometry.numpy().tobytes())
        for values in (*self.attributes.values(), *([] if self.labels is None else [self.labels])):
            content.update(values.numpy().tobytes())
        return content.hexdigest()

    def painted(self, indices: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
        """float32 [N, 3, R, R] from 0 to 255: colour [N, 3] as far as cover [N, 1, R, R] goes, on the backgrounds."""
        ground = palette(BACKGROUNDS)[self.attributes["background"][indices]][:, :, None, None]
        return ground + (colour[:, :, None, None] - ground) * cover

    def cover(self, indices: Tensor) -> Tensor:
        """float32 [N, 1, R, R] in [0, 1]: how much of each pixel the shape covers."""
        return (0.5 - self.distance(indices)).clamp(0, 1)

    def distance(self, indices: Tensor) -> Tensor:
        """float32 [N, 1, R, R]: how far, in pixels, each one lies from the shape's edge; negative inside."""
        x, y, radius, angle = (column[:, None, None] for column in self.geometry[indices].float().unbind(1))
        ticks = (torch.arange(self.resolution) + 0.5) / self.resolution
        across, down = (ticks[None, None, :] - x) / radius, (ticks[None, :, None] - y) / radius
        cos, sin = angle.cos(), angle.sin()
        grid = torch.stack([cos * across + sin * down, cos * down - sin * across], -1) / _EXTENT
        maps = _textures()[self.attributes["shape"][indices]]
        distance = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return distance * (radius * self.resolution)[:, None]


def palette(colours: dict[str, tuple[int, int, int]]) -> Tensor:
    """float32 [colours, 3] in [0, 255]."""
    return torch.tensor(list(colours.values()), dtype=torch.float32)


class Shapes(ImageData):
    """One coloured shape on a plain ground: 6 shapes, 8 colours, 3 sizes, 9 positions, 3 backgrounds, antialiased.

    Picture i depends on (seed, split, i) alone, whatever the resolution. `label` names the attribute that is the class,
    or None. With `rotate` the shapes are turned at random. `holdout` keeps 8 of the 48 combinations of shape and colour
    for split "test" and shows it no others. `only` keeps some values of an attribute, as {"position": ["at the top"]}.
    `channels` 1: luma on black, colours go unnamed in the captions.
    """

    ATTRIBUTES: ClassVar[dict[str, tuple[str, ...]]] = ATTRIBUTES

    def __init__(
        self,
        *,
        resolution: int = 32,
        label: str | None = "shape",
        images: int = 10_000,
        test_images: int = 2_000,
        channels: int = 3,
        rotate: bool = False,
        holdout: bool = False,
        only: dict[str, list[str]] | None = None,
        mirror: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(resolution=resolution, mirror=mirror, **options)
        if channels not in (1, 3):
            raise ValueError(f"channels is {channels!r}; it must be 1 or 3")
        if label is not None and label not in ATTRIBUTES:
            raise ValueError(f"label is {label!r}; it must be one of {', '.join(ATTRIBUTES)}, or None")
        if channels == 1 and label in ("colour", "background"):
            raise ValueError(f"label {label!r} cannot be told from grey pictures: use channels=3 or another label")
        if mirror and label == "position":
            raise ValueError("mirror swaps left and right, so that label 'position' would be wrong: use mirror=False")
        self.counts = {"train": _whole("images", images, 1), "test": _whole("test_images", test_images, 1)}
        self.label, self.channels, self.rotate, self.holdout = label, channels, rotate, holdout
        self.class_names = () if label is None else ATTRIBUTES[label]
        self.only = _values(only or {})

    def transform(self) -> dict[str, object]:
        return {"drawing": 1}

    def load(self, split: str) -> ShapeSet:
        attributes = self._attributes(split)
        labels = None if self.label is None else attributes[self.label]
        geometry = self._geometry(split, attributes)
        return ShapeSet(attributes, geometry, labels, resolution=self.resolution, channels=self.channels)

    def attributes(self, indices: Tensor, split: str = "train") -> dict[str, Tensor]:
        """indices int64 [N] -> {"shape", "colour", "size", "position", "background": int64 [N]}, as in ATTRIBUTES."""
        images = self.dataset(split)
        assert isinstance(images, ShapeSet)
        return {name: values[indices] for name, values in images.attributes.items()}

    def captions(self, indices: Tensor, split: str = "train") -> list[str]:
        """indices int64 [N] -> N captions, such as "a small red circle at the top left on black".

        They tell of the pictures as `fetch` gives them: with `mirror`, left and right may be swapped in a batch.
        """
        numbers = self.attributes(indices, split)
        names = {name: [ATTRIBUTES[name][i] for i in values.tolist()] for name, values in numbers.items()}
        if self.channels == 1:
            return [f"a {s} {h} {p}" for s, h, p in zip(names["size"], names["shape"], names["position"], strict=True)]
        order = ("size", "colour", "shape", "position", "background")
        return [f"a {s} {c} {h} {p} on {b}" for s, c, h, p, b in zip(*(names[name] for name in order), strict=True)]

    def _uniform(self, split: str, purpose: str) -> np.ndarray:
        return uniform(self.seed, f"shapes {split} {purpose}", np.arange(self.counts[split]))

    def _attributes(self, split: str) -> dict[str, Tensor]:
        pairs = np.array([
            (shape, colour)
            for shape in self.only["shape"]
            for colour in self.only["colour"]
            if not self.holdout or held_out(shape, colour) == (split == "test")
        ])  # fmt: skip
        if not len(pairs):
            raise ValueError(f"only leaves split {split!r} no pair of shape and colour: keep more of them")
        drawn = pairs[(self._uniform(split, "pair") * len(pairs)).astype(np.int64)]
        attributes = {"shape": drawn[:, 0], "colour": drawn[:, 1]}
        for name in ("size", "position", "background"):
            kept = np.array(self.only[name])
            attributes[name] = kept[(self._uniform(split, name) * len(kept)).astype(np.int64)]
        if self.channels == 1:
            attributes["background"] = np.zeros_like(attributes["background"])
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in attributes.items()}

    def _geometry(self, split: str, attributes: dict[str, Tensor]) -> Tensor:
        """float64 [N, 4]: x, y and radius as shares of the width, angle in radians."""
        low, high = np.array(list(SIZES.values()))[attributes["size"].numpy()].T
        radius = low + (high - low) * self._uniform(split, "radius")
        places = np.array(list(POSITIONS.values()))[attributes["position"].numpy()]
        columns = [
            _spread(radius, places[:, axis], self._uniform(split, purpose)) for axis, purpose in enumerate(("x", "y"))
        ]
        angle = self._uniform(split, "angle") * 2 * math.pi * self.rotate
        return torch.from_numpy(np.stack([*columns, radius, angle], 1))


def _values(only: dict[str, list[str]]) -> dict[str, list[int]]:
    """The numbers of the values of each attribute that are drawn, all where `only` says nothing of it."""
    for name, values in only.items():
        unknown = [value for value in values if value not in ATTRIBUTES.get(name, ())]
        if name not in ATTRIBUTES or unknown or not values:
            known = ", ".join(ATTRIBUTES.get(name, tuple(ATTRIBUTES)))
            raise ValueError(f"only is {{{name!r}: {values!r}}}; it must name some of {known}")
    return {
        name: [number for number, value in enumerate(values) if value in only.get(name, values)]
        for name, values in ATTRIBUTES.items()
    }


def _spread(radius: np.ndarray, place: np.ndarray, share: np.ndarray) -> np.ndarray:
    """One coordinate of the centre: in the first, middle or last part of what keeps the shape inside the picture."""
    low, high = np.array(PLACES)[place].T
    edge = radius + MARGIN
    return edge + (1 - 2 * edge) * (low + (high - low) * share)
