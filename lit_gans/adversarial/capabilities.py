"""What a model can do, asked for by callbacks, verbs, evaluation and editing instead of what it is.

A class has a capability by having its members; nothing is inherited or registered for it. So a model of another family,
or of a stranger's file, is sampled, measured and resumed as ours are. What metrics ask for stands in `metrics.sources`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import lightning.pytorch as pl
from torch import Tensor

from lit_gans.metrics.sources import Averages, Captioned, FromLatents, HasStyles, Samples, Translates

__all__ = [
    "Attends", "Averages", "Captioned", "FromLatents", "Grows", "HasStyles", "Input", "Previews", "Samples",
    "Translates", "can", "require",
]  # fmt: skip

C = TypeVar("C")


@runtime_checkable
class Attends(Captioned, Protocol):
    """Draws while looking at the words of a caption, and tells at which."""

    def attention(self, seeds: Sequence[int], captions: Sequence[str], *, psi: float, ema: bool) -> Any:
        """The images of seeds and captions, with the attention of each place to each word."""


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
class Grows(Protocol):
    """Is trained from small images to its full resolution: all its networks, averages too, go to a stage together."""

    resolution: int

    def set_progress(self, stage: int, alpha: float) -> None:
        """Goes to `stage` pixels, with a share `alpha` of its newest layers."""


class Input(NamedTuple):
    """What a translator takes: pictures of so many channels, or label maps, whose grey values are classes."""

    channels: int
    labels: bool = False


MAKES: dict[type, str] = {
    Samples: "draws images from seeds",
    FromLatents: "draws images of latents",
    HasStyles: "has styles between latents and images",
    Captioned: "draws what captions say",
    Attends: "attends to the words of captions",
    Translates: "translates images",
}
IS_TRAINED_WITH: dict[type, str] = {
    Averages: "keeps averages of its networks",
    Previews: "shows previews",
    Grows: "grows from small images to large ones",
}

def can(model: object, capability: type) -> bool:
    """Whether the model has all members of the capability; of one for captions, that it was trained with some too."""
    has = isinstance(model, capability)
    return has and model.reads_captions if capability in (Captioned, Attends) else has


def require(model: object, capability: type[C], purpose: str) -> C:
    """The model, which can do what `purpose` (such as "lit-gans project") needs.

    Raises:
        ValueError: it cannot; the message says what it can.
    """
    if can(model, capability):
        return model
    able = [does for kind, does in MAKES.items() if can(model, kind)]
    raise ValueError(
        f"{purpose} needs a model that {(MAKES | IS_TRAINED_WITH)[capability]}, and a {type(model).__name__} does not: "
        f"it {' and '.join(able) or 'makes no images'}"
    )
