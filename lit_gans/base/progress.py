"""Progress on standard error: bars in a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
