"""The loggers of `fit`: Weights & Biases without questions, TensorBoard and CSV by one flag."""

import csv
import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from lit_gans.base.checkpoints import BEST
from lit_gans.base.files import lasting
from lit_gans.metrics.catalog import metric_of
from lit_gans.runs.records import read_side_file

LoggerName = Literal["wandb", "tensorboard", "csv", "none"]
Artifacts = Literal["none", "best", "last", "all"]
SPEED = ("img_per_s", "s_per_kimg", "data_wait_share", "callback_share", "peak_memory_mib")


@dataclass(frozen=True)
class Tracking:
    """Where a run stands among others at Weights & Biases; what is not given, W&B's own variables say.

    Args:
        project: default $WANDB_PROJECT, else lit_gans.
        entity: the user or team; default $WANDB_ENTITY, else the account's.
        group: of runs that belong together, such as one setting's seeds; default $WANDB_RUN_GROUP.
        tags: default $WANDB_TAGS, separated by commas.
        name: default $WANDB_NAME, else the run folder's.
        artifacts: checkpoints that go to W&B as versions of one artifact: the best or the last, once, when training
            ends, is stopped or fails; all, each when it is written; none. W&B keeps a copy of each file until it has
            been uploaded.
    """

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()
    name: str | None = None
    artifacts: Artifacts = "none"


def grouped(name: str) -> str:
    """The name with the section of a W&B dashboard that it belongs in: "metrics/fid", "loss/loss_d"."""
    if "/" in name or name in ("kimg", "epoch"):
        return name
    if metric_of(name) is not None or name == "diversity":
        return f"metrics/{name}"
    if name in SPEED:
        return f"speed/{name}"
    return f"augment/{name}" if name.startswith("augment") else f"loss/{name}"


class GroupedWandb(WandbLogger):
    """Lightning's, whose series stand in sections; files and monitors keep the plain names.

    It takes checkpoints as versions of the artifact `model-<id of the run>`: see `Tracking`.
    """

    def __init__(self, *, artifacts: Artifacts = "none", **options: Any) -> None:
        super().__init__(**options)
        self.artifacts = artifacts
        self._at_end: tuple[Path, dict[str, Any]] | None = None

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        super().log_metrics({grouped(name): value for name, value in metrics.items()}, step)

    def offer(self, path: Path, **told: Any) -> None:
        """Of a checkpoint that was written: sends it now, at the end, or not, as was asked for; rank 0 calls it.

        told: the artifact's metadata, of which kimg and best also give its file's name and its aliases.
        """
        if self.artifacts == "all" and path.name != BEST:
            self._send(path, told)
        elif self.artifacts == ("best" if path.name == BEST else "last"):
            self._at_end = path, told

    def send_last(self) -> None:
        """Sends what was kept for the end, if anything was."""
        if self._at_end is not None:
            self._send(*self._at_end)
        self._at_end = None

    def _send(self, path: Path, told: dict[str, Any]) -> None:
        """With a warning where that fails: training goes on without."""
        import wandb
        from wandb.errors import Error

        aliases = [f"kimg{told['kimg']:.3f}", *(["best"] if told["best"] else [])]
        try:
            artifact = wandb.Artifact(f"model-{self.version}", type="model", metadata=told)
            artifact.add_file(str(path), name=f"kimg{told['kimg']:09.3f}.ckpt")
            self.experiment.log_artifact(artifact, aliases=aliases)
        except (OSError, ValueError, Error) as error:
            rank_zero_warn(f"{path} was not handed to Weights & Biases ({error}); it is intact, and training goes on")


def offer_checkpoint(loggers: Sequence[Logger], path: Path, **told: Any) -> None:
    """Of a checkpoint that was written (rank 0): those of the loggers that take files are told of it."""
    for logger in loggers:
        if isinstance(logger, GroupedWandb):
            logger.offer(path, **told)


def wandb_is_logged_in() -> bool:
    """Whether credentials are at hand; asks nobody and nothing over the network."""
    import wandb

    return bool(os.environ.get("WANDB_API_KEY")) or bool(wandb.login(prompt=False, verify=False))


def run_id(run: Path) -> str:
    """The run's identity at Weights & Biases, kept in the run folder so that a resumed run continues its curves."""
    path = run / "wandb_id"
    identity = read_side_file(path, _identity)
    if identity is None:
        identity = secrets.token_hex(8)
        with lasting(path) as unfinished:
            unfinished.write_text(identity, encoding="utf-8")
    return identity


def _identity(text: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,128}", text.strip()):
        raise ValueError(f"{text[:20]!r} is no id of a run")
    return text.strip()


def over_kimg(logger: Logger) -> None:
    """Makes kimg every x-axis of a W&B run; the others plot over images shown (rank 0)."""
    if isinstance(logger, WandbLogger):
        logger.experiment.define_metric("kimg")
        logger.experiment.define_metric("*", step_metric="kimg")


class LastingCSV(CSVLogger):
    """Lightning's, whose rows are in the file at once, and which goes on in a file that is there.

    Lightning deletes that, and keeps a hundred rows to itself, which a kill would lose.
    """

    @property
    def experiment(self) -> Any:
        """Itself: Lightning's writer, when it is made, deletes the file."""
        return self

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:  # type: ignore[override]
        row = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        append_row(Path(self.log_dir) / "metrics.csv", {**row, "step": step})

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:  # type: ignore[override]
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        save_hparams_to_yaml(os.path.join(self.log_dir, "hparams.yaml"), params)

    @rank_zero_only
    def save(self) -> None:
        """Nothing is left to do."""


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to a table; a new name is a new column, for which the file is written anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", newline="", encoding="utf-8") as file:
        file.seek(0)
        columns = next(csv.reader(file), [])
        if row.keys() <= set(columns):
            csv.DictWriter(file, columns).writerow(row)  # at the end, wherever the reader stands
            return
        file.seek(0)
        rows = list(csv.DictReader(file))
    with lasting(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, sorted({*columns, *row}), extrasaction="ignore")
        table.writeheader()
        table.writerows([*rows, row])


def build_logger(kind: LoggerName, run: Path, *, tracking: Tracking | None = None) -> Logger | bool:
    """The logger for a run folder; False for none. W&B is online where the user is logged in, and never a prompt."""
    asked = vars(tracking or Tracking()).items()
    given = ", ".join(f"wandb.{name}" for name, value in asked if value and value != "none")
    if kind != "wandb" and given:
        rank_zero_warn(f"{given}: of --logger=wandb alone, and this run's logger is {kind}")
    if kind == "none":
        return False
    if kind == "csv":
        return LastingCSV(run, name="csv", version="")
    if kind == "tensorboard":
        return TensorBoardLogger(run, name="tensorboard", version="")
    os.environ.setdefault("WANDB_SILENT", "true")
    mode = os.environ.get("WANDB_MODE") or ("online" if wandb_is_logged_in() else "offline")
    if mode == "offline":
        why = "as WANDB_MODE says" if os.environ.get("WANDB_MODE") else "not logged in"
        print(f"Weights & Biases: offline ({why}); `wandb login` for online runs, or --logger=csv", file=sys.stderr)
    return _wandb(run, mode, tracking=tracking or Tracking())


def _wandb(run: Path, mode: str, *, tracking: Tracking) -> WandbLogger:
    """What is asked for wins over W&B's own variables, these over our defaults.

    Where W&B cannot be reached, offline, with a line that says so.
    """
    import wandb
    from wandb.errors import Error

    asked = os.environ.get
    place = {"entity": tracking.entity, "group": tracking.group, "tags": list(tracking.tags)}
    logger = GroupedWandb(
        project=tracking.project or asked("WANDB_PROJECT") or "lit_gans",
        name=tracking.name or asked("WANDB_NAME") or run.name,
        id=asked("WANDB_RUN_ID") or run_id(run),
        save_dir=asked("WANDB_DIR") or run,
        resume=asked("WANDB_RESUME") or "allow",
        mode=mode,
        artifacts=tracking.artifacts,
        **{option: value for option, value in place.items() if value},  # W&B reads its variables for the others
    )
    if mode != "online":
        return logger
    try:
        logger.experiment  # noqa: B018  (the connection is made now)
    except Error as error:
        reason = str(error).splitlines()[0]
        print(
            f"Weights & Biases: offline ({reason}); training goes on, and --logger=csv needs no network",
            file=sys.stderr,
        )
        wandb.teardown()  # its service holds the run's id, though there is no run
        return _wandb(run, "offline", tracking=tracking)
    return logger


def close(logger: Logger) -> None:
    """Ends a W&B run, which otherwise lasts as long as the process and takes the next run's figures too.

    Before that it sends the checkpoint that was asked for.

    Of a run that was continued offline there are several segments: a line says how all of them reach one run.
    """
    if isinstance(logger, GroupedWandb):
        logger.send_last()
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()
        folder = Path(logger.save_dir or ".") / "wandb"
        segments = list(folder.glob(f"offline-run-*-{logger.version}"))
        if len(segments) > 1:
            print(
                f"Weights & Biases: {len(segments)} offline segments of this run; upload them together, which keeps "
                f"their order: wandb sync {folder}/offline-run-*-{logger.version}",
                file=sys.stderr,
            )
