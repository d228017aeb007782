"""What an evaluation takes from one pass over the generated images: each measure sees every batch once."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gans.metrics.conditioning import ClassAgreement
from lit_gans.metrics.extractors import Extractor, Features
from lit_gans.metrics.features import FeatureSet
from lit_gans.metrics.frechet import FrechetDistance, frechet_of_features
from lit_gans.metrics.kernel import kernel_distance
from lit_gans.metrics.manifold import manifold_overlap
from lit_gans.metrics.modes import StackedModes, stacked_logits
from lit_gans.metrics.reals import RealStatistics
from lit_gans.metrics.score import ClassScore
from lit_gans.metrics.sliced_wasserstein import SlicedWasserstein

KERNEL_SUBSETS, KERNEL_SUBSET_SIZE, KERNEL_SEED = 100, 1000, 0
SCORE_SPLITS = 10
NO_EXTRACTOR = {"extractor": None, "extractor_fingerprint": None, "resize": None}
OVERLAPS = ("precision", "recall", "density", "coverage")
PAIRED_SETS = ("kid", "intra_frechet", *OVERLAPS)
"""Metrics of features that need all of them on both sides, not only their moments."""


class FakeBatch(NamedTuple):
    """images uint8 [n, C, H, W]; their numbers in the whole, index int64 [n]; the intended classes labels int64 [n]."""

    images: Tensor
    index: Tensor
    labels: Tensor | None = None


class Classes(NamedTuple):
    """Classes of all real and all generated images in their global order, int64, or None; and how many there are."""

    count: int
    real: Tensor | None = None
    fake: Tensor | None = None


class Measure(ABC):
    """Numbers from one pass over the generated images, the same on every process."""

    @abstractmethod
    def update(self, batch: FakeBatch) -> None: ...

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Name to number, of all processes together; every process must call it."""

    @abstractmethod
    def settings(self) -> dict[str, dict[str, object]]:
        """By number, what belongs to its protocol beside, or instead of, what the evaluation's numbers share."""


def published_name(metric: str, extractor: str) -> str:
    """The number's name: the published one (fid, sfid, rfid, kid, is) only on the network that it is published on."""
    published = {
        "inception": {"frechet": "fid", "spatial_frechet": "sfid", "intra_frechet": "intra_fid", "kid": "kid",
                      "is": "is"},
        "random_inception": {"frechet": "rfid"},
    }  # fmt: skip
    plain = {"kid": "kernel", "is": "score"}.get(metric, metric)
    return published.get(extractor, {}).get(metric, f"{plain}_{extractor}")


class FeatureMeasure(Measure):
    """All that follows from one extractor's features and logits; images go through it once.

    Args:
        metrics: of "frechet", "spatial_frechet", "intra_frechet", "kid", "is", `OVERLAPS`, "class_accuracy"; those that
            cannot be had are in `skipped`, with the reason.
        neighbours: k of `OVERLAPS`.
        fakes: how many generated images this process will see, and `total` all processes together.
        keep_features: both sets of features are wanted whatever the metrics.
        aside: the extractor is not the one that the evaluation's protocol names.

    Raises:
        ValueError: "intra_frechet" with a class of fewer than two images on a side.
    """

    def __init__(
        self,
        extractor: Extractor,
        metrics: Sequence[str],
        *,
        classes: Classes,
        neighbours: int,
        fakes: int,
        total: int,
        device: torch.device,
        keep_features: bool = False,
        aside: bool = False,
    ) -> None:
        self.aside = aside
        self.extractor, self.metrics, self.device = extractor.to(device), tuple(metrics), device
        self.classes, self.neighbours = classes, neighbours
        self.skipped = self._not_applicable()
        self.wanted = [name for name in metrics if name not in self.skipped]
        if "intra_frechet" in self.wanted:
            _check_classes(classes)
        width, known = extractor.num_features, extractor.num_classes
        self.frechet = FrechetDistance(width).to(device) if "frechet" in self.wanted else None
        spatial = "spatial_frechet" in self.wanted
        self.spatial = FrechetDistance(extractor.num_spatial).to(device) if spatial else None
        self.need_real_features = keep_features or any(name in PAIRED_SETS for name in self.wanted)
        self.real, self.fake = FeatureSet(width).to(device), FeatureSet(width, capacity=fakes).to(device)
        self.radii = FeatureSet(1).to(device)
        self.score = ClassScore(known, splits=SCORE_SPLITS).to(device) if "is" in self.wanted else None
        agree = "class_accuracy" in metrics and known == classes.count > 0
        self.agreement = ClassAgreement(known).to(device) if agree else None
        self.gathered: tuple[Tensor, Tensor] | None = None
        self._warn_if_few(total)
        self._start()

    def _not_applicable(self) -> dict[str, str]:
        """Which of the wanted metrics cannot be had here, and why."""
        skipped, known, extractor = {}, self.extractor.num_classes, self.extractor
        if known == 0:
            skipped["is"] = f"extractor {extractor.name} has no classes"
        if extractor.num_spatial == 0:
            skipped["spatial_frechet"] = f"extractor {extractor.name} has no spatial features"
        if known != self.classes.count or known == 0:
            skipped["class_accuracy"] = f"the extractor knows {known} classes, the data {self.classes.count}"
        elif self.classes.fake is None:
            skipped["class_accuracy"] = "no class is asked for: shares only"
        if self.classes.real is None or self.classes.fake is None:
            side = "real" if self.classes.real is None else "generated"
            skipped["intra_frechet"] = f"the {side} images have no classes"
        return {name: why for name, why in skipped.items() if name in self.metrics}

    def _warn_if_few(self, total: int) -> None:
        """The covariance of D features needs more than D images."""
        if self.frechet is not None and total <= self.extractor.num_features:
            warnings.warn(
                f"{total} generated images are too few for the covariance of {self.extractor.num_features} "
                f"features: the Fréchet distance comes out much too large; use more than "
                f"{self.extractor.num_features}, and 50,000 for a number to publish",
                stacklevel=8,  # the caller of evaluate_gan, which a decorator wraps
            )

    def _start(self) -> None:
        """A process without images has (empty) state too."""
        none = torch.empty(0, self.extractor.num_features, device=self.device)
        no_logits = torch.empty(0, self.extractor.num_classes, device=self.device)
        no_spatial = torch.empty(0, self.extractor.num_spatial, device=self.device)
        self._take(Features(none, no_logits, no_spatial), FakeBatch(none, torch.empty(0, dtype=torch.int64)))
        self.radii.update(torch.empty(0, 1, dtype=torch.float64, device=self.device))
        self.real.update(none)
        if self.frechet is not None:
            self.frechet.update(none, real=True)
        if self.spatial is not None:
            self.spatial.update(no_spatial, real=True)

    def load_real(self, statistics: RealStatistics | None) -> None:
        """The real side, on the process that has it (the sums over processes then count it once)."""
        if statistics is None:
            return
        if self.frechet is not None:
            self.frechet.load_real(*statistics.moments)
        if self.spatial is not None:
            assert statistics.spatial is not None
            self.spatial.load_real(*statistics.spatial)
        if self.need_real_features:
            self.real.update(statistics.features.to(self.device))
        if self._overlaps():
            radii = statistics.radii(k=self.neighbours, device=self.device)
            self.radii.update(radii.to(self.device)[:, None])

    def _overlaps(self) -> list[str]:
        return [name for name in OVERLAPS if name in self.wanted]

    def update(self, batch: FakeBatch) -> None:
        self._take(self.extractor.extract(batch.images.to(self.device)), batch)

    def _take(self, extracted: Features, batch: FakeBatch) -> None:
        if self.frechet is not None:
            self.frechet.update(extracted.features, real=False)
        if self.spatial is not None:
            self.spatial.update(extracted.spatial, real=False)
        if self.need_real_features:
            self.fake.update(extracted.features, batch.index)
        if self.score is not None:
            self.score.update(extracted.logits, batch.index)
        if self.agreement is not None:
            self.agreement.update(extracted.logits, batch.labels)

    def values(self) -> dict[str, float]:
        found: dict[str, Tensor] = {}
        for metric, distance in (("frechet", self.frechet), ("spatial_frechet", self.spatial)):
            if distance is not None:
                found[self._name(metric)] = distance.compute()
        if self.need_real_features:
            found |= self._from_sets()
        if self.score is not None:
            scores = self.score.compute()
            found[self._name("is")] = scores.mean()
            found[f"{self._name('is')}_std"] = scores.std(correction=0)
        if self.agreement is not None:
            accuracy, shares = self.agreement.compute()
            asked = {"class_accuracy": accuracy} if self.classes.fake is not None else {}
            found |= {**asked, "class_share_min": shares.min()}
        return {key: value.item() for key, value in found.items()}

    def _from_sets(self) -> dict[str, Tensor]:
        real, fake = self.gathered = self.real.gathered(), self.fake.gathered()
        found: dict[str, Tensor] = {}
        if "kid" in self.wanted:
            subsets = {"subsets": KERNEL_SUBSETS, "subset_size": KERNEL_SUBSET_SIZE, "seed": KERNEL_SEED}
            found[self._name("kid")] = kernel_distance(real, fake, **subsets)
        if "intra_frechet" in self.wanted:
            found[self._name("intra_frechet")] = intra_class_frechet(real, fake, self.classes)
        if names := self._overlaps():
            radii = self.radii.gathered().flatten()
            overlap = manifold_overlap(real, fake, k=self.neighbours, real_radii=radii)
            found |= {f"{name}_k{self.neighbours}": getattr(overlap, name) for name in names}
        return found

    def _name(self, metric: str) -> str:
        return published_name(metric, self.extractor.name)

    def settings(self) -> dict[str, dict[str, object]]:
        shared = identity(self.extractor) if self.aside else {}
        own: dict[str, dict[str, object]] = {self._name(m): {} for m in self.wanted if m not in OVERLAPS}
        if "kid" in self.wanted:
            subsets = {"kid_subsets": KERNEL_SUBSETS, "kid_subset_size": KERNEL_SUBSET_SIZE, "kid_seed": KERNEL_SEED}
            own[self._name("kid")] = subsets
        if "is" in self.wanted:
            own |= {name: {"splits": SCORE_SPLITS} for name in (self._name("is"), f"{self._name('is')}_std")}
        return {name: {**shared, **settings} for name, settings in own.items()}


def identity(extractor: Extractor) -> dict[str, object]:
    """An extractor's part of a protocol."""
    return {
        "extractor": extractor.name, "extractor_fingerprint": extractor.fingerprint, "resize": extractor.resize
    }  # fmt: skip


def intra_class_frechet(real: Tensor, fake: Tensor, classes: Classes) -> Tensor:
    """Mean over the classes of the Fréchet distance within each (Miyato and Koyama, 2018, Sec. 4), float64 scalar.

    real [N, D], fake [M, D] in the order of `classes`' labels. With fewer images in a class than features it comes out
    too large, by as much for each model that is measured with the same numbers of images.
    """
    per_class = [
        frechet_of_features(real[(classes.real == c).to(real.device)], fake[(classes.fake == c).to(fake.device)])
        for c in range(classes.count)
    ]
    return torch.stack(per_class).mean()


def _check_classes(classes: Classes) -> None:
    for side, labels in (("real", classes.real), ("generated", classes.fake)):
        counts = labels.bincount(minlength=classes.count)
        if counts.min() < 2:
            c = int(counts.argmin())
            raise ValueError(
                f"intra_frechet needs two images or more of every class, and class {c} has {int(counts[c])} {side} "
                f"images: measure more images, or leave intra_frechet out"
            )


class PixelMeasure(Measure):
    """The sliced Wasserstein distance, which needs no network: of images themselves, `count` on either side."""

    def __init__(self, *, count: int, resolution: int, channels: int, device: torch.device) -> None:
        self.count = count
        self.metric = SlicedWasserstein(resolution, channels).to(device)
        self.device = device
        none = torch.empty(0, channels, resolution, resolution, dtype=torch.uint8, device=device)
        for real in (True, False):  # a process without images has (empty) state too
            self.metric.update(none, real=real, index=torch.empty(0, dtype=torch.int64))

    def update_real(self, images: Tensor, index: Tensor) -> None:
        """images uint8 [n, C, H, W] with their numbers in the whole, index int64 [n]."""
        self.metric.update(images.to(self.device), real=True, index=index)

    def update(self, batch: FakeBatch) -> None:
        self.metric.update(batch.images.to(self.device), real=False, index=batch.index)

    def values(self) -> dict[str, float]:
        levels = self.metric.compute()
        return {f"swd_{level}" if level != "mean" else "swd": value.item() for level, value in levels.items()}

    def settings(self) -> dict[str, dict[str, object]]:
        metric = self.metric
        own = {**NO_EXTRACTOR, "n_real": self.count, "patches": metric.patches, "patch_px": metric.patch_px,
               "swd_seed": metric.seed, "directions": metric.directions * metric.repeats}  # fmt: skip
        return {name: own for name in ("swd", *(f"swd_{px}" for px in metric.levels))}


class ModeMeasure(Measure):
    """Modes of stacked MNIST, told apart by a classifier of its digits; `frequencies` [1000] are the real ones."""

    def __init__(self, extractor: Extractor, frequencies: Tensor, *, device: torch.device) -> None:
        self.extractor, self.device = extractor.to(device), device
        self.metric = StackedModes(frequencies).to(device)
        self.metric.update(torch.empty(0, 3, 10, device=device))

    def update(self, batch: FakeBatch) -> None:
        self.metric.update(stacked_logits(self.extractor, batch.images.to(self.device)))

    def values(self) -> dict[str, float]:
        modes, divergence = self.metric.compute()
        return {"modes": modes.item(), "mode_divergence": divergence.item()}

    def settings(self) -> dict[str, dict[str, object]]:
        return {}
