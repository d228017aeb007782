"""One self-contained HTML page that shows a run: its grids, its curves, its figures and how they were measured."""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

from lit_gans.base.files import replacing

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; max-width: 46%; }
img { max-width: 100%; image-rendering: pixelated; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; } figcaption { color: #666; }
"""
# Every figure that a run reports is in the first panel that wants its name, in "others" if no other does.
PANELS = (
    ("losses", r"loss.*"),
    ("logits", r".*logits"),
    ("penalties", r"r1|gp|drift|path_length|.*penalty"),
    ("distance to the reals", r"fid|kid|swd|rfid|sfid|(frechet|kid|swd)_.*"),
    ("precision and recall", r"(precision|recall|density|coverage)_.*|class_accuracy"),
    ("diversity and win rate", r"diversity|d_win_rate"),
    ("signs of logits", r".*_sign"),
    ("others", r".*"),
)
NOT_SHOWN = re.compile(r"kimg|time_s|img_per_s|s_per_kimg|.*_share|peak_memory_mib")  # when, and how fast


def write_page(run: Path) -> Path:
    """Writes `<run>/index.html`; it needs no other file and no network."""
    lines = read_metrics(run)
    body = [f"<h1>{html.escape(run.name)}</h1>", _pictures(run)]
    body += ["<h2>Curves</h2>", _curves(lines), "<h2>Last evaluation</h2>", _evaluation(lines)]
    for title, name in (("Config", "config.yaml"), ("Starts", "run.json")):
        if (run / name).is_file():
            body.append(f"<h2>{title}</h2><pre>{html.escape((run / name).read_text())}</pre>")
    head = f"<!doctype html><meta charset=utf-8><title>{html.escape(run.name)}</title><style>{STYLE}</style>"
    with replacing(run / "index.html") as unfinished:
        unfinished.write_text("\n".join([head, *body]))
    return run / "index.html"


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a line that a kill cut short is left out."""
    lines = []
    path = run / "metrics.jsonl"
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def series(lines: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """(kimg, value) of one metric over the run."""
    points = [(line["kimg"], line[name]) for line in lines if isinstance(line.get(name), (int, float))]
    return [k for k, _ in points], [v for _, v in points]


def _pictures(run: Path) -> str:
    figures = []
    for name, caption in (("latest.png", "what the generators made last"), ("reals.png", "real images")):
        path = run / "samples" / name
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            picture = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
            figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return "".join(figures)


def _curves(lines: list[dict[str, Any]]) -> str:
    from matplotlib.figure import Figure

    panels = grouped(lines)
    if not panels:
        return "<p>No figures yet.</p>"
    rows = (len(panels) + 2) // 3
    figure = Figure(figsize=(12, 3 * rows), layout="constrained")
    for i, (title, found) in enumerate(panels):
        axes = figure.add_subplot(rows, 3, i + 1, title=title, xlabel="kimg")
        for name in found:
            axes.plot(*series(lines, name), label=name, marker="." if len(series(lines, name)[0]) < 30 else None)
        axes.legend(fontsize="small")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def grouped(lines: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """(title, names of figures), as many as there is something to show in."""
    names = sorted({k for line in lines for k, v in line.items() if isinstance(v, (int, float))})
    found: dict[str, list[str]] = {title: [] for title, _ in PANELS}
    for name in names:
        if not NOT_SHOWN.fullmatch(name):
            found[next(title for title, wanted in PANELS if re.fullmatch(wanted, name))].append(name)
    return [(title, shown) for title, shown in found.items() if shown]


def _evaluation(lines: list[dict[str, Any]]) -> str:
    stamped = [line for line in lines if "protocol" in line]
    if not stamped:
        return "<p>Not evaluated yet.</p>"
    last = stamped[-1]
    values = {k: v for k, v in last.items() if isinstance(v, (int, float)) and k not in ("time_s",)}
    return _table({k: f"{v:.4g}" for k, v in values.items()}) + "<h3>Protocol</h3>" + _table(last["protocol"])


def _table(values: dict[str, Any]) -> str:
    rows = "".join(f"<tr><th>{html.escape(k)}<td>{html.escape(str(v))}" for k, v in values.items())
    return f"<table>{rows}</table>"
