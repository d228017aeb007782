"""Images of captions that a user gives, as files or as one picture with the caption above each row."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_gans.adversarial.capabilities import Attends, Captioned, Samples, can, require
from lit_gans.base.files import replacing
from lit_gans.base.images import save_png, to_uint8
from lit_gans.data.captioned_files import caption_lines
from lit_gans.papers.attngan.maps import attention_sheet
from lit_gans.papers.text.encoders import TextFeatures
from lit_gans.runs.folder import run_config
from lit_gans.runs.load import build_data

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

LEAST_CELL_PX, LEAST_FONT_PX = 64, 12
SHOWN = 8
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


def captions_to_draw(
    gan: Samples,
    run: str | os.PathLike,
    text: Sequence[str] | None,
    file: str | os.PathLike | None,
    *,
    trust: str | None = None,
) -> list[str]:
    """`captions_of`; without any, for a model that reads captions, 8 held-out ones of the run's own data.

    ValueError, FileNotFoundError as `captions_of`, and where the run does not tell its data; trust: see `build_data`.
    """
    captions = captions_of(text, file)
    if captions or not can(gan, Captioned):
        return captions
    try:
        gan.take_captions(build_data(run_config(run), trust=trust))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"this {type(gan).__name__} draws what a caption says: give --text 'a small red bird', since the captions "
            f"of its own data cannot be had ({error})"
        ) from error
    return gan.spread_captions(SHOWN)


def save_captioned(
    gan: Samples,
    seeds: Sequence[int],
    captions: Sequence[str],
    target: Path,
    *,
    grid: bool,
    psi: float | Sequence[float] = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> list[Path]:
    """The files: `caption000_seed0007.png` and so on with `captions.json` in the folder `target`, or one picture.

    Of several psis that is `save_truncated`'s.

    Raises:
        ValueError: the model reads no text, or not this.
    """
    require(gan, Captioned, "drawing captions", otherwise="leave text out, or give a text-to-image run")
    psis = [psi] if isinstance(psi, int | float) else list(psi)
    if len(psis) > 1:
        return [save_truncated(gan, seeds, captions, target, psi=psis, ema=ema, batch_size=batch_size)]
    images = draw_captions(gan, seeds, captions, psi=psis[0], ema=ema, batch_size=batch_size)
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


def save_truncated(
    gan: Samples,
    seeds: Sequence[int],
    captions: Sequence[str],
    target: Path,
    *,
    psi: Sequence[float],
    ema: bool = True,
    batch_size: int = 64,
) -> Path:
    """One picture: under each caption, and what the psis are, a row; in it the seeds of one psi after the other's.

    What is closer to the mean of all latents agrees more with its caption, and varies less.

    Raises:
        ValueError: the model reads no text, or not this.
    """
    reader = require(gan, Captioned, "a table of psi", otherwise="leave text out, or give a text-to-image run")
    features = reader.read(captions)
    rows = [draw_features(reader, seeds, features, psi=one, ema=ema, batch_size=batch_size) for one in psi]
    told = f"psi {', '.join(f'{one:g}' for one in psi)}, {len(seeds)} seeds each"
    return save_png(captioned_grid(torch.cat(rows, 1), [f"{caption} ({told})" for caption in captions]), target)


def save_sentences(
    gan: Samples,
    seeds: Sequence[int],
    captions: Sequence[str],
    target: Path,
    *,
    steps: int,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Path:
    """One picture: under each caption and its next a row per seed, `steps` images from the one to the other.

    Sentences are mixed linearly, latents stay the same (StackGAN, Sec. 4.3); of words, which AttnGAN attends to, those
    of the nearer caption are read.

    Raises:
        ValueError: the model reads no text, or not this, or there is one caption alone.
    """
    if len(captions) < 2:
        raise ValueError(f"interpolate walks from caption to caption, and there is {len(captions)}: give two or more")
    reader = require(gan, Captioned, "a sheet of captions", otherwise="give a text-to-image run")
    features = between(reader.read(captions), steps)
    images = draw_features(gan, seeds, features, psi=psi, ema=ema, batch_size=batch_size)
    rows = images.unflatten(0, (-1, steps)).transpose(1, 2)  # [pairs, seeds, steps, C, H, W]
    pairs = [f"{a} -> {b}" for a, b in zip(captions, captions[1:], strict=False)]
    heads = [pair if k == 0 else "" for pair in pairs for k in range(len(seeds))]
    return save_png(captioned_grid(rows.flatten(0, 1), heads), target)


def save_attention(
    gan: Samples,
    seeds: Sequence[int],
    captions: Sequence[str],
    target: Path,
    *,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Path:
    """One picture: for each caption and seed the image, then the same for each of its most attended words.

    ValueError for a model that attends to no words, or cannot read these.
    """
    require(gan, Attends, "a sheet of attention", otherwise="leave attention out, or give a run of AttnGAN")
    pairs = [(seed, caption) for caption in captions for seed in seeds]
    sheets = []
    for start in range(0, len(pairs), batch_size):
        chosen, asked = zip(*pairs[start : start + batch_size], strict=True)
        sheets.append(attention_sheet(gan.attention(chosen, asked, psi=psi, ema=ema)))
    return save_png(torch.cat(sheets, 1), target)


def between(features: TextFeatures, steps: int) -> TextFeatures:
    """Features of K captions -> those of (K - 1) * steps: from each to its next, both ends among them."""
    count = len(features.sentence) - 1
    share = torch.linspace(0, 1, steps, device=features.sentence.device).repeat(count)
    first = torch.arange(count, device=share.device).repeat_interleave(steps)
    sentence = torch.lerp(features.sentence[first], features.sentence[first + 1], share[:, None])
    return features.rows(first + (share >= 0.5))._replace(sentence=sentence)


def draw_captions(
    gan: Captioned,
    seeds: Sequence[int],
    captions: Sequence[str],
    *,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """uint8 [captions, seeds, C, H, W] on the CPU, `batch_size` images at a time: every seed for each caption."""
    return draw_features(gan, seeds, gan.read(captions), psi=psi, ema=ema, batch_size=batch_size)


@torch.no_grad()
def draw_features(
    gan: Captioned,
    seeds: Sequence[int],
    features: TextFeatures,
    *,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """As `draw_captions`, of captions that were read before."""
    count, z, noise = len(features.sentence), gan.seeded_latents(seeds), gan.seeded_noise(seeds)
    rows = torch.arange(count, device=z.device).repeat_interleave(len(seeds))
    columns = torch.arange(len(seeds), device=z.device).repeat(count)
    parts = []
    for row, column in zip(rows.split(batch_size), columns.split(batch_size), strict=True):
        images = gan.generate(z[column], features=features.rows(row), noise=noise[column], psi=psi, ema=ema)
        parts.append(to_uint8(images).cpu())
    return torch.cat(parts).unflatten(0, (count, len(seeds)))


def captioned_grid(images: Tensor, captions: Sequence[str]) -> Tensor:
    """uint8 [rows, columns, C, H, W] and a caption for each row, "" for none -> one picture uint8 [3, H', W'].

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
    heads = [round((len(of_one) + 0.5) * 1.3 * font_px) if of_one != [""] else 0 for of_one in lines]
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
