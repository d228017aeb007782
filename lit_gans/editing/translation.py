"""Pictures through a translator: reading them, in tiles where they are large, and where the results go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lit_gans.adversarial.capabilities import Input, Translates
from lit_gans.base.grids import grid
from lit_gans.base.images import from_uint8, save_png, to_pil, to_uint8
from lit_gans.base.random import Draws
from lit_gans.base.tiles import in_tiles, reflect_to
from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, open_picture, to_mode, to_numbers
from lit_gans.data.described import Description
from lit_gans.data.images import describe_source
from lit_gans.data.paired import partners
from lit_gans.data.sources import ENDINGS, open_source

SHEETS, SHEET_PAIRS, SHEET_COLUMNS, THUMBNAIL_PX = "sheets", 16, 4, 256


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
    it. told(share) is called after every tile. ValueError where the model gives NaN or infinity, has no memory left, or
    raises anything else, such as for a picture that is too small for its network.
    """
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
        except Exception as error:  # of a network, which is anybody's: the picture's failure, not that of the others
            size, why = f"{part.shape[-1]} x {part.shape[-2]} px", " ".join(str(error).split())
            raise ValueError(
                f"the model fails at {size} of it with {type(error).__name__}: {why:.300} (LIT_GANS_TRACEBACK=1 shows "
                "where)"
            ) from error
        if made.shape[-2:] != part.shape[-2:] or made.shape[1] not in (1, 3):
            raise ValueError(f"the model makes {list(made.shape)} of {list(part.shape)}, and no picture of its size")
        if not made.isfinite().all():
            raise ValueError("the model gives NaN or infinity for it: use an earlier checkpoint")
        return made

    with torch.no_grad():
        made = in_tiles(work, padded, tile=tile, overlap=overlap, stride=model.stride, told=told)
    return to_uint8(made[0, :, top : top + height, left : left + width])


# ---- files -----------------------------------------------------------------------------------------------------------


def pictures_of(source: Path, *, follow_links: bool = False) -> dict[str, Callable[[], BinaryIO]]:
    """Name to what opens the file: of one picture, or of all in a folder or zip."""
    if _is_one(source):
        return {source.name: partial(source.open, "rb")}
    found = open_source(source, follow_links=follow_links)
    return {name: partial(found.open, name) for name in found.names}


def _is_one(source: Path) -> bool:
    return source.is_file() and source.suffix.lower() in ENDINGS


def described(source: Path, tile: int, *, follow_links: bool = False) -> Description:
    """What was understood of the pictures that are to be translated."""
    framing = "each in its own size" + (f", in tiles of {tile} px where it is larger" if tile else "")
    if _is_one(source):
        return Description(what=str(source), used="1 picture", framing=framing)
    return replace(describe_source(open_source(source, follow_links=follow_links)), framing=framing)


def folder_beside(source: Path, direction: str) -> Path:
    """The folder of the translations where none is named."""
    named = source.resolve() if source.name in ("", "..") else source
    return named.with_name(f"{named.name if named.is_dir() else named.stem}-{direction}")


def targets_of(source: Path, folder: Path, names: Sequence[str], *, sheet: bool) -> dict[str, Path]:
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
    try:
        with open_file() as file:
            image = open_picture(file, MAX_PIXELS)
            mode = "L" if taken.channels == 1 else "RGB"
            pixels = labels_of(image) if taken.labels else np.array(to_mode(image, mode))
    except UNREADABLE as error:
        raise ValueError(f"cannot be read: {error}") from error
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def labels_of(image: Image.Image) -> np.ndarray:
    """uint8 [H, W] of a label map of 8 or 16 bits. ValueError for more labels than 8 bits have, as in training."""
    numbers = to_numbers(image)
    if numbers.min() < 0 or numbers.max() > 255:
        wrong = numbers[(numbers < 0) | (numbers > 255)][0]
        raise ValueError(f"has the label {wrong}, and labels run to 255 at most: renumber the map")
    return numbers.astype(np.uint8)


def instances_of(
    source: Path, instances: Path, names: Sequence[str], *, follow_links: bool = False
) -> dict[str, Callable[[], BinaryIO]]:
    """Name of each picture to what opens its map of instances."""
    maps = pictures_of(instances, follow_links=follow_links)
    if not source.is_dir() and not instances.is_dir() and len(maps) == len(names) == 1:
        return {names[0]: next(iter(maps.values()))}
    pictures, found = partners([open_source(place, follow_links=follow_links) for place in (source, instances)])
    return {name: maps[own] for name, own in zip(pictures, found, strict=True)}


def read_ids(open_file: Callable[[], BinaryIO]) -> Tensor:
    """Instance ids int64 [H, W] of a file of 8 or 16 bits. ValueError for a file that cannot be read."""
    try:
        with open_file() as file:
            return torch.from_numpy(to_numbers(open_picture(file, MAX_PIXELS)).astype(np.int64))
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
        columns = 2 * min(SHEET_COLUMNS, len(self.cells) // 2)
        path = self.folder / f"{len(self.paths) + 1:03d}.png"
        self.paths.append(save_png(grid(torch.stack(self.cells), columns), path))
        self.cells = []


def thumbnail(picture: Tensor) -> Tensor:
    """uint8 [1 or 3, H, W] -> uint8 [3, 256, 256]: the whole picture, on grey where it is not square."""
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    image = to_pil(picture).convert("RGB")
    least = -(-max(image.size) // THUMBNAIL_PX)  # a thinner side would have no pixel left
    image = image.resize((max(image.width, least), max(image.height, least)))
    small = ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=(128, 128, 128))
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)
