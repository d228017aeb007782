"""What `lit-gans directions` is asked for, and what it shows: sheets along directions, and what changes along them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gans.adversarial.capabilities import FromLatents, HasStyles, Samples, class_labels, require
from lit_gans.base.images import save_png
from lit_gans.data import ImageData, Images
from lit_gans.editing.captions import captioned_grid
from lit_gans.editing.directions import Direction, Directions, move
from lit_gans.editing.styles import chosen_layers, draw_latents, draw_styles, styles_of
from lit_gans.metrics.attributes import Judge
from lit_gans.runs.folder import run_config
from lit_gans.runs.load import build_data

SUFFIX = ".safetensors"
SHOWN_DIRECTIONS, SHOWN_SEEDS = 8, 6  # of a sheet


def images_along(
    model: FromLatents,
    direction: Direction,
    seeds: Sequence[int],
    by: Sequence[float],
    *,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """uint8 [seeds, by, C, H, W]: each seed's image moved along the direction, by so many standard deviations."""
    far, look = torch.tensor(by, dtype=torch.float32).repeat(len(seeds)), {"ema": ema, "batch_size": batch_size}
    if direction.space == "w":
        gan = require(model, HasStyles, "a direction of W")
        ws = styles_of(gan, seeds, psi=psi, ema=ema).repeat_interleave(len(by), 0)
        images = draw_styles(gan, move(ws, direction, far), **look)
    else:
        z = model.seeded_latents(seeds).repeat_interleave(len(by), 0)
        labels = class_labels(model, seeds)
        labels = None if labels is None else labels.repeat_interleave(len(by))
        images = draw_latents(model, move(z, direction, far), labels=labels, psi=psi, **look)
    return images.unflatten(0, (len(seeds), len(by)))


def save_sheet(
    model: FromLatents, directions: Directions, seeds: Sequence[int], by: Sequence[float], path: Path, **look: Any
) -> Path:
    """One picture: of each of the first 8 directions a row for each of the first 6 seeds, moved further to the right.

    look: psi, ema, batch_size of `images_along`.
    """
    shown, rows, heads = seeds[:SHOWN_SEEDS], [], []
    steps = ", ".join(f"{one:+g}" if one else "0" for one in by)
    for direction in list(directions)[:SHOWN_DIRECTIONS]:
        rows.append(images_along(model, direction, shown, by, **look))
        heads += [f"{direction.name}: {steps}", *[""] * (len(shown) - 1)]
    return save_png(captioned_grid(torch.cat(rows), heads), path)


@torch.no_grad()
def rates_along(
    model: FromLatents,
    directions: Directions,
    judge: Judge,
    seeds: Sequence[int],
    by: Sequence[float],
    *,
    batch_size: int = 64,
    **look: Any,
) -> Tensor:
    """float64 [K, by, A]: of the images at each step along each direction, the share with each attribute of the judge.

    An honest judge was trained on other features than the one by which the directions were found. look: psi, ema.
    """
    found = []
    for direction in directions:
        images = images_along(model, direction, seeds, by, batch_size=batch_size, **look)
        device = model.device
        logits = torch.cat([judge(part.to(device)).cpu() for part in images.flatten(0, 1).split(batch_size)])
        found.append((logits > 0).double().unflatten(0, (len(seeds), len(by))).mean(0))
    return torch.stack(found)


# ---- tables ----------------------------------------------------------------------------------------------------------


def table(directions: Directions) -> str:
    """What the directions are, a line each."""
    score = directions.settings.get("score", "score")
    rows = [["direction", "deviation", "explained", score]]
    figures = zip(directions.names, directions.deviations, directions.explained, directions.scores, strict=True)
    rows += [[name, f"{d:.3f}", f"{100 * e:.2f} %", f"{s:.3f}"] for name, d, e, s in figures]
    return in_columns(rows)


def table_of_rates(directions: Directions, attributes: Sequence[str], by: Sequence[float], rates: Tensor) -> str:
    """rates [K, by, A] in per cent, a line for each direction and attribute."""
    rows = [["along", "share with", *(f"{one:+g}" for one in by)]]
    for name, steps in zip(directions.names, rates, strict=True):
        for attribute, column in zip(attributes, steps.T, strict=True):
            rows.append([name, attribute, *(f"{100 * one:.0f} %" for one in column.tolist())])
    return in_columns(rows)


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words, the first word of each to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [[row[0].ljust(widths[0]), *(word.rjust(w) for word, w in zip(row[1:], widths[1:], strict=True))]
             for row in rows]  # fmt: skip
    return "\n".join("  ".join(line) for line in lines)


# ---- what is asked for -----------------------------------------------------------------------------------------------


def file_and_name(given: str) -> tuple[Path, str | None]:
    """ "smile.safetensors:Smiling" -> (file, name of a direction); None without a name."""
    stem, suffix, name = given.rpartition(f"{SUFFIX}:")
    return (Path(stem + SUFFIX), name) if suffix else (Path(given), None)


def layers_of(given: str | Sequence[int] | None, model: FromLatents) -> tuple[int, ...] | None:
    """Rows of ws, as of `chosen_layers`. ValueError for those that there are not, and for a model without styles."""
    if given is None:
        return None
    gan = require(model, HasStyles, "a choice of layers", otherwise="leave layers out")
    return tuple(chosen_layers(given, styles_of(gan, [0]).shape[1]))


def check_choices(method: str | None, direction: str | None, **of_svm: object) -> None:
    """ValueError where it is not clear what to do, or something is given that has no part in it."""
    if (method is None) == (direction is None):
        raise ValueError("give either method, to find directions, or direction, a file of them to look at")
    if method == "svm":
        if missing := [name for name in ("attributes", "names") if not of_svm[name]]:
            raise ValueError(
                f"method svm needs {' and '.join(missing)}: a table such as list_attr_celeba.txt, and which of its "
                f"attributes are to be found, as --names Smiling Male"
            )
    elif method is not None and (useless := [name for name, value in of_svm.items() if value]):
        raise ValueError(f"{useless[0]} is of method svm, and the method is {method}: leave it out")


def pictures_of(run: str | Path, images: str | Path | None, model: Samples, *, trust: str | None = None) -> ImageData:
    """The pictures that a table labels: the run's own, or those of the folder `images`, framed as the run's own are.

    So a classifier of their attributes sees what the model makes. FileNotFoundError, ValueError where the run does not
    tell its data.
    """
    if images is None:
        return build_data(run_config(run), trust=trust)
    try:
        own = run_config(run)["data"].get("init_args") or {}
    except FileNotFoundError:  # a lone checkpoint, or a converted model
        own = {}
    framing = {name: own[name] for name in ("resize", "crop_px") if name in own}
    return Images(
        str(images), batch_size=1, resolution=model.resolution, channels=model.channels, labels="none", cache_mb=0,
        **framing,
    )  # fmt: skip
