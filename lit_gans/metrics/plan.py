"""What an evaluation is asked to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PATHS = {
    f"ppl_{space}_{sampling}{crop}": {"space": space, "sampling": sampling, "crop": bool(crop)}
    for space in ("z", "w")
    for sampling in ("full", "end")
    for crop in ("", "_crop")
}
"""Perceptual path lengths by name, with what they mean to `path_length.path_distances`."""
OF_GENERATOR = ("separability", *PATHS)
METRICS = ("frechet", "spatial_frechet", "random_frechet", "intra_frechet", "kid", "is", "precision", "recall",
           "density", "coverage", "class_accuracy", "swd", "modes", "separability", *PATHS)  # fmt: skip
WITHOUT_EXTRACTOR = ("random_frechet", "swd", *OF_GENERATOR)
"""Metrics that do not look through the extractor that is chosen: they have a network of their own, or none."""
DEFAULT_METRICS = ("frechet", "kid", "is", "precision", "recall", "class_accuracy")
PUBLISHED = {"fid": "frechet", "sfid": "spatial_frechet", "rfid": "random_frechet", "intra_fid": "intra_frechet"}
"""Other names that metrics may be asked for by; the numbers are named after the extractor in any case."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how. ValueError for settings that no evaluation can have.

    Args:
        metrics: some of `METRICS`, or their `PUBLISHED` names.
        num_images: generated images, of all processes together.
        batch_size: images at a time, per process; changes no number.
        split: of the real images; `num_real` of them, or all.
        neighbours: k of precision, recall, density and coverage (3 in Kynkäänniemi et al., 5 in Naeem et al.).
        seed, psi, ema: which samples, how truncated, of the averaged generator or of the generator itself.
        path_samples: paths of each perceptual path length; published ones have 50,000 or 100,000.
        separability_samples: of which the half with the surest labels is used; published 200,000.
    """

    metrics: Sequence[str] = DEFAULT_METRICS
    num_images: int = 50_000
    batch_size: int = 64
    split: str = "train"
    num_real: int | None = None
    neighbours: int = 5
    seed: int = 0
    psi: float = 1.0
    ema: bool = True
    path_samples: int = 50_000
    separability_samples: int = 200_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(PUBLISHED.get(name, name) for name in self.metrics))
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise ValueError(f"metrics {list(self.metrics)}: choose one or more of {', '.join(METRICS)}")
        if self.num_images < 2:
            raise ValueError(f"num_images is {self.num_images}; a distance needs 2 or more")
        for name in ("batch_size", "neighbours", "path_samples", "separability_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    @property
    def needs_extractor(self) -> bool:
        """Whether any of the metrics looks through the extractor that is chosen."""
        return any(name not in WITHOUT_EXTRACTOR for name in self.metrics)
