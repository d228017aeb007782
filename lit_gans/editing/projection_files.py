"""The files of a projection: the picture that is read, and what is written of what was found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.base.cache import digest
from lit_gans.base.grids import readable_grid
from lit_gans.base.images import save_png, to_uint8
from lit_gans.base.progress import Lines
from lit_gans.base.video import save_film
from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, Framing, open_picture
from lit_gans.editing.projector import Projection, Step, compared

FPS = 25  # of the film of the way
WAYPOINTS = 10  # images of the way in progress.png


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


def save_pictures(found: Projection, folder: Path, *, format: Literal["gif", "mp4"] = "gif") -> None:
    """Writes the five pictures and the film of a projection."""
    image, target, small = to_uint8(found.image), to_uint8(found.target), to_uint8(compared(found.target))
    save_png(image[0], folder / "projected.png")
    save_png(target[0], folder / "target.png")
    save_png(readable_grid(torch.cat([target, image]), 2), folder / "side_by_side.png")
    count = min(WAYPOINTS, len(found.frames))
    way = torch.tensor([(i + 1) * len(found.frames) // count - 1 for i in range(count)])
    save_png(readable_grid(torch.cat([small, found.frames[way]]), count + 1), folder / "progress.png")
    pairs = torch.stack([small.expand_as(found.frames), found.frames], 1).flatten(0, 1)
    save_film(pairs, folder / f"progress.{format}", frames=len(found.frames), columns=2, fps=FPS)


def stamp(gan: GAN, image: Path, *, ema: bool) -> dict[str, object]:
    """What the styles belong to."""
    player = gan.generator_ema if ema and gan.generator_ema is not None else gan.generator
    return {
        "model": f"{type(gan).__module__}.{type(gan).__qualname__}",
        "weights": digest(player.state_dict())[:16],
        "images_seen": gan.images_seen,
        "image": image.name,
        "image_sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
    }


def reporter(path: Path, steps: int, lines: Lines) -> Callable[[Step], None]:
    """Writes each step as a line of JSON to `path`, and tells how far it is."""

    def report(step: Step) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)  # not before: wrong settings leave no folder behind
        with path.open("a" if step.step else "w", encoding="utf-8") as file:
            file.write(json.dumps(step._asdict()) + "\n")
        lines(step.step + 1, steps, f"distance {step.distance:.4f}")

    return report
