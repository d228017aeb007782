"""A comparison as a table for others: CSV, Markdown and LaTeX, each with how its numbers were measured."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence

from lit_gans.metrics.protocol import NOT_COMPARED
from lit_gans.runs.comparison import Column, Comparison, badge, furthest_kimg, heading, letter, plain_text

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
_TEX |= {">": r"\textgreater{}", "|": r"\textbar{}", "↓": r"$\downarrow$", "↑": r"$\uparrow$"}
_TEX |= {each: f"\\{each}" for each in "&%$#_{}"}


def as_csv(comparison: Comparison) -> str:
    """A row per target; per metric its value, rank, best value with its kimg, and the whole protocol as text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = ("", "_rank", "_best", "_best_kimg", "_protocol")
    writer.writerow(["target", "path", "kimg", *(c.name + part for c in comparison.columns for part in parts)])
    for row in comparison.targets:
        cells: list[object] = [row.label, row.path, furthest_kimg(row, comparison)]
        for column in comparison.columns:
            cell = column.cells.get(row.label)
            told = () if cell is None else (repr(cell.number.value), cell.rank, repr(cell.best.value), cell.best.kimg)
            cells += ("",) * len(parts) if cell is None else (*told, protocol_text(cell.number.stamp))
        writer.writerow(cells)
    return stream.getvalue()


def as_markdown(comparison: Comparison) -> str:
    """A table with ranks in brackets and the best in bold; below it the protocols, and what was not ranked."""
    rows = _rows(comparison, _markdown, lambda text: f"**{text}**")
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---|" + "---:|" * (len(rows[0]) - 1))
    return "\n".join([*lines, "", *(f"- {_markdown(note)}" for note in _notes(comparison))]) + "\n"


def as_latex(comparison: Comparison) -> str:
    """A tabular in the rules of booktabs, and the notes below it."""
    head, *rows = _rows(comparison, _latex, lambda text: rf"\textbf{{{text}}}")
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule"]
    lines += [rf"{' & '.join(head)} \\", r"\midrule", *(rf"{' & '.join(row)} \\" for row in rows), r"\bottomrule"]
    notes = [rf"{_latex(note)}\\" for note in _notes(comparison)]
    return "\n".join([*lines, r"\end{tabular}", "", r"\par\smallskip\footnotesize\noindent", *notes]) + "\n"


TABLES: dict[str, Callable[[Comparison], str]] = {"csv": as_csv, "markdown": as_markdown, "latex": as_latex}


def protocol_text(stamp: dict[str, object]) -> str:
    """How a number was measured, without which model was."""
    return "; ".join(f"{name} {plain_text(value)}" for name, value in stamp.items() if name not in NOT_COMPARED)


def _rows(comparison: Comparison, escaped: Callable[[str], str], best: Callable[[str], str]) -> Sequence[Sequence[str]]:
    """The head and a row per target, of escaped texts."""
    rows = [["target", "kimg", *(escaped(heading(column)) for column in comparison.columns)]]
    for row in comparison.targets:
        cells = [_cell(row.label, column, best) for column in comparison.columns]
        rows.append([escaped(row.label), furthest_kimg(row, comparison), *cells])
    return rows


def _cell(label: str, column: Column, best: Callable[[str], str]) -> str:
    cell = column.cells.get(label)
    if cell is None:
        return "-"
    text = f"{cell.number.value:.4g}"
    place = badge(cell, column)
    return (best(text) if cell.rank == 1 else text) + (f" ({place})" if place else "")


def _notes(comparison: Comparison) -> list[str]:
    """Protocols, each once with its letter and the metrics that have it; then what was not ranked, and other notes."""
    told: dict[tuple[str, str], list[str]] = {}
    for column in comparison.columns:
        for group, text in sorted({(c.group, protocol_text(c.number.stamp)) for c in column.cells.values()}):
            told.setdefault((letter(group) if column.differing else "", text), []).append(column.name)
    protocols = [f"protocol{f' {mark}' if mark else ''} of {', '.join(names)}: {text}"
                 for (mark, text), names in told.items()]  # fmt: skip
    ranked = any(cell.rank for column in comparison.columns for cell in column.cells.values())
    explained = ["In brackets: the rank among numbers of one protocol."] if ranked else []
    return explained + protocols + comparison.refusals + comparison.notes


def _markdown(text: str) -> str:
    text = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def _latex(text: str) -> str:
    return "".join(_TEX.get(each, each) for each in re.sub(r"\s+", " ", text))
