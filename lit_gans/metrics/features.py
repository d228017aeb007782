"""State of feature metrics over several processes: sums, or whole feature sets in the order of their global index.

torchmetrics gathers lists by process, so that the order depends on how many there are; whatever splits or draws subsets
would then give another number. Here every row carries its global index and the gathered set is sorted by it.
"""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Moments(Metric):
    """Count, sum and sum of outer products of features in float64: all that a mean and a covariance need."""

    full_state_update = False

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(num_features, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(num_features, num_features, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """features [N, D]."""
        features = features.double()
        self.count += len(features)
        self.total += features.sum(dim=0)
        self.outer += features.T @ features

    def compute(self) -> tuple[int, Tensor, Tensor]:
        """count, sum [D], sum of outer products [D, D], of all processes together."""
        return int(self.count), self.total, self.outer


class FeatureSet(Metric):
    """Whole features, gathered from all processes and sorted by global index."""

    full_state_update = False

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("index", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, index: Tensor | None = None) -> None:
        """features [N, D]; index int64 [N], the rows' numbers in the whole set (default: in order of arrival).

        Every process calls it at least once, with no rows if it has none.
        """
        _check_width(features, self.num_features)
        self.features.append(features)
        self.index.append(_arrival(self.index, features) if index is None else index.to(features.device))

    def compute(self) -> Tensor:
        """features [N, D] of all processes in the order of their index."""
        return in_order(self.features, self.index)


class TwoFeatureSets(Metric):
    """Base of metrics that compare whole sets: `real` and `fake` features, each in the order of its index."""

    is_differentiable = False
    full_state_update = False

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        for name in ("real", "fake"):
            self.add_state(f"{name}_features", [], dist_reduce_fx="cat")
            self.add_state(f"{name}_index", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool, index: Tensor | None = None) -> None:
        """features [N, D] of real or generated images; index int64 [N] as for `FeatureSet`.

        Every process updates both sets at least once, with no rows if it has none.
        """
        _check_width(features, self.num_features)
        kept, indices = (self.real_features, self.real_index) if real else (self.fake_features, self.fake_index)
        kept.append(features)
        indices.append(_arrival(indices, features) if index is None else index.to(features.device))

    def sets(self) -> tuple[Tensor, Tensor]:
        """real [N, D] and fake [M, D] in the order of their indices; to be called in `compute`."""
        return in_order(self.real_features, self.real_index), in_order(self.fake_features, self.fake_index)


def in_order(features: Tensor | list[Tensor], index: Tensor | list[Tensor]) -> Tensor:
    """[N, D] rows sorted by index; rows of equal index stay as they came."""
    return dim_zero_cat(features)[dim_zero_cat(index).argsort(stable=True)]


def _arrival(index: list[Tensor], features: Tensor) -> Tensor:
    seen = sum(len(part) for part in index)
    return torch.arange(seen, seen + len(features), device=features.device)


def _check_width(features: Tensor, width: int) -> None:
    if features.ndim != 2 or features.shape[1] != width:
        raise ValueError(f"features of shape {list(features.shape)}, expected [N, {width}]")
