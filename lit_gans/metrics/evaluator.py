"""The evaluator: a generator (or a set of images) against real images, each number stamped with how it was measured."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_gans.base.processes import check_ranks, gather_rows
from lit_gans.metrics.extractors import Extractor
from lit_gans.metrics.measures import (
    NO_EXTRACTOR,
    Classes,
    FakeBatch,
    FeatureMeasure,
    Measure,
    ModeMeasure,
    PixelMeasure,
    identity,
)
from lit_gans.metrics.modes import STACKED_MODES
from lit_gans.metrics.path_length import SEED_STRIDE, Distance, check_space, measure_path_length
from lit_gans.metrics.plan import OF_GENERATOR, PATHS, WITHOUT_EXTRACTOR, Plan
from lit_gans.metrics.protocol import stamp
from lit_gans.metrics.reals import Progress, RealImages, real_indices, real_statistics
from lit_gans.metrics.separability import AttributeClassifier, measure_separability
from lit_gans.metrics.sources import Averages, HasStyles, Samples

_SHOWN = 2000
_SENSIBLE_REACH = 8.0  # networks without a last tanh overshoot by far less


@dataclass(frozen=True)
class Evaluation:
    """`values` by name, and the `protocol` of the measurement: numbers of different protocols are not comparable.

    What belongs to one number only stands in the protocol under "numbers"; `stamp` puts the two together.
    """

    values: dict[str, float]
    protocol: dict[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, dict]:
        return asdict(self)

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


class _Group(NamedTuple):
    """Where an evaluation runs: this process among all, its device, and whom it tells how far it is."""

    rank: int
    world: int
    device: torch.device
    cache_dir: Path | None
    progress: Progress | None

    def share(self, total: int) -> Tensor:
        """int64: which of `total` images are this process's."""
        return torch.arange(self.rank, total, self.world)


@torch.no_grad()
def evaluate_gan(
    gan: Samples,
    data: RealImages,
    *,
    extractor: Extractor | None,
    plan: Plan,
    distance: Distance | None = None,
    attributes: Mapping[str, AttributeClassifier] | None = None,
    rank: int = 0,
    world: int = 1,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    show: Show | None = None,
) -> Evaluation:
    """The values of `plan.num_images` samples against the reals of `plan.split`, on every process.

    Sample i has the generator's seed `seed` * 10^9 + i and, on a conditional model, a label that follows from i and has
    the distribution of the real labels. Process `rank` makes samples rank, rank + world, ...: `num_images` together.
    Nothing is sampled or extracted that no metric asks for: `extractor` may be None if not `plan.needs_extractor`.
    The network's modes and every random generator are as before afterwards. Metrics that do not apply are left out;
    the protocol says why. `distance` is that of perceptual path lengths (default: LPIPS on VGG16, as published),
    `attributes` classify for separability. `show` is given, on process 0, what pictures can be drawn from.
    ValueError for arguments that cannot be met, and for samples that are not finite.
    """
    check_ranks(rank, world)
    check_generator(gan, plan, attributes)
    if distance is None and any(name in PATHS for name in plan.metrics):
        distance = _published_distance(gan)
    labels = intended_labels(gan.num_classes, data, split=plan.split, num_images=plan.num_images, seed=plan.seed)
    group = _Group(rank, world, torch.device(gan.device), None if cache_dir is None else Path(cache_dir), progress)
    with undisturbed(gan, group.device):
        evaluation = _evaluate(_sampled(gan, labels, plan, group), data, extractor, plan, labels, group, show)
        _add_paths(evaluation, gan, plan, distance, group)
        _add_separability(evaluation, gan, plan, attributes, group)
    made_by = "ema" if plan.ema and isinstance(gan, Averages) and gan.averages() else "raw"
    evaluation.protocol.update(generator=made_by, images_seen=int(gan.images_seen), psi=plan.psi, seed=plan.seed)
    return evaluation


@torch.no_grad()
def evaluate_images(
    fake: RealImages,
    real: RealImages,
    *,
    extractor: Extractor | None,
    plan: Plan,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    show: Show | None = None,
) -> Evaluation:
    """The values of the first `plan.num_images` images of one set against another, on every process."""
    check_ranks(rank, world)
    if of_generator := [name for name in plan.metrics if name in OF_GENERATOR]:
        raise ValueError(f"{', '.join(of_generator)} are measured on a generator, not on images: name a run")
    count = len(fake.dataset("train"))
    if plan.num_images > count:
        raise ValueError(f"num_images is {plan.num_images}, but there are {count} images to evaluate")
    group = _Group(rank, world, torch.device(device), None if cache_dir is None else Path(cache_dir), progress)
    same = tuple(fake.class_names) == tuple(real.class_names)  # class 3 of one set is class 3 of the other
    labels = fake.dataset("train").labels if same else None
    labels = None if labels is None else labels[: plan.num_images]
    evaluation = _evaluate(_stored(fake, labels, plan, group), real, extractor, plan, labels, group, show)
    evaluation.protocol.update(generator="images", images=fake.fingerprint("train"))
    return evaluation


def check_generator(gan: Samples, plan: Plan, attributes: Mapping[str, AttributeClassifier] | None = None) -> None:
    """ValueError, before anything is measured, for metrics that this generator has not, or that lack a classifier."""
    if "separability" in plan.metrics and not attributes:
        raise ValueError("separability needs attribute classifiers: pass attributes={'smiling': module, ...} in Python")
    for name in plan.metrics:
        if name in PATHS:
            check_space(gan, PATHS[name]["space"])


def _published_distance(gan: Samples) -> Distance:
    from lit_gans.metrics.perceptual import build_lpips

    return build_lpips("vgg").to(gan.device)


def _add_paths(evaluation: Evaluation, gan: Samples, plan: Plan, distance: Distance | None, group: _Group) -> None:
    wanted = [name for name in plan.metrics if name in PATHS]
    for done, name in enumerate(wanted):
        if group.progress is not None:
            group.progress("path lengths", done, len(wanted))
        length = measure_path_length(
            gan, distance, num_samples=plan.path_samples, batch_size=plan.batch_size, rank=group.rank,
            world=group.world, seed=plan.seed, psi=plan.psi, ema=plan.ema, **PATHS[name],
        )  # fmt: skip
        evaluation.values[name] = length.item()
        named = {"distance": getattr(distance, "name", type(distance).__name__)}
        named |= {"distance_fingerprint": getattr(distance, "fingerprint", None), "path_samples": plan.path_samples}
        evaluation.protocol["numbers"][name] = {**NO_EXTRACTOR, **named, "n_real": None, "n_fake": None}


def _add_separability(
    evaluation: Evaluation,
    gan: Samples,
    plan: Plan,
    attributes: Mapping[str, AttributeClassifier] | None,
    group: _Group,
) -> None:
    if "separability" not in plan.metrics:
        return
    assert attributes
    score, entropies = measure_separability(
        gan, attributes, num_samples=plan.separability_samples, batch_size=plan.batch_size, rank=group.rank,
        world=group.world, seed=plan.seed, psi=plan.psi, ema=plan.ema,
        space="w" if isinstance(gan, HasStyles) else "z",
    )  # fmt: skip
    found = {"separability": score} | {f"separability_entropy_{name}": value for name, value in entropies.items()}
    own = {**NO_EXTRACTOR, "n_real": None, "n_fake": None, "samples": plan.separability_samples,
           "attributes": sorted(attributes)}  # fmt: skip
    for name, value in found.items():
        evaluation.values[name] = value.item()
        evaluation.protocol["numbers"][name] = own


def intended_labels(num_classes: int, data: RealImages, *, split: str, num_images: int, seed: int) -> Tensor | None:
    """int64 [num_images], each label as often as among the reals, in an order drawn from `seed`; None if unconditional.

    All classes equally often where the reals have no labels. ValueError where they have other classes than the model.
    """
    if num_classes == 0:
        return None
    labels = data.dataset(split).labels
    if labels is None:
        return torch.arange(num_images) % num_classes
    if data.num_classes != num_classes:
        raise ValueError(
            f"the model has {num_classes} classes and the data {data.num_classes}: evaluate on what it was trained on"
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return labels[order[torch.arange(num_images) % len(labels)]]


@contextmanager
def undisturbed(module: object, device: torch.device) -> Iterator[None]:
    """Afterwards every random generator and every module's training mode is as it was before."""
    import numpy as np

    modes = [(part, part.training) for part in module.modules()] if isinstance(module, nn.Module) else []
    python, numpy = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for part, training in modes:
            part.training = training


def _sampled(gan: Samples, labels: Tensor | None, plan: Plan, group: _Group) -> Iterator[FakeBatch]:
    """This process's share of the samples; none if there are fewer samples than processes."""
    from lit_gans.base.images import to_uint8

    mine = group.share(plan.num_images)
    for index in mine.split(plan.batch_size) if len(mine) else ():
        asked = None if labels is None else labels[index].to(gan.device)
        seeds = plan.seed * SEED_STRIDE + index
        images = gan.sample(seeds, labels=asked, psi=plan.psi, ema=plan.ema)
        _check_samples(images, seeds)
        yield FakeBatch(to_uint8(images), index, asked)


def _check_samples(images: Tensor, seeds: Tensor) -> None:
    """ValueError for what is no image in [-1, 1]: turned into bytes it would give a number that looks like one."""
    if not images.is_floating_point() or images.ndim != 4:
        raise ValueError(
            f"the generator gave {images.dtype} of shape {list(images.shape)}, expected float [N, C, H, W] in [-1, 1]"
        )
    broken = ~images.isfinite().flatten(1).all(dim=1)
    if broken.any():
        raise ValueError(
            f"the generator's image of seed {int(seeds[int(broken.nonzero()[0])])} holds NaN or infinity, and so do "
            f"{int(broken.sum())} of {len(seeds)} in its batch: no number is taken of them; evaluate an earlier "
            f"checkpoint"
        )
    reach = images.abs().amax().item()
    if reach > _SENSIBLE_REACH:
        warnings.warn(
            f"the generator's values reach {reach:.3g}, where images lie in [-1, 1]: what is outside is cut off. Is "
            f"its range [0, 255], or has it diverged?",
            stacklevel=2,
        )


def _stored(fake: RealImages, labels: Tensor | None, plan: Plan, group: _Group) -> Iterator[FakeBatch]:
    mine = group.share(plan.num_images)
    done = 0
    for batch in fake.batches("train", plan.batch_size, indices=mine):
        index = mine[done : done + len(batch["image"])]
        yield FakeBatch(batch["image"], index, None if labels is None else labels[index])
        done += len(index)


def _evaluate(
    fakes: Iterable[FakeBatch],
    data: RealImages,
    extractor: Extractor | None,
    plan: Plan,
    labels: Tensor | None,
    group: _Group,
    show: Show | None,
) -> Evaluation:
    """Reals first, then the fakes batch by batch, then the values; protocol without what only the caller knows."""
    indices = real_indices(len(data.dataset(plan.split)), plan.num_real)
    real_labels = data.dataset(plan.split).labels
    classes = Classes(data.num_classes, None if real_labels is None else real_labels[indices], labels)
    main = _main(data, extractor, plan, classes, group, pictures=show is not None)
    measures = [*([main] if main else []), *_asides(data, extractor, plan, classes, group)]
    pictures = _Pictures(group, data) if show is not None else None
    if measures:
        _see(fakes, [*measures, *([pictures] if pictures else [])], len(group.share(plan.num_images)), group)
    values = {name: value for measure in measures for name, value in measure.values().items()}
    settings = {name: own for measure in measures for name, own in measure.settings().items()}
    if pictures is not None:
        images = pictures.gathered()
        if group.rank == 0:
            show(Seen(*main.gathered, images, classes, indices))
    protocol = {
        **(identity(extractor) if plan.needs_extractor else NO_EXTRACTOR),
        "n_real": len(indices) if measures else None,
        "n_fake": plan.num_images if measures else None,
        "split": plan.split,
        "dataset": data.fingerprint(plan.split),
        "resolution": data.resolution,
        "skipped": main.skipped if main else {},
        "numbers": {name: dict(own) for name, own in settings.items() if own},
        "versions": versions(),
    }
    return Evaluation(values, protocol)


def _see(fakes: Iterable[FakeBatch], watchers: Sequence[Measure | _Pictures], mine: int, group: _Group) -> None:
    """Every batch of this process's `mine` generated images, once to each that watches."""
    done = 0
    for batch in fakes:
        for watcher in watchers:
            watcher.update(batch)
        done += len(batch.index)
        if group.progress is not None:
            group.progress("generated images", done, mine)
    assert done == mine, (done, mine)


def _main(
    data: RealImages, extractor: Extractor | None, plan: Plan, classes: Classes, group: _Group, *, pictures: bool
) -> FeatureMeasure | None:
    """What looks through the extractor that was chosen; None where neither a metric nor a picture does."""
    if extractor is None and (plan.needs_extractor or pictures):
        asked = ", ".join(plan.metrics) if plan.needs_extractor else "pictures of an evaluation"
        raise ValueError(f"{asked}: these need features, but extractor is None; see lit_gans.metrics.build_extractor")
    metrics = [name for name in plan.metrics if name not in (*WITHOUT_EXTRACTOR, "modes")]
    if not metrics and not pictures:
        return None
    return _features(data, extractor, metrics, plan, classes, group, keep_features=pictures)


def _asides(
    data: RealImages, extractor: Extractor | None, plan: Plan, classes: Classes, group: _Group
) -> Iterator[Measure]:
    if "random_frechet" in plan.metrics:
        from lit_gans.metrics.extractors import RandomInception

        yield _features(data, RandomInception(), ["frechet"], plan, classes, group, aside=True)
    if "swd" in plan.metrics:
        yield _pixels(data, plan, group)
    if "modes" in plan.metrics:
        yield _modes(extractor, classes, group)


def _features(
    data: RealImages,
    extractor: Extractor,
    metrics: Sequence[str],
    plan: Plan,
    classes: Classes,
    group: _Group,
    *,
    keep_features: bool = False,
    aside: bool = False,
) -> FeatureMeasure:
    measure = FeatureMeasure(
        extractor, metrics, classes=classes, neighbours=plan.neighbours, fakes=len(group.share(plan.num_images)),
        total=plan.num_images, device=group.device, keep_features=keep_features, aside=aside,
    )  # fmt: skip
    if not measure.wanted and not keep_features:
        return measure
    statistics = real_statistics(
        data, extractor, split=plan.split, num_real=plan.num_real, whole=measure.need_real_features,
        batch_size=plan.batch_size, rank=group.rank, world=group.world, folder=group.cache_dir, device=group.device,
        progress=group.progress,
    )  # fmt: skip
    measure.load_real(statistics)
    return measure


def _pixels(data: RealImages, plan: Plan, group: _Group) -> PixelMeasure:
    """With as many reals as there are generated images, drawn once and for all."""
    available = len(data.dataset(plan.split))
    if plan.num_images > available:
        raise ValueError(
            f"swd compares as many real images as generated ones, and split {plan.split!r} has {available} for "
            f"{plan.num_images}: use num_images of {available} or less, or leave swd out"
        )
    shape = {"resolution": data.resolution, "channels": data.channels}
    measure = PixelMeasure(count=plan.num_images, **shape, device=group.device)
    indices = real_indices(available, plan.num_images if plan.num_images < available else None)
    done, mine = 0, group.share(plan.num_images)
    for batch in data.batches(plan.split, plan.batch_size, indices=indices[mine]):
        measure.update_real(batch["image"], mine[done : done + len(batch["image"])])
        done += len(batch["image"])
        if group.progress is not None:
            group.progress("real images, pixels", done, len(mine))
    return measure


def _modes(extractor: Extractor, classes: Classes, group: _Group) -> ModeMeasure:
    if classes.count != STACKED_MODES or classes.real is None:
        raise ValueError(
            f"modes are counted on StackedMNIST, with {STACKED_MODES} classes; the data have {classes.count}"
        )
    frequencies = classes.real.bincount(minlength=STACKED_MODES)
    return ModeMeasure(extractor, frequencies, device=group.device)


class _Pictures:
    """Keeps the first generated images for whoever draws pictures of the evaluation."""

    def __init__(self, group: _Group, data: RealImages) -> None:
        self.device = group.device
        self.shape = (data.channels, data.resolution, data.resolution)
        self.images: list[Tensor] = []
        self.index: list[Tensor] = []

    def update(self, batch: FakeBatch) -> None:
        kept = batch.index < _SHOWN
        self.images.append(batch.images[kept.to(batch.images.device)].cpu())
        self.index.append(batch.index[kept])

    def gathered(self) -> Tensor:
        """uint8 [n, C, H, W] on the CPU, of all processes, which all must call it."""
        none = torch.empty(0, *self.shape, dtype=torch.uint8)
        images, index = torch.cat([none, *self.images]), torch.cat([torch.empty(0, dtype=torch.int64), *self.index])
        return gather_rows(images.to(self.device), index.to(self.device)).cpu()


def versions() -> dict[str, str]:
    """Of the packages that a number can depend on."""
    from importlib.metadata import version

    from lit_gans import __version__

    names = {"torch": "torch", "torchmetrics": "torchmetrics", "torch-fidelity": "torch_fidelity"}
    return {shown: version(package) for shown, package in names.items()} | {"lit_gans": __version__}
