"""Edit scripts: which model, which picture, and what is done to it, as a file that replays to the same picture.

    model: runs/stylegan2-faces
    start: {seed: 3, psi: 0.7}
    steps:
    - mix: {seed: 10, layers: fine}
    - truncate: {psi: 0.9}

A script of a stranger names files and runs nothing: it is read as plain YAML, its files as tensors or pictures.
"""

from __future__ import annotations

import math
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser

from lit_gans.adversarial import GAN
from lit_gans.base.files import replacing
from lit_gans.editing.state import Edited, between, weights_digest
from lit_gans.editing.steps import STARTS, STEPS, FromCaption, FromSeed, Start, Step

T = TypeVar("T")
KEYS = ("model", "weights", "ema", "start", "steps")
MAX_BYTES = 50_000  # of a script, which is a page of text
MAX_DEPTH = 20


@dataclass(frozen=True)
class Script:
    """What `lit-gans edit` replays.

    model: run folder, checkpoint, or saved folder; relative paths are of the script's own folder, `files`. weights: the
    digest of what it was written with, see `weights_digest`; other weights are refused. ema: by averaged weights.
    """

    model: str
    start: Start
    steps: tuple[Step, ...] = ()
    weights: str | None = None
    ema: bool = True
    files: Path = Path()

    def states(self, model: GAN) -> list[Edited]:
        """The picture at the start and after each step.

        Raises:
            ValueError: other weights than the script's, or a step that this model cannot take; it names the step.
        """
        if self.weights is not None and (found := weights_digest(model, ema=self.ema)) != self.weights:
            raise ValueError(
                f"the script was written with the weights {self.weights}, and this model has {found}: leave `weights` "
                "out of the script if the edit is meant for another model too"
            )
        states = [self.start.begin(model, self.files, ema=self.ema)]
        for number, step in enumerate(self.steps, 1):
            try:
                states.append(step.apply(states[-1], self.files))
            except ValueError as error:
                raise ValueError(f"step {number}, {name_of(step)}: {error}") from error
        return states

    def text(self) -> str:
        """As a YAML file, which `read_script` reads to an equal script."""
        said: dict[str, Any] = {"model": self.model}
        said |= {} if self.weights is None else {"weights": self.weights}
        said |= {} if self.ema else {"ema": False}
        said |= {"start": plain(self.start), "steps": [{name_of(step): plain(step)} for step in self.steps]}
        return yaml.safe_dump(said, sort_keys=False, allow_unicode=True, default_flow_style=None)

    def save(self, path: Path) -> None:
        with replacing(path) as unfinished:
            unfinished.write_text(self.text(), encoding="utf-8")

    def from_seed(self, seed: int) -> Script:
        """The same done to the picture of another seed."""
        own = self.start if isinstance(self.start, FromSeed | FromCaption) else FromSeed(seed)
        return replace(self, start=replace(own, seed=seed))


def read_script(path: str | Path) -> Script:
    """The script in a file.

    Raises:
        FileNotFoundError: there is none. ValueError: what is wrong in it, and where.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give an edit script, a .yaml file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes: no edit script is that long")
    try:
        return parse_script(path.read_text(encoding="utf-8"), path.parent)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error


def parse_script(text: str, files: Path = Path()) -> Script:
    """The script of a text, whose relative paths are of the folder `files`. ValueError for what is wrong in it."""
    depth = accumulate((1 if mark in "[{" else -1 for mark in re.findall(r"[\[\]{}]", text)), initial=0)
    if len(text) > MAX_BYTES or max(depth) > MAX_DEPTH:  # which PyYAML reads in the square of the time
        raise ValueError(f"an edit script has at most {MAX_BYTES:,} letters and {MAX_DEPTH} brackets within brackets")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ValueError("an edit script has no aliases (*name): write the value out")
        said = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"this is no YAML: {' '.join(str(error).split())}") from error
    return script_of(said, files)


def script_of(said: object, files: Path = Path()) -> Script:
    """As `parse_script`, of plain values."""
    if not isinstance(said, Mapping):
        raise ValueError(f"an edit script is a mapping with {', '.join(KEYS)}, and this is a {type(said).__name__}")
    for key in said:
        if key not in KEYS:
            raise ValueError(unknown(str(key), KEYS, "an edit script has"))
    for key, kind in (("model", str), ("start", Mapping), ("weights", str), ("ema", bool), ("steps", Sequence)):
        if key in said and not isinstance(said[key], kind):
            raise ValueError(f"{key}: {said[key]!r} is no {kind.__name__.lower()}")
    missing = [key for key in ("model", "start") if key not in said]
    if missing:
        raise ValueError(f"{missing[0]} is missing: an edit script needs model and start")
    given = {name: kind for name, kind in STARTS.items() if name in said["start"]}
    further = {f.name for name, kind in given.items() for f in fields(kind) if f.name != name}  # type: ignore[arg-type]
    begins = [name for name in given if name not in further]
    if len(begins) != 1:
        found = ", ".join(map(str, said["start"])) or "nothing"
        raise ValueError(f"start: give one of {', '.join(STARTS)}, found {found}")
    start = built(STARTS[begins[0]], said["start"], "start")
    steps = tuple(_step(step, number) for number, step in enumerate(said.get("steps", ()), 1))
    return Script(said["model"], start, steps, weights=said.get("weights"), ema=said.get("ema", True), files=files)


def _step(said: object, number: int) -> Step:
    if not isinstance(said, Mapping) or len(said) != 1:
        raise ValueError(f"step {number}: {said!r} is not of the form `mix: {{seed: 10}}`")
    name, arguments = next(iter(said.items()))
    if name not in STEPS:
        raise ValueError(f"step {number}: {unknown(str(name), tuple(STEPS), 'steps are')}")
    return built(STEPS[name], arguments or {}, f"step {number}, {name}")


def built(kind: type[T], arguments: object, where: str) -> T:
    """A start or step of what a script says of it, whose types are checked. ValueError says what is wrong where."""
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{where}: {arguments!r} is no mapping of {', '.join(known)}")
    for key in arguments:
        if key not in known:
            raise ValueError(f"{where}: {unknown(str(key), known, 'it takes')}")
    needed = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [name for name in needed if name not in arguments]
    if missing:
        raise ValueError(f"{where}: {missing[0]} is missing")
    for key, value in arguments.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: {key} {value} is no finite number")
    parser = _parser_of(kind)
    try:
        return parser.instantiate_classes(parser.parse_object({"one": dict(arguments)})).one
    except ArgumentError as error:
        wrong = next((key for key in arguments if f"one.{key}" in str(error)), None)
        if wrong is None:
            raise ValueError(f"{where}: {' '.join(str(error).split())}") from error
        raise ValueError(f"{where}: {wrong} cannot be {arguments[wrong]!r}") from error


@cache  # 20 ms to build
def _parser_of(kind: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "one")
    return parser


def unknown(word: str, known: Sequence[str], what: str) -> str:
    near = get_close_matches(word, known, n=1)
    return f"{word!r} is unknown{f', did you mean {near[0]!r}' if near else ''}: {what} {', '.join(known)}"


def name_of(step: Step) -> str:
    """What a script calls it."""
    return next(name for name, kind in STEPS.items() if type(step) is kind)


def plain(one: Start | Step) -> dict[str, Any]:
    """Its numbers as a script says them, without those that are as by default."""
    said = {f.name: getattr(one, f.name) for f in fields(one)}  # type: ignore[arg-type]
    defaults = {f.name: f.default for f in fields(one)}  # type: ignore[arg-type]
    return {k: list(v) if isinstance(v, tuple) else v for k, v in said.items() if v != defaults[k]}


def film_states(states: Sequence[Edited], frames: int) -> list[Edited]:
    """`frames` pictures on the way through all states, the first and the last among them."""
    if len(states) == 1 or frames == 1:
        return [states[-1]] * frames
    found = []
    for i in range(frames):
        place = i * (len(states) - 1) / (frames - 1)
        index = min(int(place), len(states) - 2)
        found.append(between(states[index], states[index + 1], place - index))
    return found
