"""What was understood of the data, said before training starts and kept with the run."""

import json
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lit_gans.adversarial import Game
from lit_gans.base.files import replacing
from lit_gans.data import ImageData
from lit_gans.data.advice import Alike, advice, nearly_alike
from lit_gans.data.described import listed_classes, say
from lit_gans.data.images import FileSet

FILE = "data.json"


def looked_at(data: ImageData, game: Game) -> list[str]:
    """What is to be known of pictures from files: which are nearly the same, and that they are few. Takes seconds."""
    images = data.dataset(data.train_split)
    if not isinstance(images, FileSet):
        return []
    alike = nearly_alike(images)
    lines = [told_alike(alike, images)] if alike.pairs else []
    augmented = dict(game.named_children()).get("augment") is not None
    few = advice(len(images), augmented=augmented, mirrored=data.mirror)
    return lines + ([few] if few else [])


def told_alike(alike: Alike, images: FileSet) -> str:
    """How many pictures are nearly the same as another, with some of them."""
    names = [f"{images.names[a]} and {images.names[b]}" for a, b in alike.pairs[:3]]
    more = ", ..." if len(alike.pairs) > 3 else ""
    sampled = f" of {alike.looked_at:,} looked at" if alike.looked_at < len(images) else ""
    count = f"{len(alike.pairs):,} pair{'' if len(alike.pairs) == 1 else 's'} of pictures{sampled}"
    return f"{count}: nearly the same twice, such as {', '.join(names)}{more}"


class DataReport(Callback):
    """Prints the description of the data and what is to be known before training, and writes it to `<run>/data.json`.

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
            told = looked_at(data, pl_module)
            for line in told:
                print(f"  note     {line}", file=sys.stderr, flush=True)
            with replacing(Path(trainer.default_root_dir) / FILE) as unfinished:
                unfinished.write_text(json.dumps({**found.as_dict(), "advice": told}, indent=1), encoding="utf-8")
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
