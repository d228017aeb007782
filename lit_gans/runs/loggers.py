"""The loggers of `fit`: Weights & Biases without questions, TensorBoard and CSV by one flag."""

import os
import secrets
import sys
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

LoggerName = Literal["wandb", "tensorboard", "csv", "none"]


def wandb_is_logged_in() -> bool:
    """Whether credentials are at hand; asks nobody and nothing over the network."""
    import wandb

    return bool(os.environ.get("WANDB_API_KEY")) or bool(wandb.login(prompt=False, verify=False))


def run_id(run: Path) -> str:
    """The run's identity at Weights & Biases, kept in the run folder so that a resumed run continues its curves."""
    path = run / "wandb_id"
    if not path.is_file():
        run.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(8))
    return path.read_text().strip()


def over_kimg(logger: Logger) -> None:
    """Makes kimg every x-axis of a W&B run; the others plot over images shown (rank 0)."""
    if isinstance(logger, WandbLogger):
        logger.experiment.define_metric("kimg")
        logger.experiment.define_metric("*", step_metric="kimg")


def build_logger(kind: LoggerName, run: Path, *, project: str = "lit_gans") -> Logger | bool:
    """The logger for a run folder; False for none. W&B is online where the user is logged in, and never a prompt."""
    if kind == "none":
        return False
    if kind == "csv":
        return CSVLogger(run, name="csv", version="")
    if kind == "tensorboard":
        return TensorBoardLogger(run, name="tensorboard", version="")
    os.environ.setdefault("WANDB_SILENT", "true")
    mode = os.environ.get("WANDB_MODE") or ("online" if wandb_is_logged_in() else "offline")
    if mode == "offline":
        hint = "`wandb login` for online runs, or --logger=csv"
        print(f"Weights & Biases: offline (not logged in); {hint}", file=sys.stderr)
    return WandbLogger(project=project, name=run.name, id=run_id(run), save_dir=run, mode=mode)


def close(logger: Logger) -> None:
    """Ends a W&B run, which otherwise lasts as long as the process and takes the next run's figures too."""
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()
