"""Pictures of the progress: the same inputs again and again, samples beside real images in the same layout."""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Captioned, FromLatents, Previews, Samples, can
from lit_gans.adversarial.checks import say
from lit_gans.adversarial.preview import draw_grid, draw_walks
from lit_gans.base.files import replacing
from lit_gans.base.grids import grid_shape, readable_grid, spread
from lit_gans.base.images import save_png
from lit_gans.base.video import save_pictures
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.callbacks.sample_table import SampleTable
from lit_gans.data import ImageData, ImageSet
from lit_gans.runs.records import record_image

FILM_FRAMES, FILM_SIDE_PX, FILM_FPS = 150, 640, 10


class ImageGrid(EveryKimg):
    """The game's preview to `<run>/samples/fakes-<kimg>.png` and `latest.png`; once, for what samples, `reals.png` too.

    Samples, unconditional: rows x columns seeds. Conditional: one row per class, the same seed down each column, and
    at most 20 classes evenly chosen (`rows` is not used). Drawn by rank 0 from averaged weights. Small images are
    enlarged without smoothing; of large ones only so many rows and columns are drawn that a side stays below 7,680
    pixels. A translator shows what it makes of the same pictures of the data each time; of a game without a preview
    nothing is drawn, and that is said. `walks`: of what draws from latents, so many rows of `columns` steps from one
    seed to another to `walks.png`. `table`: so many samples, of the seeds from 0 on, each above the real image that is
    nearest to it, to `table-<kimg>.png`, and to Weights & Biases as rows of one growing table; see `SampleTable`. It is
    off by default, because it reads up to 2,000 of the real images first, and W&B keeps each grid's rows as a version
    of an artifact. `film`: when training ends or is stopped, also `film.gif` of all of them, of 150
    frames at most and 640 pixels.

    Raises:
        ValueError: no column or no row.
    """

    def __init__(
        self,
        every_kimg: float = 20.0,
        columns: int = 10,
        rows: int = 10,
        psi: float = 1.0,
        at_start: bool = True,
        film: bool = False,
        walks: int = 0,
        table: int = 0,
    ) -> None:
        super().__init__(every_kimg, at_start=at_start)
        self._shown = True
        if columns < 1 or rows < 1:
            raise ValueError(f"a grid of {rows} rows and {columns} columns has no image: give 1 or more of both")
        if walks < 0:
            raise ValueError(f"image_grid.walks is {walks}: give so many rows of walks, 0 for none")
        if table < 0:
            raise ValueError(f"image_grid.table is {table}: give so many samples for the table, 0 for none")
        self.columns, self.rows, self.psi, self.film, self.walks = columns, rows, psi, film, walks
        self.table = SampleTable(table, psi=psi) if table else None

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        self._shown = can(pl_module, Previews) or can(pl_module, Samples)
        if self.every_kimg and not self._shown:
            say(trainer, f"no pictures are drawn: a {type(pl_module).__name__} has no preview, nor samples")
        sampled = can(pl_module, Samples) and not can(pl_module, Captioned)
        if self.table and not (sampled and isinstance(trainer.datamodule, ImageData)):
            say(trainer, "image_grid.table: no table, which is of samples from seeds beside images of lit_gans.data")
            self.table = None

    def on_train_start(self, trainer: Trainer, pl_module: Game) -> None:
        compared = can(pl_module, Samples) and isinstance(trainer.datamodule, ImageData)
        if self.every_kimg and trainer.is_global_zero and compared:
            self._save_reals(trainer, trainer.datamodule)
        super().on_train_start(trainer, pl_module)

    def act(self, trainer: Trainer, game: Game) -> None:
        if not (trainer.is_global_zero and self._shown):
            return
        if can(game, Previews):
            images, columns = game.preview(trainer.datamodule, rows=self.rows, columns=self.columns, psi=self.psi)
            shown = "the same inputs each time"
        else:
            images, columns = draw_grid(game, self.rows, self.columns, psi=self.psi)
            shown = f"{'a class per row' if game.num_classes else 'a seed per image'}, psi {self.psi:g}"
        path = save_png(readable_grid(images, columns), _samples(trainer) / f"fakes-{game.kimg:09.3f}.png")
        with replacing(path.with_name("latest.png")) as latest:
            shutil.copyfile(path, latest)
        record_image(trainer, "fakes", path, caption=f"{shown}, at {game.kimg:.3f} kimg")
        if self.walks and can(game, FromLatents) and can(game, Samples):
            self._save_walks(trainer, game)
        if self.table:
            self.table.add(trainer, game)

    def _save_walks(self, trainer: Trainer, game: Any) -> None:
        rows, columns = grid_shape(self.walks, self.columns, num_classes=0, resolution=game.resolution)
        images = draw_walks(game, game.resolution, rows, columns, psi=self.psi)
        path = save_png(readable_grid(images, columns), _samples(trainer) / "walks.png")
        record_image(trainer, "walks", path, caption=f"walks between latents, a row each, at {game.kimg:.3f} kimg")

    def teardown(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        if self.every_kimg and self.film and trainer.is_global_zero:
            save_growth(_samples(trainer))

    def _shape(self, num_classes: int, resolution: int) -> tuple[int, int]:
        """(rows, columns) of the grid."""
        return grid_shape(self.rows, self.columns, num_classes=num_classes, resolution=resolution)

    def _save_reals(self, trainer: Trainer, data: ImageData) -> None:
        rows, columns = self._shape(data.num_classes, data.resolution)
        images = real_rows(data.dataset(data.train_split), rows, columns, num_classes=data.num_classes)
        path = save_png(readable_grid(images, columns), _samples(trainer) / "reals.png")
        record_image(trainer, "reals", path, caption="real images")


def real_rows(images: ImageSet, rows: int, columns: int, *, num_classes: int) -> Tensor:
    """uint8 [rows * columns, C, R, R]: with labels a class per row (black where it has too few), else evenly chosen."""
    if images.labels is None or num_classes == 0:
        chosen = spread(len(images), rows * columns)
        return images.fetch(chosen)["image"]
    cells = [(images.labels == c).nonzero().flatten()[:columns] for c in spread(num_classes, rows)]
    found = images.fetch(torch.cat(cells))["image"]
    canvas = found.new_zeros(len(cells), columns, *found.shape[1:])
    for row, part in zip(canvas, found.split([len(cell) for cell in cells]), strict=True):
        row[: len(part)] = part
    return canvas.flatten(0, 1)


def save_growth(folder: Path) -> Path | None:
    """`film.gif` of the grids in a run's folder of samples, in their order, if there are any."""
    from PIL import Image

    paths = sorted(folder.glob("fakes-*.png"))
    if not paths:
        return None
    pictures = [Image.open(paths[i]).convert("RGB") for i in spread(len(paths), FILM_FRAMES)]
    size = pictures[-1].size
    scale = min(FILM_SIDE_PX / max(size), 1)
    size = (round(size[0] * scale), round(size[1] * scale))
    frames = [picture if picture.size == size else picture.resize(size, Image.Resampling.BOX) for picture in pictures]
    return save_pictures(frames, folder / "film.gif", fps=FILM_FPS)


def _samples(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "samples"
