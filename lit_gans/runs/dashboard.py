"""A report at Weights & Biases made by code: series in sections, grids, the table of samples, ranks among equals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_gans.metrics.catalog import CATALOG, direction, metric_of
from lit_gans.metrics.protocol import key_of, stamp
from lit_gans.runs.comparison_table import protocol_text
from lit_gans.runs.loggers import grouped, wandb_is_logged_in
from lit_gans.runs.report import read_metrics

SECTIONS = {
    "metrics": "What evaluations measured. Lines of different protocols do not compare: see below.",
    "loss": "What the players played for, and the penalties. GANs' losses do not tell how good the images are.",
    "augment": "How strongly images are augmented before the discriminator sees them, and why.",
    "speed": "How fast it trains, and what takes the time.",
}
GRIDS = ["fakes", "reals", "walks"]
FULL, THIRD = 24, 8  # of the width of a report


def report_of(
    runs: Sequence[Path], *, project: str, entity: str, metrics: Sequence[str] | None = None, title: str = ""
) -> Any:
    """The report on all runs of a project; series, metrics and protocols are those of the run folders given.

    For each metric, by default the first Fréchet distance, and each protocol that it was measured with, a section
    ranks the project's runs whose last number has that very protocol.

    Raises:
        ValueError: wandb-workspaces is not installed, a folder is no run, or a metric was not measured.
    """
    wr = _library()
    lines = {run: _lines(run) for run in runs}
    names = sorted({name for each in lines.values() for line in each for name in _figures(line)})
    blocks = [block for section in SECTIONS for block in _section(section, names)]
    blocks += [wr.H2("Pictures"), wr.P("The same seeds at each moment, beside real images.")]
    blocks += [_grid([wr.MediaBrowser(title=key, media_keys=[key], layout=_size(FULL)) for key in GRIDS])]
    blocks += [wr.H2("Samples"), wr.P("Of runs with image_grid.table: samples, and the nearest reals.")]
    blocks += [_grid([wr.WeavePanelSummaryTable(table_name="samples", layout=_size(FULL))])]
    for metric in _chosen(metrics, lines):
        for key, protocol in _protocols(metric, lines).items():
            blocks += _comparison(metric, key, protocol)
    return wr.Report(
        project=project, entity=entity, title=title or f"{project}: runs side by side", blocks=blocks, width="fluid",
        description="Made by lit-gans dashboard.",
    )  # fmt: skip


def spec_of(report: Any) -> dict[str, Any]:
    """The report as JSON, as it would be sent; nothing is asked over the network."""
    model = report._to_model()
    told = {"entity": report.entity, "project": report.project, "title": report.title}
    return {**told, "spec": json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))}


def send(report: Any) -> str:
    """Its address, once it is saved at Weights & Biases.

    Raises:
        ValueError, ConnectionError: nobody is logged in, or it was not taken.
    """
    with _asking():
        report.save()
        return report.url


def account() -> str:
    """The entity that Weights & Biases takes where none is named; errors as of `send`."""
    import wandb

    with _asking():
        return wandb.Api().default_entity


@contextmanager
def _asking() -> Iterator[None]:
    from wandb.errors import Error

    otherwise = "--to FILE writes the report as JSON instead"
    if not wandb_is_logged_in():
        raise ValueError(f"not logged in to Weights & Biases: `wandb login`; {otherwise}")
    try:
        yield
    except (Error, OSError) as error:
        raise ConnectionError(f"Weights & Biases did not take the report ({error}); {otherwise}") from error


def _library() -> Any:
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise ValueError(
            "dashboards need wandb-workspaces, the extra 'dashboards': pip install 'lit-gans[dashboards]'"
        ) from error
    return wr


# ---- what the runs hold ----------------------------------------------------------------------------------------------


def _lines(run: Path) -> list[dict[str, Any]]:
    if not (run / "metrics.jsonl").is_file():
        raise ValueError(f"{run} is no run folder with figures: it has no metrics.jsonl")
    return read_metrics(run)


def _figures(line: dict[str, Any]) -> list[str]:
    return [k for k, v in line.items() if isinstance(v, (int, float)) and k not in ("kimg", "time_s")]


def _chosen(metrics: Sequence[str] | None, lines: dict[Path, list[dict[str, Any]]]) -> list[str]:
    evaluations = [line for each in lines.values() for line in each if "protocol" in line]
    measured = sorted({name for line in evaluations for name in _figures(line)})
    if unknown := [name for name in metrics or () if name not in measured]:
        raise ValueError(f"no run has the metric {unknown[0]!r}; measured: {', '.join(measured) or 'none'}")
    ranked = [name for name in measured if direction(name)]
    ranked.sort(key=lambda name: metric_of(name) is not CATALOG["frechet"])
    return list(metrics or ranked[:1])


def _protocols(metric: str, lines: dict[Path, list[dict[str, Any]]]) -> dict[str, dict[str, object]]:
    """Key to protocol, of each run's last number."""
    stamps = []
    for each in lines.values():
        protocols = [line["protocol"] for line in each if metric in line and isinstance(line.get("protocol"), dict)]
        stamps += [stamp(protocol, metric) for protocol in protocols[-1:]]
    return {key_of(each): each for each in stamps}


# ---- blocks ----------------------------------------------------------------------------------------------------------


def _section(section: str, names: Sequence[str]) -> list[Any]:
    """Nothing, where no run has a series of it."""
    wr = _library()
    keys = [grouped(name) for name in names if grouped(name).startswith(f"{section}/")]
    panels = [wr.LinePlot(title=k.partition("/")[2], x="kimg", y=[k], layout=_size(THIRD)) for k in keys]
    return [wr.H2(section), wr.P(SECTIONS[section]), _grid(panels)] if panels else []


def _comparison(metric: str, key: str, protocol: dict[str, object]) -> list[Any]:
    from wandb_workspaces import expr

    wr, series = _library(), grouped(metric)
    order = wr.OrderBy(wr.SummaryMetric(series), ascending=direction(metric) != "higher")
    runs = wr.Runset(
        name=f"measured by {key}", filters=[expr.Summary(f"protocol/{metric}") == key], order=[order],
        pinned_columns=[f"summary:{series}", "summary:kimg"],
    )  # fmt: skip
    panels = [
        wr.BarPlot(title=f"{metric}, last", metrics=[series], layout=_size(FULL // 2)),
        wr.LinePlot(title=metric, x="kimg", y=[series], layout=_size(FULL // 2)),
        wr.RunComparer(diff_only="split", layout=_size(FULL)),
    ]
    told = f"Runs whose last {metric} was measured in this one way, best first. {protocol_text(protocol)}"
    return [wr.H2(f"Comparison: {metric}, protocol {key}"), wr.P(told), _grid(panels, runs)]


def _grid(panels: Sequence[Any], runs: Any = None) -> Any:
    wr = _library()
    return wr.PanelGrid(runsets=[runs or wr.Runset(name="all runs")], panels=list(panels))


def _size(width: int) -> Any:
    return _library().Layout(w=width, h=THIRD)
