"""The evaluator: a generator (or a set of images) against real images, each number stamped with how it was measured."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lit_gans.metrics.conditioning import ClassAgreement
from lit_gans.metrics.extractors import Extractor
from lit_gans.metrics.features import TwoFeatureSets
from lit_gans.metrics.frechet import FrechetDistance
from lit_gans.metrics.kernel import KernelDistance
from lit_gans.metrics.manifold import PrecisionRecall
from lit_gans.metrics.ranks import check_ranks
from lit_gans.metrics.reals import Progress, RealImages, RealStatistics, real_statistics
from lit_gans.metrics.score import ClassScore

METRICS = ("frechet", "kid", "is", "precision", "recall", "class_accuracy")
NEIGHBOURS = 5
_SEED_STRIDE = 10**9  # evaluation with seed s uses the generator's seeds from s * 10^9 on


class Sampler(Protocol):
    """What is asked of a generator; `lit_gans.adversarial.gan.GAN` is one."""

    num_classes: int
    images_seen: int
    generator_ema: nn.Module | None
    device: torch.device

    def sample(self, seeds: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor: ...


@dataclass(frozen=True)
class Evaluation:
    """`values` by name, and the `protocol` of the measurement: numbers of different protocols are not comparable."""

    values: dict[str, float]
    protocol: dict[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, dict]:
        return asdict(self)


class FakeBatch(NamedTuple):
    """images uint8 [n, C, H, W]; their numbers in the whole, index int64 [n]; the intended classes labels int64 [n]."""

    images: Tensor
    index: Tensor
    labels: Tensor | None = None


@torch.no_grad()
def evaluate_gan(
    gan: Sampler,
    data: RealImages,
    *,
    extractor: Extractor,
    num_images: int,
    metrics: Sequence[str] = METRICS,
    batch_size: int = 64,
    split: str = "train",
    num_real: int | None = None,
    seed: int = 0,
    psi: float = 1.0,
    ema: bool = True,
    rank: int = 0,
    world: int = 1,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """The values of `num_images` samples against the reals of `split` (all, or `num_real` of them), on every process.

    Sample i has the generator's seed `seed` * 10^9 + i and, on a conditional model, a label that follows from i and has
    the distribution of the real labels. Process `rank` makes samples rank, rank + world, ...: `num_images` together.
    The network's modes and every random generator are as before afterwards. Metrics that do not apply are left out;
    the protocol says why. ValueError for arguments that cannot be met.
    """
    check_ranks(rank, world)
    check_settings(metrics, num_images=num_images, batch_size=batch_size)
    labels = intended_labels(gan.num_classes, data, split=split, num_images=num_images, seed=seed)
    device = torch.device(gan.device)
    with undisturbed(gan, device):
        fakes = _sampled(gan, labels, num_images, batch_size, seed, psi, ema, rank, world)
        evaluation = _evaluate(
            fakes, data, extractor=extractor, num_images=num_images, metrics=metrics, batch_size=batch_size,
            split=split, num_real=num_real, conditional=labels is not None, rank=rank, world=world,
            cache_dir=cache_dir, device=device, progress=progress,
        )  # fmt: skip
    made_by = "ema" if ema and gan.generator_ema is not None else "raw"
    evaluation.protocol.update(generator=made_by, images_seen=int(gan.images_seen), psi=psi, seed=seed)
    return evaluation


@torch.no_grad()
def evaluate_images(
    fake: RealImages,
    real: RealImages,
    *,
    extractor: Extractor,
    num_images: int | None = None,
    metrics: Sequence[str] = METRICS,
    batch_size: int = 64,
    split: str = "train",
    num_real: int | None = None,
    device: torch.device | str = "cpu",
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """The values of the first `num_images` images (default: all) of one set against another, in one process."""
    count = len(fake.dataset("train"))
    num_images = count if num_images is None else num_images
    check_settings(metrics, num_images=num_images, batch_size=batch_size)
    if num_images > count:
        raise ValueError(f"num_images is {num_images}, but there are {count} images to evaluate")
    evaluation = _evaluate(
        _stored(fake, num_images, batch_size), real, extractor=extractor, num_images=num_images, metrics=metrics,
        batch_size=batch_size, split=split, num_real=num_real, conditional=False, rank=0, world=1, cache_dir=cache_dir,
        device=torch.device(device), progress=progress,
    )  # fmt: skip
    evaluation.protocol.update(generator="images", images=fake.fingerprint("train"))
    return evaluation


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


def _sampled(
    gan: Sampler,
    labels: Tensor | None,
    num_images: int,
    batch_size: int,
    seed: int,
    psi: float,
    ema: bool,
    rank: int,
    world: int,
) -> Iterator[FakeBatch]:
    """This process's share of the samples; none if there are fewer samples than processes."""
    from lit_gans.images import to_uint8

    mine = torch.arange(rank, num_images, world)
    for index in mine.split(batch_size) if len(mine) else ():
        asked = None if labels is None else labels[index].to(gan.device)
        images = gan.sample(seed * _SEED_STRIDE + index, labels=asked, psi=psi, ema=ema)
        yield FakeBatch(to_uint8(images), index, asked)


def _stored(images: RealImages, num_images: int, batch_size: int) -> Iterator[FakeBatch]:
    done = 0
    for batch in images.batches("train", batch_size, indices=torch.arange(num_images)):
        index = torch.arange(done, done + len(batch["image"]))
        yield FakeBatch(batch["image"], index)
        done += len(index)


def _evaluate(
    fakes: Iterable[FakeBatch],
    data: RealImages,
    *,
    extractor: Extractor,
    num_images: int,
    metrics: Sequence[str],
    batch_size: int,
    split: str,
    num_real: int | None,
    conditional: bool,
    rank: int,
    world: int,
    cache_dir: str | Path | None,
    device: torch.device,
    progress: Progress | None,
) -> Evaluation:
    """Reals first, then the fakes batch by batch, then the values; protocol without what only the caller knows."""
    extractor = extractor.to(device)
    measures = Measures(extractor, metrics, num_classes=data.num_classes, conditional=conditional, device=device)
    measures.warn_if_few(num_images)
    statistics = real_statistics(
        data, extractor, split=split, num_real=num_real, whole=measures.need_real_features, batch_size=batch_size,
        rank=rank, world=world, folder=None if cache_dir is None else Path(cache_dir), device=device, progress=progress,
    )  # fmt: skip
    measures.load_real(statistics)
    done, mine = 0, len(range(rank, num_images, world))
    for batch in fakes:
        measures.update(batch)
        done += len(batch.index)
        if progress is not None:
            progress("generated images", done, mine)
    assert done == mine, (done, mine)
    count = len(data.dataset(split)) if num_real is None else num_real
    return Evaluation(measures.values(), _protocol(extractor, measures, data, split, count, num_images))


class Measures:
    """The metric objects of one evaluation, fed with each batch once and asked for values once."""

    def __init__(
        self, extractor: Extractor, metrics: Sequence[str], *, num_classes: int, conditional: bool, device: torch.device
    ) -> None:
        self.extractor, self.metrics, self.device = extractor, tuple(metrics), device
        self.skipped = self._not_applicable(num_classes, conditional)
        wanted = [name for name in metrics if name not in self.skipped]
        width, classes = extractor.num_features, extractor.num_classes
        self.frechet = FrechetDistance(width).to(device) if "frechet" in wanted else None
        self.kernel = KernelDistance(width).to(device) if "kid" in wanted else None
        self.score = ClassScore(classes).to(device) if "is" in wanted else None
        near = "precision" in wanted or "recall" in wanted
        self.manifold = PrecisionRecall(width, k=NEIGHBOURS).to(device) if near else None
        classify = "class_accuracy" in metrics and classes == num_classes > 0
        self.classes = ClassAgreement(classes).to(device) if classify else None
        self.conditional = conditional
        self._start()

    def _not_applicable(self, num_classes: int, conditional: bool) -> dict[str, str]:
        """Which of the wanted metrics cannot be had here, and why."""
        skipped = {}
        known = self.extractor.num_classes
        if known == 0:
            skipped["is"] = f"extractor {self.extractor.name} has no classes"
        if known != num_classes or num_classes == 0:
            skipped["class_accuracy"] = f"the extractor knows {known} classes, the data {num_classes}"
        elif not conditional:
            skipped["class_accuracy"] = "no class is asked for: shares only"
        return {name: why for name, why in skipped.items() if name in self.metrics}

    def _start(self) -> None:
        """Gathering waits for every process, so a process without images also has (empty) state."""
        none = torch.empty(0, self.extractor.num_features, device=self.device)
        no_logits = torch.empty(0, self.extractor.num_classes, device=self.device)
        for pair in self._pairs():
            pair.update(none, real=True)
            pair.update(none, real=False)
        if self.frechet is not None:
            self.frechet.update(none, real=False)
        if self.score is not None:
            self.score.update(no_logits)
        if self.classes is not None:
            self.classes.update(no_logits)

    def _pairs(self) -> list[TwoFeatureSets]:
        return [metric for metric in (self.kernel, self.manifold) if metric is not None]

    @property
    def need_real_features(self) -> bool:
        """True where sums of the real features are not enough."""
        return bool(self._pairs())

    def warn_if_few(self, num_images: int) -> None:
        """The covariance of D features needs more than D images."""
        if self.frechet is not None and num_images <= self.extractor.num_features:
            warnings.warn(
                f"{num_images} generated images are too few for the covariance of {self.extractor.num_features} "
                f"features: the Fréchet distance comes out much too large; use more than "
                f"{self.extractor.num_features}, and 50,000 for a number to publish",
                stacklevel=5,  # the caller of evaluate_gan, which a decorator wraps
            )

    def load_real(self, statistics: RealStatistics | None) -> None:
        """The real side, on the process that has it (the sums over processes then count it once)."""
        if statistics is None:
            return
        if self.frechet is not None:
            self.frechet.load_real(statistics.count, statistics.total, statistics.outer)
        if self.kernel is not None:
            self.kernel.update(statistics.features.to(self.device), real=True)
        if self.manifold is not None:
            radii = statistics.radii(k=NEIGHBOURS, device=self.device)
            self.manifold.load_real(statistics.features.to(self.device), radii)

    def update(self, batch: FakeBatch) -> None:
        """One batch of fakes through the extractor, once, and into every metric."""
        features, logits = self.extractor.extract(batch.images.to(self.device))
        if self.frechet is not None:
            self.frechet.update(features, real=False)
        for pair in self._pairs():
            pair.update(features, real=False, index=batch.index)
        if self.score is not None:
            self.score.update(logits, batch.index)
        if self.classes is not None:
            self.classes.update(logits, batch.labels)

    def values(self) -> dict[str, float]:
        """Name to number, of all processes together; every process must call it."""
        name = self.extractor.name
        fid, kid, score = ("fid", "kid", "is") if name == "inception" else (f"{part}_{name}" for part in _STAND_INS)
        found: dict[str, Tensor] = {}
        if self.frechet is not None:
            found[fid] = self.frechet.compute()
        if self.kernel is not None:
            found[kid] = self.kernel.compute()
        if self.score is not None:
            found[score] = self.score.compute()
        if self.manifold is not None:
            pair = zip(("precision", "recall"), self.manifold.compute(), strict=True)
            found.update({f"{which}_k{NEIGHBOURS}": value for which, value in pair if which in self.metrics})
        if self.classes is not None:
            accuracy, shares = self.classes.compute()
            found.update({"class_accuracy": accuracy} if self.conditional else {}, class_share_min=shares.min())
        return {key: value.item() for key, value in found.items()}


_STAND_INS = ("frechet", "kernel", "score")


def check_settings(metrics: Sequence[str], *, num_images: int, batch_size: int) -> None:
    """ValueError for settings that no evaluation can have."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise ValueError(f"metrics {list(metrics)}: choose one or more of {', '.join(METRICS)}")
    if num_images < 2:
        raise ValueError(f"num_images is {num_images}; a distance needs 2 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")


def _protocol(
    extractor: Extractor, measures: Measures, data: RealImages, split: str, n_real: int, n_fake: int
) -> dict[str, object]:
    return {
        "extractor": extractor.name,
        "extractor_fingerprint": extractor.fingerprint,
        "resize": extractor.resize,
        "n_real": n_real,
        "n_fake": n_fake,
        "split": split,
        "dataset": data.fingerprint(split),
        "resolution": data.resolution,
        "skipped": measures.skipped,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the packages that a number can depend on."""
    from importlib.metadata import version

    from lit_gans import __version__

    names = {"torch": "torch", "torchmetrics": "torchmetrics", "torch-fidelity": "torch_fidelity"}
    return {shown: version(package) for shown, package in names.items()} | {"lit_gans": __version__}
