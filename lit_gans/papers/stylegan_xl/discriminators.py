"""What judges StyleGAN-XL's images (Sauer et al., 2022, Sec. 3): projected discriminators, and a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear

from lit_gans.augment import DiffAugment
from lit_gans.augment.diffaug import POLICIES
from lit_gans.base.cache import digest
from lit_gans.base.grids import spread
from lit_gans.base.images import from_uint8
from lit_gans.base.processes import of_all_processes, rank_and_world
from lit_gans.data.sets import ImageSet
from lit_gans.metrics.attributes import fit_logistic
from lit_gans.nn.equalized import EqualizedLinear
from lit_gans.papers import projected_gan
from lit_gans.papers.projected_gan.features import (
    PUBLISHED_PX,
    FeatureNetwork,
    freeze,
    published_statistics,
    seeded,
    stamp_of,
    whole,
)
from lit_gans.papers.stylegan_xl.networks import ClassEmbedding

AT_ONCE = 32  # images, of which features are taken
LEARNED = "learned"  # classes of a classifier that the data teaches


class Condition(nn.Module):
    """labels [N], or one-hot [N, C] -> what logits are projected onto, [N, out_dim]: from its own embedding."""

    def __init__(self, num_classes: int, embedding: Sequence[int], *, out_dim: int = 64) -> None:
        super().__init__()
        self.embed = ClassEmbedding(num_classes, embedding)
        self.project = EqualizedLinear(embedding[1], out_dim, activation="lrelu")

    def forward(self, labels: Tensor) -> Tensor:
        return self.project(self.embed(labels))


class Discriminator(nn.Module):
    """Images [N, C, H, W] in [-1, 1] (and labels) -> logits [N, L] of each feature network.

    Each network has its own mixing, heads and, in training, augmented images.

    Args:
        features: names, as `FeatureNetwork` takes them; weights, fingerprints, px: of each.
        num_classes, embedding: see `Condition`; 0 for none.
        mixed_channels, num_heads, head_width: see `Projector` and projected_gan's `Discriminator`.
        policy: of `DiffAugment`. seed: of the mixing.
    """

    def __init__(
        self,
        features: Sequence[str],
        *,
        weights: Sequence[str | None],
        fingerprints: Sequence[str | None],
        px: Sequence[int],
        num_classes: int = 0,
        embedding: Sequence[int] = (1000, 320),
        mixed_channels: int = 64,
        num_heads: int = 4,
        head_width: int | None = None,
        policy: Sequence[str] = POLICIES,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.augment, self.judges = DiffAugment(list(policy), cutout=0.2), nn.ModuleList()
        shape = {"mixed_channels": mixed_channels, "num_heads": num_heads, "width": head_width}
        shape |= {"num_classes": num_classes, "condition": partial(Condition, embedding=embedding)}
        for number, (name, path, side, known) in enumerate(zip(features, weights, px, fingerprints, strict=True)):
            given = {"features_px": side, "features_weights": path, "fingerprint": known, "seed": seed + number}
            self.judges.append(projected_gan.Discriminator(name, normalise=True, **given, **shape))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        return [judge(self.augment(images) if self.training else images, labels) for judge in self.judges]


class Classifier(nn.Module):
    """Images [N, 1 or 3, H, W] in [-1, 1] -> logits [N, classes] of a frozen network, for guidance (Sec. 3.4).

    State dicts do not hold its weights, which are read before the first pass.

    Args:
        name, weights: as `FeatureNetwork` takes them; px: the side that images are resized to, bilinearly.
        classes: which of its outputs are those of the data, in their order; None takes all. "learned" is for classes
            that it does not know: logistic regressions on its outputs, one for each class, see `learn`.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        name: str = "deit_small_distilled_patch16_224",
        *,
        weights: str | Path | None = None,
        px: int = PUBLISHED_PX,
        classes: Sequence[int] | Literal["learned"] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(classes, str) and classes != LEARNED:
            raise ValueError(f"classes {classes!r} of a classifier: give numbers of its outputs, {LEARNED!r}, or None")
        self.name, self.weights, self.px, self.classes = name, weights, px, classes
        self.register_buffer("weight", None, persistent=False)
        self.register_buffer("bias", None, persistent=False)
        self.network: nn.Module | None = None
        self.fingerprint: str | None = None  # of the weights, once they are read
        mean, std = published_statistics(name)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 2 - 1, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 2, persistent=False)

    def load(self) -> None:
        """Reads the weights, unless they are there; errors as `FeatureNetwork.load`."""
        if self.network is None:
            with seeded(0):
                network = whole(self.name, self.weights)
            self.fingerprint = digest(network.state_dict())[:16]
            self.network = freeze(network, saved=False).to(self.mean.device)

    def stamp(self) -> dict[str, object]:
        """Which network judges classes, with which weights."""
        return {"network": self.name, "px": self.px, **stamp_of(self.weights, self.fingerprint)}

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.outputs(images)
        if self.classes == LEARNED:
            assert self.weight is not None, "learn comes first"
            return linear(outputs, self.weight, self.bias)
        return outputs if self.classes is None else outputs[:, [int(number) for number in self.classes]]

    def outputs(self, images: Tensor) -> Tensor:
        """Images [N, 1 or 3, H, W] in [-1, 1] -> all of the network's logits [N, K]."""
        self.load()
        assert self.network is not None
        x = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        logits: Tensor = self.network(interpolate(x, (self.px, self.px), mode="bilinear", align_corners=False))
        return logits

    def check(self, num_classes: int) -> None:
        """ValueError where it tells another number of classes apart than the data has."""
        if not isinstance(self.classes, str) and self.classes is not None and len(self.classes) != num_classes:
            raise ValueError(
                f"classes of the classifier are {len(self.classes)} of its outputs, and the data has {num_classes} "
                f"classes: give one for each, or classes={LEARNED}"
            )

    @torch.no_grad()
    def learn(self, images: ImageSet, *, classes: Sequence[str], most: int) -> float:
        """Learns the data's classes from `most` images of each at most, as small as they are; mean of the accuracies.

        They are of telling one class from all others, on a fifth of the images that is held out.
        """
        rows = torch.cat(class_rows(images, classes=classes, most=most))
        assert images.labels is not None
        labels, parts = images.labels[rows], rows.split(AT_ONCE)
        outputs = torch.cat([self.outputs(from_uint8(images.images(part)).to(self.mean.device)) for part in parts])
        found = fit_logistic(outputs, labels[:, None] == torch.arange(len(classes)))
        self.weight, self.bias = (found[name].to(outputs) for name in ("weight", "bias"))
        return found["accuracy"].mean().item()

    def train(self, mode: bool = True) -> Classifier:
        return super().train(False)


def class_rows(images: ImageSet, *, classes: Sequence[str], most: int) -> list[Tensor]:
    """For each class the numbers of its images, evenly chosen where they are more than `most`.

    ValueError for a class without images.
    """
    assert images.labels is not None
    found = []
    for number, name in enumerate(classes):
        own = (images.labels == number).nonzero()[:, 0]
        if not len(own):
            raise ValueError(f"class {number} ({name}) has no images to begin with: leave it out of the data")
        found.append(own[spread(len(own), most)])
    return found


@torch.no_grad()
def class_features(network: FeatureNetwork, images: ImageSet, *, classes: Sequence[str], most: int) -> Tensor:
    """[C, E]: for each class the mean, over `most` of its images at most, of the network's coarsest map, pooled.

    Each process takes its share of the classes, and has all rows.

    Raises:
        ValueError: a class without images.
    """
    seen, (rank, world) = images.at(network.px), rank_and_world()
    rows = torch.zeros(len(classes), network.channels[-1], device=network.mean.device)
    for number, chosen in enumerate(class_rows(images, classes=classes, most=most)):
        if number % world == rank:
            pixels = (from_uint8(seen.images(part)).to(rows.device) for part in chosen.split(AT_ONCE))
            rows[number] = torch.cat([network(x)[-1].mean((2, 3)) for x in pixels]).mean(0)
    return of_all_processes(rows[None]).sum(0)
