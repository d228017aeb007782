"""Films of a walk through latents or styles, from seed to seed and back to the first; films of images that move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_gans.adversarial.capabilities import FromLatents, HasStyles, Transforms
from lit_gans.base.grids import columns_of
from lit_gans.base.interpolation import arc, lerp
from lit_gans.editing.sampling import rows_of
from lit_gans.editing.styles import draw_latents, draw_styles, styles_of
from lit_gans.metrics.equivariance import TRANSLATE_MAX, rotation, translation
from lit_gans.metrics.path_length import check_space


def film(
    model: FromLatents,
    seeds: Sequence[int],
    classes: Sequence[int] | None,
    *,
    count: int,
    frames: int,
    grid: bool,
    space: Literal["z", "w"],
    psi: float,
    ema: bool,
    batch_size: int,
) -> tuple[Tensor, int]:
    """(uint8 [frames * cells, C, H, W], columns): all cells of a frame, then the next; `count` seeds for each cell.

    ValueError for a walk in W through a model without.
    """
    check_space(model, space)
    groups = [seeds[i : i + count] for i in range(0, len(seeds) - count + 1, count)]
    if not grid:
        groups, rows = groups[:1], [(classes or [seeds[0] % model.num_classes])[0] if model.num_classes else None]
    else:
        rows = rows_of(model, classes)
    columns = len(groups) if model.num_classes else columns_of(len(groups))
    if space == "w":
        cells = [style_loop(model, g, frames=frames, label=row, psi=psi, ema=ema) for row in rows for g in groups]
        return draw_styles(model, torch.stack(cells, 1).flatten(0, 1), ema=ema, batch_size=batch_size), columns
    spherical = model.prior.spherical
    paths = torch.stack([loop(model.seeded_latents(group), frames, spherical=spherical) for group in groups])
    z = paths.repeat(len(rows), 1, 1).transpose(0, 1)  # [frames, rows * groups, Z]
    labels = torch.tensor(rows).repeat_interleave(len(groups)).repeat(frames) if model.num_classes else None
    return draw_latents(model, z.flatten(0, 1), labels=labels, psi=psi, ema=ema, batch_size=batch_size), columns


MOVES = {
    "translate": lambda t: translation(TRANSLATE_MAX * math.cos(t), TRANSLATE_MAX * math.sin(t)),
    "rotate": rotation,
}
"""How an image has moved at angle t of a round, from 0 to 2 pi: on a circle of 1/8 of its side, or about its middle."""


def moving_film(
    model: Transforms,
    seeds: Sequence[int],
    classes: Sequence[int] | None,
    *,
    move: Literal["translate", "rotate"],
    frames: int,
    grid: bool,
    psi: float,
    ema: bool,
    batch_size: int,
) -> tuple[Tensor, int]:
    """(uint8 [frames * cells, C, H, W], columns), as `film`: what the generator draws when its input makes one round.

    In a perfect generator all details move with their image; what stays where it is sticks to the pixels.
    """
    rows = rows_of(model, classes) if grid else [None if classes is None else classes[0]]
    seeds = seeds if grid else seeds[:1]
    ws = torch.cat([styles_of(model, seeds, label=row, psi=psi, ema=ema) for row in rows])
    columns = len(seeds) if len(rows) > 1 else columns_of(len(ws))
    turns = [MOVES[move](2 * math.pi * i / frames).inverse() for i in range(frames)]
    drawn = [draw_styles(model, ws, transform=turn, ema=ema, batch_size=batch_size) for turn in turns]
    return torch.cat(drawn), columns


def style_loop(
    model: HasStyles,
    seeds: Sequence[int],
    *,
    frames: int,
    label: int | None = None,
    psi: float = 1.0,
    ema: bool = True,
) -> Tensor:
    """ws [frames, L, W]: straight through the styles of all seeds and back to the first, as `loop` does.

    W need not follow any density, so that straight lines are the natural ones (Karras et al., 2019, Sec. 4.1).
    """
    ws = styles_of(model, seeds, label=label, psi=psi, ema=ema)
    return loop(ws.flatten(1), frames, spherical=False).unflatten(1, ws.shape[1:])


def loop(z: Tensor, frames: int, *, spherical: bool) -> Tensor:
    """z [K, Z] -> [frames, Z]: evenly through all K and back to the first, which follows the last frame.

    Spherical for a normal prior, whose samples lie near a sphere; linear for a uniform one, whose cube is convex.
    """
    place = torch.arange(frames, dtype=torch.float64) * len(z) / frames
    index = place.long()
    t = (place - index).to(z.dtype)[:, None].to(z.device)
    start, end = z[index], z[(index + 1) % len(z)]
    return (arc if spherical else lerp)(start, end, t)
