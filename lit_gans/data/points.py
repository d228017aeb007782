"""Points of a mixture of Gaussians as data for any GAN of the package: pictures of one pixel with two channels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lit_gans.data.base import ImageData
from lit_gans.data.checks import _whole
from lit_gans.data.mixtures import GRID_SIGMA, RING_SIGMA, grid, ring, sample_mixture
from lit_gans.data.sets import ImageSet


@dataclass(frozen=True)
class Mixture:
    """Equal weights at centres float64 [K, 2], of one deviation; `reach` is what becomes 1 in pictures in [-1, 1]."""

    centres: Tensor
    sigma: float
    reach: float

    def as_pictures(self, points: Tensor) -> Tensor:
        """points [N, 2] -> float32 [N, 2, 1, 1]."""
        return (points / self.reach).float()[:, :, None, None]

    def as_points(self, pictures: Tensor) -> Tensor:
        """[N, 2, 1, 1] -> points float64 [N, 2]."""
        return self.reach * pictures.flatten(1).double()


MIXTURES = {"ring": Mixture(ring(), RING_SIGMA, 2.5), "grid": Mixture(grid(), GRID_SIGMA, 5.0)}


class PointSet(ImageSet):
    """points float64 [N, 2] of a mixture."""

    def __init__(self, points: Tensor, mixture: Mixture) -> None:
        self.pictures = mixture.as_pictures(points)

    def __len__(self) -> int:
        return len(self.pictures)

    def images(self, indices: Tensor) -> Tensor:
        """indices int64 [n] -> float32 [n, 2, 1, 1] in [-1, 1]: these are no pictures that uint8 would hold."""
        return self.pictures[indices]

    def digest(self) -> str:
        return hashlib.sha256(self.pictures.contiguous().numpy().tobytes()).hexdigest()


class Points(ImageData):
    """`points` samples of a mixture, by name ("ring", "grid") or as it is, in the order of the image clock.

    100,000 as in the code of Lin et al. (2018). Point i depends on (seed, i) alone.
    """

    splits = ("train",)
    channels = 2

    def __init__(self, mixture: str | Mixture = "ring", *, points: int = 100_000, **options: Any) -> None:
        super().__init__(resolution=1, **options)
        if isinstance(mixture, str) and mixture not in MIXTURES:
            raise ValueError(f"mixture {mixture!r} is neither of {', '.join(MIXTURES)}, nor a Mixture of your own")
        if self.mirror:
            raise ValueError("mirror is of pictures: a point has no left and right; leave it at false")
        self.mixture = MIXTURES[mixture] if isinstance(mixture, str) else mixture
        self.points = _whole("points", points, 1)

    def load(self, split: str) -> PointSet:
        mixture = self.mixture
        return PointSet(sample_mixture(mixture.centres, mixture.sigma, n=self.points, seed=self.seed), mixture)

    def transform(self) -> dict[str, object]:
        return {"reach": self.mixture.reach}
