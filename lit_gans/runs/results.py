"""What runs and result files hold, read for comparison: numbers with their protocols, hours of training, configs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_gans.metrics.protocol import stamp

RUN_FILES = ("config.yaml", "metrics.jsonl", "evaluations.jsonl", "run.json")
PLACES = ("run_folder", "ckpt_path", "trainer.default_root_dir")  # where a run lies, not what it is


@dataclass(frozen=True)
class Number:
    """One value: of the model at `kimg` (None: not told), measured at `time_s` in the way that `stamp` says."""

    value: float
    kimg: float | None
    time_s: float
    stamp: dict[str, object]

    @property
    def age(self) -> tuple[float, float]:
        """Orders numbers: by the model's training, then by when it was measured."""
        return (-1.0 if self.kimg is None else self.kimg, self.time_s)


@dataclass
class Target:
    """What a run folder, or one target of a result file, holds."""

    label: str
    path: str
    folder: Path | None = None
    numbers: dict[str, list[Number]] = field(default_factory=dict)  # by metric
    clock: list[tuple[float, float]] = field(default_factory=list)  # (kimg, hours of training)
    config: dict[str, object] = field(default_factory=dict)  # dotted keys
    starts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_targets(path: Path) -> list[Target]:
    """One row for a run folder; for a .jsonl file one for each "target" that its lines name."""
    if path.is_dir():
        return [_read_run(path)]
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a run folder or a .jsonl file of results")
    if path.suffix != ".jsonl":
        raise ValueError(f"{path} is neither a run folder nor a .jsonl file of results")
    lines, notes = _read_lines(path)
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(str(line.get("target", path)), []).append(line)
    rows = [Target(name, name) for name in groups or [str(path)]]
    for row in rows:
        _measure(row, groups.get(row.path, []))
    rows[0].notes += notes
    return rows


def _read_run(folder: Path) -> Target:
    if not any((folder / name).is_file() for name in RUN_FILES):
        raise ValueError(f"{folder} is not a run folder: it has none of {', '.join(RUN_FILES)}")
    row = Target(str(folder.absolute()), str(folder), folder)
    lines = []
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        if (folder / name).is_file():
            found, notes = _read_lines(folder / name)
            lines += found
            row.notes += notes
    _measure(row, lines)
    row.config, row.starts = _read_config(row), _read_starts(row)
    return row


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines that are JSON objects, and a note on the others: a kill can cut a line short."""
    lines, broken = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            line = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and _is_sound(line.get("protocol", {})):
            lines += [line] if line else []
        else:
            broken += 1
    return lines, [f"{broken} unreadable line{'s' * (broken > 1)} of {path.name} left out"] if broken else []


def _is_sound(protocol: object) -> bool:
    if not isinstance(protocol, dict):
        return False
    numbers = protocol.get("numbers")
    return not isinstance(numbers, dict) or all(isinstance(own, dict) for own in numbers.values())


def _measure(row: Target, lines: list[dict[str, Any]]) -> None:
    """Fills in the numbers of the evaluations, and the hours of training by kimg."""
    for line in lines:
        if "protocol" in line:
            images = _real(line["protocol"].get("images_seen"))
            kimg = _real(line.get("kimg", None if images is None else images / 1000))
            for name, value in line.items():
                if name not in ("kimg", "time_s") and (real := _real(value)) is not None:
                    number = Number(real, kimg, _real(line.get("time_s"), 0.0), stamp(line["protocol"], name))
                    row.numbers.setdefault(name, []).append(number)
    if not row.numbers:
        row.notes.append("no evaluation yet")
    for numbers in row.numbers.values():
        numbers.sort(key=lambda number: number.age)
    timed = [(kimg, line) for line in lines if math.isfinite(kimg := _real(line.get("kimg"), math.nan))]
    row.clock = _clock(sorted(timed, key=lambda pair: pair[0]), row.notes)


def _real(value: object, otherwise: float | None = None) -> float | None:
    """`value` as a float if it is a number (it may be NaN or infinite), else `otherwise`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return otherwise
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _clock(timed: list[tuple[float, dict[str, Any]]], notes: list[str]) -> list[tuple[float, float]]:
    """(kimg, hours), by the speeds that the run recorded, which leave out stops between its sessions; else by time."""
    speeds = [(kimg, s) for kimg, line in timed if math.isfinite(s := _real(line.get("s_per_kimg"), math.nan))]
    if speeds:
        clock = [(0.0, 0.0)]
        for kimg, s_per_kimg in [*speeds, (timed[-1][0], speeds[-1][1])]:
            clock.append((kimg, clock[-1][1] + s_per_kimg * (kimg - clock[-1][0]) / 3600))
        return clock
    times = [(kimg, t) for kimg, line in timed if math.isfinite(t := _real(line.get("time_s"), math.nan))]
    if times:
        notes.append("hours are wall-clock since its first line, with any stops (it recorded no s_per_kimg)")
    return [(kimg, (time_s - times[0][1]) / 3600) for kimg, time_s in times]


def _read_config(row: Target) -> dict[str, object]:
    import yaml

    path = row.folder / "config.yaml"
    if not path.is_file():
        row.notes.append("no config.yaml")
        return {}
    try:
        config = dict(_flat("", yaml.safe_load(path.read_text(encoding="utf-8", errors="replace")) or {}))
    except (yaml.YAMLError, RecursionError, ValueError):
        row.notes.append("config.yaml is not readable YAML")
        return {}
    return {key: value for key, value in config.items() if key and key not in PLACES}


def _flat(prefix: str, value: object) -> Iterable[tuple[str, object]]:
    if not (isinstance(value, dict) and value):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)


def _read_starts(row: Target) -> list[dict[str, Any]]:
    path = row.folder / "run.json"
    if not path.is_file():
        return []
    try:
        starts = json.loads(path.read_text(encoding="utf-8", errors="replace"))["starts"]
        return [start for start in starts if isinstance(start, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        row.notes.append("run.json is not readable")
        return []


def name_rows(rows: list[Target]) -> None:
    """Labels: the shortest ends of the paths that tell the rows apart."""
    parts = [[part for part in Path(row.label).parts if part != os.sep] or [row.label] for row in rows]
    for row, mine in zip(rows, parts, strict=True):
        n = 2 if mine[-1].endswith(".jsonl") else 1  # the folder says more than metrics.jsonl
        while n < len(mine) and sum(other[-n:] == mine[-n:] for other in parts) > 1:
            n += 1
        label = "/".join(mine[-n:])
        row.label = "".join(c if c.isprintable() else "?" for c in label)  # no terminal sequences from a file
    for i, row in enumerate(rows):
        before = [other.label for other in rows[:i]]
        row.label = row.label if row.label not in before else f"{row.label} #{i + 1}"
