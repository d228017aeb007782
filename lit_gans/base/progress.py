"""Progress on standard error: bars in a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar per kind of work on standard error, where that is a terminal; of the first process alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from lit_gans.base.processes import rank_and_world  # which imports torch; verbs start without

    console = Console(stderr=True)
    if not console.is_terminal or rank_and_world()[0] != 0:
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """progress(done, total) of one kind of work, which is a bar where `progress_bars` has one."""
    with progress_bars() as progress:
        yield lambda done, total: progress(what, done, total) if progress is not None else None


class Lines:
    """How far work is, as "120/1000  12%  0:00:25 < 0:03:03": written over in a terminal, else a line every 30 s."""

    def __init__(
        self, what: str = "", *, screen: TextIO | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.what, self.now, self.screen = what, now, screen or sys.stderr
        self.interval_s, self.end = (1.0, "\r") if self.screen.isatty() else (30.0, "\n")
        self.started = self.told = now()

    def __call__(self, done: float, total: int, more: str = "") -> None:
        """The end is told too, if there was a line before or there is `more` to tell than the time."""
        now = self.now()
        ends = done >= total and (self.told > self.started or bool(more))
        if ends or (0 < done < total and now - self.told >= self.interval_s):
            self.told = now
            end = "\n" if ends else self.end
            print(self.line(done, total, more, now - self.started), end=end, file=self.screen, flush=True)

    def line(self, done: float, total: int, more: str, elapsed_s: float) -> str:
        """The line, with the time since the start, and what is left at this pace."""
        told = f"{round(done, 1):g}/{total} {self.what}".rstrip() + f" {done / total:4.0%}"
        left = clock(elapsed_s / done * (total - done))
        return "  ".join(filter(None, [told, more, f"{clock(elapsed_s)} < {left}"]))


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
