"""The figures that papers report, written down at each tick of the image clock."""

from pathlib import Path

from lightning.pytorch import Trainer

from lit_gans.adversarial import Game
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.runs.records import record
from lit_gans.runs.timelines import cut_metrics


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
