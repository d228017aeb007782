"""Finding experiment files, and helping with a mistyped key or class."""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SWEEP = "sweep.yaml"  # of a paper's folder: what is searched, not a config


def find_config(name: str) -> Path:
    """`name` on disk, else the shipped experiment of that name (`cgan/digits.yaml`, with or without `experiments/`).

    Raises:
        ValueError: neither; the nearest shipped ones are named.
    """
    return _found(name, shipped_configs(), what="config", of="experiments")


def find_sweep(name: str) -> Path:
    """`name` on disk, else the shipped sweep of that paper (`cgan`, `cgan/sweep.yaml`); ValueError for neither."""
    wanted = name if Path(name).is_file() else re.sub(r"/sweep(\.yaml)?$", "", name)
    return _found(wanted, shipped_sweeps(), what="sweep", of="sweeps")


def _found(name: str, shipped: Mapping[str, Path], *, what: str, of: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    wanted = name.removeprefix("experiments/").removesuffix(".yaml")
    if wanted in shipped:
        return shipped[wanted]
    close = difflib.get_close_matches(wanted, shipped, n=3, cutoff=0.3) or sorted(shipped)
    raise ValueError(f"{what} {name} does not exist; shipped {of}: {', '.join(close)}")


def shipped_configs() -> dict[str, Path]:
    """Experiment files by name, "cgan/digits" -> path: inside the installed package, or beside it in a checkout."""
    return {f"{file.parent.name}/{file.stem}": file for file in _shipped() if file.name != SWEEP}


def shipped_sweeps() -> dict[str, Path]:
    """Sweep files by paper, "cgan" -> path."""
    return {file.parent.name: file for file in _shipped() if file.name == SWEEP}


def _shipped() -> list[Path]:
    package = Path(__file__).parents[1]
    folders = (package / "experiments", package.parent / "experiments")
    return next((files for folder in folders if (files := sorted(folder.glob("*/*.yaml")))), [])


def experiment_name(config: Path) -> str:
    """What its run is called by itself: `experiments/cgan/digits.yaml` is cgan-digits."""
    return "-".join([*config.parts[-2:-1], config.stem])


# What a config says of a start, not of training.
OF_A_START = ("ckpt_path", "run_folder", "config", "logger", "trainer.default_root_dir", "trainer.logger")


def differences(before: Any, now: Any, *, at: str = "") -> list[str]:
    """The settings of two configs that differ, one a line: "model.init_args.lr: 0.0002 -> 0.0001"."""
    if at in OF_A_START:
        return []
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*before, *(key for key in now if key not in before)]
        below = (differences(before.get(k), now.get(k), at=f"{at}.{k}" if at else str(k)) for k in keys)
        return [line for lines in below for line in lines]
    return [] if before == now else [f"{at}: {before} -> {now}"]


def brief(message: str) -> str:
    """A message of jsonargparse as one line: what is wrong, without the types that were tried for it."""
    told = re.sub(r"Parser key \"([\w.]+)\":", r"\1:", message)
    told = re.sub(r"Problem with given class_path '([\w.]+)':", r"\1:", told)
    told = re.sub(r"Expected a dot import path string: (\S+)", r"there is no class \1", told)
    told = re.sub(r"[Ee]xpected a (?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[(.+)\])", r"expected \1\2", told)
    lines = (re.sub(r"^\s*- ", "", line).strip() for line in told.splitlines())
    noise = r"Does not validate|Subtypes:|Errors:|Given value( type|: NestedArg)|Expected a path but|expected NoneType"
    kept = [line.replace("Given value:", "given:") for line in lines if line and not re.match(noise, line)]
    return " ".join(kept).replace(" given:", "; given:")


def with_hint(message: str, parser: Any, kinds: Mapping[str, type]) -> str:
    """The parser's message, in brief, and for an unknown key or class the nearest known ones; `kinds`: bases by key."""
    classes = {key: list(_subclasses(kind)) for key, kind in kinds.items()}
    hint = _nearest_classes(message, classes)
    if not hint and re.search(r"is not accepted|unrecognized arguments", message):
        one = _named(message, classes)
        hint = _nearest_keys(message, _keys_of(one) or {a.dest for a in parser._actions} | _keys_of(classes))
        if one and not hint:
            (cls,) = [cls for found in one.values() for cls in found]
            hint = f"{cls.__name__} takes {', '.join(sorted(key.rsplit('.', 1)[-1] for key in _keys_of(one)))}"
    return f"{brief(message)}\n{hint}" if hint else brief(message)


def _nearest_classes(message: str, classes: Mapping[str, Iterable[type]]) -> str:
    """Of the class that cannot be imported, if it is about one."""
    wrong = re.search(r"given class_path '([\w.]+)'|dot import path string: ([\w.]+)", message)
    where = re.search(r"key \"(\w+)\"", message)
    if wrong is None or where is None or where[1] not in classes:
        return ""
    name = wrong[wrong.lastindex].rpartition(".")[2]
    names = {cls.__name__.lower(): cls.__name__ for cls in classes[where[1]] if not inspect.isabstract(cls)}
    close = difflib.get_close_matches(name.lower(), names, n=3)
    if not close or name in names.values():  # of a known class it is an argument that is wrong
        return ""
    return f"The nearest known classes: {', '.join(names[each] for each in close)}"


def _named(message: str, classes: Mapping[str, Iterable[type]]) -> dict[str, list[type]]:
    """The class whose argument the message is about, if it names one: the arguments of others are no help."""
    found = re.search(r"given class_path '(?:\w+\.)*(\w+)'", message)
    named = {key: [cls for cls in them if found and cls.__name__ == found[1]][:1] for key, them in classes.items()}
    return {key: them for key, them in named.items() if them}


def _nearest_keys(message: str, known: set[str]) -> str:
    keys = re.findall(r"(?:Option|arguments?:?) '?\"?-{0,2}([\w.]+)", message)
    for key in (key for key in keys if key not in known):
        first, _, leaf = key.rpartition(".")
        close = difflib.get_close_matches(key, sorted(known), n=3, cutoff=0.75)
        leaves = difflib.get_close_matches(leaf, sorted(k.rsplit(".", 1)[-1] for k in known))
        close = close or difflib.get_close_matches(first.split(".")[0], sorted(known), n=3)
        close = close or [k for k in sorted(known) if k.rsplit(".", 1)[-1] in leaves]
        if close:
            return f"The nearest known keys: {', '.join(close[:3])}"
    return ""


def _keys_of(classes: Mapping[str, Iterable[type]]) -> set[str]:
    """What the constructors of these classes take, as keys under init_args."""
    keys = set[str]()
    for prefix, found in classes.items():
        for owner in (owner for cls in found for owner in cls.__mro__[:-1]):  # what a class forwards, its bases take
            parameters = inspect.signature(owner.__init__).parameters.values()
            named = (p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
            keys |= {f"{prefix}.init_args.{name}" for name in named if name != "self"}
    return keys


def _subclasses(kind: type) -> Iterable[type]:
    yield kind
    for cls in kind.__subclasses__():
        yield from _subclasses(cls)
