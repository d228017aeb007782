"""Training's progress on the image clock: a bar in a terminal, a line now and then elsewhere."""

import threading
import time
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table

from lit_gans.adversarial import Game
from lit_gans.base.progress import clock
from lit_gans.metrics.catalog import metric_of

MAX_FIGURES, MAX_LOSSES = 5, 3
SLOW_S = 30  # after which a first batch that is not over is no surprise, but worth a line


class Progress(ProgressBar):
    """Position in kimg, images per second, elapsed and remaining time, and the newest figures; rank 0 only.

    In a terminal one line is redrawn every `refresh_s`; elsewhere a plain line is printed every `plain_s`, at each
    evaluation and at the end. A first batch that takes long is told too. Between redraws a batch costs one look at the
    time. The remaining time follows from the speed of this process so far, evaluations included.

    Raises:
        ValueError: an interval is not positive.
    """

    def __init__(self, refresh_s: float = 1.0, plain_s: float = 30.0) -> None:
        super().__init__()
        for name, value in (("refresh_s", refresh_s), ("plain_s", plain_s)):
            if value <= 0:
                raise ValueError(f"progress.{name} is {value}: give more than 0 seconds")
        self.refresh_s, self.plain_s = refresh_s, plain_s
        self._enabled = True
        self._live: Live | None = None
        self._slow: threading.Timer | None = None
        self._next = 0.0
        self._evaluation: dict[str, float] = {}
        self._metrics: dict[str, float] = {}

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        if self._live is not None:
            self._live.console.print(*args, **kwargs)
        else:
            print(*args, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: Game) -> None:
        self._started, self._first_image = time.perf_counter(), pl_module.images_seen
        self._metrics, self._evaluation = pl_module.latest_metrics, evaluations(pl_module.latest_metrics)
        if not self._enabled:
            return
        self._slow = threading.Timer(SLOW_S, self._say_slow)
        self._slow.daemon = True
        self._slow.start()
        console = Console()
        if console.is_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=False)
            self._live.start()
        self._next = self._started + (self.refresh_s if self._live else self.plain_s)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Game, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        if not self._enabled:
            return
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        now = time.perf_counter()
        if now >= self._next or (pl_module.latest_metrics is not self._metrics and self._evaluated(pl_module)):
            self._show(pl_module, now)

    def _say_slow(self) -> None:
        self.print(
            f"the first batch has taken {SLOW_S} s so far, as it may where networks are compiled or kernels are made "
            "ready; Ctrl-C lets it end and saves, twice ends at once"
        )

    def _evaluated(self, game: Game) -> bool:
        """Whether the newest figures hold an evaluation that has not been shown."""
        self._metrics = game.latest_metrics
        newest = evaluations(game.latest_metrics)
        changed, self._evaluation = newest != self._evaluation, newest
        return changed

    def _show(self, game: Game, now: float) -> None:
        self._next = now + (self.refresh_s if self._live else self.plain_s)
        if self._live is None:
            print(self.line(game, now), flush=True)
        else:
            self._live.update(self._bar(game, now), refresh=True)

    def on_train_end(self, trainer: Trainer, pl_module: Game) -> None:
        if self._enabled:
            self._show(pl_module, time.perf_counter())
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: Game, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        self._stop()

    def _stop(self) -> None:
        """Gives the terminal back."""
        if self._slow is not None:
            self._slow.cancel()
        if self._live is not None:
            self._live.stop()
            self._live = None

    # ---- what is shown -----------------------------------------------------------------------------------------------

    def line(self, game: Game, now: float) -> str:
        """ "12.8/400 kimg   3%  512 img/s  0:00:25 < 0:12:36  loss_d 1.31  loss_g 0.74"."""
        share = min(game.kimg / game.total_kimg, 1)
        return f"{game.kimg:.1f}/{game.total_kimg:g} kimg {share:4.0%}  {self._tail(game, now)}"

    def _bar(self, game: Game, now: float) -> Table:
        row = Table.grid(padding=(0, 1))
        bar = Bar(total=game.total_kimg, completed=min(game.kimg, game.total_kimg), width=24)
        row.add_row(f"{game.kimg:.1f}/{game.total_kimg:g} kimg", bar, self._tail(game, now))
        return row

    def _tail(self, game: Game, now: float) -> str:
        elapsed, images = now - self._started, game.images_seen - self._first_image
        speed = images / elapsed if elapsed > 0 else 0.0
        left = max(game.total_kimg * 1000 - game.images_seen, 0)
        remaining = clock(left / speed) if speed > 0 else "?"
        img_per_s = game.latest_metrics.get("img_per_s", speed)
        return "  ".join([f"{img_per_s:.4g} img/s", f"{clock(elapsed)} < {remaining}", *figures(game.latest_metrics)])


def evaluations(metrics: dict[str, float]) -> dict[str, float]:
    """The figures that an evaluation has measured."""
    return {name: value for name, value in metrics.items() if metric_of(name) is not None}


def figures(metrics: dict[str, float]) -> list[str]:
    """The few that are worth a place on the line, as "name value": the first losses, then how good samples are."""
    losses = sorted(name for name in metrics if name.startswith("loss"))[:MAX_LOSSES]
    chosen = {name: metrics[name] for name in (*losses, "diversity") if name in metrics} | evaluations(metrics)
    return [f"{name} {value:.4g}" for name, value in list(chosen.items())[:MAX_FIGURES]]
