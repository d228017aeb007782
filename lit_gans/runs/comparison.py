"""Runs and result files side by side: ranks among equal protocols only."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_gans.metrics.protocol import differing, direction
from lit_gans.runs.results import Number, Target, name_rows, read_targets

ARROWS = {"lower": "↓", "higher": "↑", None: ""}


@dataclass(frozen=True)
class Cell:
    """A target's last number, the best of that protocol, and its rank among the targets of the same `group`."""

    number: Number
    best: Number
    group: int  # numbers of one group have one protocol
    rank: int | None


@dataclass(frozen=True)
class Column:
    """One metric: cells by label, and the protocol fields that forbid ranking, with the value in each group.

    `series` is all that was measured, not what is shown alone: by protocol, those of the cells' groups first, the
    numbers of each label, oldest first.
    """

    name: str
    direction: str | None
    cells: dict[str, Cell]
    differing: dict[str, list[object]]
    series: list[dict[str, list[Number]]]


@dataclass(frozen=True)
class Comparison:
    """Targets in the order of the first metric's ranking, a column per metric, and what a reader should know."""

    targets: list[Target]
    columns: list[Column]
    notes: list[str]
    given: list[str]  # labels in the order given: a target's colour

    @property
    def refusals(self) -> list[str]:
        """What was not ranked against what, and which protocol fields forbid it; empty if everything was ranked."""
        found: dict[tuple[str, str], list[str]] = {}
        for column in self.columns:
            if column.differing:
                groups: dict[int, list[str]] = {}
                for label, cell in column.cells.items():
                    groups.setdefault(cell.group, []).append(label)
                fields = ", ".join(f"{name} {_each(values)}" for name, values in column.differing.items())
                sides = " | ".join(f"{letter(g)}: {', '.join(labels)}" for g, labels in sorted(groups.items()))
                found.setdefault((fields, sides), []).append(column.name)
        return [f"not ranked: {fields} ({sides}) for {', '.join(names)}" for (fields, sides), names in found.items()]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite is None."""
        return {
            "targets": [{"label": t.label, "path": t.path} for t in self.targets],
            "metrics": {c.name: _column_as_dict(c) for c in self.columns},
            "not_ranked": self.refusals,
            "notes": self.notes,
        }


def comparison_of(targets: Sequence[str | Path], *, metrics: Sequence[str] | None = None) -> Comparison:
    """The comparison of run folders and .jsonl result files.

    Each metric shows a target's last number: that of the protocol which all targets share, where there is one. Ranks
    are given among equal protocols only. `metrics` chooses some, in that order (default: all).
    ValueError or FileNotFoundError for a target that is neither, and for a metric that nothing was measured with.
    """
    if isinstance(targets, (str, Path)) or not targets:
        raise ValueError(f"targets is {targets!r}; give a list of one or more run folders or .jsonl files")
    paths = {os.path.realpath(target): Path(target) for target in targets}
    rows = [row for path in paths.values() for row in read_targets(path)]
    name_rows(rows)
    measured = list(dict.fromkeys(name for row in rows for name in row.numbers))
    if unknown := [name for name in metrics or () if name not in measured]:
        raise ValueError(f"no target has the metric {unknown[0]!r}; measured: {', '.join(measured) or 'none'}")
    columns, notes = [], [f"{row.label}: {note}" for row in rows for note in row.notes]
    for name in metrics or measured:
        columns.append(_column(name, rows))
    notes += _left_out(rows, columns) + _versions(columns)
    order = sorted(rows, key=lambda row: _place(columns[0].cells.get(row.label)) if columns else 0)
    return Comparison(order, columns, notes, [row.label for row in rows])


def _column(name: str, rows: list[Target]) -> Column:
    better = direction(name)
    families = _families(name, rows)
    chosen = _chosen(families)
    used = list(dict.fromkeys(chosen.values()))  # numbered as they appear
    shown = {label: families[f][label] for label, f in chosen.items()}
    values = {label: numbers[-1].value for label, numbers in shown.items()}
    cells = {}
    for label, numbers in shown.items():
        rivals = [values[other] for other in shown if chosen[other] == chosen[label]]
        rank = _rank(values[label], rivals, better)
        cells[label] = Cell(numbers[-1], _best(numbers, better), used.index(chosen[label]), rank)
    stamps = [next(iter(families[f].values()))[0].stamp for f in used]
    others = [family for i, family in enumerate(families) if i not in used]
    return Column(name, better, cells, differing(stamps), [families[i] for i in used] + others)


def _families(name: str, rows: list[Target]) -> list[dict[str, list[Number]]]:
    """One family per protocol: label to its numbers, oldest first."""
    stamps: list[dict[str, object]] = []
    families: list[dict[str, list[Number]]] = []
    for row in rows:
        for number in row.numbers.get(name, []):
            same = next((i for i, stamp in enumerate(stamps) if not differing([stamp, number.stamp])), len(stamps))
            if same == len(stamps):
                stamps.append(number.stamp)
                families.append({})
            families[same].setdefault(row.label, []).append(number)
    return families


def _chosen(families: list[dict[str, list[Number]]]) -> dict[str, int]:
    """Label to the family to show: the furthest, then latest, of those that all labels share; else each one's last."""
    labels = list(dict.fromkeys(label for family in families for label in family))
    shared = [i for i, family in enumerate(families) if len(family) == len(labels)]
    if shared:
        best = max(shared, key=lambda i: max(numbers[-1].age for numbers in families[i].values()))
        return dict.fromkeys(labels, best)
    last = {}
    for i, family in enumerate(families):
        for label, numbers in family.items():
            if label not in last or numbers[-1].age > families[last[label]][label][-1].age:
                last[label] = i
    return {label: last[label] for label in labels}


def _rank(value: float, rivals: list[float], better: str | None) -> int | None:
    """1 for the best; equals share a rank; None where there is nothing to be ranked against."""
    rivals = [rival for rival in rivals if math.isfinite(rival)]
    if better is None or len(rivals) < 2 or not math.isfinite(value):
        return None
    return 1 + sum(rival < value if better == "lower" else rival > value for rival in rivals)


def _best(numbers: list[Number], better: str | None) -> Number:
    finite = [number for number in numbers if math.isfinite(number.value)]
    if better is None or not finite:
        return numbers[-1]
    return (min if better == "lower" else max)(finite, key=lambda number: number.value)


def _place(cell: Cell | None) -> tuple[float, float]:
    return (math.inf, 0) if cell is None else (cell.group, cell.rank or math.inf)


def _left_out(rows: list[Target], columns: list[Column]) -> list[str]:
    """Notes: later numbers that are not shown, since not all targets have them; metrics that could not be measured."""
    hidden: dict[tuple[str, str], list[str]] = {}
    skipped: dict[str, None] = {}
    for column in columns:
        for row in rows:
            if column.name in row.numbers:
                shown, last = column.cells[row.label].number, row.numbers[column.name][-1]
                if fields := differing([shown.stamp, last.stamp]):
                    ways = ", ".join(
                        f"{name} {plain_text(new)}, shown {plain_text(old)}" for name, (old, new) in fields.items()
                    )
                    hidden.setdefault((row.label, ways), []).append(column.name)
                reasons = last.stamp.get("skipped")
                for name, why in reasons.items() if isinstance(reasons, dict) else ():
                    skipped[f"{row.label}: {name} was left out: {why}"] = None
    notes = [f"{label}: a later evaluation is not shown, since not all targets have its protocol: {ways}"
             f" ({', '.join(names)})" for (label, ways), names in hidden.items()]  # fmt: skip
    return notes + list(skipped)


def _versions(columns: list[Column]) -> list[str]:
    """A note per package whose version differs: no reason not to rank."""
    found: dict[str, dict[str, list[str]]] = {}
    for column in columns:
        for label, cell in column.cells.items():
            versions = cell.number.stamp.get("versions")
            for package, version in versions.items() if isinstance(versions, dict) else ():
                labels = found.setdefault(package, {}).setdefault(str(version), [])
                labels += [] if label in labels else [label]
    return [
        f"measured with different versions of {package}: "
        + ", ".join(f"{version} ({', '.join(labels)})" for version, labels in versions.items())
        for package, versions in found.items()
        if len(versions) > 1
    ]


def _column_as_dict(column: Column) -> dict[str, Any]:
    def plain(number: Number) -> dict[str, Any]:
        return {"value": number.value if math.isfinite(number.value) else None, "kimg": number.kimg}

    cells = {
        label: {**plain(c.number), "rank": c.rank, "best": plain(c.best), "protocol": c.number.stamp}
        for label, c in column.cells.items()
    }
    return {"direction": column.direction, "differing": column.differing, "targets": cells}


def letter(group: int) -> str:
    """What a protocol is called where a column has several."""
    return chr(ord("A") + group) if group < 26 else str(group)


def plain_text(value: object) -> str:
    return "none" if value is None else str(value)


def _each(values: list[object]) -> str:
    return " / ".join(dict.fromkeys(plain_text(value) for value in values))


def heading(column: Column) -> str:
    return f"{column.name} {ARROWS[column.direction]}".rstrip()


def furthest_kimg(row: Target, comparison: Comparison) -> str:
    """How far the models were trained whose numbers a row shows."""
    cells = [column.cells[row.label] for column in comparison.columns if row.label in column.cells]
    known = sorted({cell.number.kimg for cell in cells if cell.number.kimg is not None})
    return " to ".join(f"{kimg:.10g}" for kimg in (known if len(known) < 3 else known[:: len(known) - 1]))


def badge(cell: Cell, column: Column) -> str:
    """The rank, and the protocol's letter where a column has several."""
    return f"{cell.rank or ''}{letter(cell.group) if column.differing else ''}"


def earlier_best(cell: Cell) -> str:
    """What the best number was and when, where it is not the last."""
    if cell.best.value == cell.number.value or cell.best.kimg is None:
        return ""
    return f"best {cell.best.value:.4g} at {cell.best.kimg:.10g} kimg"
