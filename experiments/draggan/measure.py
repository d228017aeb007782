"""How exactly points are dragged (DragGAN, Sec. 4) on a trained generator: a table, a film and a sheet.

python experiments/draggan/measure.py runs/faces --output dragged

Each pair is the strongest corner of a seed's image (psi 0.7), at least 12 of 64 pixels from the border, and a target 3
to 6 of 64 pixels away in a random direction. What has come of it is measured three times, in pixels from the target:
where the drag's own tracking says that the point is; where in the last map, 12 of 64 pixels around the first place, the
features are nearest to those of the first image; and where the 7 x 7 pixels around the point are found again by
correlation, which knows nothing of features.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.base.grids import grid
from lit_gans.base.images import save_png
from lit_gans.base.random import Draws
from lit_gans.base.video import save_film
from lit_gans.editing import drag, styles_of
from lit_gans.editing.drag import features_of, layer_of
from lit_gans.runs.load import load_run

PATCH = 3  # pixels on each side of a point, of what is correlated
SHOWN = 8  # pairs on the sheet
NUMBERS = ("lr", "r1", "r2", "stop_px", "rows")


def cornerness(image: Tensor) -> Tensor:
    """[1, C, R, R] -> [R, R]: the smaller eigenvalue of the structure tensor over 5 x 5 (Shi and Tomasi, 1994)."""
    grey = image.mean(1, keepdim=True)
    dx, dy = F.pad(grey[..., 1:] - grey[..., :-1], (0, 1)), F.pad(grey[..., 1:, :] - grey[..., :-1, :], (0, 0, 0, 1))
    xx, yy, xy = (F.avg_pool2d(t, 5, 1, 2)[0, 0] for t in (dx * dx, dy * dy, dx * dy))
    return (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()


def pair_of(image: Tensor, draws: Draws) -> tuple[tuple[int, int], tuple[int, int]]:
    """(handle, target), each (x, y)."""
    side = image.shape[-1]
    inside = cornerness(image)
    border = round(12 * side / 64)
    inside = F.pad(inside[border:-border, border:-border], (border,) * 4, value=-1.0)
    y, x = divmod(int(inside.argmax()), side)
    turn, far = draws.uniform(2).tolist()
    angle, length = 2 * math.pi * turn, (3 + 3 * far) * side / 64
    return (x, y), (round(x + length * math.cos(angle)), round(y + length * math.sin(angle)))


def nearest(maps: Tensor, wanted: Tensor, around: tuple[int, int], reach: int) -> tuple[int, int]:
    """(x, y) in [1, D, R, R] of what is nearest to [D]."""
    left, top = max(around[0] - reach, 0), max(around[1] - reach, 0)
    square = maps[0, :, top : around[1] + reach + 1, left : around[0] + reach + 1]
    row, column = divmod(int((square - wanted[:, None, None]).norm(dim=0).argmin()), square.shape[-1])
    return left + column, top + row


def windows(image: Tensor) -> Tensor:
    """[1, C, R, R] -> [1, D, R, R]: the pixels around each, less their mean and of norm 1."""
    size = 2 * PATCH + 1
    cut = F.unfold(F.pad(image, (PATCH,) * 4, mode="replicate"), size).view(1, -1, *image.shape[-2:])
    cut = cut - cut.mean(1, keepdim=True)
    return cut / (cut.norm(dim=1, keepdim=True) + 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--first_seed", type=int, default=1000)
    parser.add_argument("--max_steps", type=int, default=300)
    parser.add_argument("--layer")
    for name in NUMBERS:
        parser.add_argument(f"--{name}", type=int if name == "rows" else float)
    given = parser.parse_args()
    numbers = {name: getattr(given, name) for name in NUMBERS if getattr(given, name) is not None}
    model, draws, rows, sheet = load_run(given.run), Draws("drag pairs", 0), [], []
    for number in range(given.pairs):
        seed = given.first_seed + number
        ws = styles_of(model, [seed], psi=0.7)
        layer = given.layer or layer_of(model, ws)
        look, begin = features_of(model, layer), time.process_time()
        with torch.no_grad():
            image, first = look(ws)
        handle, target = pair_of(image, draws)
        found = drag(
            model, ws, handles=[handle], targets=[target], layer=layer, max_steps=given.max_steps,
            frames=number < SHOWN, **numbers,
        )  # fmt: skip
        taken = time.process_time() - begin
        with torch.no_grad():
            last_image, last = look(found.ws)
        side, (x, y) = image.shape[-1], handle
        first, last = (F.interpolate(one, (side, side), mode="bilinear") for one in (first, last))
        places = {
            "tracked": tuple(found.handles[0].tolist()),
            "features": nearest(last, first[0, :, y, x], handle, round(12 * side / 64)),
            "pixels": nearest(windows(last_image), windows(image)[0, :, y, x], handle, round(12 * side / 64)),
        }
        row = {"seed": seed, "handle": handle, "target": target, "steps": len(found.steps) - 1, "ended": found.reason}
        row |= {name: round(math.dist(place, target), 2) for name, place in places.items()}
        row |= {"moved": round(math.dist(handle, target), 2), "s_per_step": round(taken / len(found.steps), 4)}
        rows.append(row)
        print(json.dumps(row), flush=True)
        if number < SHOWN:
            sheet += [found.frames[i * (len(found.frames) - 1) // 3] for i in range(4)]
            save_film(found.frames, given.output / f"{seed}.gif", frames=len(found.frames), columns=1, fps=25)
            save_png(grid(torch.stack(sheet), 8), given.output / "sheet.png")
    within = {name: sum(row[name] <= 2 for row in rows) for name in places}
    middle = {name: sorted(row[name] for row in rows)[len(rows) // 2] for name in ("steps", "s_per_step", *places)}
    result = {"run": given.run, "pairs": len(rows), "layer": layer, **numbers, "within 2 px": within, "median": middle}
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "pairs.json").write_text(json.dumps({**result, "each": rows}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
