"""One piece of work at a time, in the order in which they came, long ones in parts between which others have a turn."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

Tell = Callable[[Mapping[str, Any]], None]
PICTURES_PER_S = 8.0


class Turns:
    """A lock that is given in the order in which it was asked for; any thread's own."""

    def __init__(self) -> None:
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._waiting.popleft()
            self._changed.notify_all()

    def let_others(self) -> None:
        """Of who has the turn: whoever waits now goes first."""
        self.__exit__(None, None, None)
        self.__enter__()


class Stopped(Exception):
    """A job was asked to stop."""


class Job:
    """Long work that tells how far it is, and can be stopped between its steps."""

    def __init__(self, turns: Turns, tell: Tell) -> None:
        self.turns, self.tell, self.stopped, self._shown = turns, tell, False, 0.0

    def step(
        self, done: int, total: int, more: str = "", *, picture: Callable[[], str] | None = None, **further: Any
    ) -> None:
        """Tells it, with a picture a few times a second, and lets others have a turn.

        Raises:
            Stopped: it was asked to.
        """
        if self.stopped:
            raise Stopped
        said = {"done": done, "total": total, "more": more, **further}
        now = time.monotonic()
        if picture is not None and (now - self._shown > 1 / PICTURES_PER_S or done == total):
            self._shown, said["image"] = now, picture()
        self.tell(said)
        self.turns.let_others()
