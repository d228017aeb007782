"""A picture that is being edited: what a trained generator draws it from, and nothing that is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import FromLatents, HasStyles, can, class_labels, require
from lit_gans.base.cache import digest
from lit_gans.base.images import to_uint8
from lit_gans.base.interpolation import arc, lerp
from lit_gans.editing.layers import drawn_with, synthesize_shifted

_DIGESTS: WeakKeyDictionary[nn.Module, tuple[tuple[tuple[int, int], ...], str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Edited:
    """What one picture is drawn from; all edits give a new one, and the model itself is never changed.

    ws [1, L, W] of a styled model, z [1, Z] of any other; label: its class, None where there are none; psi: truncation
    of a model without styles; ema: by averaged weights; noise, weights: noise maps, and parameters and buffers, by
    their names in the model, in place of its own; shifts: what is added to channel styles [C] by layer; given: what
    else `generate` takes; drawn: of a styled model (z, psi, the ws that they gave), true of ws while that is the same.
    """

    model: GAN
    ws: Tensor | None = None
    z: Tensor | None = None
    label: int | None = None
    psi: float = 1.0
    ema: bool = True
    noise: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    shifts: Mapping[str, Tensor] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    drawn: tuple[Tensor, float, Tensor] | None = None

    @classmethod
    def from_seed(
        cls, model: GAN, seed: int, *, label: int | None = None, psi: float = 1.0, ema: bool = True
    ) -> Edited:
        """What the model draws of a seed.

        label: its class, by default the seed's remainder.

        Raises:
            ValueError: a class that the model has not, or a model that draws no images of latents.
        """
        require(model, FromLatents, "editing")
        labels = class_labels(model, [seed], None if label is None else torch.tensor([label]))
        known = None if labels is None else int(labels[0])
        return cls.from_latent(model, model.seeded_latents([seed]), label=known, psi=psi, ema=ema)

    @classmethod
    @torch.no_grad()
    def from_latent(
        cls, model: GAN, z: Tensor, *, label: int | None = None, psi: float = 1.0, ema: bool = True
    ) -> Edited:
        """What the model draws of a latent z [1, Z]; label: its class, by default the first of a conditional model.

        ValueError for a class that the model has not.
        """
        labels = class_labels(model, [0], None if label is None else torch.tensor([label]))
        label = None if labels is None else int(labels[0])
        if not can(model, HasStyles):
            return cls(model, z=z, label=label, psi=psi, ema=ema)
        ws = model.styles(z, labels=labels, psi=psi, ema=ema)
        return cls(model, ws, label=label, ema=ema, drawn=(z, psi, ws))

    def in_class(self, label: int) -> Edited:
        """The same latent in another class. ValueError for one that the model has not, and where there is no latent."""
        class_labels(self.model, [0], torch.tensor([label]))
        if self.ws is None:
            return replace(self, label=label)
        if self.drawn is None or self.drawn[2] is not self.ws:
            raise ValueError(
                "class: styles belong to the class that they were drawn in, and this picture's are of no latent, or "
                "were moved since: begin with a seed or a latent, and put this step before those that move styles"
            )
        z, psi, _ = self.drawn
        other = self.from_latent(self.model, z, label=label, psi=psi, ema=self.ema)
        return replace(self, ws=other.ws, label=label, drawn=other.drawn)

    def styled(self, purpose: str) -> Tensor:
        """ws [1, L, W]. ValueError for a model without."""
        require(self.model, HasStyles, purpose)
        assert self.ws is not None
        return self.ws

    def labels(self) -> Tensor | None:
        """[1] on the model's device; None without classes."""
        return None if self.label is None else torch.tensor([self.label], device=self.model.device)

    def image(self) -> Tensor:
        """[1, C, R, R] around [-1, 1], not clamped; differentiable in ws, noise and shifts of a styled model.

        ValueError for noise, weights or shifts of another model.
        """
        return drawn_with(self.model, {**self.weights, **self.noise}, self._draw)

    def picture(self) -> Tensor:
        """uint8 [C, R, R] on the CPU."""
        with torch.no_grad():
            return to_uint8(self.image()).cpu()[0]

    def _draw(self, model: GAN) -> Tensor:
        if self.ws is None:
            assert self.z is not None
            return model.generate(self.z, labels=self.labels(), psi=self.psi, ema=self.ema, **self.given)
        if self.shifts:
            return synthesize_shifted(model, self.ws, self.shifts, ema=self.ema)
        return model.synthesize(self.ws, ema=self.ema)


def between(a: Edited, b: Edited, t: float) -> Edited:
    """From a (t 0) to b (t 1), of one model: latents and shifts on the way, all else b's from the first step on."""
    if a.ws is not None and b.ws is not None:
        names = {*a.shifts, *b.shifts}
        zero = {name: torch.zeros_like((a.shifts | b.shifts)[name]) for name in names}
        shifts = {name: torch.lerp((zero | a.shifts)[name], (zero | b.shifts)[name], t) for name in names}
        return replace(b, ws=torch.lerp(a.ws, b.ws, t), shifts=shifts)
    assert a.z is not None and b.z is not None
    share = torch.full_like(a.z[:, :1], t)
    z = (arc if a.model.prior.spherical else lerp)(a.z, b.z, share)
    return replace(b, z=z, psi=a.psi + t * (b.psi - a.psi))


def weights_digest(model: GAN, *, ema: bool = True) -> str:
    """16 hex digits of the weights that images are drawn with."""
    player = model.generator_ema if ema and model.generator_ema is not None else model.generator
    state = player.state_dict()
    now = tuple((one.data_ptr(), one._version) for one in state.values())  # which all that changes weights changes
    if player not in _DIGESTS or _DIGESTS[player][0] != now:
        _DIGESTS[player] = (now, digest(state)[:16])
    return _DIGESTS[player][1]


def check_weights(made_with: object, model: GAN, file: str | Path, *, ema: bool = True) -> None:
    """ValueError where the weights that a file says it was made with are not those that this model draws with."""
    if (own := weights_digest(model, ema=ema)) != made_with:
        raise ValueError(
            f"{file} was made with a generator of the weights {made_with}, and this {type(model).__name__} has {own}: "
            "give the run and the checkpoint that it was made with, or make another file for this one"
        )
