"""Finding experiment files, and helping with a mistyped key."""

import difflib
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any


def find_config(name: str) -> Path:
    """`name` on disk, else the shipped experiment of that name (`cgan/digits.yaml`, with or without `experiments/`).

    Raises:
        ValueError: neither; the nearest shipped ones are named.
    """
    path = Path(name)
    if path.is_file():
        return path
    wanted = name.removeprefix("experiments/").removesuffix(".yaml")
    shipped = shipped_configs()
    if wanted in shipped:
        return shipped[wanted]
    close = difflib.get_close_matches(wanted, shipped, n=3, cutoff=0.3) or sorted(shipped)
    raise ValueError(f"config {name} does not exist; shipped experiments: {', '.join(close)}")


def shipped_configs() -> dict[str, Path]:
    """Experiment files by name, "cgan/digits" -> path: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "experiments", package.parent / "experiments"):
        files = {f.relative_to(folder).with_suffix("").as_posix(): f for f in sorted(folder.glob("*/*.yaml"))}
        if files:
            return files
    return {}


def unknown_key_message(message: str, parser: Any) -> str:
    """The parser's message, and for an unknown key the nearest known ones."""
    keys = re.findall(r"(?:Key|Option|arguments?:?|key) '?\"?-{0,2}([\w.]+)", message)
    keys += re.findall(r"(?:--)([\w.]+)", message)
    known = sorted(_known_keys(message, parser))
    for key in keys:
        if key in known:
            continue
        leaf = key.rsplit(".", 1)[-1]
        close = difflib.get_close_matches(key, known, n=3, cutoff=0.75)
        close = close or [k for k in known if k.rsplit(".", 1)[-1] in difflib.get_close_matches(leaf, _leaves(known))]
        if close:
            return f"{message}\nThe nearest known keys: {', '.join(close[:3])}"
    return message


def _leaves(keys: list[str]) -> list[str]:
    return [k.rsplit(".", 1)[-1] for k in keys]


def _known_keys(message: str, parser: Any) -> set[str]:
    """Keys of the parser, and of the constructors of all papers and data sets under model / data.init_args."""
    keys = {action.dest for action in parser._actions}
    for prefix, module in (("model", "lit_gans.papers"), ("data", "lit_gans.data")):
        package = import_module(module)
        for name in package.__all__:
            cls = getattr(package, name)
            for base in cls.__mro__ if inspect.isclass(cls) else ():
                if base.__module__.startswith("lit_gans"):
                    parameters = inspect.signature(base.__init__).parameters
                    keys |= {f"{prefix}.init_args.{p}" for p in parameters if p not in ("self", "args", "kwargs")}
    return keys
