"""FID and Inception Score by torchmetrics' own classes, for numbers to set beside those that others made with them.

`docs/metrics.md` says what differs from ours, and by how much.
"""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from lit_gans.base.images import as_channels
from lit_gans.metrics.extractors import Extractor, Features, InceptionFeatures, ambient_randomness_kept
from lit_gans.metrics.features import FeatureSet
from lit_gans.metrics.measures import Context, FakeBatch, Measure, identity
from lit_gans.metrics.score import SPLITS


class TorchmetricsInception(Extractor):
    """torchmetrics' form of an Inception: the same weights behind its default resize, antialiased."""

    resize = "torchmetrics' antialiased bilinear to 299"
    num_features = 2048

    def __init__(self, inception: InceptionFeatures) -> None:
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.name, self.num_classes = inception.name, inception.num_classes
        file = io.BytesIO()
        torch.save(inception.network.state_dict(), file)
        file.seek(0)
        with ambient_randomness_kept():
            self.network = NoTrainInceptionV3("inception-v3-compat", ["2048"], file)  # type: ignore[arg-type]  # it reads files too
        self.freeze()

    def forward(self, images: Tensor) -> Features:
        features = self.network(as_channels(images, 3))
        return Features(features, features @ self.network.fc.weight.T if self.num_classes else None)


class Given(nn.Module):
    """Stands for the network where its features are at hand: a batch is looked at once, whoever asks."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class Network(Measure):
    """What both metrics look through: torchmetrics' Inception for an Inception, else the extractor that is chosen."""

    def __init__(self, context: Context) -> None:
        chosen = context.extractor
        own = TorchmetricsInception(chosen) if isinstance(chosen, InceptionFeatures) else chosen
        self.extractor = own.to(context.device)

    def named(self, metric: str) -> str:
        return metric if self.extractor.name == "inception" else f"{metric}_{self.extractor.name}"

    def values(self) -> dict[str, float]:
        return {}


class TorchmetricsFrechet(Measure):
    """`FrechetInceptionDistance`, whose sums torchmetrics adds over the processes.

    The reals' sums of raw products are made of their kept moments, which is equal to rounding in float64.
    """

    def __init__(self, context: Context) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance

        self.context, self.network = context, context.one(Network)
        self.width = self.network.extractor.num_features
        self.distance = FrechetInceptionDistance(Given(self.width)).to(context.device)

    def begin(self) -> None:
        for real in (True, False):  # a process without images has the state that `compute` reads
            self.distance.update(torch.empty(0, self.width, device=self.context.device), real=real)
        if statistics := self.context.statistics(self.network.extractor):
            count, mean, scatter = statistics.moments
            mean = mean.to(self.distance.real_features_sum)
            self.distance.real_features_num_samples += count
            self.distance.real_features_sum += count * mean
            self.distance.real_features_cov_sum += scatter.to(mean) + count * mean.outer(mean)

    def update(self, batch: FakeBatch) -> None:
        self.distance.update(batch.through(self.network.extractor).features, real=False)

    def values(self) -> dict[str, float]:
        return {self.network.named("torchmetrics_fid"): self.distance.compute().item()}

    def settings(self) -> dict[str, object]:
        return {**identity(self.network.extractor), "class": "torchmetrics.image.FrechetInceptionDistance"}


class TorchmetricsScore(Measure):
    """`InceptionScore` of all processes' logits in the order of the images; the plan's seed shuffles them."""

    def __init__(self, context: Context) -> None:
        self.context, self.network = context, context.one(Network)
        self.logits = FeatureSet(self.network.extractor.num_classes)

    def begin(self) -> None:
        none = torch.empty(0, self.network.extractor.num_classes, device=self.context.device)
        self.logits.to(self.context.device).update(none, torch.empty(0, dtype=torch.int64))

    def update(self, batch: FakeBatch) -> None:
        logits = batch.through(self.network.extractor).logits
        assert logits is not None
        self.logits.update(logits, batch.index)

    def values(self) -> dict[str, float]:
        logits, name = self.logits.gathered(), self.network.named("torchmetrics_is")
        mean, deviation = torchmetrics_score(logits, seed=self.context.plan.seed)
        return {name: mean.item(), f"{name}_std": deviation.item()}

    def settings(self) -> dict[str, object]:
        own = {"class": "torchmetrics.image.InceptionScore", "splits": SPLITS, "shuffled_by": self.context.plan.seed}
        return {**identity(self.network.extractor), **own}


def torchmetrics_score(logits: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """logits [N, K] -> mean and deviation of the splits' scores, in an order that `seed` draws."""
    from torchmetrics.image.inception import InceptionScore

    score = InceptionScore(Given(logits.shape[1]), splits=SPLITS, sync_on_compute=False)
    score.update(logits)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return score.compute()


def torchmetrics_is(context: Context) -> Measure | None:
    if context.extractor.num_classes == 0:
        context.leave_out("torchmetrics_is", f"extractor {context.extractor.name} has no classes")
        return None
    return TorchmetricsScore(context)
