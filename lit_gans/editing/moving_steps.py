"""Steps of edit scripts along a direction and by dragged points: see `lit_gans.editing.steps`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, open_picture, to_mode
from lit_gans.editing.directions import check_model, move, read_directions
from lit_gans.editing.drag import drag
from lit_gans.editing.state import Edited
from lit_gans.editing.styles import chosen_layers


@dataclass(frozen=True)
class Along:
    """So many standard deviations along a direction of a file that `lit-gans directions` wrote.

    name: of the direction, by default the file's first; layers: as for `mix`, by default those of the direction.
    """

    file: str
    name: str | None = None
    by: float = 1.0
    layers: str | Sequence[int] | None = None

    def apply(self, edited: Edited, files: Path) -> Edited:
        found = read_directions(files / self.file)
        check_model(found, edited.model, ema=edited.ema)
        direction = found[found.names[0] if self.name is None else self.name]
        if direction.space == "z":
            if edited.z is None:
                raise ValueError(f"direction {direction.name!r} is one of latents, and the picture has styles instead")
            return replace(edited, z=move(edited.z, direction, self.by))
        ws = edited.styled("a direction of W")
        rows = None if self.layers is None else chosen_layers(self.layers, ws.shape[1])
        return replace(edited, ws=move(ws, direction, self.by, layers=rows))


@dataclass(frozen=True)
class Pull:
    """Points dragged to where they shall be (DragGAN), in pixels (x, y) of the picture; see `lit_gans.editing.drag`.

    mask: a picture of the same size, light where all shall stay as it is and dark where it may change; max_steps: it
    ends there, or when all points have arrived.
    """

    handles: Sequence[Sequence[float]]
    targets: Sequence[Sequence[float]]
    mask: str | None = None
    max_steps: int = 300
    layer: str | None = None
    r1: float | None = None
    r2: float | None = None
    mask_weight: float = 20.0
    reg: float = 0.0
    lr: float = 0.001
    rows: int = 6

    def settings(self, edited: Edited, files: Path) -> dict[str, Any]:
        """What `drag` and `begin_drag` take of it. ValueError for points that are none, and a mask that is none."""
        said = {name: getattr(self, name) for name in ("layer", "r1", "r2", "mask_weight", "reg", "lr", "rows")}
        said |= {"ema": edited.ema, "draw": lambda ws: replace(edited, ws=ws).image()}
        points = {"handles": _points(self.handles, "handle"), "targets": _points(self.targets, "target")}
        return said | points | {"mask": None if self.mask is None else read_mask(files / self.mask)}

    def apply(self, edited: Edited, files: Path) -> Edited:
        ws = edited.styled("drag")
        found = drag(edited.model, ws, max_steps=self.max_steps, frames=False, **self.settings(edited, files))
        return replace(edited, ws=found.ws.to(ws))


def _points(given: Sequence[Sequence[float]], what: str) -> list[list[float]]:
    points = [list(map(float, point)) for point in given]
    wrong = [point for point in points if len(point) != 2 or not all(map(math.isfinite, point))]
    if wrong:
        raise ValueError(f"{what} {wrong[0]} is no point [x, y]")
    return points


def read_mask(path: Path) -> Tensor:
    """[R, R], 1 where a picture file is light, else 0. ValueError for a file that is no picture."""
    try:
        with path.open("rb") as file:
            light = np.asarray(to_mode(open_picture(file, MAX_PIXELS), "L")) > 127
    except UNREADABLE as error:
        raise ValueError(f"mask {path} cannot be read as a picture: {error}") from error
    return torch.from_numpy(light).float()
