"""How a run stands: training, or how its last start ended."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from lit_gans.runs.folder import is_taken
from lit_gans.runs.records import add_to_start

ENDS = ("finished", "stopped", "failed")


class State(NamedTuple):
    """`word` is one of `ENDS`, "training", "killed" or "unknown"; `why` it failed; `at`, in s."""

    word: str
    why: str = ""
    at: float | None = None


def training() -> State:
    """Of a run, in the process that trains it."""
    return State("training", at=time.time())


def record_end(run: Path, word: str, why: str = "") -> State:
    """Adds to the last start's line in run.json how it ended."""
    state = State(word, why, round(time.time(), 3))
    add_to_start(run, ended=state._asdict())
    return state


def state_of(run: Path) -> State:
    """Of any run, by its lock and its run.json, which in earlier versions did not tell.

    Not for the process that trains it, which would lose the lock.
    """
    if is_taken(run):
        return training()
    try:
        ended: dict[str, Any] | None = json.loads((run / "run.json").read_text(encoding="utf-8"))["starts"][-1]["ended"]
        if ended is None:
            return State("killed")
        state = State(*(ended[name] for name in State._fields))
        known = state.word in ENDS and isinstance(state.at, int | float) and 0 <= state.at < 1e11
        return state if known else State("unknown")  # a stranger's file may say anything
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return State("unknown")
