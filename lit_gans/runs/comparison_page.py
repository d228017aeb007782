"""The page of a comparison: one HTML file that shows rankings, curves, samples and what differs."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path

from lit_gans.base.files import replacing
from lit_gans.metrics.protocol import NOT_COMPARED, differing
from lit_gans.runs.comparison import Column, Comparison, badge, earlier_best, furthest_kimg, heading, plain_text
from lit_gans.runs.results import Target

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#222222")  # after Okabe and Ito
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}  # in a plot, and in text
STYLE = """
:root { color-scheme: light; } * { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; color: #1c1f23; background: #fff;
  max-width: 76rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; }
h3 { font-size: .95rem; margin: 0 0 .3rem; } h3 small { font-weight: 400; margin-left: .4rem; }
h1, h3, p, li, figcaption { overflow-wrap: anywhere; } p, ul { margin: .4rem 0; } ul { padding-left: 1.2rem; }
small, .dim, figcaption { color: #5b636d; font-size: .84rem; } td small { display: block; line-height: 1.3;
  white-space: normal; max-width: 6.6rem; margin-left: auto; }
.scroll { overflow-x: auto; border: 1px solid #dfe3e8; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e9ecef;
  overflow-wrap: break-word; max-width: 22rem; }
tr:last-child > * { border-bottom: 0; } tbody th { font-weight: 500; }
thead th { font-weight: 600; font-size: .88rem; background: #f6f7f9; white-space: nowrap; }
th:first-child { position: sticky; left: 0; background: #fff; max-width: 13rem; min-width: 8rem; }
thead th:first-child { background: #f6f7f9; }
.numbers th, .numbers td { padding: .45rem .5rem; } .numbers th:first-child { padding-left: .7rem; }
.numbers td { text-align: right; white-space: nowrap; } .numbers thead th:not(:first-child) { text-align: right; }
.best { font-weight: 700; background: #e6f4ec; } .best small { font-weight: 400; }
.badge { font: 500 .74rem/1.2 system-ui, sans-serif; color: #3f4750; background: #eceff2; border-radius: .6rem;
  padding: .05rem .42rem; margin-left: .4rem; } .best .badge { color: #fff; background: #1a7f4b; }
.values td { font: .84rem/1.55 ui-monospace, Menlo, Consolas, monospace; }
.callout { border-left: 4px solid #d55e00; background: #fdf3ec; padding: .5rem .9rem; border-radius: 0 4px 4px 0; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; position: sticky; top: 0; background: #fff;
  padding: .4rem 0; z-index: 1; } .mark { margin-right: .35rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)); gap: 1.2rem; }
.card { border: 1px solid #dfe3e8; border-radius: 6px; padding: .8rem .9rem .4rem; min-width: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .4rem; }
svg { display: block; width: 100%; height: auto; } svg text { font-family: system-ui, sans-serif !important; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15.5rem), 1fr)); gap: 1.2rem; }
figure { margin: 0; min-width: 0; } img { display: block; width: 100%; border-radius: 4px; background: #f6f7f9; }
.none { aspect-ratio: 1; border: 1px dashed #b8bfc7; border-radius: 4px; display: grid; place-items: center; }
figcaption { margin-top: .3rem; } details { margin-top: .8rem; } summary { cursor: pointer; margin-bottom: .5rem; }
"""
STARTED = ("commit", "hardware", "processes", "precision")  # what run.json tells of a start
GRID_NAME = re.compile(r"fakes-(\d+\.\d{3})\.png")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # a reader's browser runs and fetches nothing


def write(comparison: Comparison, path: Path) -> Path:
    """Writes the HTML page to `path`: one file that needs no other, no network and no script."""
    given = comparison.given
    title = "Comparison of " + (", ".join(given) if len(given) < 7 else f"{len(given)} targets")
    head = f'''<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'''
    sections = (
        ("Ranking", _ranking), ("Curves", _curves), ("Samples", _samples), ("Protocol differences", _protocols),
        ("Config differences", _configs), ("Runs", _runs), ("Notes", _notes),
    )  # fmt: skip
    body = [f"<h1>{html.escape(title)}</h1>", _summary(comparison)]
    texts = ((name, section(comparison)) for name, section in sections)
    body += [f"<section><h2>{name}</h2>\n{text}</section>" for name, text in texts if text]
    with replacing(path) as unfinished:
        unfinished.write_text("\n".join([head, *body, "</body></html>\n"]), encoding="utf-8")
    return path


def _style(label: str, comparison: Comparison) -> tuple[str, str]:
    """(colour, marker) of a target, the same wherever it is shown; the pairs repeat after 49 targets."""
    i = comparison.given.index(label)
    return COLOURS[i % 7], list(MARKERS)[(i + i // 7) % 7]


def _label(label: str, comparison: Comparison) -> str:
    colour, marker = _style(label, comparison)
    return f'<span class="mark" style="color:{colour}">{MARKERS[marker]}</span>{html.escape(label)}'


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]], *, kind: str) -> str:
    """A table that scrolls sideways in its own box; the first column stays. Cells are HTML; "<td" may begin one."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = ""
    for first, *others in rows:
        cells = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in others)
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>\n'
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _summary(comparison: Comparison) -> str:
    count, metrics = len(comparison.targets), len(comparison.columns)
    text = f"{count} target{'s' * (count != 1)}, {metrics} metric{'s' * (metrics != 1)}."
    if comparison.columns:
        first = comparison.columns[0]
        best = [label for label, cell in first.cells.items() if cell.rank == 1]
        text += f" Rows stand in the order of {first.name}." if best else f" {first.name} is not ranked."
    return f'<p class="dim">{html.escape(text)}</p>'


def _ranking(comparison: Comparison) -> str:
    def cell(row: Target, column: Column) -> str:
        if row.label not in column.cells:
            return '<td class="dim">–</td>'
        found = column.cells[row.label]
        place, earlier = badge(found, column), earlier_best(found)
        mark = f'<span class="badge">{place}</span>' if place else ""
        best = f"<small>{earlier}</small>" if earlier else ""
        kind = ' class="best"' if found.rank == 1 else ""
        return f"<td{kind}>{found.number.value:.4g}{mark}{best}</td>"

    heads = ["target", "kimg", *(html.escape(heading(column)) for column in comparison.columns)]
    rows = [
        [_label(row.label, comparison), furthest_kimg(row, comparison), *(cell(row, c) for c in comparison.columns)]
        for row in comparison.targets
    ]
    refused = "".join(f'<p class="callout">{html.escape(line)}</p>' for line in comparison.refusals)
    explained = "The last evaluation of each target with its rank, the best in bold. ↓ lower is better, ↑ higher."
    letters = " A letter stands for a protocol: ranks hold among equal letters only." if refused else ""
    return f'{_table(heads, rows, kind="numbers")}<p class="dim">{explained}{letters}</p>{refused}'


def _curves(comparison: Comparison) -> str:
    cards = []
    for column in comparison.columns:
        by_kimg = {t.label: points for t in comparison.targets if (points := _points(t, column))}
        by_hours = {t.label: _in_hours(by_kimg[t.label], t.clock) for t in comparison.targets if t.label in by_kimg}
        by_hours = {label: points for label, points in by_hours.items() if points}
        plots = [(by_kimg, "kimg"), (by_hours, "hours")]
        drawn = [_plot(points, column, comparison, unit) for points, unit in plots if points]
        if drawn:
            dashed = f"dashed: other protocol ({', '.join(column.differing)})" if column.differing else ""
            title = f"<h3>{html.escape(heading(column))} <small>{html.escape(dashed)}</small></h3>"
            cards.append(f'<div class="card">{title}<div class="plots">{"".join(drawn)}</div></div>')
    if not cards:
        return ""
    legend = "".join(f"<span>{_label(label, comparison)}</span>" for label in comparison.given)
    hours = "Hours: training with its evaluations, without stops between sessions, unless the notes say otherwise."
    return f'<p class="legend">{legend}</p><p class="dim">{hours}</p><div class="cards">{"".join(cards)}</div>'


def _points(target: Target, column: Column) -> list[tuple[float, float]]:
    """(kimg, value) of the numbers whose protocol is that of the number shown; of two at one kimg the later."""
    if target.label not in column.cells:
        return []
    shown = column.cells[target.label].number.stamp
    same = [n for n in target.numbers[column.name] if n.kimg is not None and not differing([shown, n.stamp])]
    return sorted({n.kimg: n.value for n in same if math.isfinite(n.kimg) and math.isfinite(n.value)}.items())


def _in_hours(points: list[tuple[float, float]], clock: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(hours, value), for the points that lie in the time that the clock covers."""
    import numpy as np

    kimg, hours = zip(*clock, strict=True) if clock else ((), ())
    inside = [(k, value) for k, value in points if clock and kimg[0] <= k <= kimg[-1]]
    return [(float(np.interp(k, kimg, hours)), value) for k, value in inside]


def _plot(points: dict[str, list[tuple[float, float]]], column: Column, comparison: Comparison, unit: str) -> str:
    """An SVG of one metric over kimg or hours; matplotlib, which reads "$" as mathematics, gets no name from a file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    values = [value for line in points.values() for _, value in line]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lit_gans", "font.size": 8.5}):
        figure = Figure(figsize=(3.3, 2.3), layout="constrained")
        axes = figure.add_subplot(xlabel=unit)
        for label, line in points.items():
            colour, marker = _style(label, comparison)
            axes.plot(
                *zip(*line, strict=True), color=colour, linewidth=1.5, markersize=4,
                marker=marker, markevery=1 + len(line) // 25, linestyle="--" if column.cells[label].group else "-",
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
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    name = html.escape(f"{column.name} over {unit}")
    return f'<svg role="img" aria-label="{name}"' + buffer.getvalue().split("<svg", 1)[1]


def _samples(comparison: Comparison) -> str:
    figures, reals = [], {}
    for row in comparison.targets:
        if row.folder is None:
            continue
        grids = (GRID_NAME.fullmatch(path.name) for path in (row.folder / "samples").glob("*.png"))
        made = [float(match[1]) for match in grids if match]
        caption = _label(row.label, comparison)
        if picture := _picture(row.folder / "samples" / "latest.png"):
            at = f" at {max(made):.10g} kimg" if made else ""
            figures.append(_figure("samples", picture, caption + at))
        else:
            missing = '<div class="none dim">no readable samples/latest.png</div>'
            figures.append(f"<figure>{missing}<figcaption>{caption}</figcaption></figure>")
        if picture := _picture(row.folder / "samples" / "reals.png"):
            reals.setdefault(picture, []).append(row.label)
    for picture, labels in reals.items():
        caption = f"real images ({html.escape(', '.join(labels))})"
        figures.append(_figure("real images", picture, caption))
    return f'<div class="samples">{"".join(figures)}</div>' if figures else ""


def _figure(alt: str, picture: str, caption: str) -> str:
    return f'<figure><img alt="{alt}" src="{picture}"><figcaption>{caption}</figcaption></figure>'


def _picture(path: Path) -> str | None:
    """A PNG as data of a page, at most 1024 px wide or high; None where there is none that can be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.thumbnail((1024, 1024))
            buffer = io.BytesIO()
            image.save(buffer, "png")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _protocols(comparison: Comparison) -> str:
    """Which field differs, with its value in each target; what all numbers have in common is folded away."""
    stamps = {(c.name, label): cell.number.stamp for c in comparison.columns for label, cell in c.cells.items()}
    rows: dict[tuple[str, ...], list[str]] = {}
    for column in comparison.columns:
        for name in column.differing:
            values = [plain_text(stamps[column.name, t.label].get(name)) if t.label in column.cells else "–"
                      for t in comparison.targets]  # fmt: skip
            rows.setdefault((name, *values), []).append(column.name)
    heads = ["field", *(_label(row.label, comparison) for row in comparison.targets), "metrics"]
    all_of_them = len(comparison.columns)
    cells = [
        [*map(html.escape, row), "all" if len(names) == all_of_them else html.escape(", ".join(names))]
        for row, names in rows.items()
    ]
    table = _table(heads, cells, kind="values") if rows else "<p>None: all numbers of a metric were measured alike.</p>"
    fields = dict.fromkeys(name for stamp in stamps.values() for name in stamp if name not in NOT_COMPARED)
    common = {name: {plain_text(stamp.get(name)) for stamp in stamps.values()} for name in fields}
    shared = [[html.escape(name), html.escape(values.pop())] for name, values in common.items() if len(values) == 1]
    if not shared:
        return table if stamps else ""
    common = _table(["field", "value"], shared, kind="values")
    return f"{table}<details><summary>What all numbers have in common</summary>{common}</details>"


def _configs(comparison: Comparison) -> str:
    """The keys that differ; paths of the run itself left out."""
    rows = [row for row in comparison.targets if row.config]
    if len(rows) < 2:
        return ""
    absent = object()
    keys = dict.fromkeys(key for row in rows for key in row.config)
    cells = []
    for key in keys:
        values = ["–" if (v := row.config.get(key, absent)) is absent else plain_text(v) for row in rows]
        if len(set(values)) > 1:
            cells.append([html.escape(key).replace(".", ".<wbr>"), *map(html.escape, values)])
    heads = ["key", *(_label(row.label, comparison) for row in rows)]
    return _table(heads, cells, kind="values") if cells else "<p>None.</p>"


def _runs(comparison: Comparison) -> str:
    rows = []
    for row in comparison.targets:
        last = row.starts[-1] if row.starts else {}
        kimg, hours = row.clock[-1] if row.clock else (None, None)
        told = [row.path, row.config.get("model.class_path"), kimg and f"{kimg:.10g}", hours and f"{hours:.3g}"]
        told += [len(row.starts) or None, *(last.get(key) for key in STARTED)]
        rows.append([_label(row.label, comparison), *("–" if v is None else html.escape(str(v)) for v in told)])
    heads = ("target", "path", "class", "kimg", "hours", "starts", *STARTED)
    return _table(heads, rows, kind="values")


def _notes(comparison: Comparison) -> str:
    items = "".join(f"<li>{html.escape(note)}</li>" for note in comparison.notes)
    return f"<ul>{items}</ul>" if items else ""
