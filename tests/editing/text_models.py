"""A tiny styled generator, and an image-text model that a hand can check."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lit_gans.papers import StyleGAN2

WORDS = {"red": 0, "green": 1, "blue": 2}


def tiny(**options: object) -> StyleGAN2:
    """StyleGAN2 for 16 px, whose images differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"resolution": 16, "z_dim": 8, "w_dim": 8, "num_layers": 2, "channel_base": 64, "channel_max": 8}
        return StyleGAN2(**{**sizes, **options}).eval().requires_grad_(False)


class Colours:
    """Mean colours of pictures, and the words that it finds in texts."""

    name, fingerprint, logit_scale, templates = "colours", "0" * 16, 100.0, ("{}", "a photo of {}")

    def embed_images(self, images: Tensor) -> Tensor:
        return normalize(images.tanh().mean((2, 3)) + 1.1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        found = [[float(word in text) for word in WORDS] for text in texts]
        if blank := [text for text, row in zip(texts, found, strict=True) if not any(row)]:
            raise ValueError(f"{blank[0]!r} names no colour")
        return normalize(torch.tensor(found))


def redness(images: Tensor) -> Tensor:
    """[N]: how near the images are to "red"."""
    return Colours().embed_images(images)[:, 0]
