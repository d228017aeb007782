"""R-precision of a text-to-image model: whether its images find their captions again (Xu et al., 2018, Sec. 4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lit_gans.base.images import to_uint8
from lit_gans.data import TextData
from lit_gans.metrics.text import TextImageEncoder, r_precision
from lit_gans.papers.text.game import TextGAN, held_out


@torch.no_grad()
def r_precision_of(
    gan: TextGAN,
    encoder: TextImageEncoder,
    data: TextData,
    *,
    num_images: int = 30_000,
    candidates: int = 100,
    folds: int = 10,
    seed: int = 0,
    groups: Tensor | None = None,
    ema: bool = True,
    batch_size: int = 64,
) -> tuple[float, float]:
    """Mean and deviation over the folds of the share of images that are nearer to their own caption than to others.

    Image i is drawn with seed i from the i-th caption of split "test" (modulo their number; where there is no such
    split, of the training split); `encoder` is a `DAMSM` in the paper. Mismatching captions are of other groups: int64
    [number of captions of the split], or None for the data's, which are the classes where they have any.
    ValueError where there are too few captions of other groups; see `r_precision`.
    """
    gan.take_captions(data)
    split, images, texts = held_out(data), [], []
    owners = picture_groups(data, split) if groups is None else groups
    for numbers in torch.arange(num_images).split(batch_size):
        captions, features = gan.held_captions(numbers)
        z, noise = gan.seeded_latents(numbers), gan.seeded_noise(numbers)
        drawn = to_uint8(gan.generate(z, features=features, noise=noise, ema=ema))
        images.append(encoder.images(drawn).cpu())
        texts.append(encoder.texts(captions).cpu())
    found = owners[torch.arange(num_images) % len(owners)]
    mean, deviation = r_precision(
        torch.cat(images), torch.cat(texts), candidates=candidates, folds=folds, seed=seed, groups=found
    )
    return mean.item(), deviation.item()


def picture_groups(data: TextData, split: str) -> Tensor:
    """int64 [captions of the split]: the group of each caption's picture."""
    pictures = data.dataset(split)
    owners = np.repeat(np.arange(len(pictures.captions)), pictures.captions.counts)  # type: ignore[attr-defined]
    return pictures.groups[torch.from_numpy(owners)]  # type: ignore[attr-defined]
