"""The evaluator: whatever makes images against real images, partners or captions, each number stamped with its how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from lit_gans import __version__
from lit_gans.base.precision import with_double
from lit_gans.base.processes import check_ranks, gather_rows, is_distributed
from lit_gans.metrics.catalog import CATALOG
from lit_gans.metrics.extractors import Extractor
from lit_gans.metrics.measures import NO_EXTRACTOR, Classes, Context, FakeBatch, FeatureSets, Judges, Measure, identity
from lit_gans.metrics.path_length import Distance
from lit_gans.metrics.plan import Plan
from lit_gans.metrics.protocol import stamp
from lit_gans.metrics.reals import Progress, RealImages
from lit_gans.metrics.separability import AttributeClassifier
from lit_gans.metrics.sources import Samples
from lit_gans.metrics.subjects import DrawnImages, StoredImages, Subject, undisturbed

_SHOWN = 2000


@dataclass(frozen=True)
class Evaluation:
    """`values` by name, and the `protocol` of the measurement: numbers of different protocols are not comparable.

    What belongs to one number only stands in the protocol under "numbers"; `stamp` puts the two together.
    """

    values: dict[str, float]
    protocol: dict[str, Any] = field(default_factory=dict)

    def stamp(self, name: str) -> dict[str, object]:
        """The whole protocol of the number `name`."""
        return stamp(self.protocol, name)


class Seen(NamedTuple):
    """What pictures of an evaluation are drawn from; rows are in the order of the images' numbers.

    real [N, D], fake [M, D]: features; images uint8 [n, C, H, W]: the first generated ones; classes of both sides;
    indices int64 [N]: the real images' places in the split.
    """

    real: Tensor
    fake: Tensor
    images: Tensor
    classes: Classes
    indices: Tensor


Show = Callable[[Seen], None]


@torch.no_grad()
def evaluate(
    subjects: Subject | Sequence[Subject],
    *,
    plan: Plan,
    judges: Judges,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    show: Show | None = None,
) -> Evaluation:
    """The values of the subjects, on every process, each with its protocol.

    Process `rank` makes images rank, rank + world, ... of each. Nothing is made or extracted that no metric asks for.
    Networks' modes and every random generator are as before afterwards. Metrics that do not apply are left out; the
    protocol says why. Images are made on `device`, and measured there too, or on the CPU where it has no float64.
    `show` is given, on process 0, what pictures can be drawn from.
    ValueError for metrics that lack their network, or that the subjects have not, and for images that are broken.
    """
    check_ranks(rank, world)
    found = []
    for subject in [subjects] if isinstance(subjects, Subject) else subjects:
        with undisturbed(subject.model, torch.device(device)):
            context = _context(subject, plan, judges, device, rank, world)
            context.cache_dir, context.progress = None if cache_dir is None else Path(cache_dir), progress
            found.append(_evaluate(context, show))
    return together(found)


def check(subjects: Sequence[Subject], *, plan: Plan, judges: Judges, device: torch.device | str = "cpu") -> None:
    """ValueError for what `evaluate` would refuse before it measures."""
    for subject in subjects:
        _measures(_context(subject, plan, judges, device, 0, 1), None)


def together(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation with all numbers; what the first ones say of the protocol holds."""
    values: dict[str, float] = {}
    protocol: dict[str, Any] = {}
    for each in evaluations:
        numbers = {**protocol.get("numbers", {}), **each.protocol["numbers"]}
        protocol = {**each.protocol, **protocol, "numbers": numbers}
        values |= each.values
    return Evaluation(values, protocol)


def evaluate_gan(
    gan: Samples,
    data: RealImages,
    *,
    extractor: Extractor | None,
    plan: Plan,
    distance: Distance | None = None,
    attributes: Mapping[str, AttributeClassifier] | None = None,
    **where: Any,
) -> Evaluation:
    """`evaluate` of `plan.num_images` samples against the reals of `plan.split`.

    `extractor` may be None if not `plan.needs_extractor`. `distance` is that of perceptual path lengths (default: LPIPS
    on VGG16, as published), `attributes` classify for separability. `where`: rank, world, cache_dir, progress, show.
    """
    judges = Judges(extractor, distance, classifiers=attributes)
    return evaluate(DrawnImages(gan, data, plan), plan=plan, judges=judges, device=gan.device, **where)


def evaluate_images(
    fake: RealImages, real: RealImages, *, extractor: Extractor | None, plan: Plan, **where: Any
) -> Evaluation:
    """`evaluate` of the first `plan.num_images` images of one set against another; `where` has `device` too."""
    if of_generator := plan.looking_at("latents"):
        raise ValueError(f"{', '.join(of_generator)} are measured on a generator, not on images: name a run")
    return evaluate(StoredImages(fake, real, plan), plan=plan, judges=Judges(extractor), **where)


# ---- one subject -----------------------------------------------------------------------------------------------------


def _context(
    subject: Subject, plan: Plan, judges: Judges, device: torch.device | str, rank: int, world: int
) -> Context:
    reals = subject.reals
    classes = Classes(0)
    if reals is not None:
        labels = reals.data.dataset(reals.split).labels
        indices = reals.indices
        of_reals = None if labels is None else labels[indices]
        classes = Classes(reals.data.num_classes, of_reals, subject.labels)
    return Context(subject, reals, plan, judges, classes, rank, world, with_double(device))


def _measures(context: Context, show: Show | None) -> list[Measure]:
    """Of the metrics in the order of the catalog; first what several of them share."""
    plan = context.plan
    if context.judges.extractor is None and (plan.needs_extractor or show is not None):
        asked = ", ".join(plan.metrics) if plan.needs_extractor else "pictures of an evaluation"
        raise ValueError(f"{asked}: these need features, but extractor is None; see lit_gans.metrics.build_extractor")
    context.subject.check(context)
    built = [metric.measure(context) for metric in CATALOG.values() if metric.name in plan.metrics]
    pictures = [] if show is None else [_Pictures(context, show)]
    return [*context.shared(), *(measure for measure in built if measure is not None), *pictures]


def _evaluate(context: Context, show: Show | None) -> Evaluation:
    """Reals first, then the images batch by batch, then the values."""
    plan, subject = context.plan, context.subject
    measures = _measures(context, show)
    for measure in measures:
        measure.begin()
    watching = [measure for measure in measures if measure.of_images]
    if watching:
        _see(context, watching)
    values: dict[str, float] = {}
    numbers: dict[str, dict[str, object]] = {}
    for measure in measures:
        for name, value in measure.values().items():
            values[f"{name}{subject.ending}"] = value
            if own := {**subject.of_number(name), **measure.settings()}:
                numbers[f"{name}{subject.ending}"] = own
    looked = identity(context.extractor) if plan.needs_extractor else NO_EXTRACTOR
    shared = {**looked, "numbers": numbers, "versions": versions()}
    if (reals := context.reals) is not None:
        shared |= {"n_real": len(reals.indices) if watching else None, "n_fake": subject.total if watching else None}
        shared |= {"split": reals.split, "dataset": reals.data.fingerprint(reals.split)}
        shared |= {"resolution": reals.data.resolution}
    return Evaluation(values, subject.protocol(context, shared))


def _see(context: Context, measures: Sequence[Measure]) -> None:
    """Every batch of this process's images, once to each measure; a failure here ends the other processes too."""
    mine, done = context.share(context.subject.total), 0
    failure: Exception | None = None
    try:
        for batch in context.subject.batches(mine, context.plan.batch_size):
            _update(measures, batch.on(context.device))
            done += len(batch.index)
            context.tell(context.subject.what, done, len(mine))
        assert done == len(mine), (done, len(mine))
    except Exception as error:  # re-raised below, after the others are told
        failure = error
    _raise_on_all(failure)


def _update(measures: Sequence[Measure], batch: FakeBatch) -> None:
    try:
        for measure in measures:
            measure.update(batch)
    except ValueError as error:
        if batch.name:
            raise ValueError(f"{batch.name}: {error}") from error
        raise


def _raise_on_all(failure: Exception | None) -> None:
    """Raises on every process where one failed: the others would wait for its sums for ever."""
    if is_distributed():
        told: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(told, None if failure is None else str(failure))
        first = next((number for number, text in enumerate(told) if text is not None), None)
        if failure is None and first is not None:
            raise RuntimeError(f"process {first} failed: {told[first]}")
    if failure is not None:
        raise failure


class _Pictures(Measure):
    """Keeps the first generated images, and hands them with all features to whoever draws pictures."""

    def __init__(self, context: Context, show: Show) -> None:
        assert context.reals is not None
        self.context, self.reals, self.show = context, context.reals, show
        self.sets = context.one(FeatureSets)
        self.images: list[Tensor] = []
        self.index: list[Tensor] = []

    def update(self, batch: FakeBatch) -> None:
        kept = batch.index < _SHOWN
        self.images.append(batch.images[kept.to(batch.images.device)].cpu())
        self.index.append(batch.index[kept])

    def values(self) -> dict[str, float]:
        data, device = self.reals.data, self.context.device
        none = torch.empty(0, data.channels, data.resolution, data.resolution, dtype=torch.uint8)
        images, index = torch.cat([none, *self.images]), torch.cat([torch.empty(0, dtype=torch.int64), *self.index])
        shown, sides = gather_rows(images.to(device), index.to(device)).cpu(), self.sets.gathered()
        if self.context.rank == 0:
            self.show(Seen(*sides, shown, self.context.classes, self.reals.indices))
        return {}


def versions() -> dict[str, str]:
    """Of the packages that a number can depend on."""
    from importlib.metadata import version

    names = {"torch": "torch", "torchmetrics": "torchmetrics", "torch-fidelity": "torch_fidelity"}
    return {shown: version(package) for shown, package in names.items()} | {"lit_gans": __version__}
