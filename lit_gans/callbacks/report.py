"""The figures that papers report, written down at each tick of the image clock."""

import json
from pathlib import Path

from lightning.pytorch import Trainer

from lit_gans.adversarial import Game
from lit_gans.base.files import replacing
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.runs.records import record


class Report(EveryKimg):
    """Means over the images since the last tick, over all processes, to `<run>/metrics.jsonl` and the loggers.

    It takes the reports from the module, so callbacks that look at them stand behind it and read `latest`.
    A resumed run first cuts the lines that the dead run wrote after the checkpoint; a new run starts a new file.
    """

    def __init__(self, every_kimg: float = 4.0) -> None:
        super().__init__(every_kimg)
        self.latest: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        pl_module.reports.written = bool(self.every_kimg)

    def teardown(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        pl_module.reports.written = False

    def on_train_start(self, trainer: Trainer, pl_module: Game) -> None:
        if trainer.is_global_zero:
            cut_metrics(Path(trainer.default_root_dir) / "metrics.jsonl", images_seen=pl_module.images_seen)
        super().on_train_start(trainer, pl_module)

    def act(self, trainer: Trainer, game: Game) -> None:
        if values := game.take_reports():
            self.latest = values
            record(trainer, values)


def cut_metrics(path: Path, *, images_seen: int) -> None:
    """Drops the lines later than `images_seen`, and a last one that was not finished; all lines when it is 0.

    At 0 nothing was trained yet: whatever is there belongs to a run that never saved a checkpoint.
    """
    if not path.is_file():
        return
    lines = path.read_text().splitlines()
    kept = [line for line in lines if images_seen and _images(line) <= images_seen]
    if kept != lines or not path.read_bytes().endswith(b"\n"):
        with replacing(path) as unfinished:
            unfinished.write_text("".join(line + "\n" for line in kept))


def _images(line: str) -> float:
    """The count of images at which a line was written; infinite when the writer died in the middle of it."""
    try:
        return round(json.loads(line)["kimg"] * 1000)
    except ValueError:
        return float("inf")
