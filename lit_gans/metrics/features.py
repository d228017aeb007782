"""State of feature metrics over several processes: moments that merge, or whole feature sets in their global order.

torchmetrics gathers lists by process, so that the order depends on how many there are; whatever splits or draws subsets
would then give another number. Here every row carries its global index and the gathered set is sorted by it.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_gans.base.processes import gather_rows


class Moments(Metric):
    """Count, mean and scatter (sum of outer products of deviations from the mean) of features, in float64.

    Batches and processes are merged by the update of Chan et al. (1979), so that a mean that is large beside the
    deviations costs no digits, as differences of raw sums would.
    """

    full_state_update = False
    count: Tensor
    mean: Tensor
    scatter: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.add_state("count", torch.tensor(0), dist_reduce_fx=None)
        self.add_state("mean", torch.zeros(num_features, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state("scatter", torch.zeros(num_features, num_features, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, features: Tensor) -> None:
        """features [N, D]."""
        if len(features) == 0:
            return
        features = features.double()
        mean = features.mean(dim=0)
        deviations = features - mean
        self._merge(len(features), mean, deviations.T @ deviations)

    def load(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Adds kept moments: count, mean [D], scatter [D, D]; on one process only."""
        self.update(self.mean.new_empty(0, len(self.mean)))  # or torchmetrics warns of a metric never updated
        self._merge(count, mean.to(self.mean), scatter.to(self.scatter))

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        before = int(self.count)
        if before == 0:
            self.count, self.mean, self.scatter = self.count + count, mean, scatter
            return
        delta, together = mean - self.mean, before + count
        self.scatter += scatter
        self.scatter.addr_(delta, delta, alpha=before * count / together)
        self.mean += delta * (count / together)
        self.count += count

    def compute(self) -> tuple[int, Tensor, Tensor]:
        """count, mean [D], scatter [D, D] of all processes together."""
        if self.mean.ndim == 1:
            return int(self.count), self.mean, self.scatter
        merged = Moments(self.mean.shape[1]).to(self.mean.device)
        for count, mean, scatter in zip(self.count.tolist(), self.mean, self.scatter, strict=True):
            if count:
                merged._merge(count, mean, scatter)
        return int(merged.count), merged.mean, merged.scatter


class FeatureSet(Metric):
    """Whole features of all processes, sorted by global index.

    `capacity`, the rows that this process will add, gives them one block of memory at the first update: joining them at
    the end then copies nothing. Processes exchange their rows in small parts, into the place where they belong, so that
    no process ever holds the set twice.
    """

    full_state_update = True  # or `forward` would count arrivals from 0 with each batch
    features: list[Tensor]
    index: list[Tensor]

    def __init__(self, num_features: int, *, capacity: int = 0) -> None:
        super().__init__(sync_on_compute=False)  # `gather_rows` does it, without torchmetrics' copies
        self.num_features, self.capacity = num_features, capacity
        self._block: Tensor | None = None
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("index", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, index: Tensor | None = None) -> None:
        """features [N, D]; index int64 [N], the rows' numbers in the whole set (default: in order of arrival)."""
        _check_width(features, self.num_features)
        seen = sum(map(len, self.index))
        self.index.append(_arrival(self.index, features) if index is None else index.to(features.device))
        self.features.append(self._placed(features, seen))

    def _placed(self, features: Tensor, start: int) -> Tensor:
        """The rows as part of the block, as long as there is space in it."""
        if start + len(features) > self.capacity:
            return features
        if self._block is None:
            self._block = features.new_empty(self.capacity, self.num_features)
        place = self._block[start : start + len(features)]
        return place.copy_(features)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Adds the rows of another set, under their own indices."""
        other: dict[str, Any] = incoming_state if isinstance(incoming_state, dict) else incoming_state.metric_state
        for features, index in zip(other["features"], other["index"], strict=True):
            self.update(features, index)

    def reset(self) -> None:
        super().reset()
        self._block = None  # whoever kept the old rows keeps them unharmed

    def rows(self) -> Tensor:
        """[n, D] of this process, as they came; a view of the block where they lie in it."""
        if not self.features:
            return torch.empty(0, self.num_features, device=self.device)
        if self._block is not None and _adjacent(self.features, self._block):
            return self._block[: sum(map(len, self.features))]
        return dim_zero_cat(self.features)

    def compute(self) -> Tensor:
        """`gathered`, of which torchmetrics makes and keeps a copy."""
        return self.gathered()

    def gathered(self) -> Tensor:
        """features [N, D] of all processes in the order of their index; rows of equal index stay as they came."""
        index = dim_zero_cat(self.index) if self.index else torch.empty(0, dtype=torch.int64, device=self.device)
        return gather_rows(self.rows(), index)


class TwoSided(Metric):
    """Base of metrics that keep something of real and of generated images: two metrics, `real` and `fake`."""

    is_differentiable = False
    full_state_update = False
    real: Metric
    fake: Metric

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)  # the two parts do it

    def forward(self, *args: Tensor, **sides: bool | Tensor) -> None:
        """`update`: a batch of one side alone has no value."""
        self.update(*args, **sides)

    def reset(self) -> None:
        super().reset()
        self.real.reset()
        self.fake.reset()


class TwoFeatureSets(TwoSided):
    """Base of metrics that compare whole sets: `real` and `fake` features, each in the order of its index."""

    real: FeatureSet
    fake: FeatureSet

    def __init__(self, num_features: int, *, real_capacity: int = 0, fake_capacity: int = 0) -> None:
        super().__init__()
        self.num_features = num_features
        self.real = FeatureSet(num_features, capacity=real_capacity)
        self.fake = FeatureSet(num_features, capacity=fake_capacity)

    def update(self, features: Tensor, *, real: bool, index: Tensor | None = None) -> None:
        """features [N, D] of real or generated images; index int64 [N] as for `FeatureSet`."""
        (self.real if real else self.fake).update(features, index)

    def sets(self) -> tuple[Tensor, Tensor]:
        """real [N, D] and fake [M, D] in the order of their indices; to be called in `compute`."""
        return self.real.gathered(), self.fake.gathered()


def in_order(features: Tensor | list[Tensor], index: Tensor | list[Tensor]) -> Tensor:
    """[N, D] rows sorted by index; rows of equal index stay as they came."""
    return dim_zero_cat(features)[dim_zero_cat(index).argsort(stable=True)]


def _arrival(index: list[Tensor], features: Tensor) -> Tensor:
    seen = sum(len(part) for part in index)
    return torch.arange(seen, seen + len(features), device=features.device)


def _adjacent(parts: list[Tensor], block: Tensor) -> bool:
    """Whether the parts lie one behind the other from the block's beginning on."""
    place = block.data_ptr()
    for part in parts:
        if len(part) and part.data_ptr() != place:
            return False
        place += part.numel() * part.element_size()
    return True


def _check_width(features: Tensor, width: int) -> None:
    if features.ndim != 2 or features.shape[1] != width:
        raise ValueError(f"features of shape {list(features.shape)}, expected [N, {width}]")
