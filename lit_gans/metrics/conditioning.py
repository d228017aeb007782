"""Does a generator draw the class it was asked for, and does it draw every class? By a classifier's predictions."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_gans.metrics.measures import Context, FakeBatch, Measure


class ClassAgreement(Metric):
    """Share of images whose predicted class is the intended one, and the share of images predicted as each class."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    correct: Tensor
    labelled: Tensor
    predicted: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("labelled", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("predicted", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor | None = None) -> None:
        """logits [N, K]; labels int64 [N], the intended classes, or None where none was asked for."""
        classes = logits.argmax(dim=1)
        self.predicted += torch.bincount(classes, minlength=self.num_classes)
        if labels is not None:
            self.correct += (classes == labels.to(classes.device)).sum()
            self.labelled += len(labels)

    def compute(self) -> tuple[Tensor, Tensor]:
        """accuracy (NaN without labels) and shares [K] that add up to 1, float64."""
        return self.correct.double() / self.labelled, self.predicted.double() / self.predicted.sum()


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class ClassMeasure(Measure):
    """The accuracy, where classes are asked for, and the smallest share."""

    def __init__(self, context: Context) -> None:
        self.context, self.asked = context, context.classes.fake is not None
        self.agreement = ClassAgreement(context.classes.count).to(context.device)
        self.agreement.update(torch.empty(0, context.classes.count, device=context.device))

    def update(self, batch: FakeBatch) -> None:
        logits = batch.through(self.context.extractor).logits
        assert logits is not None
        self.agreement.update(logits, batch.labels)

    def values(self) -> dict[str, float]:
        accuracy, shares = self.agreement.compute()
        asked = {"class_accuracy": accuracy.item()} if self.asked else {}
        return {**asked, "class_share_min": shares.min().item()}


def class_accuracy(context: Context) -> Measure | None:
    known, count = context.extractor.num_classes, context.classes.count
    if known != count or known == 0:
        context.leave_out("class_accuracy", f"the extractor knows {known} classes, the data {count}")
        return None
    if context.classes.fake is None:
        context.leave_out("class_accuracy", "no class is asked for: shares only")
    return ClassMeasure(context)
