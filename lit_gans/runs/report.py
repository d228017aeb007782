"""One self-contained HTML page that shows a run: how it stands, its grids in time, its curves, its figures and how
they were measured, and what can be done with it."""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from lit_gans.base.grids import spread
from lit_gans.base.progress import clock
from lit_gans.metrics.catalog import direction, metric_of
from lit_gans.runs.comparison import ARROWS
from lit_gans.runs.pages import picture, svg, write_html
from lit_gans.runs.state import State, state_of
from lit_gans.runs.timelines import PICTURE_NAME
from lit_gans.runs.uses import resuming

PICTURES = (("walks.png", "from one seed to another, row by row"), ("reals.png", "real images"))
# Every figure of training is in the first panel that wants its name, in "others" if no other does; see `panel_of`.
PANELS = (
    ("losses", r"loss.*", "What each player lowers. In a game they need not fall: they should stay bounded."),
    ("logits", r".*logits", "What the discriminator says: above 0 for real, below for generated."),
    ("penalties", r"r1|gp|drift|path_length|.*penalty", "What is added to keep the players smooth, without weights."),
    ("diversity and win rate", r"diversity|d_win_rate", "How unlike each other samples are, next to the reals: near 0 "
     "they are all alike. How often the discriminator is right."),
    ("signs of logits", r".*_sign", "The mean sign of logits: on reals near 1, it knows them by heart."),
    ("augmentation", r"augment_.*", "augment_p is its strength, which follows augment_r_t, the mean sign of logits on "
     "reals; strong augmentation means few pictures for this network."),
    ("others", r".*", ""),
)  # fmt: skip
NOT_SHOWN = re.compile(r"kimg|time_s|img_per_s|s_per_kimg|.*_share|peak_memory_mib")  # when, and how fast
MOST_GRIDS = 24
STATES = {
    "training": "Training when this page was written. It is written anew with the grids, and every five minutes; one "
    "that is older belongs to a process that was killed.",
    "finished": "",
    "stopped": "Stopped on request; it can go on.",
    "failed": "Ended by an error.",
    "killed": "Ended without a word, as a killed process does; it can go on from its last checkpoint.",
    "unknown": "",
}


def write_page(run: Path, *, state: State | None = None, commands: Mapping[str, str] | None = None) -> Path:
    """Writes `<run>/index.html`; it needs no other file and no network.

    `state`: of a run that this process trains; of others it is found out. `commands`: what can be done with it.
    """
    lines, state = read_metrics(run), state or state_of(run)
    last = next((line for line in reversed(lines) if "protocol" in line), {})
    texts = [(title, run / name) for title, name in (("Config", "config.yaml"), ("Starts", "run.json"))]
    pictures = [(caption, picture(run / "samples" / name)) for name, caption in PICTURES]
    resume = resuming(run) if state.word in ("training", "stopped", "failed", "killed") else None
    return write_html(
        run / "index.html", "run.html", title=run.name, state=state.word, about=STATES[state.word], why=state.why,
        written=_moment(time.time()), at=_moment(state.at), progress=_progress(run, lines, state), grids=_grids(run),
        pictures=[p for p in pictures if p[1]], curves=_curves(lines), evaluation=_evaluation(last),
        evaluated=last.get("kimg"), protocol=last.get("protocol"), data=_data(run), timing=_timing(lines),
        commands={**(commands or {}), **({"resume": resume} if resume else {})},
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


# ---- its parts -------------------------------------------------------------------------------------------------------


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _last(lines: list[dict[str, Any]], name: str) -> float | None:
    return next(reversed(series(lines, name)[1]), None)


def _progress(run: Path, lines: list[dict[str, Any]], state: State) -> dict[str, Any]:
    """How far it has come: "kimg", and "total", "share" and "left", None where they are not known."""
    drawn = [float(match[1]) for path in _grid_files(run) if (match := PICTURE_NAME.fullmatch(path.name))]
    known = [line["kimg"] for line in lines if isinstance(line["kimg"], (int, float))]
    kimg, total, speed = max([*drawn, *known], default=0.0), _total_kimg(run), _last(lines, "s_per_kimg")
    found: dict[str, Any] = {"kimg": f"{kimg:.4g}", "total": None, "share": None, "left": None}
    if total:
        found |= {"total": f"{total:g}", "share": f"{min(kimg / total, 1):.0%}"}
    if total and speed and state.word == "training":
        found |= {"left": clock(speed * max(total - kimg, 0))}
    return found


def _total_kimg(run: Path) -> float | None:
    try:
        total = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["model"]["init_args"]["total_kimg"]
        return float(total)
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError):
        return None


def _grid_files(run: Path) -> list[Path]:
    return sorted(path for path in (run / "samples").glob("fakes-*.png") if PICTURE_NAME.fullmatch(path.name))


def _grids(run: Path) -> list[tuple[str, str]]:
    """(kimg, picture) of some of the grids, the first and the last among them; else of the last alone."""
    paths = _grid_files(run)
    chosen = [paths[i] for i in spread(len(paths), MOST_GRIDS)] if paths else []
    told = [(f"{float(path.name[6:15]):g} kimg", picture(path)) for path in chosen]
    latest = picture(run / "samples" / "latest.png")
    told = [each for each in told if each[1]] or ([("the last", latest)] if latest else [])
    return [(kimg, shown) for kimg, shown in told if shown]


def _evaluation(last: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, what it means) of an evaluation's numbers."""
    told = []
    for name, value in last.items():
        if isinstance(value, (int, float)) and name not in ("time_s", "kimg"):
            metric = metric_of(name)
            better = {"lower": "; lower is better", "higher": "; higher is better"}.get(direction(name) or "", "")
            told.append((name, f"{value:.4g}", f"{metric.help}{better}" if metric else ""))
    return told


def _data(run: Path) -> dict[str, str]:
    try:
        found = json.loads((run / "data.json").read_text(encoding="utf-8"))
        texts = {name.replace("_", " "): value for name, value in found.items() if value and isinstance(value, str)}
        return texts | ({"to know": ". ".join(found["advice"])} if found.get("advice") else {})
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _timing(lines: list[dict[str, Any]]) -> dict[str, str]:
    """What the last tick says of speed, in words."""
    names = {
        "images per second": ("img_per_s", "{:.4g}"),
        "seconds per 1,000 images, all told": ("s_per_kimg", "{:.4g}"),
        "waiting for data": ("data_wait_share", "{:.0%} of training"),
        "grids, evaluation, checkpoints": ("callback_share", "{:.0%} of the time"),
        "peak memory": ("peak_memory_mib", "{:,.0f} MiB"),
    }
    found = {title: (_last(lines, name), text) for title, (name, text) in names.items()}
    return {title: text.format(value) for title, (value, text) in found.items() if value is not None}


def _curves(lines: list[dict[str, Any]]) -> list[tuple[str, Markup, str]]:
    """(title, plot, what it shows)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    about, cards = {title: text for title, _, text in PANELS}, []
    for title, found in grouped(lines):
        with rc_context({"svg.fonttype": "none", "font.size": 8.5}):
            figure = Figure(figsize=(4.2, 2.6), layout="constrained")
            axes = figure.add_subplot(xlabel="kimg")
            for name in found:
                label = f"{name} {ARROWS[direction(name)]}".rstrip().replace("$", r"\$")  # which begins mathematics
                points = series(lines, name)
                axes.plot(*points, label=label, marker="." if len(points[0]) < 30 else None, linewidth=1.2)
            axes.legend(frameon=False)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="#e9ecef", linewidth=0.8)
            cards.append((title, svg(figure, title), about.get(title, "")))
    return cards


def grouped(lines: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """(title, names of figures), as many as there is something to show in: of training first, then of evaluations."""
    names = sorted({k for line in lines for k, v in line.items() if isinstance(v, (int, float))})
    found: dict[str, list[str]] = {title: [] for title, *_ in PANELS}
    for name in names:
        if not NOT_SHOWN.fullmatch(name):
            found.setdefault(panel_of(name), []).append(name)
    return [(title, shown) for title, shown in found.items() if shown]


def panel_of(name: str) -> str:
    """The title of a figure's panel; the numbers of one file of metrics, such as precision and recall, share one."""
    if (metric := metric_of(name)) is None:
        return next(title for title, wanted, _ in PANELS if re.fullmatch(wanted, name))
    return metric.build.partition(":")[0].replace("_", " ")
