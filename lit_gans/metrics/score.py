"""Inception score (Salimans et al., 2016), https://arxiv.org/abs/1606.03498, Sec. 4, of any classifier's logits."""

import math

import torch
from torch import Tensor

from lit_gans.metrics.features import FeatureSet
from lit_gans.metrics.measures import Context, FakeBatch, Measure, published_name

SPLITS = 10


class ClassScore(FeatureSet):
    """exp of the mean KL of p(y|x) from p(y), on each of ten consecutive splits, in float64.

    torchmetrics' class shuffles with torch's global generator and cuts splits of ceil(N / 10); this one keeps the order
    of the index and cuts at i N / 10 as the official code does.
    """

    higher_is_better = True
    is_differentiable = False

    def __init__(self, num_classes: int, *, splits: int = 10) -> None:
        super().__init__(num_classes)
        self.splits = splits

    def compute(self) -> Tensor:
        """float64 [min(splits, N)]: the score of each split, between 1 and the number of classes."""
        return class_scores(self.gathered(), splits=self.splits)


def class_score(logits: Tensor, *, splits: int = 10) -> Tensor:
    """logits [N, K] -> mean over the splits of their scores, float64 scalar."""
    return class_scores(logits, splits=splits).mean()


def class_scores(logits: Tensor, *, splits: int = 10) -> Tensor:
    """logits [N, K] -> exp(mean KL(p(y|x) || p(y))) of each of min(splits, N) splits, float64.

    Published deviations over the splits are biased (divided by their number) in most code, unbiased in StudioGAN's.
    """
    splits = min(splits, len(logits))
    if splits == 0:
        raise ValueError("a class score needs one image or more, got none")
    log_p = logits.double().log_softmax(dim=1)
    cuts = [i * len(log_p) // splits for i in range(splits + 1)]
    return torch.stack([_split_score(log_p[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)])


def _split_score(log_p: Tensor) -> Tensor:
    log_mean = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_mean)).sum(dim=1).mean().exp()


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class ScoreMeasure(Measure):
    """The mean score over ten splits, and its deviation."""

    def __init__(self, context: Context) -> None:
        self.context, self.name = context, published_name("is", context.extractor.name)
        self.score = ClassScore(context.extractor.num_classes, splits=SPLITS).to(context.device)
        none = torch.empty(0, context.extractor.num_classes, device=context.device)
        self.score.update(none, torch.empty(0, dtype=torch.int64))

    def update(self, batch: FakeBatch) -> None:
        logits = batch.through(self.context.extractor).logits
        assert logits is not None
        self.score.update(logits, batch.index)

    def values(self) -> dict[str, float]:
        scores = self.score.compute()
        return {self.name: scores.mean().item(), f"{self.name}_std": scores.std(correction=0).item()}

    def settings(self) -> dict[str, object]:
        return {"splits": SPLITS}


def score(context: Context) -> Measure | None:
    if context.extractor.num_classes == 0:
        context.leave_out("is", f"extractor {context.extractor.name} has no classes")
        return None
    return ScoreMeasure(context)
