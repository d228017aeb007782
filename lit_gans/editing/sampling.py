"""What `lit-gans sample` is asked for, and drawing it: single images, grids and tables of seeds and classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lit_gans.adversarial.capabilities import Attends, Captioned, FromLatents, HasStyles, Samples, Transforms
from lit_gans.adversarial.preview import draw
from lit_gans.base.grids import MAX_CLASSES, readable_grid, spread
from lit_gans.base.images import save_png
from lit_gans.base.numbers import numbers_of, parse_numbers
from lit_gans.data.described import listed_classes
from lit_gans.editing.styles import GROUPS

Form = Literal[
    "singles", "grid", "film", "sentences", "attention", "mixing", "truncation", "noise", "moving", "sticking"
]  # fmt: skip


class Kind(NamedTuple):
    """What a form of output is called, its file, and what it takes of a model."""

    what: str
    file: str
    needs: type


FORMS: dict[Form, Kind] = {
    "singles": Kind("single images", "", Samples),
    "grid": Kind("a grid", "grid.png", Samples),
    "film": Kind("a film", "interpolation.gif", FromLatents),
    "sentences": Kind("a sheet from caption to caption", "sentences.png", Captioned),
    "attention": Kind("a sheet of attention", "attention.png", Attends),
    "mixing": Kind("a table of mixed styles", "mixing.png", HasStyles),
    "truncation": Kind("a table of psi", "truncation.png", Samples),
    "noise": Kind("a table of noise", "noise.png", HasStyles),
    "moving": Kind("a film of moves", "moving.gif", Transforms),
    "sticking": Kind("a sheet of texture sticking", "sticking.png", FromLatents),
}
FILMS: tuple[Form, ...] = ("film", "moving")


# ---- what is asked for -----------------------------------------------------------------------------------------------


def classes_of(given: str | Sequence[int | str] | None, names: Sequence[str]) -> list[int] | None:
    """Class numbers of numbers, ranges and the `names` of classes, as "3,5", "cat,dog" or ["cat", 5]; None of None.

    What can be a number is one, also where classes are called by numbers. ValueError for a name that no class has.
    """
    if given is None:
        return None
    known = {name: number for number, name in enumerate(names)}
    if isinstance(given, str):
        given = [given] if given in known else given.split(",")
    return numbers_of([n for part in given for n in _numbers_of_class(part, known)], "classes")


def _numbers_of_class(part: int | str, known: dict[str, int]) -> list[int]:
    if isinstance(part, int):
        return [part]
    part = part.strip()
    if part in known and not part.isdecimal():
        return [known[part]]
    if not known or part[:1].isdecimal():
        return parse_numbers(part, "classes")
    near = get_close_matches(part, known, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"no class is called {part!r}: {meant}The classes are {listed_classes(list(known))}")


def told_classes(classes: Sequence[int] | None, names: Sequence[str]) -> str:
    """Which number is which class, of those asked for, or of all whose names are not their numbers; else nothing."""
    if not names or (classes is None and all(name == str(number) for number, name in enumerate(names))):
        return ""
    return "classes: " + (listed_classes(names) if classes is None else ", ".join(f"{c}={names[c]}" for c in classes))


def check_counts(seeds: Sequence[int], interpolate: int | None, *, between: bool, **counts: int) -> None:
    """ValueError for a count below 1, or steps that a walk through seeds, or `between` captions, cannot have."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more")
    if between and interpolate < 2:
        raise ValueError(f"interpolate is {interpolate}: from caption to caption there are 2 steps or more")
    if interpolate is not None and not between and not 2 <= interpolate <= len(seeds):
        raise ValueError(f"interpolate is {interpolate}: a film needs 2 seeds or more, and {len(seeds)} are given")


def form_of(psis: Sequence[float], *, grid: bool, **asked: bool) -> Form:
    """The form that is `asked` for. ValueError for several, and for no psi at all."""
    forms = [form for form, wanted in {"truncation": len(psis) > 1, **asked}.items() if wanted]
    if not psis:
        raise ValueError("psi is empty: give one or more, as 0.5 0.7 1")
    if len(forms) > 1:
        raise ValueError(f"{' and '.join(FORMS[f].what for f in forms)} were asked for: give one of them at a time")
    return forms[0] if forms else "grid" if grid else "singles"


def mixed(
    mix: Sequence[str | Sequence[int]] | None, layers: str | Sequence[int] | None
) -> tuple[str | list[int], list[list[int]]]:
    """(layers, or the name of a group, [seeds of rows, seeds of columns]), all empty without `mix`."""
    if mix is None:
        if layers is not None:
            raise ValueError("mix_layers says which styles are mixed: give the seeds of rows and columns as mix too")
        return [], []
    if len(mix) != 2:
        raise ValueError(f"mix has {len(mix)} parts: give the seeds of the rows and those of the columns, as 0-4 10-14")
    layers = "coarse" if layers is None else layers
    return layers if layers in GROUPS else numbers_of(layers, "mix_layers"), [numbers_of(part, "mix") for part in mix]


def target_of(output: Path, format: str | None, form: Form) -> Path:
    """The folder of single images, or the file of a picture or film."""
    suffixes = () if form == "singles" else (".gif", ".mp4") if form in FILMS else (".png",)
    if output.suffix in (".png", ".gif", ".mp4") and not output.is_dir():
        if output.suffix not in suffixes:
            fits = f" or a file {' or '.join(suffixes)}" if suffixes else ""
            raise ValueError(f"output {output} does not fit {FORMS[form].what}: give a folder{fits}")
        if format is not None and form in FILMS and output.suffix != f".{format}":
            raise ValueError(f"output {output} and format {format!r} contradict each other: leave one out")
        return output
    file = output / FORMS[form].file
    return file.with_suffix(f".{format}") if form in FILMS and format else file


def check_classes(model: Samples, classes: Sequence[int] | None) -> None:
    """ValueError for classes that the model has not."""
    if classes is None:
        return
    if model.num_classes == 0:
        name = type(model).__name__
        raise ValueError(f"classes {classes} were asked for, but this {name} is unconditional: leave out")
    wrong = [c for c in classes if c >= model.num_classes]
    if wrong:
        raise ValueError(f"class {wrong[0]} does not exist: this model has the classes 0 to {model.num_classes - 1}")


def label_of(classes: Sequence[int] | None, *, several: bool) -> int | Sequence[int] | None:
    """That of a whole table, None for each seed's own. ValueError for many where the table cannot have `several`."""
    if classes is None or len(classes) == 1:
        return None if classes is None else classes[0]
    if not several:
        raise ValueError(f"classes {classes}: all images of this table have one class, so give one")
    return classes


def check_captioned(form: Form) -> None:
    """ValueError for a form that captions have no place in."""
    if form not in ("singles", "grid", "truncation"):
        raise ValueError(
            f"captions go with single images, a grid or a sheet, not with {FORMS[form].what}: leave one out"
            + (", or give the captions between which to interpolate" if form == "film" else "")
        )


# ---- drawing ---------------------------------------------------------------------------------------------------------


def save_singles(
    model: Samples, seeds: Sequence[int], classes: Sequence[int] | None, folder: Path, *, batch_size: int, **look: Any
) -> list[Path]:
    """A file for every seed and every class; without classes, each seed's is its remainder."""
    pairs = [(s, None) for s in seeds] if model.num_classes == 0 else [
        (s, c) for s in seeds for c in (classes or [s % model.num_classes])
    ]  # fmt: skip
    paths = []
    for part in (pairs[i : i + batch_size] for i in range(0, len(pairs), batch_size)):
        for (seed, c), image in zip(part, draw_pairs(model, part, batch_size=batch_size, **look), strict=True):
            name = f"seed{seed:04d}.png" if c is None else f"seed{seed:04d}_class{c}.png"
            paths.append(save_png(image, folder / name))
    return paths


def draw_pairs(model: Samples, pairs: Sequence[tuple[int, int | None]], **look: Any) -> Tensor:
    """uint8 [N, C, H, W] of pairs (seed, class or None)."""
    seeds, classes = zip(*pairs, strict=True)
    return draw(model, torch.tensor(seeds), labels=torch.tensor(classes) if model.num_classes else None, **look)


def save_grid(
    model: Samples, seeds: Sequence[int], classes: Sequence[int] | None, path: Path, **look: Any
) -> Path:
    """One picture: a row per class, or about a square of an unconditional model's."""
    rows = rows_of(model, classes)
    columns = math.ceil(math.sqrt(len(seeds))) if rows == [None] else len(seeds)
    return save_png(readable_grid(draw_pairs(model, [(s, c) for c in rows for s in seeds], **look), columns), path)


def rows_of(model: Samples | FromLatents, classes: Sequence[int] | None) -> list[int] | list[None]:
    """The class of each row of a grid; [None] on an unconditional model."""
    if model.num_classes == 0:
        return [None]
    return list(classes or spread(model.num_classes, MAX_CLASSES).tolist())


def save_table(images: Tensor, path: Path) -> Path:
    """uint8 [rows, columns, C, H, W] as one picture."""
    return save_png(readable_grid(images.flatten(0, 1), images.shape[1]), path)
