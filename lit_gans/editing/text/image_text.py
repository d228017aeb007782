"""What tells how well images fit a text: models that put both into one space, with gradients to the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lit_gans.nn.clip import CLIP_MEAN, CLIP_STD, CLIPEncoder

_PHOTOS = ("bad", "cropped", "bright", "dark", "close-up", "black and white", "pixelated", "jpeg corrupted", "blurry",
           "good", "low resolution")  # fmt: skip
_THINGS = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
_WORKS = ("sculpture of", "rendering of", "tattoo of", "drawing of", "painting of", "doodle of", "sketch of",
          "rendition of")  # fmt: skip
_MADE_OF = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
CLIP_TEMPLATES = tuple(
    sentence
    for the in ("a", "the")
    for sentence in (
        *(f"a {kind} photo of {the} {{}}." for kind in _PHOTOS),
        *(f"a photo of {the} {kind} {{}}." for kind in _THINGS),
        *(f"a {work} {the} {{}}." for work in _WORKS),
        *(f"{the} {kind} {{}}." for kind in _MADE_OF),
        *(f"{work} of {the} {{}}." for work in ("graffiti", "art", "itap")),
        f"a photo of {the} {{}}.", f"{the} {{}} in a video game.",
    )
) + ("a photo of my {}.", "a photo of one {}.", "itap of my {}.")  # fmt: skip
"""The sentences that CLIP is given for ImageNet (Radford et al., 2021), without that of many things: 79, as in
StyleCLIP's code."""


@runtime_checkable
class ImageText(Protocol):
    """Puts images and texts into one space.

    `name` and 16 hex digits of its weights, `fingerprint`, name what is found with it. `logit_scale`: what cosines are
    multiplied by; with CLIP's 100, weights of losses mean what they mean in papers. `templates`: sentences with a {},
    in which it reads a thing best.
    """

    name: str
    fingerprint: str
    logit_scale: float
    templates: tuple[str, ...]

    def embed_images(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] in [-1, 1] -> [N, D] of length 1; differentiable."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """N texts -> [N, D] of length 1. ValueError for one that it cannot read."""


class CLIPImageText(nn.Module):
    """CLIP (Radford et al., 2021) as `build_clip` reads it."""

    mean: Tensor
    std: Tensor
    templates = CLIP_TEMPLATES

    def __init__(self, clip: CLIPEncoder) -> None:
        super().__init__()
        self.clip, self.name, self.fingerprint = clip, clip.name, clip.fingerprint
        self.logit_scale = clip.model.logit_scale.exp().item()
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(3, 1, 1), persistent=False)

    def embed_images(self, images: Tensor) -> Tensor:
        """StyleCLIP's and StyleMC's code enlarge images as `area_resized` does, and so do we.

        StyleCLIP's losses feed them in [-1, 1] as they are; we standardise them, as CLIP was trained and as StyleCLIP's
        global directions do.
        """
        pixels = area_resized(images.expand(-1, 3, -1, -1), self.clip.image_px) / 2 + 0.5
        return normalize(self.clip.model.get_image_features(pixel_values=(pixels - self.mean) / self.std).pooler_output)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return normalize(self.clip.texts(texts))


def area_resized(images: Tensor, size_px: int) -> Tensor:
    """[N, C, H, W] -> [N, C, S, S]: each pixel the mean of the area that it covers; differentiable.

    The same as to repeat pixels until S divides the sides, and to average then: of 1024 pixels StyleCLIP's code makes
    7168, and of these 224.
    """
    rows, columns = (_cover(side, size_px).to(images) for side in images.shape[2:])
    return rows @ images @ columns.T


def _cover(side: int, size: int) -> Tensor:
    """[size, side]: which share of each new cell each old one covers."""
    new, old = torch.arange(size + 1, dtype=torch.float64) / size, torch.arange(side + 1, dtype=torch.float64) / side
    shared = torch.minimum(new[1:, None], old[1:]) - torch.maximum(new[:-1, None], old[:-1])
    return shared.clamp(min=0) * size
