"""The files of projections: pictures that are read, and what is written of what was found in each, and of all."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.base.files import replacing
from lit_gans.base.grids import readable_grid
from lit_gans.base.images import save_png, to_uint8
from lit_gans.base.progress import Lines
from lit_gans.base.video import save_film
from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, Framing, open_picture
from lit_gans.data.sources import open_source
from lit_gans.editing.encoder import Encoder, read_encoder
from lit_gans.editing.projector import Projection, Step, compared
from lit_gans.editing.script import Script
from lit_gans.editing.state import weights_digest
from lit_gans.editing.steps import FromLatent, FromStyles
from lit_gans.editing.tuning import TuningStep, save_weights

FPS = 25  # of the film of the way
WAYPOINTS = 10  # images of the way in progress.png
SHEET_COLUMNS = 4  # pictures beside each other in sheet.png, each with what was found
START = "encoder:"


def pictures_at(path: Path) -> dict[str, Path]:
    """Picture files by the names of their results, or the one file as "": without endings where names then differ.

    FileNotFoundError: there is nothing, or a folder without pictures.
    """
    if not path.is_dir():
        return {"": path}
    names = open_source(path).names
    stems = Counter(name.rpartition(".")[0] for name in names)
    return {stem if stems[stem := name.rpartition(".")[0]] == 1 else name: path / name for name in names}


def read_start(said: str | None, gan: GAN) -> Encoder | None:
    """The encoder that "encoder:FILE" says. Errors as `read_encoder`; ValueError for what says something else."""
    if said is None:
        return None
    if not said.startswith(START) or said == START:
        raise ValueError(f"start {said!r} is not of the form encoder:FILE, with a file of `lit-gans encode`")
    return read_encoder(said.removeprefix(START), gan)[0]


def read_picture(path: Path, *, resolution: int, channels: int) -> tuple[Tensor, str]:
    """(uint8 [C, R, R], what was done to it) of a picture file's largest middle square.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it cannot be read as a picture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a picture file")
    try:
        with path.open("rb") as file:
            width, height = open_picture(file, MAX_PIXELS).size
            pixels = Framing(resolution, channels).decode(file)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    side = min(width, height)
    done = [f"cropped to the middle {side}"] * (width != height) + [f"scaled to {resolution}"] * (side != resolution)
    said = f"{path.name} is {width} x {height} px{', ' if done else ''}{' and '.join(done)}"
    return torch.from_numpy(pixels.copy()), said


def save_found(
    found: Projection,
    gan: GAN,
    picture: Path,
    folder: Path,
    *,
    run: Path,
    ema: bool,
    format: Literal["gif", "mp4"] = "gif",
) -> None:
    """Writes code and weights, the pictures and the film of a projection of a picture file, and what edits begin with.

    run: where the model is, which edit.yaml says.
    """
    name, start = ("z", FromLatent) if found.code.ndim == 2 else ("w", FromStyles)
    found.save(folder / f"{name}.safetensors", **stamp(gan, picture, ema=ema))
    if found.weights:
        save_weights(found, gan, folder / "weights.safetensors")
    begin = start(f"{name}.safetensors", weights="weights.safetensors" if found.weights else None)
    Script(str(run.resolve()), begin, weights=weights_digest(gan, ema=ema), ema=ema).save(folder / "edit.yaml")
    save_pictures(found, folder, format=format)


def stages(found: Projection) -> Tensor:
    """uint8 [2 or 3, C, R, R]: the target, the pivot where there is one, what was found."""
    pivot = [] if found.pivot is None else [found.pivot.image]
    return to_uint8(torch.cat([found.target, *pivot, found.image]))


def save_pictures(found: Projection, folder: Path, *, format: Literal["gif", "mp4"] = "gif") -> None:
    """Writes the pictures and the film of a projection."""
    small, shown = to_uint8(compared(found.target)), stages(found)
    save_png(shown[-1], folder / "projected.png")
    save_png(shown[0], folder / "target.png")
    save_png(readable_grid(shown, len(shown)), folder / "side_by_side.png")
    count = min(WAYPOINTS, len(found.frames))
    way = torch.tensor([(i + 1) * len(found.frames) // count - 1 for i in range(count)])
    save_png(readable_grid(torch.cat([small, found.frames[way]]), count + 1), folder / "progress.png")
    pairs = torch.stack([small.expand_as(found.frames), found.frames], 1).flatten(0, 1)
    save_film(pairs, folder / f"progress.{format}", frames=len(found.frames), columns=2, fps=FPS)


def stamp(gan: GAN, image: Path, *, ema: bool) -> dict[str, object]:
    """What the styles belong to."""
    return {
        "model": f"{type(gan).__module__}.{type(gan).__qualname__}",
        "weights": weights_digest(gan, ema=ema),
        "images_seen": gan.images_seen,
        "image": image.name,
        "image_sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
    }


def reporter(
    path: Path, steps: int, lines: Lines | None = None, *, what: str = ""
) -> Callable[[Step | TuningStep], None]:
    """Writes each step as a line of JSON to `path`, and tells how far it is, with the time since its first step."""

    def report(step: Step | TuningStep) -> None:
        nonlocal lines
        lines = lines or Lines(what)
        path.parent.mkdir(parents=True, exist_ok=True)  # not before: wrong settings leave no folder behind
        with path.open("a" if step.step else "w", encoding="utf-8") as file:
            file.write(json.dumps(step._asdict()) + "\n")
        lines(step.step + 1, steps, f"distance {step.distance:.4f}")

    return report


# ---- of several pictures ---------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """What became of one picture: of the projection, before and after tuning, in dB and by the distance; seconds."""

    picture: str
    pivot_psnr_db: float | None
    pivot_distance: float | None
    psnr_db: float
    distance: float
    seconds: float

    @classmethod
    def of(cls, picture: str, found: Projection, seconds: float) -> Row:
        pivot = found.pivot
        before = (None, None) if pivot is None else (pivot.psnr_db, pivot.distance)
        return cls(picture, *before, found.psnr_db, found.distance, seconds)


def told(rows: Sequence[Row], network: str) -> str:
    """A table of the rows and their means."""
    columns = [name for name in Row._fields[1:] if getattr(rows[0], name) is not None]
    heads = ["picture", *(name.replace("distance", network) for name in columns)]
    numbers = [[getattr(row, name) for name in columns] for row in rows]
    means = [sum(column) / len(rows) for column in zip(*numbers, strict=True)]
    lines = [[name, *map("{:.4g}".format, line)] for name, line in zip([r.picture for r in rows], numbers, strict=True)]
    table = [heads, *lines, ["mean", *map("{:.4g}".format, means)]]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padded = ([word.ljust(width) for word, width in zip(line, widths, strict=True)] for line in table)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def save_all(rows: Sequence[Row], shown: Sequence[Tensor], folder: Path) -> None:
    """Writes table.csv, and sheet.png of the `stages` of each picture."""
    with replacing(folder / "table.csv") as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([Row._fields, *rows])
    columns = min(SHEET_COLUMNS, len(shown)) * len(shown[0])
    save_png(readable_grid(torch.cat(list(shown)), columns), folder / "sheet.png")
