"""Pictures of the progress: the same seeds again and again, beside real images in the same layout."""

import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.data import ImageData, ImageSet
from lit_gans.files import replacing
from lit_gans.images import grid, save_png, to_uint8
from lit_gans.run import record_image

MAX_CLASSES = 20
READABLE_CELL_PX, READABLE_WIDTH_PX, LINE_PX, MAX_SIDE_PX = 64, 1600, 2, 7680


class ImageGrid(EveryKimg):
    """Fakes of fixed seeds to `<run>/samples/fakes-<kimg>.png` and `latest.png`; `reals.png` once at the start.

    Unconditional: rows x columns seeds. Conditional: one row per class, the same seed down each column, and at most 20
    classes evenly chosen (`rows` is not used). Drawn by rank 0 from the averaged generator. Small images are enlarged
    without smoothing; of large ones only so many rows and columns are drawn that a side stays below 7,680 pixels.

    Raises:
        ValueError: no column or no row.
    """

    def __init__(
        self, every_kimg: float = 20.0, columns: int = 10, rows: int = 10, psi: float = 1.0, at_start: bool = True
    ) -> None:
        super().__init__(every_kimg, at_start=at_start)
        if columns < 1 or rows < 1:
            raise ValueError(f"a grid of {rows} rows and {columns} columns has no image: give 1 or more of both")
        self.columns, self.rows, self.psi = columns, rows, psi

    def on_train_start(self, trainer: Trainer, pl_module: GAN) -> None:
        if self.every_kimg and trainer.is_global_zero and isinstance(trainer.datamodule, ImageData):
            self._save_reals(trainer, trainer.datamodule)
        super().on_train_start(trainer, pl_module)

    def act(self, trainer: Trainer, gan: GAN) -> None:
        if not trainer.is_global_zero:
            return
        rows, columns = self._shape(gan.num_classes, gan.resolution)
        seeds, labels = layout(rows, columns, num_classes=gan.num_classes)
        images = draw(gan, seeds, labels=labels, psi=self.psi)
        path = save_png(readable_grid(images, columns), _samples(trainer) / f"fakes-{gan.kimg:09.3f}.png")
        with replacing(path.with_name("latest.png")) as latest:
            shutil.copyfile(path, latest)
        record_image(trainer, "fakes", path)

    def _shape(self, num_classes: int, resolution: int) -> tuple[int, int]:
        """(rows, columns) of the grid."""
        rows = min(num_classes, MAX_CLASSES) or self.rows
        most = max(MAX_SIDE_PX // resolution, 1)
        return min(rows, most), min(self.columns, most)

    def _save_reals(self, trainer: Trainer, data: ImageData) -> None:
        rows, columns = self._shape(data.num_classes, data.resolution)
        images = real_rows(data.dataset(data.train_split), rows, columns, num_classes=data.num_classes)
        path = save_png(readable_grid(images, columns), _samples(trainer) / "reals.png")
        record_image(trainer, "reals", path)


def layout(rows: int, columns: int, *, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """(seeds [rows * columns], labels [rows * columns] or None), row by row: a class per row, a seed per column."""
    if num_classes == 0:
        return torch.arange(rows * columns), None
    classes = spread(num_classes, rows)
    return torch.arange(columns).repeat(len(classes)), classes.repeat_interleave(columns)


def spread(total: int, count: int) -> Tensor:
    """int64 [min(count, total)]: numbers below `total`, evenly spread from the first to the last."""
    return torch.linspace(0, total - 1, min(count, total), dtype=torch.float64).round().long()


def draw(
    gan: GAN,
    seeds: Tensor,
    *,
    labels: Tensor | None = None,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    """uint8 [N, C, H, W] on the CPU, drawn in batches of 64 images of 256 x 256 pixels or as much memory."""
    size = batch_size or max(min(64 * 256**2 // gan.resolution**2, 64), 1)
    parts = []
    for start in range(0, len(seeds), size):
        part = slice(start, start + size)
        chosen = None if labels is None else labels[part]
        parts.append(to_uint8(gan.sample(seeds[part], labels=chosen, psi=psi, ema=ema)).cpu())
    return torch.cat(parts)


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


def readable_grid(images: Tensor, columns: int) -> Tensor:
    """uint8 [N, C, H, W] -> one image [C, H', W'].

    Cells below 64 pixels are enlarged to about that, while the whole is at most 1,600 wide, and parted by grey lines.
    """
    side = images.shape[-1]
    if side >= READABLE_CELL_PX:
        return grid(images, columns)
    factor = max(min(-(-READABLE_CELL_PX // side), READABLE_WIDTH_PX // (columns * side)), 1)
    large = images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    return grid(F.pad(large, (0, LINE_PX, 0, LINE_PX), value=128), columns)[:, :-LINE_PX, :-LINE_PX]


def _samples(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "samples"
