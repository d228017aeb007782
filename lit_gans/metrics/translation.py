"""How good a translator is: against each picture's partner, against the other domain as a whole, and by a segmenter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from lit_gans.base.images import from_uint8, to_uint8
from lit_gans.data import TranslationData
from lit_gans.data.translation import TranslationSet
from lit_gans.data.unpaired import UnpairedData
from lit_gans.metrics.catalog import metric_of
from lit_gans.metrics.evaluator import Evaluation, evaluate
from lit_gans.metrics.measures import Context, FakeBatch, Judges
from lit_gans.metrics.plan import TranslationPlan
from lit_gans.metrics.reals import Reals, real_indices
from lit_gans.metrics.sources import Translates
from lit_gans.metrics.subjects import Subject, weights_of


def evaluate_translator(
    model: Translates,
    data: TranslationData,
    *,
    plan: TranslationPlan,
    judges: Judges,
    **where: Any,
) -> Evaluation:
    """`evaluate` of the translated pictures of `plan.split`, in all directions.

    `where`: rank, world, cache_dir and progress. ValueError for metrics without their judge, unpaired data or too few
    pictures for a metric, and for translations that are not finite.
    """
    subjects = [TranslatedImages(model, data, plan, direction) for direction in plan.directions]
    return evaluate(subjects, plan=plan, judges=judges, device=model.device, **where)


class TranslatedImages(Subject):
    """What a translator makes in one direction: of samples with their partners or label maps, else of each picture."""

    def __init__(self, model: Translates, data: TranslationData, plan: TranslationPlan, direction: str) -> None:
        self.model, self.data, self.plan, self.direction = model, data, plan, direction
        self.what, self.ending = f"translated {direction}", "" if direction == "ab" else f"_{direction}"
        samples = data.dataset(plan.split)
        assert isinstance(samples, TranslationSet)
        self.labelled = "label" in samples.sides
        alone = not plan.looking_at("pairs") and not self.labelled
        self.samples = data.domain(direction[0]).dataset(plan.split) if alone else samples
        self.chosen = _chosen(len(self.samples), plan)
        self.total, self.shape, self.num_labels = len(self.chosen), (data.b_channels, *data.size), data.num_labels
        if plan.looking_at("features"):
            self.reals = Reals(data.domain(direction[1]), plan.real_split or plan.split, plan.num_real)

    def check(self, context: Context) -> None:
        if (of_pairs := self.plan.looking_at("pairs")) and isinstance(self.data, UnpairedData):
            none = f"{type(self.data).__name__} has none: leave them out"
            raise ValueError(f"{', '.join(of_pairs)} compare pairs, and {none}")
        counts = {"translated": self.total} | ({"real": len(self.reals.indices)} if self.reals else {})
        if self.reals and (few := [side for side, count in counts.items() if count < 2]):
            raise ValueError(
                f"{', '.join(self.plan.looking_at('features'))} need 2 {few[0]} pictures or more in direction "
                f"{self.direction!r}, and there is 1: take another split, or leave them out"
            )

    def batches(self, mine: Tensor, batch_size: int) -> Iterator[FakeBatch]:
        source, target = self.direction[0], self.direction[1]
        for index in mine.split(batch_size) if len(mine) else ():
            batch = {name: part.to(self.model.device) for name, part in self.samples.fetch(self.chosen[index]).items()}
            images, others = _input(batch, source)
            made = self.model.translate(images, direction=self.direction, **others)
            self._check_finite(made, index)
            labels = batch["label"].long() if "label" in batch else None
            yield FakeBatch(to_uint8(made), index, labels, batch.get(target))

    def _check_finite(self, made: Tensor, index: Tensor) -> None:
        broken = ~made.isfinite().flatten(1).all(dim=1)
        if broken.any():
            first = int(self.chosen[index][int(broken.nonzero()[0])])
            raise ValueError(
                f"the translation ({self.direction}) of picture {first} of split {self.plan.split!r} holds NaN or "
                f"infinity: no number is taken of it; evaluate an earlier checkpoint"
            )

    def protocol(self, context: Context, shared: dict[str, object]) -> dict[str, object]:
        height, width = self.data.size
        kept = ("extractor", "extractor_fingerprint", "resize", "numbers", "versions")
        return {
            **{name: shared[name] for name in kept},
            "generator": weights_of(self.model),
            "images_seen": int(self.model.images_seen),
            "noise": "the same for all images",
            "split": self.plan.split,
            "dataset": self.data.fingerprint(self.plan.split),
            "resolution": width if width == height else [height, width],
        }

    def of_number(self, name: str) -> Mapping[str, object]:
        metric = metric_of(name)
        if self.reals is None or metric is None or "pairs" in metric.needs:
            return {"direction": self.direction}
        counts = {"n_fake": self.total, "n_real": len(self.reals.indices), "real_split": self.reals.split}
        return {"direction": self.direction, **counts}


def _chosen(length: int, plan: TranslationPlan) -> Tensor:
    """int64, sorted: which of a split's pictures are translated. ValueError where there are fewer than asked for."""
    if plan.num_images is not None and not 2 <= plan.num_images <= length:
        raise ValueError(
            f"num_images is {plan.num_images}; split {plan.split!r} has {length} pictures: use 2 to {length}, or None "
            f"for all"
        )
    return real_indices(length, plan.num_images)


def _input(batch: Mapping[str, Tensor], source: str) -> tuple[Tensor, dict[str, Tensor]]:
    """(images in [-1, 1], what else the model is given) of pictures, or of label maps [n, H, W] and instances."""
    if "label" not in batch:
        return from_uint8(batch["image" if "image" in batch else source]), {}
    others = {"instance": batch["instance"].long()} if "instance" in batch else {}
    return from_uint8(batch["label"])[:, None], others
