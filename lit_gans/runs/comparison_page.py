"""The page of a comparison: one HTML file that shows rankings, curves, samples and what differs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lit_gans.metrics.protocol import NOT_COMPARED, differing
from lit_gans.runs.comparison import Column, Comparison, badge, earlier_best, furthest_kimg, heading, plain_text
from lit_gans.runs.pages import picture, svg, write_html
from lit_gans.runs.results import Number
from lit_gans.runs.state import state_of

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#222222")  # after Okabe and Ito
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}  # in a plot, and in text
LINES = {"solid": "-", "dashed": "--", "dotted": ":", "dash-dotted": "-."}  # of protocols
STARTED = ("commit", "hardware", "processes", "precision")  # what run.json tells of a start
GRID_NAME = re.compile(r"fakes-(\d+\.\d{3})\.png")
Mark = Callable[[str], Markup]


def write(comparison: Comparison, path: Path) -> Path:
    """Writes the HTML page to `path`: one file that needs no other, no network and no script."""

    def mark(label: str) -> Markup:
        colour, marker = _style(label, comparison)
        return Markup('<span class="mark" style="color:{}">{}</span>{}').format(colour, MARKERS[marker], label)

    given, protocols, common = comparison.given, *_protocols(comparison)
    return write_html(
        path, "comparison.html", comparison=comparison,
        title="Comparison of " + (", ".join(given) if len(given) < 7 else f"{len(given)} targets"),
        summary=_summary(comparison), cards=_curves(comparison),
        samples=_samples(comparison, mark), protocols=protocols, common=common, configs=_configs(comparison, mark),
        runs=_runs(comparison, mark), started=list(STARTED), mark=mark,
        marks=[mark(row.label) for row in comparison.targets], badge=badge, earlier_best=earlier_best,
        furthest_kimg=furthest_kimg, heading=heading, headings=[heading(column) for column in comparison.columns],
    )  # fmt: skip


def _style(label: str, comparison: Comparison) -> tuple[str, str]:
    """(colour, marker) of a target, the same wherever it is shown; the pairs repeat after 49 targets."""
    i = comparison.given.index(label)
    return COLOURS[i % 7], list(MARKERS)[(i + i // 7) % 7]


def _summary(comparison: Comparison) -> str:
    count, metrics = len(comparison.targets), len(comparison.columns)
    text = f"{count} target{'s' * (count != 1)}, {metrics} metric{'s' * (metrics != 1)}."
    if comparison.columns:
        first = comparison.columns[0]
        best = any(cell.rank == 1 for cell in first.cells.values())
        text += f" Rows stand in the order of {first.name}." if best else f" {first.name} is not ranked."
    return text


def _curves(comparison: Comparison) -> list[tuple[Column, str, list[Markup]]]:
    """A metric's protocols by their lines, where there are several, and its plots over kimg and over hours."""
    cards = []
    for column in comparison.columns:
        clocks = {t.label: t.clock for t in comparison.targets}
        by_kimg = {
            (label, i): points
            for i, family in enumerate(column.series)
            for label in clocks
            if (points := _points(family.get(label, [])))
        }
        by_hours = {key: _in_hours(points, clocks[key[0]]) for key, points in by_kimg.items()}
        by_hours = {key: points for key, points in by_hours.items() if points}
        plots = [(by_kimg, "kimg"), (by_hours, "hours")]
        drawn = [_plot(points, column, comparison, unit) for points, unit in plots if points]
        cards.append((column, _lines(column), drawn))
    return [card for card in cards if card[2]]


def _lines(column: Column) -> str:
    """Which line is of which protocol, by what differs between them; "" where there is one protocol."""
    stamps = [next(iter(family.values()))[0].stamp for family in column.series]
    fields = differing(stamps)
    told = [", ".join(f"{name} {plain_text(values[i])}" for name, values in fields.items()) for i in range(len(stamps))]
    return "; ".join(f"{list(LINES)[i % len(LINES)]}: {text}" for i, text in enumerate(told)) if fields else ""


def _points(numbers: list[Number]) -> list[tuple[float, float]]:
    """(kimg, value) of the numbers of one protocol; of two at one kimg the later."""
    known = [(n.kimg, n.value) for n in numbers if n.kimg is not None]
    return sorted({k: v for k, v in known if math.isfinite(k) and math.isfinite(v)}.items())


def _in_hours(points: list[tuple[float, float]], clock: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(hours, value), for the points that lie in the time that the clock covers."""
    import numpy as np

    kimg, hours = zip(*clock, strict=True) if clock else ((), ())
    inside = [(k, value) for k, value in points if clock and kimg[0] <= k <= kimg[-1]]
    return [(float(np.interp(k, kimg, hours)), value) for k, value in inside]


def _plot(
    points: dict[tuple[str, int], list[tuple[float, float]]], column: Column, comparison: Comparison, unit: str
) -> Markup:
    """An SVG of one metric over kimg or hours, a line per label and protocol.

    matplotlib, which reads "$" as mathematics, gets no name from a file.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    values = [value for line in points.values() for _, value in line]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lit_gans", "font.size": 8.5}):
        figure = Figure(figsize=(3.3, 2.3), layout="constrained")
        axes = figure.add_subplot(xlabel=unit)
        for (label, protocol), line in points.items():
            colour, marker = _style(label, comparison)
            axes.plot(
                *zip(*line, strict=True), color=colour, linewidth=1.5, markersize=4,
                marker=marker, markevery=1 + len(line) // 25, linestyle=list(LINES.values())[protocol % len(LINES)],
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e9ecef", linewidth=0.8)
        axes.set_axisbelow(True)
        return svg(figure, f"{column.name} over {unit}")


def _samples(comparison: Comparison, mark: Mark) -> list[tuple[str, str | None, str]]:
    """(what, picture, caption) of each run's last samples, then of the real images, the same ones once."""
    figures, reals = [], {}
    for row in comparison.targets:
        if row.folder is None:
            continue
        grids = (GRID_NAME.fullmatch(path.name) for path in (row.folder / "samples").glob("*.png"))
        made, shown = [float(match[1]) for match in grids if match], picture(row.folder / "samples" / "latest.png")
        figures.append(("samples", shown, mark(row.label) + (f" at {max(made):.10g} kimg" if shown and made else "")))
        if real := picture(row.folder / "samples" / "reals.png"):
            reals.setdefault(real, []).append(row.label)
    return figures + [("real images", real, f"real images ({', '.join(labels)})") for real, labels in reals.items()]


def _protocols(comparison: Comparison) -> tuple[list[list[str]], list[list[str]]]:
    """Which field differs, with its value in each target and the metrics; and what all numbers have in common."""

    stamps = {(c.name, label): cell.number.stamp for c in comparison.columns for label, cell in c.cells.items()}
    rows: dict[tuple[str, ...], list[str]] = {}
    for column in comparison.columns:
        for name in column.differing:
            values = [plain_text(stamps[column.name, t.label].get(name)) if t.label in column.cells else "–"
                      for t in comparison.targets]  # fmt: skip
            rows.setdefault((name, *values), []).append(column.name)
    count = len(comparison.columns)
    told = [[*row, "all" if len(names) == count else ", ".join(names)] for row, names in rows.items()]
    fields = dict.fromkeys(name for stamp in stamps.values() for name in stamp if name not in NOT_COMPARED)
    common = {name: {plain_text(stamp.get(name)) for stamp in stamps.values()} for name in fields}
    return told, [[name, values.pop()] for name, values in common.items() if len(values) == 1]


def _configs(comparison: Comparison, mark: Mark) -> tuple[list[str], list[list[str]]] | None:
    """(heads, rows) of the keys that differ, paths of the run itself left out; None for fewer than two configs."""
    rows = [row for row in comparison.targets if row.config]
    if len(rows) < 2:
        return None
    cells = []
    for key in dict.fromkeys(key for row in rows for key in row.config):
        values = [plain_text(row.config[key]) if key in row.config else "–" for row in rows]
        if len(set(values)) > 1:
            cells.append([Markup(".<wbr>").join(key.split(".")), *values])
    return ["key", *(mark(row.label) for row in rows)], cells


def _runs(comparison: Comparison, mark: Mark) -> list[list[Any]]:
    rows = []
    for row in comparison.targets:
        last = row.starts[-1] if row.starts else {}
        kimg, hours = row.clock[-1] if row.clock else (None, None)
        told = [row.path, row.config.get("model.class_path"), kimg and f"{kimg:.10g}", hours and f"{hours:.3g}"]
        told += [len(row.starts) or None, state_of(row.folder).word if row.starts and row.folder else None]
        rows.append([mark(row.label), *told, *(last.get(key) for key in STARTED)])
    return rows
