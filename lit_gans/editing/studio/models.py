"""The models of a studio: by name, read when they are first asked for, and kept."""

from __future__ import annotations

from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import (
    Captioned,
    CentredByClass,
    FromLatents,
    HasLayers,
    HasStyles,
    Named,
    Translates,
    can,
)
from lit_gans.editing.projector import noise_maps
from lit_gans.editing.state import Edited, weights_digest
from lit_gans.editing.steps import STEPS
from lit_gans.editing.styles import GROUPS
from lit_gans.runs.folder import has_checkpoint, is_pretrained
from lit_gans.runs.load import load_run

KEPT = 3  # models in memory at a time
STYLED = ("mix", "noise", "drag", "text", "map", "shift")  # steps of styled models alone
LAYERED = ("drag", "text", "shift")  # of those that show their layers


def models_of(path: Path) -> dict[str, Path]:
    """Name to place: a run folder, checkpoint or saved folder by itself, or all of them that a folder holds.

    Raises:
        FileNotFoundError: there is nothing. ValueError: a folder without any.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a run, a checkpoint, a saved folder, or a folder of them")
    if path.is_file() or _is_model(path):
        return {path.resolve().name: path}
    found = {one.name: one for one in sorted(path.iterdir()) if one.is_dir() and _is_model(one)}
    if not found:
        raise ValueError(f"{path} is no run and holds none: a run has a checkpoint, a saved folder model.safetensors")
    return found


def _is_model(folder: Path) -> bool:
    return is_pretrained(folder) or has_checkpoint(folder)


class Models:
    """At most `KEPT` of them in memory, those that were asked for last."""

    def __init__(self, places: dict[str, Path], *, device: torch.device | str, trust: str | None = None) -> None:
        self.places, self.device, self.trust = places, device, trust
        self._loaded: OrderedDict[str, Game] = OrderedDict()

    def __getitem__(self, name: str) -> Game:
        """ValueError for a name that is not among them."""
        if name not in self.places:
            raise ValueError(f"there is no model {str(name)[:100]!r}: there are {', '.join(self.places)}")
        if name not in self._loaded:
            self._loaded[name] = load_run(self.places[name], trust=self.trust).to(self.device)
            if len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def digest(self, name: str) -> str:
        """`weights_digest` of it."""
        return weights_digest(self[name])


def about(model: Game) -> dict[str, Any]:
    """What a page has to know of a model: by what it can do."""
    told = {"family": type(model).__name__, "kimg": round(model.images_seen / 1000, 1), "kind": "other"}
    if can(model, FromLatents):
        return told | _about_generator(model)
    if can(model, Translates):
        ways = {way: model.takes(way)._asdict() for way in model.directions}
        return told | {"kind": "translator", "directions": ways}
    return told


def _about_generator(model: Any) -> dict[str, Any]:
    styled, captioned = can(model, HasStyles), can(model, Captioned)
    names = model.class_names if can(model, Named) else ()
    noise = styled and bool(noise_maps(model))
    rows = _rows(model) if styled else 0
    cannot = (() if styled else STYLED) + (() if can(model, HasLayers) else LAYERED) + (() if noise else ("noise",))
    cannot += () if model.num_classes else ("class",)
    return {
        "kind": "generator",
        "resolution": model.resolution,
        "classes": list(names) or [str(number) for number in range(model.num_classes)],
        "class_means": can(model, CentredByClass),
        "captions": captioned,
        "styles": styled,
        "rows": rows,
        "groups": {group: [row for row in GROUPS[group] if row < rows] for group in GROUPS},
        "spaces": ["w", "w+"] if styled else [] if captioned else ["z"],
        "steps": [one for one in STEPS if one not in cannot],
        "formats": ["gif", "mp4"] if find_spec("imageio_ffmpeg") else ["gif"],
    }


def _rows(model: Any) -> int:
    return Edited.from_seed(model, 0).styled("the studio").shape[1]
