"""Films as files: animated GIFs, and MP4 with the extra `video`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from PIL import Image
from torch import Tensor

from lit_gans.base.files import replacing
from lit_gans.base.grids import grid, readable_grid
from lit_gans.base.images import to_pil

FILM_PX = 256  # of a film of single images, which are enlarged to it


def save_film(images: Tensor, path: Path, *, frames: int, columns: int, fps: int) -> Path:
    """uint8 [frames * cells, C, H, W] -> an animated GIF or an MP4 file."""
    cells = images.unflatten(0, (frames, -1))
    single = cells.shape[1] == 1
    pictures = [
        to_pil(grid(some, 1, min_cell_px=FILM_PX) if single else readable_grid(some, columns)) for some in cells
    ]
    return save_pictures(pictures, path, fps=fps)


def save_pictures(pictures: Sequence[Image.Image], path: Path, *, fps: int) -> Path:
    """Pictures of one size as the frames of an animated GIF or an MP4 file."""
    with replacing(path) as unfinished:
        (_write_gif if path.suffix == ".gif" else _write_mp4)(list(pictures), unfinished, fps)
    return path


def _write_gif(pictures: list[Image.Image], path: Path, fps: int) -> None:
    pictures[0].save(path, format="GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)


def mp4_encoder() -> ModuleType:
    """The package that writes MP4; ValueError with the way to get it where it is absent."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ValueError(
            "MP4 needs imageio-ffmpeg, the extra 'video': pip install 'lit-gans[video]'; or --format gif"
        ) from error
    return imageio_ffmpeg


def _write_mp4(pictures: list[Image.Image], path: Path, fps: int) -> None:
    # The codec halves colour resolution, so sides must be even.
    writer = mp4_encoder().write_frames(
        str(path), pictures[0].size, fps=fps, quality=8, macro_block_size=2, output_params=["-f", "mp4"]
    )
    writer.send(None)
    for picture in pictures:
        writer.send(picture.convert("RGB").tobytes())
    writer.close()
