"""What an evaluation is asked to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lit_gans.metrics.catalog import chosen, defaults, looking_at, of
from lit_gans.metrics.segmentation import IGNORED

Labels = Literal["data", "uniform"]
METRICS, DEFAULT_METRICS = of("samples"), defaults("samples")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how. ValueError for settings that no evaluation can have.

    Args:
        metrics: names of `catalog.CATALOG`, of the metrics that the `kind` of what is measured has.
        kind: "samples", "images", "pairs", "captions" or "translations".
        num_images: measured images, of all processes together; None, which samples have not, for all.
        batch_size: images at a time, per process; changes no number.
        split: of the real images; `num_real` of them, or all.
        neighbours: k of precision, recall, density and coverage (3 in Kynkäänniemi et al., 5 in Naeem et al.).
        labels: of samples, drawn as often as the "data" have them, or all classes equally often ("uniform").
        seed, psi, ema: which samples, how truncated, of the averaged generator or of the generator itself.
        path_samples: paths of each perceptual path length; published ones have 50,000 or 100,000.
        equivariance_samples: of each of the metrics of equivariance; published 50,000.
        separability_samples: of which the half with the surest labels is used; published 200,000.
        num_segments, ignored: classes of the segmenter, and the true label that is not judged.
    """

    metrics: Sequence[str] = DEFAULT_METRICS
    kind: str = "samples"
    num_images: int | None = 50_000
    batch_size: int = 64
    split: str = "train"
    num_real: int | None = None
    neighbours: int = 5
    labels: Labels = "data"
    seed: int = 0
    psi: float = 1.0
    ema: bool = True
    path_samples: int = 50_000
    equivariance_samples: int = 50_000
    separability_samples: int = 200_000
    num_segments: int = 0
    ignored: int | None = IGNORED

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", chosen(self.metrics, self.kind))
        if self.kind == "samples" and (self.num_images is None or self.num_images < 2):
            raise ValueError(f"num_images is {self.num_images}; a distance needs 2 or more")
        if self.labels not in get_args(Labels):
            raise ValueError(f"labels {self.labels!r} is neither 'data' nor 'uniform'")
        for name in ("batch_size", "neighbours", "path_samples", "equivariance_samples", "separability_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    @property
    def needs_extractor(self) -> bool:
        """Whether any of the metrics looks through the extractor that is chosen."""
        return bool(self.looking_at("features"))

    def looking_at(self, *needs: str) -> list[str]:
        """Those of the metrics that look at any of the things: see `catalog.Metric.needs`."""
        return looking_at(self.metrics, *needs)


@dataclass(frozen=True, kw_only=True)
class TranslationPlan(Plan):
    """What is measured of a translator.

    Args:
        metrics: those of pairs need data in pairs.
        directions: numbers of "ba" have names that end in _ba.
        split: whose pictures are translated; num_images of them, or all.
        real_split: whose pictures of the other domain are the reals of the metrics of sets; None for `split`.
    """

    metrics: Sequence[str]
    kind: str = "translations"
    num_images: int | None = None
    batch_size: int = 16
    split: str = "test"
    directions: Sequence[str] = ("ab",)
    real_split: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.directions or not set(self.directions) <= {"ab", "ba"}:
            raise ValueError(f"directions {list(self.directions)}: choose of ab and ba")
