"""Which class each picture is of: by the folders that pictures lie in, or by dataset.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_gans.data.sources import Archive, Source

LABELS = ("auto", "none", "folders", "json")
_SPLIT = re.compile(
    r"(train|val|valid|validat|test|dev|eval)(ing|ion)?([\W_]?(set|split|data|images?|imgs?)|[\W_]?\d+)?", re.I
)
_TOGETHER = "; or use labels='none' to take all pictures together, without classes"
_NAMED = 5


@dataclass(frozen=True)
class Labels:
    """The class of each picture by name; `classes` in the order of their numbers; `origin` says where they are from."""

    of: Mapping[str, str]
    classes: tuple[str, ...]
    origin: str

    def numbers(self, names: Sequence[str], classes: Sequence[str] | None = None) -> Tensor:
        """int64 [N]: the classes of these pictures by their place in `classes`, by default the own ones."""
        known = {name: number for number, name in enumerate(self.classes if classes is None else classes)}
        return torch.tensor([known[self.of[name]] for name in names], dtype=torch.int64)


def ordered(classes: set[str]) -> tuple[str, ...]:
    """Class names in the order of their numbers: by letters, or as numbers where all are whole ones (2 before 10)."""
    whole = all(name.isdecimal() for name in classes)
    return tuple(sorted(classes, key=lambda name: (int(name) if whole else 0, name)))


def labels_of(source: Source, wanted: str = "auto", *, known: Sequence[str] = ()) -> Labels | None:
    """The labels of a source, chosen by one of LABELS as `lit_gans.data.Images` tells; None without.

    Folders of classes are those of the first level, or below folders that hold all pictures; those of `known` classes
    are found wherever they lie.

    Raises:
        ValueError: pictures beside the folders of classes, splits in the place of classes, or a wrong dataset.json.
    """
    found = source.read_labels() if wanted in ("auto", "json") else None
    if found is not None:
        table, names = found
        classes = names or tuple(map(str, range(max(table.values()) + 1)))
        return Labels({name: classes[number] for name, number in table.items()}, classes, "dataset.json")
    if wanted == "json":
        raise ValueError(
            f"labels='json', but {source.path} has no dataset.json with labels: "
            f"use labels='folders' or 'none', or pack it with its labels"
        )
    return None if wanted == "none" else _folder_labels(source, wanted, known)


def _folder_labels(source: Source, wanted: str, known: Sequence[str]) -> Labels | None:
    above = _above_classes(source, known)
    folders = _folders(source, above)
    classes = set(folders.values()) - {""}
    if wanted == "auto" and not known and (len(classes) < 2 or all(re.fullmatch(r"\d{5}", name) for name in classes)):
        return None
    check_no_splits(source, above)
    beside = [name for name, folder in folders.items() if not folder]
    if wanted == "auto" and len(beside) > len(folders) // 2:
        return None
    if beside:
        raise ValueError(
            f"labels={wanted!r}, but {len(beside)} of {len(folders)} pictures lie in {source.path / above} itself, not "
            f"in the folder of a class ({', '.join(beside[:_NAMED])}{', ...' * (len(beside) > _NAMED)}): put every "
            "picture into the folder of its class, or use labels='none'"
        )
    return Labels(folders, ordered(classes), f"folders in {source.path / above}")


def _above_classes(source: Source, known: Sequence[str]) -> str:
    """The folder in which the folders of classes lie."""
    for above in source.wrapping:
        if known and set(_folders(source, above).values()) <= set(known):
            return above
    deepest = source.wrapping[-1]
    return deepest if any(_folders(source, deepest).values()) else ""  # all in one folder: it is the only class


def _folders(source: Source, above: str) -> dict[str, str]:
    """{name: the folder in `above` that it lies in, or ""}."""
    return {name: name[len(above) :].rpartition("/")[0].split("/", 1)[0] for name in source.names}


def check_no_splits(source: Source, above: str = "", *, otherwise: str = _TOGETHER) -> None:
    """ValueError where two folders or more in `above` are named as splits are: train, val2017, test_set, ..."""
    folders, path = set(_folders(source, above).values()), source.path / above
    splits = sorted((name for name in folders if _SPLIT.fullmatch(name)), key=lambda name: "train" not in name.lower())
    if len(splits) < 2:
        return
    way = "pack each of them into a zip of its own" if isinstance(source, Archive) else (
        f"give {path / splits[0]} as path and, where there is such an option, {path / splits[1]} as test_path"
    )  # fmt: skip
    raise ValueError(f"{path} holds {', '.join(splits)}, the splits of a data set and no classes: {way}{otherwise}")
