"""StyleCLIP's three methods and StyleMC on one generator, and what share of their edits does what is asked."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.base.grids import readable_grid
from lit_gans.base.images import save_png, to_uint8
from lit_gans.base.progress import Lines
from lit_gans.editing.layers import synthesize_shifted
from lit_gans.editing.text import (
    find_channel_effects,
    find_direction,
    mapped,
    optimize_latents,
    read_effects,
    train_mapper,
)

METHODS = ("optimisation", "mapper", "global", "StyleMC")
Judge = Callable[[Tensor], Tensor]
"""uint8 [N, 3, R, R] -> [N, A]: what each image is in each respect, as a number or a truth value."""


class Asked(NamedTuple):
    """The text, what global directions compare it with, and what the judge shall find in which of its columns."""

    to: str
    neutral: str
    column: int
    value: int


def arguments(about: str, asked: Sequence[str]) -> argparse.ArgumentParser:
    """What all the measurements take."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--features-weights", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--pair")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--optimisation-steps", type=int, default=300)
    parser.add_argument("--mapper-steps", type=int, default=2000)
    parser.add_argument("--effect-images", type=int, default=16)
    parser.add_argument("--l2-weight", type=float, nargs="+", default=[0.008, 0.002])
    parser.add_argument("--asked", nargs="+", default=list(asked), choices=list(asked))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    return parser


def rates(judge: Judge, before: Tensor, after: Tensor, asked: Asked) -> dict[str, float]:
    """Images [N, 3, R, R] in [-1, 1] before and after -> "changed": of those that are not what is asked, the share that
    is it after; "kept": over all images and the other columns, the share of which the judge says the same as before.
    """
    a, b = (judge(to_uint8(images.clamp(-1, 1))) for images in (before, after))
    others = [column for column in range(a.shape[1]) if column != asked.column]
    lacking = a[:, asked.column] != asked.value
    return {
        "changed": (b[lacking, asked.column] == asked.value).double().mean().item(),
        "lacking": int(lacking.sum()),
        "kept": (a == b)[:, others].double().mean().item(),
    }


def measure(
    given: argparse.Namespace, model: GAN, judge: Judge, every: Mapping[str, Asked], shared: dict[str, Any]
) -> None:
    """Prints a line for each setting, appends it to rates.jsonl, and draws a sheet for each text.

    shared: image_text and identity, as the methods take them.
    """
    ws = model.styles(model.seeded_latents(range(given.images)), psi=0.7)
    before = model.synthesize(ws)
    lines = Lines("steps")
    shared["on_step"] = lambda done, total, loss: lines(done, total, f"loss {loss:.4f}")
    for name in given.asked:
        rows, sheet, asked = [], [before], every[name]
        for method in given.methods:
            started = time.process_time()
            for setting, edit in EDITS[method](given, model, ws, (name, asked), shared):
                after = edit().detach()
                told = {"asked": name, "method": method, "setting": setting}
                rows.append(told | {"cpu_s": time.process_time() - started} | rates(judge, before, after, asked))
                sheet.append(after)
                print(json.dumps(rows[-1]), flush=True)
                started = time.process_time()
        cells = torch.stack([to_uint8(images[:8].clamp(-1, 1)) for images in sheet])
        save_png(readable_grid(cells.flatten(0, 1), 8), given.output / f"{name}-{'-'.join(given.methods)}.png")
        with (given.output / "rates.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


# ---- the edits: what was set, and what makes the images --------------------------------------------------------------

Edits = Iterator[tuple[str, Callable[[], Tensor]]]
Shared = dict[str, Any]  # image_text, identity, on_step
Named = tuple[str, Asked]


def optimised(given: argparse.Namespace, model: GAN, ws: Tensor, asked: Named, shared: Shared) -> Edits:
    for l2_weight in given.l2_weight:
        how = {"steps": given.optimisation_steps, "l2_weight": l2_weight}
        how["id_weight"] = 0.005 if shared["identity"] else 0.0
        moved = partial(optimize_latents, model, ws, asked[1].to, **shared, **how)
        yield f"l2 {l2_weight}", lambda moved=moved: model.synthesize(moved().ws)


def of_mapper(given: argparse.Namespace, model: GAN, ws: Tensor, asked: Named, shared: Shared) -> Edits:
    how = {"steps": given.mapper_steps, "id_weight": 0.1 if shared["identity"] else 0.0}
    mapper = train_mapper(model, asked[1].to, given.output / f"mapper-{asked[0]}.safetensors", **shared, **how)
    for strength in (0.1, 0.2, 0.4):
        yield f"strength {strength}", lambda s=strength: model.synthesize(mapped(mapper, ws, strength=s))


def of_channels(given: argparse.Namespace, model: GAN, ws: Tensor, asked: Named, shared: Shared) -> Edits:
    file, pair = given.output / "effects.safetensors", shared["image_text"]
    if not file.exists():
        images = {"num_images": given.effect_images, "num_samples": 10_000}
        find_channel_effects(model, image_text=pair, **images, on_step=Lines("channels")).save(file)
    for threshold, alpha in ((0.1, 3.0), (0.1, 6.0), (0.25, 5.0), (0.25, 10.0)):
        shift = read_effects(file).shift(asked[1].to, asked[1].neutral, image_text=pair, threshold=threshold)
        setting = f"beta {threshold}, alpha {alpha}, {shift.settings['channels']} channels"
        yield setting, partial(synthesize_shifted, model, ws, shift.times(alpha))


def of_stylemc(given: argparse.Namespace, model: GAN, ws: Tensor, asked: Named, shared: Shared) -> Edits:
    shift = find_direction(model, asked[1].to, image_text=shared["image_text"], psi=0.7)
    for strength in (1.0, 2.0, 4.0):
        yield f"strength {strength}", partial(synthesize_shifted, model, ws, shift.times(strength))


EDITS = dict(zip(METHODS, (optimised, of_mapper, of_channels, of_stylemc), strict=True))
