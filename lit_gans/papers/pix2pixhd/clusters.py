"""Features of instances in clusters, to choose from at test time (Wang et al., 2018, Sec. 3.4)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lit_gans.base.cache import read_tensors, write_tensors
from lit_gans.nn import Draws
from lit_gans.papers.pix2pixhd.instances import lowest_label, number_instances, spread_over

CHANCES = 1024  # random numbers per image; of more instances, some share theirs


class Clusters(nn.Module):
    """The centres of each class's clusters, `centres` [L, K, F], those of most instances first, and `counts` [L].

    They are buffers, and so part of checkpoints; `save` writes them to a file of their own.
    """

    centres: Tensor
    counts: Tensor

    def __init__(self, *, num_labels: int, num_clusters: int, features: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(num_labels, num_clusters, features))
        self.register_buffer("counts", torch.zeros(num_labels, dtype=torch.int64))

    def fit(self, features: Tensor, classes: Tensor, *, seed: int = 0) -> None:
        """Instances' features [M, F] and classes int64 [M], both on the CPU -> k-means for each class."""
        self.centres.zero_()
        self.counts.zero_()
        for label in classes.unique().tolist():
            centres = cluster(features[classes == label], count=self.centres.shape[1], seed=seed)
            self.centres[label, : len(centres)] = centres.to(self.centres)
            self.counts[label] = len(centres)

    def sample(self, label: Tensor, instance: Tensor, *, draws: Draws | None = None) -> Tensor:
        """Classes and ids int64 [N, H, W] -> features [N, F, H, W], one of its class's for each instance.

        draws: choose the cluster, with equal chances; None takes the largest. Classes without clusters have zeros.
        """
        if draws is None:
            return self.centres[lowest_label(label, instance), 0].permute(0, 3, 1, 2)  # [N, H, W, F] -> [N, F, H, W]
        numbers, images = number_instances(instance)
        classes = class_of(label, numbers)
        place = torch.arange(len(images), device=images.device) - torch.searchsorted(images, images)  # in its image
        chances = draws.uniform(len(instance), CHANCES).to(images.device)[images, place % CHANCES]  # [M]
        which = (chances * self.counts[classes]).long()
        return spread_over(self.centres[classes, which].T, numbers)  # [M, F] -> [F, M] -> [N, F, H, W]

    def save(self, path: str | Path) -> None:
        """Writes them to a safetensors file."""
        write_tensors(Path(path), self.state_dict(), {})

    def load(self, path: str | Path) -> None:
        """Takes those of `save`.

        Raises:
            ValueError: the file is absent or damaged, or of a model with other classes, clusters or features.
        """
        found, shapes = read_tensors(Path(path)), {k: tuple(t.shape) for k, t in self.state_dict().items()}
        if found is None or {k: tuple(t.shape) for k, t in found[0].items()} != shapes:
            raise ValueError(f"{path} does not hold this model's clusters, which have the shapes {shapes}")
        self.load_state_dict(found[0])


def cluster(features: Tensor, *, count: int, seed: int) -> Tensor:
    """Features [M, F] -> the centres [at most `count`, F] of k-means, those of most features first (Sec. 3.4)."""
    from sklearn.cluster import KMeans

    found = KMeans(min(count, len(features)), n_init=10, random_state=seed).fit(features.double().numpy())
    members = torch.bincount(torch.from_numpy(found.labels_).long(), minlength=len(found.cluster_centers_))
    return torch.from_numpy(found.cluster_centers_)[members.argsort(descending=True, stable=True)].float()


def class_of(label: Tensor, numbers: Tensor) -> Tensor:
    """Classes [N, H, W] and numbers of `number_instances` -> [M]; of several classes in an instance the lowest."""
    empty = torch.full((int(numbers.max()) + 1,), torch.iinfo(torch.int64).max, device=label.device)
    return empty.scatter_reduce_(0, numbers.flatten(), label.flatten(), "amin")
