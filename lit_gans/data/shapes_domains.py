"""Drawn shapes for translators: pairs whose answer is known, and two domains whose bijection is known."""

from __future__ import annotations

import colorsys
import hashlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lit_gans.base.random import derive_seed
from lit_gans.data.checks import _one_of, _whole
from lit_gans.data.sets import ImageSet
from lit_gans.data.shapes import BACKGROUNDS, COLOURS, Shapes, ShapeSet, palette
from lit_gans.data.translation import OneSide, TranslationData, TranslationSet
from lit_gans.data.unpaired import TwoSets, UnpairedData

INPUTS = ("edges", "labels")
_LINE = 1 / 32  # width of an edge as a share of the picture's, at least 1 pixel
_SATURATION, _VALUE = 0.8, 0.9
_MAX_HUES = 6


class DrawnPairs(TranslationSet):
    """Shapes as targets, and as inputs their edges, or their label and instance maps; drawn when asked for."""

    def __init__(self, shapes: ShapeSet, inputs: str) -> None:
        self.shapes, self.inputs = shapes, inputs
        self.sides = ("a", "b") if inputs == "edges" else ("label", "instance", "b")

    def __len__(self) -> int:
        return len(self.shapes)

    def fetch(self, indices: Tensor) -> dict[str, Tensor]:
        given = {"a": self.edges(indices)} if self.inputs == "edges" else self.maps(indices)
        return {**given, "b": self.shapes.images(indices)}

    def windows(self, indices: Tensor, *, across: np.ndarray, down: np.ndarray) -> dict[str, Tensor]:
        return self.fetch(indices)  # drawn at the crop's size, so there is no margin

    def side(self, name: str) -> ImageSet:
        return OneSide(self, name)

    def edges(self, indices: Tensor) -> Tensor:
        """uint8 [N, 3, R, R]: the outline in the shape's colour, on the background."""
        half = max(self.shapes.resolution * _LINE, 1) / 2
        line = (half + 0.5 - self.shapes.distance(indices).abs()).clamp(0, 1)
        return self.shapes.painted(indices, self.colours(indices), line).round().to(torch.uint8)

    def maps(self, indices: Tensor) -> dict[str, Tensor]:
        """label uint8 [N, R, R]: 0 to 2 the background, from 3 on the shape's colour; instance int32: 1 the shape."""
        masks = self.masks(indices)
        ground, colour = (self.shapes.attributes[name][indices][:, None, None] for name in ("background", "colour"))
        label = torch.where(masks, len(BACKGROUNDS) + colour, ground)
        return {"label": label.to(torch.uint8), "instance": masks.to(torch.int32)}

    def masks(self, indices: Tensor) -> Tensor:
        """bool [N, R, R]: the pixels of which the shape covers half or more."""
        return self.shapes.cover(indices)[:, 0] >= 0.5

    def colours(self, indices: Tensor) -> Tensor:
        """float32 [N, 3] from 0 to 255: of each shape."""
        return palette(COLOURS)[self.shapes.attributes["colour"][indices]]

    def digest(self) -> str:
        return hashlib.sha256(f"{self.inputs} {self.shapes.digest()}".encode()).hexdigest()


class ShapePairs(TranslationData):
    """Edges of shapes as a, the filled shapes of `Shapes` as b: the outline has the colour of the filling.

    `inputs` "labels" gives label and instance maps in place of a: 3 labels of backgrounds and 8 of colours, and the
    shape as the one instance. `holdout` keeps 8 of the 48 combinations of shape and colour for split "test". What is
    right is known: `masks`, and `found_masks` of pictures that a translator made.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        resolution: int = 64,
        inputs: Literal["edges", "labels"] = "edges",
        images: int = 10_000,
        test_images: int = 2_000,
        rotate: bool = False,
        holdout: bool = True,
        mirror: bool = False,
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size, resolution=resolution, mirror=mirror, num_workers=num_workers, seed=seed
        )
        _one_of("inputs", inputs, INPUTS)
        self.inputs = inputs
        self.num_labels = len(BACKGROUNDS) + len(COLOURS) if inputs == "labels" else 0
        self.shapes = Shapes(
            batch_size=batch_size, resolution=resolution, label=None, images=images, test_images=test_images,
            rotate=rotate, holdout=holdout, seed=seed,
        )  # fmt: skip

    def transform(self) -> dict[str, object]:
        return {"drawing": 1, "inputs": self.inputs}

    def load(self, split: str) -> DrawnPairs:
        return DrawnPairs(self.shapes.load(split), self.inputs)

    def masks(self, indices: Tensor, split: str = "test") -> Tensor:
        """indices int64 [N] -> bool [N, R, R], true where the shape is."""
        return self._pairs(split).masks(indices)

    def found_masks(self, images: Tensor, indices: Tensor, split: str = "test") -> Tensor:
        """uint8 [N, 3, R, R] made from these samples -> bool [N, R, R]: nearer to the shape's colour than the ground's.

        The intersection over union with `masks` says how well the shape was filled.
        """
        pairs = self._pairs(split)
        ground = palette(BACKGROUNDS)[pairs.shapes.attributes["background"][indices]]
        far = [(images.float() - c[:, :, None, None]).square().sum(1) for c in (pairs.colours(indices), ground)]
        return far[0] < far[1]

    def _pairs(self, split: str) -> DrawnPairs:
        pairs = self.dataset(split)
        assert isinstance(pairs, DrawnPairs)
        return pairs


class DrawnDomain(TranslationSet):
    """Shapes of one domain, in the colours of its hues: float64 [N] in degrees."""

    def __init__(self, shapes: ShapeSet, name: str, hues: Tensor) -> None:
        self.shapes, self.sides, self.hues = shapes, (name,), hues

    def __len__(self) -> int:
        return len(self.shapes)

    def fetch(self, indices: Tensor) -> dict[str, Tensor]:
        colours = [colorsys.hsv_to_rgb(hue / 360, _SATURATION, _VALUE) for hue in self.hues[indices].tolist()]
        image = self.shapes.painted(indices, 255 * torch.tensor(colours), self.shapes.cover(indices))
        return {self.sides[0]: image.round().to(torch.uint8)}

    def windows(self, indices: Tensor, *, across: np.ndarray, down: np.ndarray) -> dict[str, Tensor]:
        return self.fetch(indices)

    def side(self, name: str) -> ImageSet:
        return OneSide(self, name)

    def digest(self) -> str:
        return hashlib.sha256(self.hues.numpy().tobytes() + self.shapes.digest().encode()).hexdigest()


class ShapeDomains(UnpairedData):
    """Shapes in two domains without partners: a picture of a becomes one of b when its hue turns by 180 degrees.

    Domain a has `hues` hues, evenly spread from 0 to 180 degrees, b their complements; all else is drawn alike, in
    pictures of its own. With `tied` each kind of shape has its hue in either domain, so that the pictures determine
    the bijection; without, any one-to-one change of the hues would do. `right_colours` judges translated pictures.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        resolution: int = 64,
        hues: int = 2,
        tied: bool = True,
        images: int = 10_000,
        images_b: int | None = None,
        test_images: int = 2_000,
        rotate: bool = False,
        mirror: bool = False,
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size, resolution=resolution, mirror=mirror, num_workers=num_workers, seed=seed
        )
        if _whole("hues", hues, 1) > _MAX_HUES:
            raise ValueError(f"hues is {hues}; with more than {_MAX_HUES} in half a circle they are hard to tell apart")
        self.num_hues, self.tied = hues, tied
        counts = {"a": images, "b": images if images_b is None else images_b}
        self.shapes = {
            name: Shapes(
                batch_size=batch_size, resolution=resolution, label=None, images=count, test_images=test_images,
                rotate=rotate, seed=derive_seed(seed, "shapes of domain", name),
            )
            for name, count in counts.items()
        }  # fmt: skip

    def transform(self) -> dict[str, object]:
        return {"drawing": 1, "hues": self.num_hues, "tied": self.tied}

    def load(self, split: str) -> TwoSets:
        return TwoSets(self._domain("a", split), self._domain("b", split))

    def hues(self, name: str, indices: Tensor, split: str = "test") -> Tensor:
        """float64 [N] in degrees: of these pictures of domain `name`."""
        return self._drawn(name, split).hues[indices]

    def right_colours(self, images: Tensor, indices: Tensor, *, direction: str = "ab", split: str = "test") -> Tensor:
        """uint8 [N, 3, R, R] made from these pictures of the first domain -> bool [N].

        True where the mean colour of the shape's inner pixels is no grey and its hue is the right one: nearer than half
        the distance of neighbouring hues, and than 45 degrees.
        """
        first = self._drawn(direction[0], split)
        inside = first.shapes.distance(indices) < -1  # not the edge, whose pixels are mixed
        mean = (images.double() * inside).sum((2, 3)) / inside.sum((2, 3)).clamp_min(1) / 255
        found = torch.tensor([colorsys.rgb_to_hsv(*rgb)[:2] for rgb in mean.tolist()], dtype=torch.float64)
        off = (found[:, 0] * 360 - first.hues[indices] - 180) % 360
        near = torch.minimum(off, 360 - off) < min(90 / self.num_hues, 45)
        return near & (found[:, 1] > _SATURATION / 3)

    def _drawn(self, name: str, split: str) -> DrawnDomain:
        both = self.dataset(split)
        assert isinstance(both, TwoSets)
        domain = both.a if name == "a" else both.b
        assert isinstance(domain, DrawnDomain)
        return domain

    def _domain(self, name: str, split: str) -> DrawnDomain:
        shapes = self.shapes[name].load(split)
        kind = shapes.attributes["shape" if self.tied else "colour"]
        turn = 0 if name == "a" else 180
        return DrawnDomain(shapes, name, turn + (kind % self.num_hues).double() * 180 / self.num_hues)
