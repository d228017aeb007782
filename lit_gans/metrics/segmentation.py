"""How well a segmenter reads generated photographs: the FCN-score's pixel accuracy, class accuracy and mean IoU.

The measures are of Long, Shelhamer and Darrell (2015), https://arxiv.org/abs/1411.4038, Sec. 5, and measure generated
street scenes in Isola et al. (2017), https://arxiv.org/abs/1611.07004, Sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lit_gans.metrics.measures import Context, FakeBatch, Measure
from lit_gans.metrics.pair_mean import of_pairs

IGNORED = 255  # what Cityscapes calls pixels that are not judged
MAX_CLASSES = 4096  # beyond it the counts of all pairs of classes take more memory than any label map is worth

Segmenter = Callable[[Tensor], Tensor]
"""uint8 images [N, C, H, W] -> scores float [N, K, h, w], the highest of which is the class, or classes int64."""


class SegmentationScores(NamedTuple):
    """Shares in [0, 1], float64: `pixel_accuracy`, `class_accuracy` and `mean_iou` are scalars.

    `accuracies` and `ious` [K] are those of the classes, NaN where the class does not occur.
    """

    pixel_accuracy: Tensor
    class_accuracy: Tensor
    mean_iou: Tensor
    accuracies: Tensor
    ious: Tensor


def confusion(found: Tensor, truth: Tensor, num_classes: int, *, ignored: int | None = IGNORED) -> Tensor:
    """Label maps int64 of one shape -> int64 [K, K]: pixels by their true class (rows) and the found one (columns).

    Pixels whose true class is `ignored` are left out. ValueError for unequal shapes, other types, and classes outside
    of [0, K).
    """
    if found.shape != truth.shape or found.dtype != torch.int64 or truth.dtype != torch.int64:
        raise ValueError(
            f"found labels {found.dtype} {list(found.shape)}, true labels {truth.dtype} {list(truth.shape)}: "
            f"expected int64 of one shape"
        )
    if ignored is not None:
        judged = truth != ignored
        found, truth = found[judged], truth[judged]
    for name, labels in (("found", found), ("true", truth)):
        if len(labels.flatten()) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            wrong = labels[(labels < 0) | (labels >= num_classes)].flatten()[0].item()
            also = f" or {ignored}, which is not judged" if name == "true" and ignored is not None else ""
            raise ValueError(f"a {name} label is {wrong}; {num_classes} classes are 0 to {num_classes - 1}{also}")
    pairs = (truth * num_classes + found).flatten()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def segmentation_scores(counts: Tensor) -> SegmentationScores:
    """counts [K, K] as `confusion` gives them -> the scores.

    A mean is over the classes that occur: for accuracy in the truth, for IoU on either side. (pix2pix's script counts a
    class that does not occur as 0; where all occur, as in the 500 images of Cityscapes, the two agree.)
    ValueError without any pixel.
    """
    counts = counts.double()
    if counts.sum() == 0:
        raise ValueError("no pixel was judged: every true label is the ignored one, or there was no image")
    right, true, found = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    accuracies, ious = right / true, right / (true + found - right)  # 0 / 0 is NaN
    return SegmentationScores(right.sum() / counts.sum(), accuracies.nanmean(), ious.nanmean(), accuracies, ious)


class Segmentation(Metric):
    """`SegmentationScores` over pixels of all images: whole counts, so that any number of processes finds the same."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, *, ignored: int | None = IGNORED) -> None:
        """`ignored`: the true label of pixels that are not judged; None judges all."""
        super().__init__()
        if not 2 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes is {num_classes}; a segmentation has 2 to {MAX_CLASSES}")
        if ignored is not None and 0 <= ignored < num_classes:
            raise ValueError(f"ignored is {ignored}, which is one of the {num_classes} classes: give another, or None")
        self.num_classes, self.ignored = num_classes, ignored
        self.add_state("counts", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, found: Tensor, truth: Tensor) -> None:
        """Label maps int64 [N, H, W]; N may be 0."""
        self.counts += confusion(found, truth, self.num_classes, ignored=self.ignored)

    def compute(self) -> SegmentationScores:
        return segmentation_scores(self.counts)

    @property
    def settings(self) -> dict[str, object]:
        """How the scores are taken, for their protocol."""
        return {"classes": self.num_classes, "ignored": self.ignored, "mean": "over classes that occur"}


@torch.no_grad()
def segment(segmenter: Segmenter, images: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
    """uint8 images [N, C, H, W] -> classes int64 [N, *size], by default of the images' size.

    Scores of another size are scaled bilinearly before the highest is taken.
    ValueError for what is neither scores [N, K, h, w] nor classes int64 [N, *size].
    """
    size = size or (images.shape[-2], images.shape[-1])
    given = segmenter(images)
    if given.is_floating_point() and given.ndim == 4 and len(given) == len(images):
        if tuple(given.shape[-2:]) != size:
            given = F.interpolate(given.float(), size=size, mode="bilinear", align_corners=False)
        return given.argmax(dim=1)
    if given.dtype == torch.int64 and given.shape == (len(images), *size):
        return given
    raise ValueError(
        f"the segmenter gave {given.dtype} {list(given.shape)} for {len(images)} images, expected scores float "
        f"[{len(images)}, K, h, w] or classes int64 [{len(images)}, {size[0]}, {size[1]}]"
    )


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class SegmentMeasure(Measure):
    """What a segmenter reads in the translations, against the label maps that they were made of, or their partners."""

    def __init__(self, context: Context) -> None:
        plan, subject, segmenter = context.plan, context.subject, context.judges.segmenter
        if plan.num_segments < 2:
            raise ValueError(
                f"segmentation has num_segments {plan.num_segments}: give the number of the segmenter's classes"
            )
        if segmenter is None:
            raise ValueError("segmentation cannot be taken without a segmenter: give one, or leave it out")
        if subject.num_labels not in (0, plan.num_segments):
            raise ValueError(
                f"the segmenter has num_segments {plan.num_segments}, and the label maps {subject.num_labels} labels: "
                f"give one that tells the data's labels apart"
            )
        assert subject.shape is not None
        self.context, self.segmenter = context, segmenter.to(context.device).eval()
        found = segment(self.segmenter, torch.zeros(1, *subject.shape, dtype=torch.uint8, device=context.device))
        confusion(found, found, plan.num_segments, ignored=None)
        self.metric = Segmentation(plan.num_segments, ignored=plan.ignored).to(context.device)
        none = torch.empty(0, 1, 1, dtype=torch.int64, device=context.device)
        self.metric.update(none, none)
        self.truth = "label maps" if subject.labelled else "the segmenter on the partner"

    def update(self, batch: FakeBatch) -> None:
        truth = batch.labels
        if truth is None:
            assert batch.partner is not None
            truth = segment(self.segmenter, batch.partner)
        self.metric.update(segment(self.segmenter, batch.images), truth)

    def values(self) -> dict[str, float]:
        scores = self.metric.compute()
        named = {"pixel_accuracy": scores.pixel_accuracy, "mean_class_accuracy": scores.class_accuracy,
                 "mean_iou": scores.mean_iou}  # fmt: skip
        return {name: value.item() for name, value in named.items()}

    def settings(self) -> dict[str, object]:
        own = {**of_pairs(self.context.subject.total), **self.metric.settings}
        return {**own, "segmenter": type(self.segmenter).__name__, "truth": self.truth}
