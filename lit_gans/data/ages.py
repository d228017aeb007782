"""Ages of faces: in the names of published files, in tables, and the groups that they are put into."""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from lit_gans.base.files import check_regular

EDGES = (19, 30, 40, 50, 60)  # where groups begin, but for the first: of Age-cGAN (Antipov et al., 2017, Sec. 2.1)
OLDEST = 120
FILE_COLUMNS = ("file", "filename", "file_name", "path", "full_path", "image", "image_path", "img", "img_path", "name")
AGE_COLUMNS = ("age",)
# [age]_[gender]_[race]_[date&time].jpg; some published files lack gender or race. A date and time has 17 digits or so.
UTKFACE = re.compile(r"(\d{1,3})_(?:\d?_){0,2}\d{14,18}\D")
# IMDB-WIKI, and lists cleaned from it: [person](_rm[picture])_[date of birth]_[year of the picture].jpg
IMDB_WIKI = re.compile(r"(?:nm)?\d+(?:_rm\d+)?_(\d{4})-(\d{1,2})-(\d{1,2})_(\d{4})\.")
MIDDLE_OF_THE_YEAR = (7, 1)


# ---- groups ----------------------------------------------------------------------------------------------------------


def check_edges(edges: Sequence[int]) -> tuple[int, ...]:
    """The edges themselves. ValueError unless they are whole years that rise."""
    if not edges or any(low >= high for low, high in pairwise([0, *edges])):
        raise ValueError(f"edges {list(edges)} are not years that rise from 1 on, where groups begin, as {list(EDGES)}")
    return tuple(edges)


def group_names(edges: Sequence[int] = EDGES) -> tuple[str, ...]:
    """ "0-18", "19-29", ..., "60+"."""
    return (*(f"{low}-{high - 1}" for low, high in pairwise([0, *edges])), f"{edges[-1]}+")


def group_of(age: float, edges: Sequence[int] = EDGES) -> int:
    """The number of the group of an age in years."""
    return bisect_right(edges, age)


def edges_of(names: Sequence[str]) -> tuple[int, ...] | None:
    """The edges that groups of these names have; None where they are no groups of ages."""
    lows = [match[1] for name in names if (match := re.fullmatch(r"(\d+)(?:-\d+|\+)", name))]
    edges = tuple(int(low) for low in lows[1:])
    return edges if edges and group_names(edges) == tuple(names) else None


# ---- of one picture --------------------------------------------------------------------------------------------------


def age_of_name(name: str) -> int | None:
    """Years, of a file's name as UTKFace and IMDB-WIKI have them; None for others.

    IMDB-WIKI tells the year of a picture alone: as its authors do, it is taken for the middle of that year.
    """
    name = name.rpartition("/")[2]
    if match := UTKFACE.match(name):
        return int(match[1])
    if match := IMDB_WIKI.match(name):
        born, month, day, taken = map(int, match.groups())
        return taken - born - ((month, day) > MIDDLE_OF_THE_YEAR)
    return None


# ---- tables ----------------------------------------------------------------------------------------------------------


class AgeTable(NamedTuple):
    """ages: years by the names of pictures as the table has them, None where it has none; path: of the table."""

    ages: Mapping[str, float | None]
    path: Path

    def of(self, names: Sequence[str]) -> dict[str, float | None]:
        """Those of these pictures, None for those without. Folders before a name count where two have that name."""
        short: dict[str, list[str]] = {}
        for known in self.ages:
            short.setdefault(known.rpartition("/")[2], []).append(known)
        found = {}
        for name in names:
            rows = short.get(name.rpartition("/")[2], [])
            whole = [row for row in rows if f"/{name}".endswith(f"/{row}") or f"/{row}".endswith(f"/{name}")]
            meant = whole if len(whole) == 1 else rows if not whole and len(rows) == 1 else []
            found[name] = self.ages[meant[0]] if meant else None
        return found


def read_ages(path: str | Path, *, file_column: str | None = None, age_column: str | None = None) -> AgeTable:
    """The ages in a CSV file whose first line names its columns, or a .tsv with tabs; further columns do not matter.

    Without a name a column is taken that is called as one of FILE_COLUMNS or AGE_COLUMNS.

    Raises:
        FileNotFoundError: there is none. ValueError: no table, no such column, or two ages for one picture.
    """
    path = Path(path)
    check_regular(path, "give a CSV file of pictures and ages")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no text, or no table: {error}") from error
    rows = [row for row in rows if any(word.strip() for word in row)]
    if len(rows) < 2:
        raise ValueError(f"{path} has {len(rows)} lines: a table has a line of names, then one for each picture")
    names = [word.strip() for word in rows[0]]
    file_at = _column(path, names, file_column, FILE_COLUMNS, "file_column")
    age_at = _column(path, names, age_column, AGE_COLUMNS, "age_column")
    ages: dict[str, float | None] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) <= max(file_at, age_at):
            raise ValueError(f"{path}, row {number}: {len(row)} values, and the first line names {len(names)}")
        name, age = row[file_at].strip().replace("\\", "/").removeprefix("./"), _years(row[age_at])
        if ages.setdefault(name, age) != age:
            raise ValueError(f"{path}, row {number}: {name!r} is {age} years, and {ages[name]} in a row before")
    return AgeTable(ages, path)


def _column(path: Path, names: Sequence[str], wanted: str | None, usual: Sequence[str], option: str) -> int:
    if wanted is not None and wanted not in names:
        raise ValueError(f"{path} has no column {wanted!r}; it has {', '.join(names)}: set {option}")
    found = [at for at, name in enumerate(names) if (name == wanted if wanted else name.lower() in usual)]
    if not found:
        raise ValueError(
            f"{path} has the columns {', '.join(names)}, and none is called {' or '.join(usual)}: set {option}"
        )
    return found[0]


def _years(word: str) -> float | None:
    try:
        years = float(word)
    except ValueError:
        return None
    return years if math.isfinite(years) else None
