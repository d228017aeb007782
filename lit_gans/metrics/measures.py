"""What an evaluation takes from one pass over the images that are measured: each measure sees every batch once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lit_gans.base.processes import share_of
from lit_gans.metrics.extractors import Extractor, Features
from lit_gans.metrics.features import FeatureSet

if TYPE_CHECKING:
    from torch import nn

    from lit_gans.metrics.perceptual import LPIPS, PerceptualDistance
    from lit_gans.metrics.plan import Plan
    from lit_gans.metrics.reals import Progress, Reals, RealStatistics
    from lit_gans.metrics.subjects import Subject
    from lit_gans.metrics.text import TextImageEncoder

NO_EXTRACTOR = {"extractor": None, "extractor_fingerprint": None, "resize": None}
M = TypeVar("M", bound="Measure")


@dataclass(frozen=True)
class FakeBatch:
    """images uint8 [n, C, H, W] to be measured, their numbers in the whole, index int64 [n], and what goes with them.

    labels int64 [n]: the intended classes, or [n, H, W]: the label maps that the images were made of. partner uint8
    [n, C, H, W]: what they are compared with, one by one. `name`: that of the first, where it is a file.
    """

    images: Tensor
    index: Tensor
    labels: Tensor | None = None
    partner: Tensor | None = None
    captions: Sequence[str] | None = None
    name: str = ""
    _seen: dict[int, Features] = field(default_factory=dict)

    def through(self, extractor: Extractor) -> Features:
        """What the extractor sees; it looks once, however many measures ask."""
        if id(extractor) not in self._seen:
            self._seen[id(extractor)] = extractor.extract(self.images)
        return self._seen[id(extractor)]

    def on(self, device: torch.device) -> FakeBatch:
        """The batch with its pictures and labels on the device."""
        partner, labels = (None if each is None else each.to(device) for each in (self.partner, self.labels))
        return replace(self, images=self.images.to(device), partner=partner, labels=labels)


class Classes(NamedTuple):
    """Classes of all real and all generated images in their global order, int64, or None; and how many there are."""

    count: int  # type: ignore[assignment]  # it hides tuple.count
    real: Tensor | None = None
    fake: Tensor | None = None


@dataclass(frozen=True)
class Judges:
    """The networks that judge: each is needed by the metrics that ask for it alone.

    extractor of features; lpips: for pairs `perceptual.LPIPS`, for path lengths any `path_length.Distance`; segmenter,
    see `segmentation.Segmenter`; pd, `perceptual.PerceptualDistance`; clip, `text.TextImageEncoder`; classifiers of
    attributes by name, see `separability.AttributeClassifier`.
    """

    extractor: Extractor | None = None
    lpips: LPIPS | Callable[[Tensor, Tensor], Tensor] | None = None
    segmenter: nn.Module | None = None
    pd: PerceptualDistance | None = None
    clip: TextImageEncoder | None = None
    classifiers: Mapping[str, Callable[[Tensor], Tensor]] | None = None


@dataclass
class Context:
    """What a measure is built from: who is measured, against what, by whom, and which part of it is this process's.

    `skipped` gathers the metrics that cannot be had here, with the reason.
    """

    subject: Subject
    reals: Reals | None
    plan: Plan
    judges: Judges
    classes: Classes
    rank: int
    world: int
    device: torch.device
    cache_dir: Path | None = None
    progress: Progress | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    _statistics: dict[int, RealStatistics | None] = field(default_factory=dict)
    _shared: dict[Callable[..., Any], Any] = field(default_factory=dict)

    @property
    def extractor(self) -> Extractor:
        """The one that was chosen, on the device."""
        assert self.judges.extractor is not None
        return self.judges.extractor.to(self.device)

    def share(self, total: int) -> Tensor:
        """int64: which of `total` images are this process's."""
        return share_of(total, rank=self.rank, world=self.world)

    def tell(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)

    def leave_out(self, metric: str, why: str) -> None:
        self.skipped[metric] = why

    def one(self, kind: Callable[[Context], M]) -> M:
        """The one measure of a kind that several measures share."""
        if kind not in self._shared:
            self._shared[kind] = kind(self)
        return self._shared[kind]

    def shared(self) -> list[Measure]:
        return list(self._shared.values())

    def statistics(self, extractor: Extractor) -> RealStatistics | None:
        """Those of the reals on process 0, None on the others, taken once: with all features if they are looked at."""
        assert self.reals is not None
        if id(extractor) not in self._statistics:
            whole = extractor is self.judges.extractor and FeatureSets in self._shared
            self._statistics[id(extractor)] = self.reals.statistics(extractor, self, whole=whole)
        return self._statistics[id(extractor)]


class Measure(ABC):
    """Numbers from one pass over the images, the same on every process.

    Built before anything is taken, so that what cannot be had is refused early (ValueError). Then `begin`, `update` for
    each batch, `values`; a process without images has (empty) state too.
    """

    of_images = True
    """Whether it needs the pass: what walks through a generator's latents makes images of its own."""

    def begin(self) -> None:  # noqa: B027
        """Takes what there is to be taken of the reals."""

    def update(self, batch: FakeBatch) -> None:  # noqa: B027
        """This process's next images."""

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Name to number, of all processes together; every process must call it."""

    def settings(self) -> dict[str, object]:
        """What belongs to the protocol of its numbers beside, or instead of, what the evaluation's numbers share."""
        return {}


class FeatureSets(Measure):
    """All features of both sides, in the order of their index: for measures that need more than moments."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.sides: tuple[Tensor, Tensor] | None = None

    def begin(self) -> None:
        context, width = self.context, self.context.extractor.num_features
        none = torch.empty(0, width, device=context.device)
        mine = len(context.share(context.subject.total))
        self.real, self.fake = (FeatureSet(width, capacity=n).to(context.device) for n in (0, mine))
        self.real.update(none)
        self.fake.update(none, torch.empty(0, dtype=torch.int64))
        if statistics := context.statistics(context.extractor):
            assert statistics.features is not None
            self.real.update(statistics.features.to(context.device))

    def update(self, batch: FakeBatch) -> None:
        self.fake.update(batch.through(self.context.extractor).features, batch.index)

    def gathered(self) -> tuple[Tensor, Tensor]:
        """real [N, D], fake [M, D] of all processes, which all must call it."""
        if self.sides is None:
            self.sides = self.real.gathered(), self.fake.gathered()
        return self.sides

    def values(self) -> dict[str, float]:
        return {}


def published_name(metric: str, extractor: str) -> str:
    """The number's name: the published one (fid, sfid, rfid, kid, is) only on the network that it is published on."""
    published = {
        "inception": {"frechet": "fid", "spatial_frechet": "sfid", "intra_frechet": "intra_fid", "kid": "kid",
                      "is": "is"},
        "random_inception": {"frechet": "rfid"},
    }  # fmt: skip
    plain = {"kid": "kernel", "is": "score"}.get(metric, metric)
    return published.get(extractor, {}).get(metric, f"{plain}_{extractor}")


def identity(extractor: Extractor | TextImageEncoder) -> dict[str, object]:
    """An extractor's part of a protocol."""
    return {
        "extractor": extractor.name, "extractor_fingerprint": extractor.fingerprint, "resize": extractor.resize
    }  # fmt: skip
