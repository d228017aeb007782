"""Photographs that are to be aged, how old the people on them are, and the files of what came of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import Named, can
from lit_gans.base.files import replacing
from lit_gans.base.grids import readable_grid
from lit_gans.base.images import from_uint8, save_png, to_uint8
from lit_gans.data.ages import age_of_name, edges_of, group_of
from lit_gans.editing.projection_files import pictures_at, read_picture, stamp
from lit_gans.editing.projector import Projection
from lit_gans.editing.script import Script
from lit_gans.editing.state import weights_digest
from lit_gans.editing.steps import Class, FromLatent

Estimate = Callable[[Tensor], Tensor]
"""estimate(images [N, C, R, R] in [-1, 1]) -> years [N]."""


class Person(NamedTuple):
    """A photograph uint8 [C, R, R], the class that its person is in now, and what that was told by."""

    name: str
    path: Path
    pixels: Tensor
    label: int
    said: str


def groups_of(model: GAN) -> tuple[str, ...]:
    """What the model's classes are called, by number."""
    names = model.class_names if can(model, Named) else ()
    return tuple(names) or tuple(map(str, range(model.num_classes)))


def label_of(groups: Sequence[str], *, age: float | None = None, group: str | None = None) -> int:
    """The number of the group, by its name or of an age. ValueError for one that there is not."""
    if group is not None:
        if group in groups:
            return list(groups).index(group)
        raise ValueError(f"group {group!r} does not exist: this model has {', '.join(groups)}")
    assert age is not None
    edges = edges_of(groups)
    if edges is None:
        raise ValueError(
            f"the classes of this model, {', '.join(groups)}, are no groups of ages: say which the people are in, as "
            f"--group {groups[0]}"
        )
    if not 0 <= age <= 130:
        raise ValueError(f"age {age:g} is none of a person: give years from 0 to 130")
    return group_of(age, edges)


def read_people(
    photos: Path, model: GAN, *, age: float | None, group: str | None, estimate: Estimate | None
) -> list[Person]:
    """The photographs of a file or folder.

    What group their people are in is what `group` or `age` says of all of them; else what the name of each file says,
    as UTKFace and IMDB-WIKI name them; else what `estimate` says.

    Raises:
        FileNotFoundError: no photograph. ValueError: one that cannot be read, or whose age is not known.
    """
    if age is not None and group is not None:
        raise ValueError(f"age {age:g} and group {group!r} say the same thing: give one of them")
    groups, people = groups_of(model), []
    for name, path in pictures_at(photos).items():
        pixels, _ = read_picture(path, resolution=model.resolution, channels=model.channels)
        named = age_of_name(path.name)
        if group is not None or age is not None:
            label, said = label_of(groups, age=age, group=group), "as given"
        elif named is not None:
            label, said = label_of(groups, age=named), f"{named} years by its name"
        elif estimate is not None:
            with torch.no_grad():
                years = estimate(from_uint8(pixels)[None].to(model.device)).item()
            label, said = label_of(groups, age=max(years, 0.0)), f"{years:.0f} years by the age network"
        else:
            raise ValueError(
                f"{path.name}: how old is this person? Its name does not say (43_..., as UTKFace has it): give "
                f"--age 43 or --group {groups[len(groups) // 2]}, or --age_network with the weights of an age estimator"
            )
        people.append(Person(name, path, pixels, label, said))
    return people


class Row(NamedTuple):
    """What became of one photograph: distance where the search began and ended, in the measure of the method."""

    picture: str
    group: str
    told_by: str
    start_distance: float
    distance: float
    psnr_db: float
    seconds: float


def save_aged(found: Projection, model: GAN, person: Person, folder: Path, *, run: Path, ema: bool) -> Tensor:
    """uint8 [2 + Y, C, R, R]: the photograph, what was found in its own group, and the person in all groups.

    Writes the latent, the edit script and the row of all groups, which the script itself draws, so that it replays to
    the same picture.
    """
    groups = groups_of(model)
    said = {"group": groups[person.label], "groups": list(groups), "told_by": person.said}
    found.save(folder / "z.safetensors", **stamp(model, person.path, ema=ema), **said)
    steps = tuple(Class(label) for label in range(1, len(groups)))
    weights = weights_digest(model, ema=ema)
    script = Script(str(run.resolve()), FromLatent("z.safetensors", label=0), steps, weights, ema=ema, files=folder)
    script.save(folder / "edit.yaml")
    aged = torch.stack([state.picture() for state in script.states(model)])
    save_png(readable_grid(aged, len(aged)), folder / "aged.png")
    return torch.cat([person.pixels[None], to_uint8(found.image), aged])


def save_all(rows: Sequence[Row], shown: Sequence[Tensor], settings: dict[str, object], folder: Path) -> Path:
    """Writes table.csv, settings.json, and sheet.png of what `save_aged` gave of each; the sheet."""
    with replacing(folder / "table.csv") as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([Row._fields, *rows])
    with replacing(folder / "settings.json") as unfinished:
        unfinished.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return save_png(readable_grid(torch.cat(list(shown)), len(shown[0])), folder / "sheet.png")
