"""How often a text-to-image model of drawn shapes draws what its captions ask for, as the exact checker reads it."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from lit_gans.adversarial.capabilities import Captioned, can
from lit_gans.base.images import to_uint8
from lit_gans.base.processes import find_device
from lit_gans.data import ShapeCaptions
from lit_gans.data.shapes_captions import parse
from lit_gans.papers.attngan.damsm import DAMSM
from lit_gans.papers.attngan.retrieval import r_precision_of
from lit_gans.papers.text.game import TextGAN, held_out
from lit_gans.runs.folder import run_config
from lit_gans.runs.load import build_data, load_run


class CaptionFit(NamedTuple):
    """Shares of the images in [0, 1] that have the named colour, shape, both of them, and position.

    colour_difference: between neighbouring scales, of an image's mean colour in [-1, 1], the mean absolute difference
    over images and channels; None where there is one scale.
    """

    colour: float
    shape: float
    colour_and_shape: float
    position: float
    colour_difference: float | None


def caption_fit(
    gan: TextGAN, data: ShapeCaptions, *, num_images: int = 2000, ema: bool = True, batch_size: int = 64
) -> CaptionFit:
    """Image i is drawn with seed i from the i-th caption of split "test", modulo their number.

    With the data's `holdout` these are of pairs of shape and colour that no training picture had.
    """
    gan.take_captions(data)
    captions = data.split_captions(held_out(data)).all
    right, differences = [], []
    for numbers in torch.arange(num_images).split(batch_size):
        asked = [captions[i % len(captions)] for i in numbers.tolist()]
        scales = gan.multi_scale(numbers, captions=asked, ema=ema)
        right.append(data.right(to_uint8(scales[-1]).cpu(), parse(asked)))
        means = [images.mean((2, 3)) for images in scales]
        differences += [(a - b).abs().mean(1) for a, b in zip(means, means[1:], strict=False)]
    found = {name: torch.cat([part[name] for part in right]) for name in right[0]}
    found["colour_and_shape"] = found["colour"] & found["shape"]
    shares = {name: found[name].double().mean().item() for name in CaptionFit._fields[:-1]}
    return CaptionFit(**shares, colour_difference=torch.cat(differences).mean().item() if differences else None)


def caption_fit_of_run(run: str | os.PathLike, *, num_images: int = 2000) -> CaptionFit:
    """`caption_fit` of a run, on the data of its config.

    Raises:
        ValueError, FileNotFoundError: a run that is missing, of another kind, or of other data.
    """
    gan, data = load_run(run), build_data(run_config(run))
    if not can(gan, Captioned) or not isinstance(data, ShapeCaptions):
        raise ValueError(
            f"only captions of drawn shapes can be checked exactly: {run} is a {type(gan).__name__} of "
            f"{type(data).__name__}, and a text-to-image model of ShapeCaptions is needed"
        )
    return caption_fit(gan.to(find_device("auto")), data, num_images=num_images)


def r_precision_of_run(
    run: str | os.PathLike, encoder: str | os.PathLike, *, num_images: int = 30_000, candidates: int = 100
) -> tuple[float, float]:
    """`r_precision_of` a run of a text-to-image model on the data of its config, by the encoders of a run of `DAMSM`.

    Raises:
        ValueError, FileNotFoundError: a run that is missing or of another kind.
    """
    gan, judge, data = load_run(run), load_run(encoder), build_data(run_config(run))
    if not can(gan, Captioned) or not isinstance(judge, DAMSM):
        raise ValueError(
            f"R-precision needs a text-to-image run and a run of DAMSM, found a {type(gan).__name__} in {run} and a "
            f"{type(judge).__name__} in {encoder}"
        )
    device = find_device("auto", double=True)
    data.setup("fit")
    return r_precision_of(gan.to(device), judge.to(device), data, num_images=num_images, candidates=candidates)
