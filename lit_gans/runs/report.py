"""One self-contained HTML page that shows a run: its grids, its curves, its figures and how they were measured."""

import json
import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lit_gans.metrics.catalog import direction, metric_of
from lit_gans.runs.comparison import ARROWS
from lit_gans.runs.pages import picture, svg, write_html

PICTURES = (("latest.png", "what the generators made last"), ("reals.png", "real images"))
# Every figure of training is in the first panel that wants its name, in "others" if no other does; see `panel_of`.
PANELS = (
    ("losses", r"loss.*"),
    ("logits", r".*logits"),
    ("penalties", r"r1|gp|drift|path_length|.*penalty"),
    ("diversity and win rate", r"diversity|d_win_rate"),
    ("signs of logits", r".*_sign"),
    ("others", r".*"),
)
NOT_SHOWN = re.compile(r"kimg|time_s|img_per_s|s_per_kimg|.*_share|peak_memory_mib")  # when, and how fast


def write_page(run: Path) -> Path:
    """Writes `<run>/index.html`; it needs no other file and no network."""
    lines = read_metrics(run)
    last = next((line for line in reversed(lines) if "protocol" in line), {})
    values = {k: f"{v:.4g}" for k, v in last.items() if isinstance(v, (int, float)) and k != "time_s"}
    pictures = [(caption, picture(run / "samples" / name)) for name, caption in PICTURES]
    texts = [(title, run / name) for title, name in (("Config", "config.yaml"), ("Starts", "run.json"))]
    return write_html(
        run / "index.html", "run.html", title=run.name, pictures=[p for p in pictures if p[1]], curves=_curves(lines),
        evaluation=values, protocol=last.get("protocol"),
        files=[(t, p.read_text(encoding="utf-8")) for t, p in texts if p.is_file()],
    )  # fmt: skip


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a line that a kill cut short is left out."""
    lines = []
    path = run / "metrics.jsonl"
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        lines += [line] if isinstance(line, dict) and "kimg" in line else []
    return lines


def series(lines: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """(kimg, value) of one metric over the run."""
    points = [(line["kimg"], line[name]) for line in lines if isinstance(line.get(name), (int, float))]
    return [k for k, _ in points], [v for _, v in points]


def _curves(lines: list[dict[str, Any]]) -> Markup | None:
    from matplotlib.figure import Figure

    panels = grouped(lines)
    if not panels:
        return None
    rows = (len(panels) + 2) // 3
    figure = Figure(figsize=(12, 3 * rows), layout="constrained")
    for i, (title, found) in enumerate(panels):
        axes = figure.add_subplot(rows, 3, i + 1, title=title, xlabel="kimg")
        for name in found:
            label = f"{name} {ARROWS[direction(name)]}".rstrip().replace("$", r"\$")  # which begins mathematics
            points = series(lines, name)
            axes.plot(*points, label=label, marker="." if len(points[0]) < 30 else None)
        axes.legend(fontsize="small")
    return svg(figure, "curves")


def grouped(lines: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """(title, names of figures), as many as there is something to show in: of training first, then of evaluations."""
    names = sorted({k for line in lines for k, v in line.items() if isinstance(v, (int, float))})
    found: dict[str, list[str]] = {title: [] for title, _ in PANELS}
    for name in names:
        if not NOT_SHOWN.fullmatch(name):
            found.setdefault(panel_of(name), []).append(name)
    return [(title, shown) for title, shown in found.items() if shown]


def panel_of(name: str) -> str:
    """The title of a figure's panel; the numbers of one file of metrics, such as precision and recall, share one."""
    if (metric := metric_of(name)) is None:
        return next(title for title, wanted in PANELS if re.fullmatch(wanted, name))
    return metric.build.partition(":")[0].replace("_", " ")
