"""The verb that turns pictures into others: `lit-gans translate runs/cyclegan-horse2zebra photos --output zebras`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from lit_gans.adversarial.capabilities import Input, Translates

SHEETS, SHEET_PAIRS, SHEET_COLUMNS, THUMBNAIL_PX = "sheets", 16, 4, 256
TOLD_EVERY_S = 10.0

Progress = Callable[[float, int], None]
"""progress(done, total), in pictures; called after every tile."""


class Translated(NamedTuple):
    """The written pictures and sheets, and why the pictures in `failed` have none, by name."""

    files: list[Path]
    sheets: list[Path]
    failed: dict[str, str]


def translate(
    run: str | os.PathLike,
    source: str | os.PathLike,
    *,
    direction: str = "ab",
    output: str | os.PathLike | None = None,
    tile: int | None = None,
    overlap: int = 64,
    sheet: bool = False,
    instances: str | os.PathLike | None = None,
    device: str = "auto",
    seed: int = 0,
    trust: str | None = None,
    progress: Progress | None = None,
) -> Translated:
    """Translates a picture, or all of a folder or zip, into PNG files of the same names and sizes.

    Pictures are turned upright as their EXIF data says; transparency is laid on white. A picture's translation depends
    on its pixels and the seed alone. One that cannot be read or translated is passed over, and told in the result.

    Args:
        run: a run folder, a .ckpt file, or a folder that `lit-gans convert` wrote.
        direction: "ba" is CycleGAN's way back.
        output: a folder; by default beside the source, as `photos-ab`.
        tile: pictures with a side longer than this are translated in tiles of this size, and blended linearly where
            they overlap, by `overlap` px or more; None is 1024, or as much as the model's stride asks for; 0 takes all
            pictures whole.
        sheet: also pictures of 16 pairs each, input beside output, in the folder `sheets`.
        instances: for a model of label maps (pix2pixHD), the maps of instance ids of up to 16 bits: a folder with files
            of the same names, or a file for a file.
        device: "auto" is the accelerator where there is one. seed: of the noise of models that have some (pix2pix).
        trust: see `lit_gans.runs.load.load_run`.

    Raises:
        ValueError, FileNotFoundError: an argument that cannot be met, or nothing there; each says the way out.
    """
    from lit_gans.base.images import save_png
    from lit_gans.base.processes import find_device
    from lit_gans.base.tiles import tile_size
    from lit_gans.runs.load import load_translator

    source = Path(source)
    pictures = _pictures(source)
    folder = _beside(source, direction) if output is None else Path(output)
    targets = _targets(source, folder, list(pictures), sheet=sheet)
    maps = None if instances is None else _instances(source, Path(instances), list(pictures))
    model = load_translator(run, direction=direction, trust=trust)
    taken = model.takes(direction)
    if maps is not None and not taken.labels:
        raise ValueError(f"{run} translates pictures, which have no instances: leave instances out")
    tile = tile_size(model.stride, tile=tile, overlap=overlap)
    work = {"direction": direction, "tile": tile, "overlap": overlap, "seed": seed, "device": find_device(device)}
    model.to(work["device"])
    files, failed, sheets = [], {}, Sheets(folder / SHEETS) if sheet else None
    for number, (name, target) in enumerate(targets.items()):
        told = None if progress is None else partial(_add, progress, number, len(targets))
        try:
            picture = read_picture(pictures[name], taken)
            ids = None if maps is None else read_ids(maps[name])
            made = translate_picture(model, picture, instance=ids, told=told, **work)
        except ValueError as error:
            failed[name] = str(error)
            continue
        files.append(save_png(made, target))
        if sheets is not None:
            sheets.add(picture, made)
    return Translated(files, [] if sheets is None else sheets.close(), failed)


def _add(progress: Progress, pictures: int, total: int, share: float) -> None:
    progress(pictures + share, total)


# ---- one picture -----------------------------------------------------------------------------------------------------


def translate_picture(
    model: Translates,
    picture: Tensor,
    *,
    instance: Tensor | None = None,
    direction: str = "ab",
    tile: int = 0,
    overlap: int = 64,
    seed: int = 0,
    device: str = "cpu",
    told: Callable[[float], None] | None = None,
) -> Tensor:
    """uint8 [C, H, W] of any size, and for some models instance ids int64 [H, W] -> uint8 [C', H, W].

    Sides that the model's stride does not divide are reflected on both ends and cut again. `tile` as `tile_size` gives
    it. told(share) is called after every tile. ValueError where the model gives NaN or infinity, or has no memory left.
    """
    import torch

    from lit_gans.base.images import from_uint8, to_uint8
    from lit_gans.base.tiles import in_tiles, reflect_to
    from lit_gans.nn import Draws

    height, width = picture.shape[-2:]
    if instance is not None and instance.shape != picture.shape[-2:]:
        raise ValueError(f"is {width} x {height} px, its instances {instance.shape[1]} x {instance.shape[0]}")
    layers = [from_uint8(picture)] + ([] if instance is None else [instance[None].float()])  # exact to 24 bits
    padded, top, left = reflect_to(torch.cat(layers)[None], model.stride)

    def work(part: Tensor) -> Tensor:
        given = {"direction": direction, "draws": Draws(seed, "translate", device=device)}
        part = part.to(device)
        if instance is not None:
            part, given["instance"] = part[:, :-1], part[:, -1].long()
        try:
            made = model.translate(part, **given).float().cpu()
        except torch.OutOfMemoryError as error:
            raise ValueError(f"{part.shape[-1]} x {part.shape[-2]} px do not fit into memory: use tiles") from error
        assert made.shape[-2:] == part.shape[-2:], (made.shape, part.shape)
        if not made.isfinite().all():
            raise ValueError("the model gives NaN or infinity for it: use an earlier checkpoint")
        return made

    with torch.no_grad():
        made = in_tiles(work, padded, tile=tile, overlap=overlap, stride=model.stride, told=told)
    return to_uint8(made[0, :, top : top + height, left : left + width])


# ---- files -----------------------------------------------------------------------------------------------------------


def _pictures(source: Path) -> dict[str, Callable[[], BinaryIO]]:
    """Name to what opens the file: of one picture, or of all in a folder or zip."""
    from lit_gans.data.sources import ENDINGS, open_source

    if source.is_file() and source.suffix.lower() in ENDINGS:
        return {source.name: partial(source.open, "rb")}
    found = open_source(source)
    return {name: partial(found.open, name) for name in found.names}


def _beside(source: Path, direction: str) -> Path:
    """The folder of the translations where none is named."""
    named = source.resolve() if source.name in ("", "..") else source
    return named.with_name(f"{named.name if named.is_dir() else named.stem}-{direction}")


def _targets(source: Path, folder: Path, names: Sequence[str], *, sheet: bool) -> dict[str, Path]:
    """Name to the file to be written; pictures that differ in their endings alone keep them, as in `x.jpg.png`.

    ValueError where a file would be written over a picture, or among those that are translated.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output {folder} is a file: give a folder")
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"output {folder} is where the pictures are, or below it: give another folder")
    stems = Counter(_stem(name) for name in names)
    targets = {name: folder / f"{_stem(name) if stems[_stem(name)] == 1 else name}.png" for name in names}
    if source.resolve() in (target.resolve() for target in targets.values()):
        raise ValueError(f"{source} would be written over: give an output folder other than its own")
    if sheet and any(name.startswith(f"{SHEETS}/") for name in names):
        raise ValueError(f"{source} has a folder {SHEETS!r}, which is where sheets go: rename it, or leave sheet out")
    return targets


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def read_picture(open_file: Callable[[], BinaryIO], taken: Input) -> Tensor:
    """uint8 [C, H, W], upright; of a label map the ids, whatever colours a palette gives them.

    ValueError for a file that cannot be read.
    """
    import numpy as np
    import torch

    from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, open_picture, to_mode

    try:
        with open_file() as file:
            image = open_picture(file, MAX_PIXELS)
            if taken.labels and image.mode not in ("L", "P"):
                raise ValueError(f"is a picture of mode {image.mode}, and label maps have 8-bit class ids")
            pixels = np.array(image if taken.labels else to_mode(image, "L" if taken.channels == 1 else "RGB"))
    except UNREADABLE as error:
        raise ValueError(f"cannot be read: {error}") from error
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def _instances(source: Path, instances: Path, names: Sequence[str]) -> dict[str, Callable[[], BinaryIO]]:
    """Name of each picture to what opens its map of instances."""
    from lit_gans.data.paired import partners
    from lit_gans.data.sources import open_source

    maps = _pictures(instances)
    if not source.is_dir() and not instances.is_dir() and len(maps) == len(names) == 1:
        return {names[0]: next(iter(maps.values()))}
    pictures, found = partners([open_source(source), open_source(instances)])
    return {name: maps[own] for name, own in zip(pictures, found, strict=True)}


def read_ids(open_file: Callable[[], BinaryIO]) -> Tensor:
    """Instance ids int64 [H, W] of a file of 8 or 16 bits. ValueError for a file that cannot be read."""
    import numpy as np
    import torch

    from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, open_picture

    try:
        with open_file() as file:
            image = open_picture(file, MAX_PIXELS)
            if image.mode not in ("L", "P", "I") and not image.mode.startswith("I;16"):
                raise ValueError(f"is of mode {image.mode}, and ids are grey values of 8 or 16 bits")
            return torch.from_numpy(np.array(image).astype(np.int64))
    except UNREADABLE as error:
        raise ValueError(f"its instances cannot be read: {error}") from error


class Sheets:
    """Pairs of pictures, input beside output, `SHEET_PAIRS` on each file of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells: list[Tensor] = []
        self.paths: list[Path] = []

    def add(self, source: Tensor, made: Tensor) -> None:
        """uint8 [C, H, W] each."""
        self.cells += [thumbnail(source), thumbnail(made)]
        if len(self.cells) == 2 * SHEET_PAIRS:
            self._write()

    def close(self) -> list[Path]:
        """The files, with the last, which may have fewer pairs."""
        if self.cells:
            self._write()
        return self.paths

    def _write(self) -> None:
        import torch

        from lit_gans.base.grids import grid
        from lit_gans.base.images import save_png

        columns = 2 * min(SHEET_COLUMNS, len(self.cells) // 2)
        path = self.folder / f"{len(self.paths) + 1:03d}.png"
        self.paths.append(save_png(grid(torch.stack(self.cells), columns), path))
        self.cells = []


def thumbnail(picture: Tensor) -> Tensor:
    """uint8 [1 or 3, H, W] -> uint8 [3, 256, 256]: the whole picture, on grey where it is not square."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    from lit_gans.base.images import to_pil

    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    small = ImageOps.pad(to_pil(picture).convert("RGB"), size, Image.Resampling.LANCZOS, color=(128, 128, 128))
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


# ---- the command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0; 1 where pictures were passed over, named on standard error; 2 where nothing could be done."""
    arguments = vars(_parser().parse_args(argv))
    try:
        with _progress() as progress:
            done = translate(**arguments, progress=progress)
    except (ValueError, OSError) as error:
        if os.environ.get("LIT_GANS_TRACEBACK") == "1":
            raise
        print(f"lit-gans translate: {error}", file=sys.stderr)
        return 2
    for name, why in done.failed.items():
        print(f"lit-gans translate: {name}: {why}", file=sys.stderr)
    if done.files:
        print(done.files[0] if len(done.files) == 1 else f"{len(done.files)} pictures in {_common(done.files)}")
    if done.sheets:
        print(f"sheets: {', '.join(map(str, done.sheets))}")
    return 1 if done.failed else 0


def _common(files: Sequence[Path]) -> str:
    return os.path.commonpath([path.parent for path in files])


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar with the time left, on standard error where that is a terminal; else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    count = TextColumn("{task.completed:.1f}/{task.total} pictures")
    with Bars(BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bars:
        task = bars.add_task("pictures", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


class Lines:
    """Progress as lines on standard error: "3.5/40 pictures  0:00:12 < 0:02:05", every `TOLD_EVERY_S`."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.started = self.told = now()

    def __call__(self, done: float, total: int) -> None:
        now = self.now()
        if done <= 0 or now - self.told < TOLD_EVERY_S:
            return
        self.told, elapsed = now, now - self.started
        left = elapsed / done * (total - done)
        print(f"{done:.1f}/{total} pictures  {_clock(elapsed)} < {_clock(left)}", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    from lit_gans.base.progress import clock

    return clock(seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lit-gans translate", description="Pictures through a trained translator, in their own size, as PNG files."
    )
    add = parser.add_argument
    add("run", help="run folder, .ckpt file, or folder of `lit-gans convert`")
    add("source", help="a picture, or a folder or zip of pictures; those that cannot be read are passed over and named")
    add("--direction", default="ab", choices=["ab", "ba"], help="ba: CycleGAN's way back (default: %(default)s)")
    add("--output", metavar="FOLDER", help="default: beside the source, as photos-ab")
    add("--tile", type=int, metavar="PX", help="pictures with a longer side are translated in tiles of this size, a "
        "multiple of the model's stride; 0: all whole (default: 1024, or what the stride asks for)")  # fmt: skip
    add("--overlap", type=int, default=64, metavar="PX", help="of tiles, which are blended over it "
        "(default: %(default)s)")  # fmt: skip
    add("--sheet", action="store_true", help="also pictures of input beside output")
    add("--instances", metavar="PATH", help="of a model of label maps (pix2pixHD): folder, or file, of instance ids")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the noise of models that have some (default: %(default)s)")
    add("--trust", help="another package whose classes and losses the checkpoint may name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
