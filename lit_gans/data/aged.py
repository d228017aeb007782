"""Faces with ages: UTKFace and IMDB-WIKI by the names of their files, any other folder by a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lit_gans.base.files import user_path
from lit_gans.data.ages import EDGES, OLDEST, age_of_name, check_edges, group_names, group_of, read_ages
from lit_gans.data.described import Description
from lit_gans.data.images import Images
from lit_gans.data.labels import Labels
from lit_gans.data.sets import ImageSet

_NAMED = 5


class AgedFaces(Images):
    """Pictures of faces, the label of each the group of its age.

    Ages are told by file names as published, `[age]_[gender]_[race]_[date&time].jpg` of UTKFace (also `.jpg.chip.jpg`)
    and `[person]_[date of birth]_[year].jpg` of IMDB-WIKI and what is cleaned from it; or by `table`, a CSV file with a
    column of files and one of years, such as those of cleaned sets; `test_table` is that of `test_path`, by default the
    same. `edges` are the years in which groups begin, but for the first: six groups of Age-cGAN by default. Pictures
    without an age, or of one below 0 or above `max_age`, are refused, or left out with on_error="skip"; so is a group
    of which there is no picture to train on. Everything else is as `Images` has it.
    """

    def __init__(
        self,
        path: str,
        *,
        table: str | None = None,
        test_table: str | None = None,
        file_column: str | None = None,
        age_column: str | None = None,
        edges: Sequence[int] = EDGES,
        max_age: int = OLDEST,
        **options: Any,
    ) -> None:
        super().__init__(path, labels="none", **options)
        self.edges, self.max_age = check_edges(edges), max_age
        self.table = None if table is None else user_path(table)
        self.test_table = self.table if test_table is None else user_path(test_table)
        self.file_column, self.age_column = file_column, age_column
        if max_age <= self.edges[-1]:
            raise ValueError(f"max_age {max_age} leaves the last group, {self.edges[-1]} years and more, empty")
        if self.table is None and (file_column or age_column):
            raise ValueError(f"the column {file_column or age_column!r} is of a table: set table, a CSV file, too")
        self._ages: dict[Path | str, tuple[dict[str, float], dict[str, str]]] = {}

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The groups, as "0-18", ..., "60+"."""
        return group_names(self.edges)

    def ages(self, split: str = "train") -> dict[str, float]:
        """Years by the names of all pictures that are used."""
        return self._told(split)[0]

    def select(self, names: tuple[str, ...], split: str) -> tuple[str, ...]:
        """Those with an age. ValueError for others, unless they are to be left out, and where there is none."""
        ages, without = self._told(split)
        if without and (self.on_error == "fail" or not ages):
            way = (
                "Mend them, or use on_error='skip'"
                if ages
                else ("Give the table of these pictures, or name them as UTKFace or IMDB-WIKI do")
            )
            raise ValueError(f"{self._without(without, len(names), split)}. {way}")
        return tuple(name for name in names if name in ages)

    def transform(self) -> dict[str, object]:
        return {**super().transform(), "labels": "ages", "edges": list(self.edges)}

    def load(self, split: str) -> ImageSet:
        """Raises as `Images.load`, and ValueError for a group of the training split without a picture."""
        names = self.select(self._source(self.location(split)).names, split)
        present = {group_of(self.ages(split)[name], self.edges) for name in names}
        empty = [name for number, name in enumerate(self.class_names) if number not in present]
        if empty and split == self.train_split:
            raise ValueError(
                f"{self.location(split)} has no face of {', '.join(empty)} years, and what is never seen cannot be "
                f"learned: set edges to groups that it has, as --data.init_args.edges=[30,50]"
            )
        return super().load(split)

    def describe(self, split: str | None = None) -> Description:
        split = split or self.train_split
        said, without = super().describe(split), self._told(split)[1]
        left = ", ".join(filter(None, [said.left, f"{len(without)} without a plausible age" if without else ""]))
        return replace(said, left=left, layout=f"groups of the {self._origin(split)}")

    def _labels_at(self, split: str) -> Labels:
        groups = {name: self.class_names[group_of(age, self.edges)] for name, age in self.ages(split).items()}
        return Labels(groups, self.class_names, self._origin(split))

    def _origin(self, split: str) -> str:
        table = self.test_table if split == "test" else self.table
        return "ages in file names" if table is None else f"ages in {table.name}"

    def _told(self, split: str) -> tuple[dict[str, float], dict[str, str]]:
        """(years by name, why other pictures have none); read once, and told where some are left out."""
        place = self.location(split)
        if place not in self._ages:
            names = self._source(place).names
            table = self.test_table if split == "test" else self.table
            if table is None:
                found: dict[str, float | None] = {name: age_of_name(name) for name in names}
            else:
                read = read_ages(table, file_column=self.file_column, age_column=self.age_column)
                found = read.of(names)
            wrong = {name: why for name, age in found.items() if (why := self._why_not(age))}
            self._ages[place] = {n: a for n, a in found.items() if a is not None and n not in wrong}, wrong
            if wrong and self.on_error == "skip" and len(wrong) < len(names):
                rank_zero_warn(f"{self._without(wrong, len(names), split)}. They are left out")
        return self._ages[place]

    def _why_not(self, age: float | None) -> str:
        if age is None:
            return "no age"
        return "" if 0 <= age <= self.max_age else f"{age:g} years"

    def _without(self, without: dict[str, str], total: int, split: str) -> str:
        first = "; ".join(f"{name}: {without[name]}" for name in list(without)[:_NAMED])
        more = f"; and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        return (
            f"{len(without)} of {total} pictures in {self.location(split)} have no age from 0 to {self.max_age} in the "
            f"{self._origin(split)}: {first}{more}"
        )
