"""Timelines: what a run had written beyond the moment from which it goes on is kept, apart from what it writes now."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from pathlib import Path

from lit_gans.base.checkpoints import CHECKPOINT_NAME, best_checkpoint, read_checkpoint
from lit_gans.base.files import flush_folder, lasting

APART = "set_apart"
PICTURE_NAME = re.compile(r"(?:fakes|table)-(\d+\.\d{3})\.png")


def set_apart(run: Path, *, images_seen: int) -> Path | None:
    """The folder to which all that a run wrote after `images_seen` was moved, which a line says; None: there was none.

    Checkpoints and pictures, and lines of metrics.jsonl and of the CSV logger, which are cut. At 0 it is everything.
    """
    files = [p for p in (run / "checkpoints").glob("*.ckpt") if _is_later(p, run, images_seen)]
    files += [p for p in (run / "samples").glob("*-*.png") if _later(PICTURE_NAME, p, images_seen)]
    metrics, table = run / "metrics.jsonl", run / "csv" / "metrics.csv"
    later = {metrics: split_metrics(metrics, images_seen)[1], table: split_table(table, images_seen)[1]}
    if not files and not any(later.values()):
        return None
    folder = _new_folder(run / APART / f"after-kimg{images_seen / 1000:09.3f}")
    for path, lines in later.items():
        if lines:
            with lasting(folder / path.name) as unfinished:
                unfinished.write_bytes(b"".join(lines))
    cut_metrics(metrics, images_seen=images_seen)
    cut_table(table, images_seen=images_seen)
    for path in files:
        (folder / path.parent.name).mkdir(exist_ok=True)
        os.replace(path, folder / path.parent.name / path.name)
        flush_folder(folder / path.parent.name)
    print(
        f"the run goes on from {images_seen / 1000:.3f} kimg: what it had written after that is kept in {folder}",
        file=sys.stderr,
    )
    return folder


def _new_folder(wanted: Path) -> Path:
    """Made: `wanted`, or the first of `wanted-2`, ... that is not there."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    folder.mkdir(parents=True)
    return folder


def _is_later(path: Path, run: Path, images_seen: int) -> bool:
    if path.name != "best.ckpt":
        return _later(CHECKPOINT_NAME, path, images_seen)
    try:
        return best_checkpoint(run) is None or read_checkpoint(path)["lit_gans"]["images_seen"] > images_seen
    except (ValueError, OSError):
        return True  # it is no longer what a model could be compared with


def _later(name: re.Pattern[str], path: Path, images_seen: int) -> bool:
    match = name.fullmatch(path.name)
    return match is not None and round(float(match[1]) * 1000) > images_seen


# ---- lines -----------------------------------------------------------------------------------------------------------


def cut_metrics(path: Path, *, images_seen: int) -> None:
    """Drops the lines later than `images_seen`, and a last one that was not finished; all lines when it is 0.

    At 0 nothing was trained yet: whatever is there belongs to a start that never saved a checkpoint.
    """
    kept, dropped = split_metrics(path, images_seen)
    if dropped:
        with lasting(path) as unfinished:
            unfinished.write_bytes(b"".join(kept))


def split_metrics(path: Path, images_seen: int) -> tuple[list[bytes], list[bytes]]:
    """The lines up to `images_seen`, and all others; what no writer finished is among these."""
    kept, dropped = list[bytes](), list[bytes]()
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        whole = images_seen and line.endswith(b"\n") and _images(line) <= images_seen
        (kept if whole else dropped).append(line)
    return kept, dropped


def _images(line: bytes) -> float:
    """The count of images at which a line was written; infinite when the writer died in the middle of it."""
    try:
        return round(json.loads(line)["kimg"] * 1000)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return float("inf")


def cut_table(path: Path, *, images_seen: int) -> None:
    """As `cut_metrics`, of the CSV logger's table."""
    kept, dropped = split_table(path, images_seen)
    if dropped:
        with lasting(path) as unfinished:
            unfinished.write_bytes(b"".join(kept))


def split_table(path: Path, images_seen: int) -> tuple[list[bytes], list[bytes]]:
    """The header and the rows up to `images_seen`; the header and the other rows, or nothing if there are none."""
    header, *rows = path.read_bytes().splitlines(keepends=True) if path.is_file() else [b""]
    kept, dropped = [header] if images_seen else [], list[bytes]()
    for row in rows:
        kimg = dict(zip(_cells(header), _cells(row), strict=False)).get("kimg", "")
        whole = images_seen and row.endswith(b"\n") and _moment(kimg) <= images_seen
        (kept if whole else dropped).append(row)
    return kept, [header, *dropped] if dropped else []


def _cells(row: bytes) -> list[str]:
    return next(csv.reader(io.StringIO(row.decode(errors="replace"))), [])


def _moment(kimg: str) -> float:
    """In images; 0 of a row that says none, which was written outside of the clock and stays."""
    try:
        return round(float(kimg or 0) * 1000)
    except (ValueError, OverflowError):
        return float("inf")
