"""Images of captions that a user gives, as files or as one picture with the caption above each row."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_gans.adversarial import GAN, TextGAN
from lit_gans.data.captioned_files import caption_lines
from lit_gans.files import replacing
from lit_gans.images import save_png, to_uint8

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

LEAST_CELL_PX, LEAST_FONT_PX = 64, 12
MAX_CAPTIONS_BYTES = 2**20


def captions_of(text: Sequence[str] | None, file: str | os.PathLike | None) -> list[str]:
    """The captions that were asked for, those of the file last; [] for none.

    ValueError for a blank one and for a file that is none of captions; FileNotFoundError where there is none.
    """
    captions = [text] if isinstance(text, str) else list(text or ())
    if any(not caption.strip() for caption in captions):
        raise ValueError("text has a blank caption: say what to draw, as --text 'a small red bird'")
    if file is None:
        return captions
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of captions {path}: give one with a caption on each line")
    with path.open("rb") as opened:
        return captions + caption_lines(opened.read(MAX_CAPTIONS_BYTES + 1), str(path))


def save_captioned(
    gan: GAN,
    seeds: Sequence[int],
    captions: Sequence[str],
    target: Path,
    *,
    grid: bool,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> list[Path]:
    """The files: `caption000_seed0007.png` and so on with `captions.json` in the folder `target`, or one picture.

    Raises:
        ValueError: the model reads no text, or not this.
    """
    if not isinstance(gan, TextGAN):
        raise ValueError(f"this {type(gan).__name__} draws no captions: leave text out, or give a text-to-image run")
    images = draw_captions(gan, seeds, captions, psi=psi, ema=ema, batch_size=batch_size)
    if grid:
        return [save_png(captioned_grid(images, captions), target)]
    paths = []
    for number, row in enumerate(images):
        for seed, image in zip(seeds, row, strict=True):
            paths.append(save_png(image, target / f"caption{number:03d}_seed{seed:04d}.png"))
    with replacing(target / "captions.json") as unfinished:
        told = {path.name: captions[i // len(seeds)] for i, path in enumerate(paths)}
        unfinished.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return paths


def draw_captions(
    gan: TextGAN,
    seeds: Sequence[int],
    captions: Sequence[str],
    *,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """uint8 [captions, seeds, C, H, W] on the CPU, `batch_size` images at a time: every seed for each caption."""
    features = gan.read(captions)
    z, noise = gan.seeded_latents(seeds), gan.seeded_noise(seeds)
    rows = torch.arange(len(captions), device=z.device).repeat_interleave(len(seeds))
    columns = torch.arange(len(seeds), device=z.device).repeat(len(captions))
    parts = []
    for row, column in zip(rows.split(batch_size), columns.split(batch_size), strict=True):
        images = gan.generate(z[column], features=features.rows(row), noise=noise[column], psi=psi, ema=ema)
        parts.append(to_uint8(images).cpu())
    return torch.cat(parts).unflatten(0, (len(captions), len(seeds)))


def captioned_grid(images: Tensor, captions: Sequence[str]) -> Tensor:
    """uint8 [rows, columns, C, H, W] and a caption for each row -> one picture uint8 [3, H', W'], black on white.

    Images below 64 pixels are enlarged to about that; a caption is broken into as many lines as it needs.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    factor = max(-(-LEAST_CELL_PX // images.shape[-1]), 1)
    cells = images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    cells = cells.expand(-1, -1, 3, -1, -1)
    rows, columns, _, height, width = cells.shape
    font_px = max(height // 10, LEAST_FONT_PX)
    font = _font(font_px)
    lines = [_broken(caption, font, columns * width - font_px) for caption in captions]
    heads = [round((len(of_one) + 0.5) * 1.3 * font_px) for of_one in lines]
    canvas = Image.new("RGB", (columns * width, sum(heads) + rows * height), "white")
    pen, top = ImageDraw.Draw(canvas), 0
    for row, of_one, head in zip(cells, lines, heads, strict=True):
        for number, line in enumerate(of_one):
            place = (font_px // 2, top + round((number + 0.25) * 1.3 * font_px))
            pen.text(place, line, fill="black", font=font)
        strip = row.permute(2, 0, 3, 1).flatten(1, 2)
        canvas.paste(Image.fromarray(np.ascontiguousarray(strip.numpy())), (0, top + head))
        top += head + height
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def _font(size_px: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size_px)


def _broken(caption: str, font: FreeTypeFont | ImageFont, width_px: int) -> list[str]:
    """The caption in lines of at most `width_px`, broken between words; a longer word has a line of its own."""
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
