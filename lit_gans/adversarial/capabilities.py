"""What a model can do, asked for by callbacks, verbs, evaluation and editing instead of what it is.

A class has a capability by having its members; nothing is inherited or registered for it. So a model of another family,
or of a stranger's file, is sampled, measured and resumed as ours are. What metrics ask for stands in `metrics.sources`.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gans.metrics.sources import (
    Averages,
    Captioned,
    FromLatents,
    HasLayers,
    HasMargins,
    HasStyles,
    Input,
    Samples,
    StyleLayer,
    Transforms,
    Translates,
    Truncates,
)  # fmt: skip

__all__ = [
    "Attends", "Averages", "Captioned", "CentredByClass", "Encodes", "FromLatents", "Grows", "HasLayers", "HasMargins",
    "HasStyles", "Input", "Kept", "Named", "Previews", "ReadsFeatures", "Samples", "StyleLayer", "Transforms",
    "Translates", "Truncates", "can",
    "class_labels", "require", "truncate_by",
]  # fmt: skip

C = TypeVar("C")


@runtime_checkable
class Attends(Captioned, Protocol):
    """Draws while looking at the words of a caption, and tells at which."""

    def attention(self, seeds: Sequence[int], captions: Sequence[str], *, psi: float, ema: bool) -> Any:
        """The images of seeds and captions, with the attention of each place to each word."""


@runtime_checkable
class ReadsFeatures(Captioned, Protocol):
    """Draws from what its text encoder knows of captions, so that it can do without the encoder."""

    def made_up_features(self, seeds: Sequence[int] | Tensor) -> Any:
        """A named tuple of tensors [N, ...], or None for some, as `read` gives; row i is of a caption that nobody
        wrote, and depends on seeds[i] alone."""


@runtime_checkable
class CentredByClass(Protocol):
    """Has, where there are classes, a mean style of each instead of one of all."""

    def class_centres(self, *, ema: bool = True) -> Tensor:
        """[C, W]: what the styles of each class are truncated to; [1, W] without classes."""


@runtime_checkable
class Encodes(FromLatents, Protocol):
    """Was trained with an encoder of its own; `encodes`: whether that has learned."""

    @property
    def encodes(self) -> bool: ...

    def encode(self, images: Tensor) -> Tensor:
        """images [N, C, R, R] in [-1, 1] -> the latents z [N, z_dim] whose images they are taken for."""


@runtime_checkable
class Previews(Protocol):
    """Shows at a glance what it has come to."""

    def preview(
        self, data: pl.LightningDataModule | None, *, rows: int, columns: int, psi: float
    ) -> tuple[Tensor, int]:
        """(uint8 images [N, C, H, W] on the CPU, how many of them make a row), at most rows x columns images.

        The same places show the same inputs at every call. psi: truncation, see `Samples.sample`.
        """


@runtime_checkable
class Named(Protocol):
    """Knows what its classes are called: () where it was trained on data without names."""

    class_names: tuple[str, ...]


@runtime_checkable
class Grows(Protocol):
    """Is trained from small images to its full resolution: all its networks, averages too, go to a stage together."""

    resolution: int

    def set_progress(self, stage: int, alpha: float) -> None:
        """Goes to `stage` pixels, with a share `alpha` of its newest layers."""


@runtime_checkable
class Kept(Protocol):
    """Can be built again and trained on: it knows its constructor's arguments, and how many images it has seen."""

    hparams: MutableMapping[str, Any]
    images_seen: int


MAKES: dict[type, str] = {
    Samples: "draws images from seeds",
    FromLatents: "draws images of latents",
    HasStyles: "has styles (W) between latents and images",
    HasLayers: "shows its layers",
    Encodes: "tells the latents of images",
    Transforms: "moves and turns its input",
    Captioned: "draws what captions say",
    Attends: "attends to the words of captions",
    ReadsFeatures: "draws features of captions",
    Translates: "translates images",
}
IS_TRAINED_WITH: dict[type, str] = {
    Averages: "keeps averages of its networks",
    Previews: "shows previews",
    Grows: "grows from small images to large ones",
}


def can(model: object, capability: type) -> bool:
    """Whether the model has all members of the capability; of one for captions, that it was trained with some too, and
    of an encoder, that it has learned."""
    has = isinstance(model, capability)
    if capability is Encodes:
        return has and cast(Encodes, model).encodes
    return has and cast(Captioned, model).reads_captions if capability in (Captioned, Attends, ReadsFeatures) else has


def require(model: object, capability: type[C], purpose: str, *, otherwise: str = "") -> C:
    """The model, which can do what `purpose` (such as "lit-gans project") needs; otherwise: a way out beside others.

    Raises:
        ValueError: it cannot; the message says what it can.
    """
    if can(model, capability):
        return cast(C, model)
    able = [does for kind, does in MAKES.items() if can(model, kind)]
    raise ValueError(
        f"{purpose} needs a model that {(MAKES | IS_TRAINED_WITH)[capability]}, and a {type(model).__name__} does not: "
        f"it {' and '.join(able) or 'makes no images'}{otherwise and f'; {otherwise}'}"
    )


def truncate_by(model: object, how: str | None) -> None:
    """Sets which of its ways the model truncates its latents by; None leaves it as it is.

    Raises:
        ValueError: it has but one, or not this one.
    """
    if how is None:
        return
    if not isinstance(model, Truncates):
        raise ValueError(f"truncation {how!r}: a {type(model).__name__} truncates in one way alone: leave it out")
    if how not in model.truncations:
        raise ValueError(f"truncation {how!r} is not one of {', '.join(model.truncations)}")
    model.truncation = how


def class_labels(
    model: Samples | FromLatents, seeds: Sequence[int] | Tensor, labels: Tensor | None = None
) -> Tensor | None:
    """int64 [N] on the model's device, by default of each seed its remainder; None on an unconditional model.

    Raises:
        ValueError: labels that the model has not, or not one for each seed.
    """
    if model.num_classes == 0:
        if labels is not None:
            raise ValueError("labels were given, but this model is unconditional (num_classes 0)")
        return None
    labels = torch.as_tensor(seeds) % model.num_classes if labels is None else torch.as_tensor(labels)
    if len(labels) != len(seeds) or labels.min() < 0 or labels.max() >= model.num_classes:
        raise ValueError(
            f"labels must be {len(seeds)} classes from 0 to {model.num_classes - 1}, found {labels.tolist()[:10]}"
        )
    return labels.to(model.device)
