"""One and the same command, killed with SIGKILL again and again until it ends, beside the same without a kill.

    python -m tests.resume.kills FOLDER --kills 100

The processes are forked from one that has everything loaded, so that kills fall into the work and not into imports.
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import yaml

import lit_gans.papers
import lit_gans.training.cli  # noqa: F401  - before the first process is forked
from lit_gans import fit
from lit_gans.base.checkpoints import read_checkpoint
from tests.cases import largest_difference

CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "lit_gans.papers.VanillaGAN",
        "init_args": {"resolution": 8, "hidden": 16, "units": 8, "pieces": 2, "z_dim": 4, "total_kimg": 1.6},
    },
    "data": {"class_path": "lit_gans.data.Digits", "init_args": {"resolution": 8, "batch_size": 16}},
    "image_grid": {"every_kimg": 0.8, "columns": 3, "rows": 2},
    "checkpoint": {"every_kimg": 0.16, "monitor": "loss_g", "every_minutes": 0},
    "report": {"every_kimg": 0.112},  # a checkpoint in the middle of most ticks
    "health": {"diversity_every_kimg": 0.4, "warmup_kimg": 100},
    "logger": "csv",
}
SPEEDS = re.compile(r"time_s|img_per_s|s_per_kimg|.*_share|peak_memory_mib")


def argv(config: Path, run: Path) -> list[str]:
    return ["--config", str(config), f"--run_folder={run}", "--ckpt_path=auto"]


def start(command: list[str], log: Path) -> int:
    """The id of a process that runs the command."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    status = 70
    try:
        status = fit.main(command)
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def was_killed(command: list[str], log: Path, after_s: float) -> bool:
    """Whether the command was killed before it ended; an error of its own is an AssertionError."""
    child, end = start(command, log), time.monotonic() + after_s
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    if os.WIFSIGNALED(ended[1]):
        return True
    assert ended[1] == 0, log.read_text()[-3000:]
    return False


def compare(whole: Path, killed: Path) -> None:
    """AssertionError where the two runs left anything different, but for speeds and moments."""
    assert _names(whole) == _names(killed)
    for path in sorted((whole / "checkpoints").glob("*.ckpt")):
        a, b = (read_checkpoint(run / "checkpoints" / path.name) for run in (whole, killed))
        assert a.keys() == b.keys()
        for key in ("state_dict", "optimizer_states", "callbacks", "lit_gans", "lit_gans_reports"):
            assert largest_difference(a[key], b[key]) == 0.0, (path.name, key)
    assert _lines(whole) == _lines(killed)
    assert _rows(whole) == _rows(killed)
    for path in (whole / "samples").iterdir():
        assert path.read_bytes() == (killed / "samples" / path.name).read_bytes(), path.name
    a, b = (yaml.safe_load((run / "config.yaml").read_text()) for run in (whole, killed))
    assert a | {"run_folder": None, "trainer": None} == b | {"run_folder": None, "trainer": None}
    assert not list(killed.rglob("*.tmp")) and not list(killed.glob("*.unreadable*"))
    page = (killed / "index.html").read_text()
    assert page.rstrip().endswith("</html>")


def _names(run: Path) -> set[str]:
    return {p.relative_to(run).as_posix() for p in run.rglob("*") if "set_apart" not in p.parts}


def _told(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not SPEEDS.fullmatch(name) and value != ""}


def _lines(run: Path) -> list[dict[str, Any]]:
    return [_told(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _rows(run: Path) -> list[dict[str, Any]]:
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        return [_told(row) for row in csv.DictReader(file)]


def one_round(folder: Path, whole: Path, kills: int, longest_s: float, seed: int) -> int:
    """How many times a run was killed, at most `kills`, until it ended as the unbroken one."""
    run, log, chance = folder / "run", folder / "log.txt", random.Random(seed)
    folder.mkdir(parents=True)
    done = 0
    while done < kills and was_killed(argv(whole.parent / "config.yaml", run), log, chance.uniform(0, 0.7 * longest_s)):
        done += 1
    while was_killed(argv(whole.parent / "config.yaml", run), log, 3600):
        raise AssertionError("it took an hour")
    compare(whole, run)
    assert 1 <= len(json.loads((run / "run.json").read_text())["starts"]) <= done + 2
    return done


def loop(folder: Path, kills: int, *, seed: int) -> tuple[int, int]:
    """(kills, runs): as many runs, each killed until it ends, as it takes; each equals the unbroken one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    whole = folder / "whole"
    began = time.monotonic()
    assert not was_killed(argv(folder / "config.yaml", whole), folder / "whole.txt", 3600)
    longest_s, done, runs = time.monotonic() - began, 0, 0
    while done < kills:
        done += one_round(folder / f"round-{runs}", whole, kills - done, longest_s, seed + runs)
        runs += 1
        print(
            f"{done} kills, {runs} runs, each equal to the unbroken one ({time.monotonic() - began:.0f} s)", flush=True
        )
    return done, runs


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    loop(asked.folder, asked.kills, seed=asked.seed)
