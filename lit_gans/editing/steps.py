"""Steps of an edit script: each is one change of a picture, with its numbers, that can be written down and replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import Captioned, HasStyles, Named, can, require
from lit_gans.base.interpolation import arc, lerp
from lit_gans.base.random import Draws
from lit_gans.editing.moving_steps import Along, Pull
from lit_gans.editing.projector import noise_maps, read_projection
from lit_gans.editing.sampling import classes_of
from lit_gans.editing.state import Edited
from lit_gans.editing.styles import chosen_layers
from lit_gans.editing.text.steps import Map, Shift, Text
from lit_gans.editing.tuning import read_weights_of


class Start(Protocol):
    """Where a script begins."""

    def begin(self, model: GAN, files: Path, *, ema: bool) -> Edited:
        """The picture before any step; files: the folder that relative paths are of."""


class Step(Protocol):
    """One change of a picture."""

    def apply(self, edited: Edited, files: Path) -> Edited:
        """The picture after it; files: the folder that relative paths are of."""


# ---- where a script begins -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FromSeed:
    """What the model draws of a seed.

    label: number or name of its class, by default the seed's remainder; psi: truncation.
    """

    seed: int
    label: int | str | None = None
    psi: float = 1.0

    def begin(self, model: GAN, files: Path, *, ema: bool) -> Edited:
        return Edited.from_seed(model, self.seed, label=class_of(model, self.label), psi=self.psi, ema=ema)


@dataclass(frozen=True)
class FromCaption:
    """What a model of captions draws of one, by the latent of a seed; psi: truncation."""

    caption: str
    seed: int = 0
    psi: float = 1.0

    def begin(self, model: GAN, files: Path, *, ema: bool) -> Edited:
        reader = require(model, Captioned, "a start from a caption")
        with torch.no_grad():
            z, features = reader.seeded_latents([self.seed]), reader.read([self.caption])
            if can(model, HasStyles):
                return Edited(model, model.styles(z, psi=self.psi, ema=ema, features=features), ema=ema)
            given = {"features": features, "noise": reader.seeded_noise([self.seed])}
        return Edited(model, z=z, psi=self.psi, ema=ema, given=given)


@dataclass(frozen=True)
class FromStyles:
    """Styles and noise maps of a file that `lit-gans project` wrote; weights: the tuned ones beside it."""

    styles: str
    weights: str | None = None

    def begin(self, model: GAN, files: Path, *, ema: bool) -> Edited:
        path = files / self.styles
        ws, noise, _ = read_projection(path)
        like = Edited.from_seed(model, 0, ema=ema).styled("a start from styles")
        if ws.shape != like.shape:
            raise ValueError(f"{path} has styles {list(ws.shape)}, and this model's are {list(like.shape)}: another's")
        return Edited(model, ws.to(like), noise=noise, weights=_tuned(self.weights, model, files), ema=ema)


@dataclass(frozen=True)
class FromLatent:
    """The latent of a file that `lit-gans project` or `age` wrote; label: by default that found; psi: truncation."""

    latent: str
    label: int | str | None = None
    psi: float = 1.0
    weights: str | None = None

    def begin(self, model: GAN, files: Path, *, ema: bool) -> Edited:
        path = files / self.latent
        z, _, said = read_projection(path)
        found = said.get("label") if isinstance(said.get("label"), int) else None
        label = class_of(model, found if self.label is None else self.label)
        like, own = Edited.from_seed(model, 0, label=label, ema=ema), model.seeded_latents([0])
        if z.shape != own.shape:
            raise ValueError(f"{path} has a latent {list(z.shape)}, and this model's are {list(own.shape)}: another's")
        edited = Edited.from_latent(model, z.to(own), label=like.label, psi=self.psi, ema=ema)
        return replace(edited, weights=_tuned(self.weights, model, files))


def _tuned(weights: str | None, model: GAN, files: Path) -> dict[str, Tensor]:
    return {} if weights is None else read_weights_of(files / weights, model)[0]


# ---- what is done ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truncate:
    """Towards the mean of the picture's class, or of all: typical, and less itself (Karras et al., 2019, App. B).

    psi: 1 changes nothing, 0 is the mean; layers: as for `mix`, by default all that the paper truncates.
    """

    psi: float
    layers: str | Sequence[int] | None = None

    def apply(self, edited: Edited, files: Path) -> Edited:
        if edited.ws is None:
            if self.layers is not None:
                raise ValueError("truncate: a model without styles has no layers to choose: leave layers out")
            return replace(edited, psi=edited.psi * self.psi)
        mean = Edited.from_seed(edited.model, 0, label=edited.label, psi=0, ema=edited.ema).styled("truncate")
        rows = range(mean.shape[1]) if self.layers is None else chosen_layers(self.layers, mean.shape[1])
        if self.layers is None:  # where a paper truncates the first layers alone, the others of two seeds differ
            other = Edited.from_seed(edited.model, 1, label=edited.label, psi=0, ema=edited.ema).styled("truncate")
            rows = [row for row in rows if torch.equal(mean[:, row], other[:, row])]
        ws = edited.ws.clone()
        ws[:, list(rows)] = torch.lerp(mean, edited.ws, self.psi)[:, list(rows)]
        return replace(edited, ws=ws)


@dataclass(frozen=True)
class Mix:
    """The styles of some layers from another seed (Karras et al., 2019, Fig. 3).

    layers: numbers, as "0-3,7" or a list, or "coarse" (4 and 8 px), "middle" (16, 32 px), "fine" (larger); by: the
    share of the other's, label: its class, by default the picture's; psi: its truncation.
    """

    seed: int
    layers: str | Sequence[int] = "coarse"
    by: float = 1.0
    label: int | str | None = None
    psi: float = 1.0

    def apply(self, edited: Edited, files: Path) -> Edited:
        ws = edited.styled("mix").clone()
        label = edited.label if self.label is None else class_of(edited.model, self.label)
        other = Edited.from_seed(edited.model, self.seed, label=label, psi=self.psi, ema=edited.ema).styled("mix")
        rows = list(chosen_layers(self.layers, ws.shape[1]))
        ws[:, rows] = torch.lerp(ws, other, self.by)[:, rows]
        return replace(edited, ws=ws)


@dataclass(frozen=True)
class Blend:
    """On the way to another seed's picture, in W where the model has styles, else in Z.

    by: 0 stays, 1 is the other; label, psi: as for `mix`.
    """

    seed: int
    by: float = 0.5
    label: int | str | None = None
    psi: float = 1.0

    def apply(self, edited: Edited, files: Path) -> Edited:
        label = edited.label if self.label is None else class_of(edited.model, self.label)
        other = Edited.from_seed(edited.model, self.seed, label=label, psi=self.psi, ema=edited.ema)
        if edited.ws is not None and other.ws is not None:
            return replace(edited, ws=torch.lerp(edited.ws, other.ws, self.by))
        assert edited.z is not None and other.z is not None
        share = torch.full_like(edited.z[:, :1], self.by)
        z = (arc if edited.model.prior.spherical else lerp)(edited.z, other.z, share)
        return replace(edited, z=z, label=other.label if self.label is not None else edited.label)


@dataclass(frozen=True)
class Class:
    """The same latent in another class: another age, where classes are groups of ages.

    label: number or name of the class. Styles that were moved before have no latent, which is refused.
    """

    label: int | str

    def apply(self, edited: Edited, files: Path) -> Edited:
        label = class_of(edited.model, self.label)
        assert label is not None
        return edited.in_class(label)


@dataclass(frozen=True)
class Noise:
    """Other noise maps: none ("none"), the model's own again ("const"), or drawn from a seed ("random")."""

    kind: Literal["none", "const", "random"]
    seed: int = 0

    def apply(self, edited: Edited, files: Path) -> Edited:
        edited.styled("noise")
        own = noise_maps(edited.model, ema=edited.ema)
        if not own:
            raise ValueError(f"noise: the layers of a {type(edited.model).__name__} have none")
        if self.kind == "const":
            return replace(edited, noise={})
        if self.kind == "none":
            return replace(edited, noise={name: torch.zeros_like(one) for name, one in own.items()})
        draws = Draws("edit", self.seed, "noise")
        return replace(edited, noise={name: draws.normal(*one.shape).to(one) for name, one in own.items()})


STARTS: dict[str, type[Start]] = {
    "caption": FromCaption, "seed": FromSeed, "styles": FromStyles, "latent": FromLatent,
}  # fmt: skip
STEPS: dict[str, type[Step]] = {
    "truncate": Truncate, "mix": Mix, "blend": Blend, "noise": Noise, "class": Class, "direction": Along, "drag": Pull,
    "text": Text, "map": Map, "shift": Shift,
}  # fmt: skip


def class_of(model: GAN, label: int | str | None) -> int | None:
    """Number of a class by its number or name. ValueError for a name that no class has."""
    if label is None or isinstance(label, int):
        return label
    found = classes_of(label, model.class_names if can(model, Named) else ())
    if found is None or len(found) != 1:
        raise ValueError(f"label {label!r}: a picture has one class, so give one")
    return found[0]
