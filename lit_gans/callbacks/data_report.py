"""What was understood of the data, said before training starts and kept with the run."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lit_gans.adversarial import Game
from lit_gans.base.files import replacing
from lit_gans.data import ImageData
from lit_gans.data.described import listed_classes, say

FILE = "data.json"


class DataReport(Callback):
    """Prints the description of the data, and writes it to `<run>/data.json` with the names of the classes.

    Checkpoints know which data they were trained on: a run that is resumed with others says so.
    """

    def __init__(self) -> None:
        self._now: dict[str, str] = {}

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if stage != "fit" or not isinstance(data, ImageData):
            return
        found = data.describe()
        say(found)
        if trainer.is_global_zero:
            with replacing(Path(trainer.default_root_dir) / FILE) as unfinished:
                unfinished.write_text(json.dumps(found.as_dict(), indent=1), encoding="utf-8")
            self._now = {"used": found.used, "fingerprint": data.fingerprint(data.train_split)}

    def state_dict(self) -> dict[str, Any]:
        return dict(self._now)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before, now = (each.get("fingerprint") for each in (state_dict, self._now))
        if before and now and before != now:
            rank_zero_warn(
                f"the data are not those that the checkpoint was trained on, or are framed otherwise: "
                f"{state_dict['used']} then ({before}), {self._now['used']} now ({now}). Training goes on with these"
            )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Game, checkpoint: dict[str, Any]) -> None:
        """Warns where the numbers of the classes are not those that the checkpoint was trained with."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        now = data.class_names if isinstance(data, ImageData) else ()
        # Versions that kept no names sorted all of them as text, 10 before 2.
        before = tuple(checkpoint["lit_gans"].get("class_names", sorted(now)))
        if pl_module.class_names and now != before:
            rank_zero_warn(
                f"the classes of the data are {listed_classes(now)}, and the checkpoint was trained with "
                f"{listed_classes(before)}: numbers that differ mean other classes from here on"
            )
