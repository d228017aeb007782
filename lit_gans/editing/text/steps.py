"""Steps of an edit script that a text leads: see `lit_gans.editing.steps`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from lit_gans.editing.state import Edited, check_weights
from lit_gans.editing.text.building import CLIP, build_image_text
from lit_gans.editing.text.identity import build_identity
from lit_gans.editing.text.mapper import STRENGTH, mapped, read_mapper
from lit_gans.editing.text.optimization import OnStep, optimize_latents
from lit_gans.editing.text.shifts import read_shift


@dataclass(frozen=True)
class Text:
    """The styles of each layer, optimised until the picture fits a text (StyleCLIP's first method).

    image_text: what compares images with texts, see `build_image_text`; weights: its further file or folder; by: the
    share of the way that is gone; steps, lr, l2_weight: of the optimisation; identity: weights of face-api's
    face_recognition_model, which id_weight holds to who is seen. What was added to channel styles before counts, and
    other noise and weights do not.
    """

    text: str
    image_text: str
    weights: str | None = None
    by: float = 1.0
    steps: int = 300
    lr: float = 0.1
    l2_weight: float = 0.008
    identity: str | None = None
    id_weight: float = 0.005

    def apply(self, edited: Edited, files: Path, *, on_step: OnStep | None = None) -> Edited:
        ws, model = edited.styled("text"), edited.model
        spec = self.image_text if self.image_text.startswith(CLIP) else str(files / self.image_text)
        there = self.weights is not None and (files / self.weights).exists()
        judge = build_image_text(spec, weights=files / self.weights if there else self.weights)
        if isinstance(judge, nn.Module):
            judge.to(model.device)
        seen = None if self.identity is None else build_identity(files / self.identity).to(model.device)
        found = optimize_latents(
            model, ws, self.text, image_text=judge, identity=seen, steps=self.steps, lr=self.lr,
            l2_weight=self.l2_weight, id_weight=0.0 if seen is None else self.id_weight, ema=edited.ema,
            on_step=on_step,
        )  # fmt: skip
        return replace(edited, ws=ws.lerp(found.ws, self.by))


@dataclass(frozen=True)
class Map:
    """A latent mapper's file (StyleCLIP's second method): what it adds to the styles, times `by`."""

    file: str
    by: float = STRENGTH

    def apply(self, edited: Edited, files: Path) -> Edited:
        mapper, said = read_mapper(files / self.file)
        check_weights(said["generator"], edited.model, files / self.file, ema=edited.ema)
        ws = edited.styled("map")
        return replace(edited, ws=mapped(mapper.to(ws.device), ws, strength=self.by))


@dataclass(frozen=True)
class Shift:
    """A direction in style space (StyleCLIP's third method, and StyleMC's), added to channel styles `by` times."""

    file: str
    by: float = 1.0

    def apply(self, edited: Edited, files: Path) -> Edited:
        shift = read_shift(files / self.file)
        check_weights(shift.settings["generator"], edited.model, files / self.file, ema=edited.ema)
        edited.styled("shift")
        added = {name: one.to(edited.model.device) for name, one in shift.times(self.by).items()}
        return replace(edited, shifts={**edited.shifts, **{k: _sum(edited.shifts.get(k), v) for k, v in added.items()}})


def _sum(before: Tensor | None, more: Tensor) -> Tensor:
    return more if before is None else before + more
