"""Kernel distance, unbiased (Binkowski et al., 2018), https://arxiv.org/abs/1801.01401."""

import torch
from torch import Tensor

from lit_gans.metrics.features import TwoFeatureSets
from lit_gans.metrics.measures import Context, FeatureSets, Measure, published_name

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 0


class KernelDistance(TwoFeatureSets):
    """Mean over subsets of the squared MMD with kernel (x.y / D + 1)^3, in float64.

    torchmetrics' class draws its subsets from torch's global generator and refuses sets below the subset size; ours are
    a function of the seed, and one subset of everything serves where the sets are small.
    """

    higher_is_better = False

    def __init__(
        self,
        num_features: int,
        *,
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 0,
        real_capacity: int = 0,
        fake_capacity: int = 0,
    ) -> None:
        super().__init__(num_features, real_capacity=real_capacity, fake_capacity=fake_capacity)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def compute(self) -> Tensor:
        """float64 scalar; slightly negative for sets that are alike."""
        real, fake = self.sets()
        return kernel_distance(real, fake, subsets=self.subsets, subset_size=self.subset_size, seed=self.seed)


def size_of_subsets(real: Tensor, fake: Tensor, wanted: int) -> int:
    """No more than either side has."""
    return min(wanted, len(real), len(fake))


def kernel_distance(
    real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> Tensor:
    """real [N, D], fake [M, D] -> mean squared MMD over random subsets; of everything at once if a subset holds it."""
    size = size_of_subsets(real, fake, subset_size)
    if size < 2:
        raise ValueError(f"a kernel distance needs two images or more on each side, got {len(real)} and {len(fake)}")
    if size == len(real) == len(fake):
        return squared_mmd(real, fake)
    generator = torch.Generator().manual_seed(seed)
    values = [
        squared_mmd(_draw(fake, size, generator), _draw(real, size, generator))  # fakes first, as in the official code
        for _ in range(subsets)
    ]
    return torch.stack(values).mean()


def _draw(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """[size, D] different rows."""
    return rows[torch.randperm(len(rows), generator=generator)[:size].to(rows.device)]


def squared_mmd(a: Tensor, b: Tensor) -> Tensor:
    """a, b [N, D] -> unbiased estimate, float64 scalar: within a set, pairs of a row with itself are left out."""
    a, b = a.double(), b.double()
    inside = sum((_kernel(x, x).sum() - _kernel_diagonal(x).sum()) / (len(x) * (len(x) - 1)) for x in (a, b))
    return inside - 2 * _kernel(a, b).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    k = (a @ b.T).div_(a.shape[1]).add_(1)
    return k * k * k  # many times faster than pow


def _kernel_diagonal(a: Tensor) -> Tensor:
    return (a.square().sum(dim=1) / a.shape[1] + 1) ** 3


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class KernelMeasure(Measure):
    """The kernel distance over 100 subsets of 1,000, the same for all evaluations."""

    def __init__(self, context: Context) -> None:
        self.name, self.sets = published_name("kid", context.extractor.name), context.one(FeatureSets)

    def values(self) -> dict[str, float]:
        distance = kernel_distance(*self.sets.gathered(), subsets=SUBSETS, subset_size=SUBSET_SIZE, seed=SEED)
        return {self.name: distance.item()}

    def settings(self) -> dict[str, object]:
        """What was done: sets smaller than a subset give smaller ones, and both whole there is one."""
        real, fake = self.sets.gathered()
        size = size_of_subsets(real, fake, SUBSET_SIZE)
        subsets = 1 if size == len(real) == len(fake) else SUBSETS
        return {"kid_subsets": subsets, "kid_subset_size": size, "kid_seed": SEED}
