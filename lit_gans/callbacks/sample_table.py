"""Samples beside the real images that are nearest to them, over time: pictures of the run, and a table at W&B."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from lit_gans.adversarial.preview import draw
from lit_gans.base.grids import grid, spread
from lit_gans.base.images import save_png
from lit_gans.data import ImageData
from lit_gans.data.sets import resize
from lit_gans.metrics.plots import nearest_reals
from lit_gans.runs.records import GrowingTable

COLUMNS = ["seed", "class", "image", "nearest real", "kimg"]
REALS, COMPARED_PX = 2000, 32


class SampleTable:
    """The same few seeds again and again, of each class in turn, each with the real image that is nearest to it.

    Nearest by pixels: the Euclidean distance of both images, averaged to 32 x 32 pixels where they are larger. That
    needs no network and finds copies, but not what looks alike in another place; `lit-gans evaluate --plots` compares
    by features. Of a large set 2,000 images are looked at, evenly chosen.

    Args:
        samples: how many seeds, from 0 on.
        psi: truncation.
    """

    def __init__(self, samples: int, *, psi: float) -> None:
        self.samples, self.psi = samples, psi
        self._table = GrowingTable("samples", COLUMNS)
        self._reals = torch.empty(0)  # [N, D], once they were read

    def add(self, trainer: Trainer, game: Any) -> None:
        """Draws them with averaged weights, to `<run>/samples/table-<kimg>.png` and to Weights & Biases (rank 0)."""
        data: ImageData = trainer.datamodule
        fakes = draw(game, torch.arange(self.samples), psi=self.psi)
        images = torch.cat([fakes, resize(self._nearest(data, fakes), fakes.shape[-1])])
        folder = Path(trainer.default_root_dir) / "samples"
        path = save_png(grid(images, self.samples), folder / f"table-{game.kimg:09.3f}.png")
        names = _class_names(data, game.num_classes)
        self._table.add(trainer, rows_of(path, names), earlier=lambda: rows_before(path, names))

    def _nearest(self, data: ImageData, fakes: Tensor) -> Tensor:
        """uint8 [N, C, R, R]: the real image that is nearest to each."""
        images = data.dataset(data.train_split)
        side, places = min(data.resolution, COMPARED_PX), spread(len(images), REALS)
        if not len(self._reals):
            self._reals = torch.cat([_pixels(images.fetch(part)["image"], side) for part in places.split(64)])
        _, found = nearest_reals(_pixels(fakes, side), self._reals, n=1)
        return images.fetch(places[found[:, 0]])["image"]


def _pixels(images: Tensor, side: int) -> Tensor:
    """uint8 [N, C, H, W] -> float32 [N, C * side * side] in [0, 1]."""
    return F.adaptive_avg_pool2d(images.float() / 255, side).flatten(1)


def _class_names(data: ImageData, num_classes: int) -> list[str]:
    named = data.class_names if len(data.class_names) == num_classes else range(num_classes)
    return [str(name) for name in named]


def rows_before(path: Path, names: list[str]) -> list[list[Any]]:
    """The rows of the pictures before this one; what is no such picture, or cannot be read, is left out."""
    rows = []
    for other in sorted(path.parent.glob("table-*.png")):
        if other.name < path.name:
            with suppress(OSError, ValueError, ZeroDivisionError):
                rows += rows_of(other, names)
    return rows


def rows_of(path: Path, names: list[str]) -> list[list[Any]]:
    """The rows of `COLUMNS` that a `table-<kimg>.png` shows; class None of a model without."""
    kimg = float(path.stem.removeprefix("table-"))
    with Image.open(path) as picture:
        side, rows = picture.height // 2, []
        for seed in range(picture.width // side):
            image, real = (picture.crop((seed * side, y, (seed + 1) * side, y + side)) for y in (0, side))
            rows.append([seed, names[seed % len(names)] if names else None, image, real, kimg])
    return rows
