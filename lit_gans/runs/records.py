"""What a run writes down: figures, pictures, tables, and what it depends on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lit_gans.base.files import lasting
from lit_gans.metrics.protocol import key_of
from lit_gans.runs.folder import check_inside

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from lit_gans.adversarial import Game

T = TypeVar("T")


def record(trainer: pl.Trainer, metrics: dict[str, float], **stamp: Any) -> None:
    """Writes figures to `<run>/metrics.jsonl` and to the loggers at this moment of the image clock.

    Lightning's callbacks find them in `trainer.callback_metrics`; an EarlyStopping that monitors one of them looks now,
    as an endless stream has no end of an epoch at which it would.

    Call it on all processes with the same figures; rank 0 writes. `stamp` goes to the file only.
    """
    import torch

    game = trainer.lightning_module
    game.latest_metrics = {**game.latest_metrics, **metrics}
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
    if trainer.is_global_zero:
        _write(trainer, metrics, stamp)
    for callback in trainer.early_stopping_callbacks:
        if callback.monitor in metrics:
            callback.on_train_epoch_end(trainer, game)  # which of the two looks is a setting of the callback
            callback.on_validation_end(trainer, game)


def _write(trainer: pl.Trainer, metrics: dict[str, float], stamp: dict[str, Any]) -> None:
    game = trainer.lightning_module
    line = {"kimg": game.kimg, "time_s": round(time.time(), 3), **metrics, **stamp}
    append_line(Path(trainer.default_root_dir) / "metrics.jsonl", line)
    for logger in trainer.loggers:
        logger.log_metrics({**metrics, "kimg": game.kimg}, step=game.images_seen)


def append_line(path: Path, line: dict[str, Any]) -> None:
    """One line of JSON, written at once, so that several writers do not mix theirs.

    Raises:
        ValueError: `path` is a link that leads out of its folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check_inside(path, path.parent)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def record_start(trainer: pl.Trainer, config: str, command: list[str]) -> None:
    """config.yaml and run.json; a resumed run adds its own line to run.json's history."""
    run = Path(trainer.default_root_dir)
    _write_text(run / "config.yaml", config)
    _write_starts(run, [*_starts_of(run), {**describe(trainer, command), "ended": None}])


def record_networks(trainer: pl.Trainer, game: Game) -> None:
    """Adds to this start's line the networks that the game looks through, which by now have their weights (rank 0)."""
    networks = game.frozen_networks()
    if networks and trainer.is_global_zero:
        add_to_start(Path(trainer.default_root_dir), networks=networks)


def add_to_start(run: Path, **facts: Any) -> None:
    """Adds to the line of the last start in run.json."""
    *before, now = _starts_of(run) or [{}]
    _write_starts(run, [*before, {**now, **facts}])


def _starts_of(run: Path) -> list[dict[str, Any]]:
    return read_side_file(run / "run.json", lambda text: list(json.loads(text)["starts"])) or []


def _write_starts(run: Path, starts: list[dict[str, Any]]) -> None:
    _write_text(run / "run.json", json.dumps({"starts": starts}, indent=1))


def _write_text(path: Path, text: str) -> None:
    with lasting(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def read_side_file(path: Path, read: Callable[[str], T]) -> T | None:
    """What `read` makes of a file; None where there is none.

    One that cannot be read is put aside with a warning, and the run goes on without it.
    """
    if not path.exists():
        return None
    try:
        return read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        aside = next(p for i in count(1) if not (p := path.with_name(f"{path.name}.unreadable-{i}")).exists())
        os.replace(path, aside)
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"{path} cannot be read ({reason}) and is now {aside.name}: the run goes on with a new one", stacklevel=2
        )
        return None


def record_image(trainer: pl.Trainer, name: str, path: Path, *, caption: str) -> None:
    """Sends a PNG to the loggers that take images (rank 0); Weights & Biases shows the caption."""
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    if not trainer.is_global_zero:
        return
    game = trainer.lightning_module
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            logger.experiment.log({name: wandb.Image(str(path), caption=caption), "kimg": game.kimg})
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np
            from PIL import Image

            picture = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(name, picture, game.images_seen, dataformats="HWC")


def record_table(trainer: pl.Trainer, name: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Sends a table to Weights & Biases (rank 0); the other loggers have none."""
    from lightning.pytorch.loggers import WandbLogger

    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            table = wandb.Table(columns=columns, data=rows)
            logger.experiment.log({name: table, "kimg": trainer.lightning_module.kimg})


class GrowingTable:
    """A table at Weights & Biases to which rows are added; each time the new ones alone are sent."""

    def __init__(self, name: str, columns: list[str]) -> None:
        self.name, self.columns = name, columns
        self._tables: dict[Any, Any] = {}  # by logger

    def add(
        self, trainer: pl.Trainer, rows: list[list[Any]], *, earlier: Callable[[], list[list[Any]]] = list
    ) -> None:
        """Adds rows, whose cells may be pictures of PIL (rank 0).

        earlier: all rows before them. W&B knows them of a run that it resumed; of one that is continued offline they
        are sent again with the first.
        """
        from lightning.pytorch.loggers import WandbLogger

        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                if logger not in self._tables and not logger.experiment.resumed:
                    rows = [*earlier(), *rows]
                self._send(logger, rows, kimg=trainer.lightning_module.kimg)

    def _send(self, logger: Any, rows: list[list[Any]], *, kimg: float) -> None:
        import wandb
        from PIL.Image import Image

        if logger not in self._tables:
            self._tables[logger] = wandb.Table(columns=self.columns, log_mode="INCREMENTAL")
        table = self._tables[logger]
        for row in rows:
            table.add_data(*(wandb.Image(cell) if isinstance(cell, Image) else cell for cell in row))
        logger.experiment.log({self.name: table, "kimg": kimg})
        table.data[:] = [[None] * len(self.columns)] * len(table.data)  # sent, and pictures take memory


def record_protocols(trainer: pl.Trainer, protocols: dict[str, dict[str, object]]) -> None:
    """Sends the key of each number's protocol to the summary of a W&B run (rank 0): runs of equal ones compare."""
    from lightning.pytorch.loggers import WandbLogger

    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update({f"protocol/{name}": key_of(p) for name, p in protocols.items()})


def describe(trainer: pl.Trainer, command: list[str]) -> dict[str, Any]:
    """What a number of this run depends on besides its config: versions, commit, hardware."""
    import torch

    packages = ("torch", "torchvision", "lightning", "torchmetrics", "torch-fidelity", "numpy", "pillow")
    device = trainer.strategy.root_device
    return {
        "command": command,
        "versions": {"lit_gans": metadata_version("lit-gans"), **{p: metadata_version(p) for p in packages}},
        "commit": git_commit(),
        "python": platform.python_version(),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "processes": trainer.world_size,
        "precision": trainer.precision,
    }


def metadata_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the source that is running, with "+" when it has uncommitted changes; None outside of git."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, timeout=10)
        status = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.decode().strip() + ("+" if status.stdout.strip() else "") if commit.returncode == 0 else None


def cpu_name() -> str:
    """The processor's model and the number of cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"
