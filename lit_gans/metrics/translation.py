"""How good a translator is: against each picture's partner, against the other domain as a whole, and by a segmenter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lit_gans.base.images import from_uint8, to_uint8
from lit_gans.base.processes import check_ranks
from lit_gans.metrics.evaluator import Evaluation, undisturbed, versions
from lit_gans.metrics.extractors import Extractor
from lit_gans.metrics.measures import NO_EXTRACTOR, Classes, FakeBatch, FeatureMeasure, identity
from lit_gans.metrics.pair_mean import PairMean
from lit_gans.metrics.paired import PAIR_METRICS, pair_measures
from lit_gans.metrics.perceptual import LPIPS
from lit_gans.metrics.plan import PUBLISHED
from lit_gans.metrics.reals import Progress, RealImages, real_indices, real_statistics
from lit_gans.metrics.segmentation import IGNORED, Segmentation, confusion, segment

OF_PAIRS = ("psnr", "ssim", "ms_ssim", "lpips", "segmentation")
OF_SETS = ("frechet", "kid", "precision", "recall", "density", "coverage")
TRANSLATION_METRICS = (*OF_PAIRS, *OF_SETS)
DEFAULT_OF_PAIRS, DEFAULT_OF_SETS = ("psnr", "ssim", "lpips"), ("frechet", "kid")


class Samples(Protocol):
    """Pictures by side: "a" and "b", or "label" (and "instance") and "b"."""

    sides: tuple[str, ...]

    def __len__(self) -> int: ...

    def fetch(self, indices: Tensor) -> dict[str, Tensor]: ...


class TranslationImages(Protocol):
    """What is asked of the data; `lit_gans.data.TranslationData` is it."""

    def dataset(self, split: str = "train") -> Samples: ...

    def domain(self, name: str) -> RealImages: ...

    def fingerprint(self, split: str = "train") -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...


class Model(Protocol):
    """What is asked of a translator: without `draws`, a translation depends on its image alone."""

    directions: tuple[str, ...]
    images_seen: int
    device: torch.device

    def translate(self, images: Tensor, *, direction: str = "ab") -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class TranslationPlan:
    """What is measured, and how. ValueError for settings that no evaluation can have.

    Args:
        metrics: some of `TRANSLATION_METRICS`, or "fid"; those of pairs need data in pairs.
        directions: numbers of "ba" have names that end in _ba.
        split: whose pictures are translated; num_images of them, or all.
        real_split: whose pictures of the other domain are the reals of the metrics of sets; None for `split`.
        num_real: how many of them, or all.
        batch_size: images at a time, per process; changes no number.
        neighbours: k of precision, recall, density and coverage.
        num_segments, ignored: classes of the segmenter, and the true label that is not judged.
    """

    metrics: Sequence[str]
    directions: Sequence[str] = ("ab",)
    split: str = "test"
    num_images: int | None = None
    real_split: str | None = None
    num_real: int | None = None
    batch_size: int = 16
    neighbours: int = 5
    num_segments: int = 0
    ignored: int | None = IGNORED

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(PUBLISHED.get(name, name) for name in self.metrics))
        unknown = [name for name in self.metrics if name not in TRANSLATION_METRICS]
        if unknown or not self.metrics:
            raise ValueError(f"metrics {list(self.metrics)}: choose one or more of {', '.join(TRANSLATION_METRICS)}")
        if not self.directions or not set(self.directions) <= {"ab", "ba"}:
            raise ValueError(f"directions {list(self.directions)}: choose of ab and ba")
        for name in ("batch_size", "neighbours"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if "segmentation" in self.metrics and self.num_segments < 2:
            raise ValueError(
                f"segmentation has num_segments {self.num_segments}: give the number of the segmenter's classes"
            )

    def of(self, names: Sequence[str]) -> list[str]:
        """Those of the metrics that are among `names`."""
        return [name for name in self.metrics if name in names]


@dataclass(frozen=True)
class Judges:
    """The networks that judge: features for metrics of sets, LPIPS, and a segmenter (see `segmentation.Segmenter`)."""

    extractor: Extractor | None = None
    lpips: LPIPS | None = None
    segmenter: nn.Module | None = None


class _Where(NamedTuple):
    """This process among all, where what is measured is kept, and whom to tell."""

    rank: int
    world: int
    device: torch.device
    cache_dir: Path | None
    progress: Progress | None


@torch.no_grad()
def evaluate_translator(
    model: Model,
    data: TranslationImages,
    *,
    plan: TranslationPlan,
    judges: Judges,
    generator: str = "raw",
    rank: int = 0,
    world: int = 1,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """The values of the translated pictures of `plan.split`, on every process, each with its protocol.

    Process `rank` translates pictures rank, rank + world, ... Modes of networks and random generators are as before
    afterwards. `generator` says which weights the model translates with: "raw", or "ema".
    ValueError for metrics without their judge, unpaired data or too few pictures for a metric, and for translations
    that are not finite.
    """
    check_ranks(rank, world)
    check_judges(plan, judges)
    device = torch.device(model.device)
    where = _Where(rank, world, device, None if cache_dir is None else Path(cache_dir), progress)
    values: dict[str, float] = {}
    numbers: dict[str, dict[str, object]] = {}
    with undisturbed(model, device):
        for direction in plan.directions:
            found, protocols = _evaluate(model, data, direction, plan, judges, where)
            ending = "" if direction == "ab" else f"_{direction}"
            values |= {f"{name}{ending}": value for name, value in found.items()}
            numbers |= {f"{name}{ending}": {"direction": direction, **own} for name, own in protocols.items()}
    height, width = data.size
    protocol = {
        **(identity(judges.extractor) if plan.of(OF_SETS) else NO_EXTRACTOR),
        "generator": generator,
        "images_seen": int(model.images_seen),
        "noise": "the same for all images",
        "split": plan.split,
        "dataset": data.fingerprint(plan.split),
        "resolution": width if width == height else [height, width],
        "numbers": numbers,
        "versions": versions(),
    }
    return Evaluation(values, protocol)


def check_judges(plan: TranslationPlan, judges: Judges) -> None:
    """ValueError, before anything is measured, for metrics that lack their network."""
    needs = {"an extractor": (plan.of(OF_SETS), judges.extractor), "lpips": (plan.of(["lpips"]), judges.lpips),
             "a segmenter": (plan.of(["segmentation"]), judges.segmenter)}  # fmt: skip
    for what, (metrics, judge) in needs.items():
        if metrics and judge is None:
            raise ValueError(f"{', '.join(metrics)} cannot be taken without {what}: give one, or leave them out")


def check_pairs(
    plan: TranslationPlan, judges: Judges, *, channels: int, size: tuple[int, int], num_labels: int = 0
) -> None:
    """ValueError, before anything is measured, for pictures that are too small for a metric of pairs, or a segmenter
    whose answer is none, or has other classes than the label maps."""
    black = torch.zeros(1, channels, *size, dtype=torch.uint8)
    for measure in _pair_means(plan, judges).values():
        measure.measure(black, black)
    if not plan.of(["segmentation"]):
        return
    assert judges.segmenter is not None
    if num_labels not in (0, plan.num_segments):
        raise ValueError(
            f"the segmenter has num_segments {plan.num_segments}, and the label maps {num_labels} labels: give one "
            f"that tells the data's labels apart"
        )
    device = next((parameter.device for parameter in judges.segmenter.parameters()), torch.device("cpu"))
    found = segment(judges.segmenter.eval(), black.to(device))
    confusion(found, found, plan.num_segments, ignored=None)


def _pair_means(plan: TranslationPlan, judges: Judges) -> dict[str, PairMean]:
    names = plan.of(PAIR_METRICS)
    return pair_measures(names, lpips=judges.lpips) if names else {}


# ---- one direction ---------------------------------------------------------------------------------------------------


class _Batch(NamedTuple):
    """Translated pictures uint8 [n, C, H, W] with their numbers, and of pairs the partners and the label maps, if any.

    index int64 [n], partner uint8 [n, C, H, W], labels int64 [n, H, W].
    """

    made: Tensor
    index: Tensor
    partner: Tensor | None
    labels: Tensor | None


def _evaluate(
    model: Model, data: TranslationImages, direction: str, plan: TranslationPlan, judges: Judges, where: _Where
) -> tuple[dict[str, float], dict[str, dict[str, object]]]:
    """(values, protocol of each) of one direction."""
    samples = samples_of(data, direction, plan)
    chosen = chosen_indices(len(samples), plan)
    mine = torch.arange(where.rank, len(chosen), where.world)
    measures: list[_Measure] = [_Pairs(plan, judges, len(chosen), where)]
    if plan.of(OF_SETS):
        measures.append(_Sets(data, direction, plan, judges, len(mine), len(chosen), where))
    if plan.of(["segmentation"]):
        measures.append(_Segments(plan, judges, len(chosen), where, labels="label" in samples.sides))
    done = 0
    for batch in _translated(model, samples, chosen, mine, direction, plan, where.device):
        for measure in measures:
            measure.update(batch)
        done += len(batch.index)
        if where.progress is not None:
            where.progress(f"translated {direction}", done, len(mine))
    assert done == len(mine), (done, len(mine))
    found = [measure.values() for measure in measures]
    values = {name: value for part in found for name, value in part.items()}
    return values, {n: own for m, part in zip(measures, found, strict=True) for n, own in m.protocols(part).items()}


def samples_of(data: TranslationImages, direction: str, plan: TranslationPlan) -> Samples:
    """What is translated: samples with their partners or label maps, else each picture of the domain once."""
    samples = data.dataset(plan.split)
    if plan.of(OF_PAIRS) or "label" in samples.sides:
        return samples
    return data.domain(direction[0]).dataset(plan.split)


def chosen_indices(length: int, plan: TranslationPlan) -> Tensor:
    """int64, sorted: which of a split's pictures are translated. ValueError where there are fewer than asked for."""
    if plan.num_images is not None and not 2 <= plan.num_images <= length:
        raise ValueError(
            f"num_images is {plan.num_images}; split {plan.split!r} has {length} pictures: use 2 to {length}, or None "
            f"for all"
        )
    return real_indices(length, plan.num_images)


def _translated(
    model: Model,
    samples: Samples,
    chosen: Tensor,
    mine: Tensor,
    direction: str,
    plan: TranslationPlan,
    device: torch.device,
) -> Iterator[_Batch]:
    """This process's share of the pictures `chosen`, batch by batch."""
    source, target = direction
    for index in mine.split(plan.batch_size) if len(mine) else ():
        batch = {name: pictures.to(device) for name, pictures in samples.fetch(chosen[index]).items()}
        images, others = _input(batch, source)
        made = model.translate(images, direction=direction, **others)
        broken = ~made.isfinite().flatten(1).all(dim=1)
        if broken.any():
            first = int(chosen[index][int(broken.nonzero()[0])])
            raise ValueError(
                f"the translation ({direction}) of picture {first} of split {plan.split!r} holds NaN or infinity: no "
                f"number is taken of it; evaluate an earlier checkpoint"
            )
        labels = batch["label"].long() if "label" in batch else None
        yield _Batch(to_uint8(made), index, batch.get(target), labels)


def _input(batch: Mapping[str, Tensor], source: str) -> tuple[Tensor, dict[str, Tensor]]:
    """(images in [-1, 1], what else the model is given) of pictures, or of label maps [n, H, W] and instances."""
    if "label" not in batch:
        return from_uint8(batch["image" if "image" in batch else source]), {}
    others = {"instance": batch["instance"].long()} if "instance" in batch else {}
    return from_uint8(batch["label"])[:, None], others


# ---- measures --------------------------------------------------------------------------------------------------------


class _Measure(ABC):
    """Numbers from one pass over the translated pictures, the same on every process."""

    @abstractmethod
    def update(self, batch: _Batch) -> None: ...

    @abstractmethod
    def values(self) -> dict[str, float]: ...

    @abstractmethod
    def protocols(self, values: Mapping[str, float]) -> dict[str, dict[str, object]]:
        """What belongs to the protocol of each of the values."""


def _of_pairs(count: int) -> dict[str, object]:
    return {**NO_EXTRACTOR, "n_real": None, "n_fake": None, "pairs": count}


class _Pairs(_Measure):
    """PSNR and its like."""

    def __init__(self, plan: TranslationPlan, judges: Judges, count: int, where: _Where) -> None:
        self.count = count
        self.means = {name: mean.to(where.device) for name, mean in _pair_means(plan, judges).items()}
        none = torch.empty(0, 3, 1, 1, dtype=torch.uint8, device=where.device)
        for mean in self.means.values():  # a process without pictures has (empty) state too
            mean.update(none, none)

    def update(self, batch: _Batch) -> None:
        for mean in self.means.values():
            mean.update(batch.made, batch.partner)

    def values(self) -> dict[str, float]:
        return {name: mean.compute().item() for name, mean in self.means.items()}

    def protocols(self, values: Mapping[str, float]) -> dict[str, dict[str, object]]:
        return {name: {**_of_pairs(self.count), **mean.settings} for name, mean in self.means.items()}


class _Sets(_Measure):
    """FID and its like: of all translations and all pictures of the other domain."""

    def __init__(
        self,
        data: TranslationImages,
        direction: str,
        plan: TranslationPlan,
        judges: Judges,
        fakes: int,
        total: int,
        where: _Where,
    ) -> None:
        assert judges.extractor is not None
        reals, self.split = data.domain(direction[1]), plan.real_split or plan.split
        self.fakes, self.reals = total, plan.num_real or len(reals.dataset(self.split))
        self.measure = FeatureMeasure(
            judges.extractor, plan.of(OF_SETS), classes=Classes(0), neighbours=plan.neighbours, fakes=fakes,
            total=total, device=where.device,
        )  # fmt: skip
        statistics = real_statistics(
            reals, judges.extractor, split=self.split, num_real=plan.num_real, batch_size=plan.batch_size,
            whole=self.measure.need_real_features, rank=where.rank, world=where.world, folder=where.cache_dir,
            device=where.device, progress=where.progress,
        )  # fmt: skip
        self.measure.load_real(statistics)

    def update(self, batch: _Batch) -> None:
        self.measure.update(FakeBatch(batch.made, batch.index))

    def values(self) -> dict[str, float]:
        return self.measure.values()

    def protocols(self, values: Mapping[str, float]) -> dict[str, dict[str, object]]:
        settings = self.measure.settings()
        shared = {"n_fake": self.fakes, "n_real": self.reals, "real_split": self.split}
        return {name: {**shared, **settings.get(name, {})} for name in values}


class _Segments(_Measure):
    """What a segmenter reads in the translations, against the label maps that they were made of, or their partners."""

    def __init__(self, plan: TranslationPlan, judges: Judges, count: int, where: _Where, *, labels: bool) -> None:
        assert judges.segmenter is not None
        self.count, self.segmenter = count, judges.segmenter.to(where.device).eval()
        self.metric = Segmentation(plan.num_segments, ignored=plan.ignored).to(where.device)
        none = torch.empty(0, 1, 1, dtype=torch.int64, device=where.device)
        self.metric.update(none, none)
        self.truth = "label maps" if labels else "the segmenter on the partner"

    def update(self, batch: _Batch) -> None:
        truth = segment(self.segmenter, batch.partner) if batch.labels is None else batch.labels
        self.metric.update(segment(self.segmenter, batch.made), truth)

    def values(self) -> dict[str, float]:
        scores = self.metric.compute()
        named = {"pixel_accuracy": scores.pixel_accuracy, "mean_class_accuracy": scores.class_accuracy,
                 "mean_iou": scores.mean_iou}  # fmt: skip
        return {name: value.item() for name, value in named.items()}

    def protocols(self, values: Mapping[str, float]) -> dict[str, dict[str, object]]:
        own = {**_of_pairs(self.count), **self.metric.settings, "segmenter": type(self.segmenter).__name__}
        return {name: {**own, "truth": self.truth} for name in values}
