"""Edits by text of some latents with one of the methods, and what of them is kept in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.base.files import check_regular
from lit_gans.base.images import to_uint8
from lit_gans.editing.layers import drawn_with, synthesize_shifted
from lit_gans.editing.script import Script
from lit_gans.editing.state import check_weights, weights_digest
from lit_gans.editing.steps import FromSeed, FromStyles
from lit_gans.editing.text.channels import find_channel_effects, read_effects
from lit_gans.editing.text.image_text import ImageText
from lit_gans.editing.text.losses import Identity
from lit_gans.editing.text.mapper import STRENGTH, mapped, train_mapper
from lit_gans.editing.text.optimization import optimize_latents
from lit_gans.editing.text.shifts import read_shift
from lit_gans.editing.text.steps import Map, Shift, Text
from lit_gans.editing.text.stylemc import find_direction

Method = Literal["latent", "mapper", "global", "stylemc"]
STRENGTHS = {"latent": 1.0, "mapper": STRENGTH, "global": 4.0, "stylemc": 1.0}  # where none is given
SUFFIX = ".safetensors"


class Restyled(NamedTuple):
    """What images are made of: ws [N, L, W], and shifts of styles by layer, for `synthesize_shifted`."""

    ws: Tensor
    shifts: dict[str, Tensor]


def restyle_latents(
    model: GAN,
    ws: Tensor,
    to: str,
    *,
    method: Method,
    image_text: ImageText,
    by: Sequence[float],
    file: Path | None,
    direction: Path,
    neutral: str = "a face",
    threshold: float = 0.1,
    identity: Identity | None = None,
    ema: bool = True,
    on_step: Callable[..., None] | None = None,
    **numbers: Any,
) -> list[Restyled]:
    """ws [N, L, W] restyled towards the text `to`, once for each strength of `by`; see `lit_gans.restyle`.

    file: where a mapper, the effects of channels or a direction are read from, or found and written to; they belong to
    the generator's weights. direction: where that of "global" is written. numbers: further ones of the method.
    ValueError for a file of another generator, and those of the methods.
    """
    how = {"image_text": image_text, "ema": ema, "on_step": on_step, **numbers}
    if method == "latent":
        found = optimize_latents(model, ws, to, identity=identity, **how)
        return [Restyled(ws + one * (found.ws - ws), {k: one * v for k, v in found.shifts.items()}) for one in by]
    assert file is not None
    if method == "mapper":
        mapper = train_mapper(model, to, file, identity=identity, **how)
        return [Restyled(mapped(mapper, ws, strength=one), {}) for one in by]
    if method == "global":
        if not file.exists():
            find_channel_effects(model, **how).save(file)
        effects = read_effects(file)
        check_weights(effects.settings["generator"], model, file, ema=ema)
        shift = effects.shift(to, neutral, image_text=image_text, threshold=threshold)
        shift.save(direction)
    else:
        if not file.exists():
            find_direction(model, to, **how).save(file)
        shift = read_shift(file)
        check_weights(shift.settings["generator"], model, file, ema=ema)
        if shift.settings.get("texts") != [to]:
            raise ValueError(f"{file} leads to {shift.settings.get('texts')}, not to {to!r}: name another file")
    return [Restyled(ws, shift.times(one)) for one in by]


@torch.no_grad()
def drawn(
    model: GAN, edited: Restyled, noise: Mapping[str, Tensor], *, ema: bool = True, batch_size: int = 64
) -> Tensor:
    """uint8 [N, C, R, R] on the CPU; noise: maps in place of the model's, as of `Projection`."""
    images = []
    for start in range(0, len(edited.ws), batch_size):
        rows = slice(start, start + batch_size)
        shifts = {name: one if one.ndim == 1 else one[rows] for name, one in edited.shifts.items()}
        draw = partial(synthesize_shifted, ws=edited.ws[rows], shifts=shifts, ema=ema)
        images.append(to_uint8(drawn_with(model, noise, draw)).cpu())
    return torch.cat(images)


def check_file(file: Path | None, method: Method) -> None:
    """ValueError where a method that keeps something has no file for it, or latent optimisation has one."""
    if (file is None) != (method == "latent"):
        keeps = "keeps nothing: leave file out" if method == "latent" else f"keeps what it finds: give file=x{SUFFIX}"
        raise ValueError(f"method {method!r} {keeps}")
    if file is not None and file.suffix != SUFFIX:
        raise ValueError(f"file {file} is no {SUFFIX} file: name one")
    if file is not None and file.exists():
        check_regular(file, f"name a {SUFFIX} file")


def step_of(
    method: Method,
    to: str,
    *,
    by: float,
    image_text: str,
    weights: str | PathLike | None,
    file: Path | None,
    direction: Path,
    identity: str | PathLike | None,
    **numbers: Any,
) -> Text | Map | Shift:
    """What an edit script says of the method; paths are whole, so that the script may lie anywhere."""
    if method == "latent":
        own = {name: value for name, value in numbers.items() if name in ("steps", "l2_weight", "id_weight")}
        return Text(to, _whole(image_text), weights=_whole(weights), by=by, identity=_whole(identity), **own)
    assert file is not None
    if method == "mapper":
        return Map(str(file.resolve()), by=by)
    return Shift(str((direction if method == "global" else file).resolve()), by=by)


def _whole(path: str | PathLike | None) -> Any:
    """The whole path of what is there, and other words, such as a model's name, as they are."""
    return str(Path(path).resolve()) if path is not None and Path(path).exists() else path


def save_script(
    picture: Path,
    model: GAN,
    run: str | PathLike,
    step: Text | Map | Shift,
    *,
    seed: int | None,
    latent: str | PathLike | None,
    label: int | None,
    psi: float,
    ema: bool,
) -> None:
    """Writes beside a sheet the script of its first image: of a seed, or of the file of a projection."""
    start = FromSeed(seed, label=label, psi=psi) if seed is not None else FromStyles(_whole(latent))
    script = Script(_whole(run), start, (step,), weights=weights_digest(model, ema=ema), ema=ema)
    script.save(picture.with_suffix(".yaml"))
