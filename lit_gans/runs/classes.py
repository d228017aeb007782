"""Classes that files name: which of them are built, and those that installed packages add to the papers of lit_gans.

Such a package has entry points of the group `lit_gans.papers`, each a model or data module of its own:

    [project.entry-points."lit_gans.papers"]
    MyGAN = "my_package.my_gan:MyGAN"
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

GROUP = "lit_gans.papers"
OURS = ("lit_gans.papers", "lit_gans.comparators", "lit_gans.data")
IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")

T = TypeVar("T")


def trusted_class(path: str, kind: type[T], *, trust: str | None = None) -> type[T]:
    """The class at an import path: one of ours, of a package that was installed as papers, or of the package `trust`.

    Raises:
        ValueError: of another package, which is not imported; or there is no such class of this kind.
    """
    packages = (*OURS, *(package_of(entry) for entry in added()), trust)
    if not IMPORT_PATH.fullmatch(path) or not _inside(path, packages):
        raise ValueError(
            f"the class {path!r} is not one of {', '.join(OURS)}, nor of an installed package of papers; if you trust "
            "its package, name it: trust= (--trust)"
        )
    if trust is not None:
        see_working_folder()
    module, _, name = path.rpartition(".")
    try:
        found = vars(import_module(module)).get(name)
    except ImportError as error:
        raise ValueError(f"{module} cannot be imported ({error}): was it written by a later version?") from error
    if not (isinstance(found, type) and issubclass(found, kind) and _inside(found.__module__, packages)):
        raise ValueError(f"{module} has no class {name!r} of its own that is a {kind.__name__}")
    return found


def to_trust(class_path: str) -> str | None:
    """The package that has to be named as trusted before this class is built; None where that needs no word."""
    packages = (*OURS, *(package_of(entry) for entry in added()))
    return None if _inside(class_path, packages) else class_path.partition(".")[0]


def check_loss(arguments: Mapping[str, Any], *, trust: str | None = None) -> None:
    """ValueError where `loss`, of our papers the one argument that is an import path, leads out of trusted packages."""
    packages = ("lit_gans", *(package_of(entry) for entry in added()), trust)
    loss = arguments.get("loss")
    if isinstance(loss, str) and not _inside(loss, packages):
        raise ValueError(f"the model names the loss {loss!r}, which is not ours; pass trust= its package")


def _inside(path: str, packages: tuple[str | None, ...]) -> bool:
    return any(p is not None and f"{path}.".startswith(f"{p}.") for p in packages)


# ---- classes of others -----------------------------------------------------------------------------------------------


def see_working_folder() -> None:
    """Modules in the working folder can be imported, by the command too, after all that is installed."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


def added() -> tuple[EntryPoint, ...]:
    """What installed packages add, by name; nothing is imported."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: entry.name))


def package_of(entry: EntryPoint) -> str:
    return entry.module.partition(".")[0]


def load_added() -> list[type]:
    """The classes that installed packages add; a warning tells of one that cannot be had."""
    found = []
    for entry in added():
        try:
            cls = entry.load()
        except (ImportError, AttributeError) as error:
            warnings.warn(f"{entry.value} of an installed package of papers cannot be loaded: {error}", stacklevel=2)
            continue
        if isinstance(cls, type) and _inside(cls.__module__, (package_of(entry),)):
            found.append(cls)
        else:
            warnings.warn(f"{entry.value} of an installed package of papers is no class of its own", stacklevel=2)
    return found
