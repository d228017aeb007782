"""A metric that is the mean of one value per pair of images."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_gans.metrics.measures import NO_EXTRACTOR, Context, FakeBatch, Measure


def check_pair(fake: Tensor, real: Tensor) -> None:
    """ValueError unless both are uint8 [N, 1 or 3, H, W] of one shape."""
    for name, images in (("fake", fake), ("real", real)):
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"{name} images {images.dtype} {list(images.shape)}, expected uint8 [N, 1 or 3, H, W]: "
                f"see lit_gans.base.images.to_uint8"
            )
    if fake.shape != real.shape:
        raise ValueError(f"fake images {list(fake.shape)}, real images {list(real.shape)}: pairs have one shape")


class PairMean(Metric):
    """Mean over pairs of one value per pair: sums in float64, so that any number of processes finds the same."""

    is_differentiable = False
    full_state_update = False
    settings: dict[str, object]
    """How each value is taken, for the protocol of the number."""
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    @abstractmethod
    def measure(self, fake: Tensor, real: Tensor) -> Tensor:
        """uint8 pairs [N, C, H, W] -> [N]."""

    def update(self, fake: Tensor, real: Tensor) -> None:
        """uint8 pairs [N, C, H, W]; N may be 0."""
        check_pair(fake, real)
        if len(fake) > 0:
            self.add(self.measure(fake, real).double())

    def add(self, values: Tensor) -> None:
        """values [N], float64."""
        self.total += values.sum()
        self.count += len(values)

    def compute(self) -> Tensor:
        """float64 scalar. ValueError where there was no pair."""
        if self.count == 0:
            raise ValueError("a mean over pairs needs one pair or more, got none")
        return self.total / self.count


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class PairMeasure(Measure):
    """The mean over all pictures and their partners, in a number called `name`."""

    def __init__(self, context: Context, name: str, mean: PairMean) -> None:
        self.context, self.name, self.mean = context, name, mean.to(context.device)
        if context.subject.shape is not None:
            black = torch.zeros(1, *context.subject.shape, dtype=torch.uint8, device=context.device)
            self.mean.measure(black, black)  # ValueError for pictures that are too small
        none = torch.empty(0, 3, 1, 1, dtype=torch.uint8, device=context.device)
        self.mean.update(none, none)

    def update(self, batch: FakeBatch) -> None:
        assert batch.partner is not None
        self.mean.update(batch.images, batch.partner)

    def values(self) -> dict[str, float]:
        return {self.name: self.mean.compute().item()}

    def settings(self) -> dict[str, object]:
        return {**of_pairs(self.context.subject.total), **self.mean.settings}


def of_pairs(count: int) -> dict[str, object]:
    """What the protocol of a number of pairs has in place of an extractor and of counts of images."""
    return {**NO_EXTRACTOR, "n_real": None, "n_fake": None, "pairs": count}
