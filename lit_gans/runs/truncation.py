"""The truncation curve of a model: its numbers at several psi, each measured once (Brock et al., 2019, Sec. 3.1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_gans.adversarial.capabilities import Samples, Truncates, can, require, truncate_by
from lit_gans.base.files import replacing
from lit_gans.base.processes import rank_and_world
from lit_gans.metrics.evaluator import Evaluation
from lit_gans.metrics.plots import plot_curves
from lit_gans.official import fingerprint
from lit_gans.runs.evaluation import Where, config_of, evaluate_run, is_run, own_file, reals_of, settings_of
from lit_gans.runs.load import load_run
from lit_gans.runs.records import append_line

POINTS, TABLE, PICTURE = "points.jsonl", "truncation.md", "truncation.png"
# Settings that make no other number, or that are known by what they lead to.
NO_PART = ("psi", "batch_size", "segmenter", "extractor", "weights_path", "fallback")


@dataclass(frozen=True)
class Curve:
    """Evaluations by psi, ascending; which of them were measured now, and the files that were written."""

    points: Mapping[float, Evaluation]
    measured: tuple[float, ...]
    files: tuple[Path, ...]

    def table(self) -> str:
        """In Markdown: a row for each psi."""
        names = list(dict.fromkeys(name for point in self.points.values() for name in point.values))
        lines = [f"| psi | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
        for psi, point in self.points.items():
            cells = [f"{point.values[name]:.6g}" if name in point.values else "" for name in names]
            lines.append(f"| {psi:g} | {' | '.join(cells)} |")
        return "\n".join(lines)


def truncation_curve(
    target: Path,
    psis: Sequence[float],
    given: Mapping[str, Any],
    where: Where,
    *,
    folder: Path | None = None,
    drawn: Sequence[str] = (),
    other: str | Path | None = None,
    framing: str | None = None,
) -> Curve:
    """The model of `target` measured at each psi, against the images in `other` or its own data, as `evaluate_run`.

    `given`: of `Settings`, with "truncation" for how the model truncates. In `folder`, by default <run>/truncation,
    each point is kept as soon as it is measured, and is not measured again of the same weights, settings and data;
    there are the table and the picture too, of the numbers `drawn`, or the first two.
    ValueError or FileNotFoundError for what cannot be measured, and for psi twice or none.
    """
    if not psis or len(set(psis)) != len(psis):
        raise ValueError(f"psis {list(psis)}: give one or more numbers, each once")
    if not is_run(target):
        raise ValueError(f"{target} is no run or checkpoint: a truncation curve is of a model")
    model = require(load_run(target, trust=where.trust), Samples, "a truncation curve")
    truncate_by(model, given.get("truncation"))
    data = reals_of(target, model, where, other=other, framing=framing)
    own = own_file(target)
    assert own is not None
    folder = own.parent / "truncation" if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(config_of(target), dict(given))
    plan = settings.plan(model, data)
    seeing = settings.judges(plan, data).extractor  # which may be another than is asked for: see `Settings.fallback`
    shared = {
        "weights": fingerprint(model.state_dict()),
        "truncation": model.truncation if can(model, Truncates) else None,
        "extractor": None if seeing is None else [seeing.name, seeing.fingerprint],
        "settings": {name: value for name, value in vars(settings).items() if name not in NO_PART},
        "data": data.fingerprint(plan.split),
        "framing": data.transform(),
    }
    points, measured, kept = dict[float, Evaluation](), list[float](), _read(folder / POINTS)
    for psi in sorted(psis):
        key = _key(shared, psi)
        if key not in kept:
            kept[key] = evaluate_run(target, {**given, "psi": psi}, where, other=other, data=data, model=model)
            measured.append(psi)
            if rank_and_world()[0] == 0:
                line = {"psi": psi, "key": key, "values": kept[key].values, "protocol": kept[key].protocol}
                append_line(folder / POINTS, line)
        points[psi] = kept[key]
        shown = _chosen(kept[key], drawn)
    curve = Curve(points, tuple(measured), tuple(folder / name for name in (POINTS, TABLE, PICTURE)))
    if rank_and_world()[0] == 0:
        _write(curve, folder, shown, str(shared["truncation"] or "its own"))
    return curve


def _key(shared: Mapping[str, Any], psi: float) -> str:
    said = json.dumps({**shared, "psi": psi}, sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Evaluation]:
    """What was measured before, by key. ValueError for a file that is something else."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), 1):
        try:
            row = json.loads(line)
            found[row["key"]] = Evaluation(row["values"], row["protocol"])
        except (json.JSONDecodeError, LookupError, TypeError) as error:
            raise ValueError(f"{path}, line {number}, is no point of a truncation curve ({error}): move it") from error
    return found


def _chosen(point: Evaluation, drawn: Sequence[str]) -> list[str]:
    """The numbers that are drawn. ValueError, at the first point, for one that is not measured."""
    names = list(point.values)
    if unknown := [name for name in drawn if name not in names]:
        raise ValueError(f"{unknown[0]!r} was not measured, and cannot be drawn: there are {', '.join(names)}")
    return list(drawn or names[:2])


def _write(curve: Curve, folder: Path, shown: Sequence[str], truncation: str) -> None:
    with replacing(folder / TABLE) as unfinished:
        unfinished.write_text(f"{curve.table()}\n", encoding="utf-8")
    curves = {name: [point.values[name] for point in curve.points.values()] for name in shown}
    plot_curves(list(curve.points), curves, folder / PICTURE, xlabel="psi", title=f"truncation: {truncation}")
