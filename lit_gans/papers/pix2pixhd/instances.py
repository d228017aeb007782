"""Label maps and instance maps: edges and features of instances (Wang et al., 2018, Sec. 3.3 and 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def one_hot(label: Tensor, num_labels: int) -> Tensor:
    """int64 [N, H, W] in [0, L) -> float [N, L, H, W]."""
    n, height, width = label.shape
    return torch.zeros(n, num_labels, height, width, device=label.device).scatter_(1, label[:, None], 1.0)


def edges(instance: Tensor) -> Tensor:
    """int [N, H, W] -> float [N, 1, H, W]: 1 on both sides of every boundary (Sec. 3.3); the image's border is none."""
    down, right = instance[:, 1:] != instance[:, :-1], instance[:, :, 1:] != instance[:, :, :-1]
    found = torch.zeros_like(instance, dtype=torch.bool)
    found[:, 1:] |= down
    found[:, :-1] |= down
    found[:, :, 1:] |= right
    found[:, :, :-1] |= right
    return found[:, None].float()  # [N, H, W] -> [N, 1, H, W]


def number_instances(instance: Tensor) -> tuple[Tensor, Tensor]:
    """Ids int64 [N, H, W] -> (numbers [N, H, W], images [M]): each instance of each image numbered from 0 to M - 1,
    by image and then by id, and the image that it lies in."""
    lowest, images = instance.min(), torch.arange(len(instance), device=instance.device)
    span = instance.max() - lowest + 1
    found, numbers = torch.unique(instance - lowest + images[:, None, None] * span, return_inverse=True)  # [M]
    return numbers, found // span


def instance_means(features: Tensor, numbers: Tensor) -> Tensor:
    """Features [N, F, H, W], numbers [N, H, W] of `number_instances` -> float32 [F, M]."""
    flat, index = features.float().transpose(0, 1).flatten(1), numbers.flatten()  # [F, N H W], [N H W]
    size = torch.bincount(index)
    return flat.new_zeros(len(flat), len(size)).index_add(1, index, flat) / size


def spread_over(values: Tensor, numbers: Tensor) -> Tensor:
    """Values [F, M] of instances, numbers [N, H, W] -> [N, F, H, W]: each pixel with its instance's."""
    return values[:, numbers].transpose(0, 1)  # [F, N, H, W] -> [N, F, H, W]


def averaged(features: Tensor, instance: Tensor) -> Tensor:
    """Features [N, F, H, W], ids int64 [N, H, W] -> float32 [N, F, H, W]: each pixel with the mean of its instance.

    As by `instance_means` and `spread_over`, but without asking how many instances there are, which would wait for a
    GPU in every step of training: there is room for one for each pixel.
    """
    flat, numbers = features.float().flatten(2), ranked(instance)[:, None]  # [N, F, H W], [N, 1, H W]
    sizes = torch.zeros_like(flat[:, :1]).scatter_add_(2, numbers, torch.ones_like(flat[:, :1])).clamp_(min=1)
    index = numbers.expand_as(flat)  # [N, 1, H W] -> [N, F, H W]
    return (torch.zeros_like(flat).scatter_add(2, index, flat) / sizes).gather(2, index).view(features.shape)


def ranked(instance: Tensor) -> Tensor:
    """Ids int64 [N, H, W] -> [N, H W]: 0 where an image's lowest id is, 1 where its next is, ..."""
    ids, order = instance.flatten(1).sort(1)
    ranks = pad(ids.diff(dim=1) != 0, [1, 0]).cumsum(1)  # in the order of the ids
    return torch.zeros_like(order).scatter_(1, order, ranks)


def lowest_label(label: Tensor, instance: Tensor) -> Tensor:
    """Classes and ids int64 [N, H, W] -> int64 [N, H, W]: of each pixel the lowest class in its instance."""
    numbers = ranked(instance)
    classes = torch.full_like(numbers, torch.iinfo(torch.int64).max)
    return classes.scatter_reduce(1, numbers, label.flatten(1), "amin").gather(1, numbers).view(label.shape)


def restyle(features: Tensor, instance: Tensor, *, chosen: int, style: Tensor) -> Tensor:
    """Features [N, F, H, W] with `style` [F] in the instance `chosen` of the map [N, H, W]; elsewhere untouched.

    Raises:
        ValueError: the map has no such instance.
    """
    where = instance == chosen
    if not where.any():
        ids = instance.unique().tolist()
        more = ", ..." if len(ids) > 10 else ""
        raise ValueError(f"no instance {chosen} in this map; it has {', '.join(map(str, ids[:10]))}{more}")
    return torch.where(where[:, None], style.to(features)[:, None, None], features)


def label_ids(images: Tensor, num_labels: int) -> Tensor:
    """Label maps as images [N, 1 or 3, H, W] in [-1, 1] -> int64 [N, H, W].

    Raises:
        ValueError: they are coloured, or have other classes than 0 to num_labels - 1.
    """
    grey = images[:, :1]
    ids = ((grey[:, 0] + 1) * 127.5).round().long()
    if torch.compiler.is_exporting():  # a graph cannot look at values
        return ids
    if (images != grey).any():
        raise ValueError("a label map is grey, its values are classes; this image is coloured: give the map itself")
    if ids.min() < 0 or ids.max() >= num_labels:
        found = f"{ids.min()} to {ids.max()}"
        raise ValueError(f"the label map has classes from {found}, the model's are 0 to {num_labels - 1}")
    return ids


def label_colours(label: Tensor) -> Tensor:
    """int64 [N, H, W] -> uint8 [N, 3, H, W]: its bits dealt to the colours in turn, the lowest weigh most."""
    bits = [(label >> i) & 1 for i in range(9)]
    return torch.stack([sum(bits[3 * j + k] << (7 - j) for j in range(3)) for k in range(3)], 1).to(torch.uint8)
