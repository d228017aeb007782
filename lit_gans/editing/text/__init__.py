"""Editing by text: StyleCLIP's three methods and StyleMC, with any model that compares images with texts."""

from lit_gans.editing.text.building import build_image_text
from lit_gans.editing.text.channels import find_channel_effects, read_effects, text_direction
from lit_gans.editing.text.identity import build_identity
from lit_gans.editing.text.image_text import CLIP_TEMPLATES, ImageText
from lit_gans.editing.text.mapper import mapped, read_mapper, train_mapper
from lit_gans.editing.text.optimization import optimize_latents
from lit_gans.editing.text.pair import read_pair, train_face_pair, train_pair
from lit_gans.editing.text.shifts import StyleShift, read_shift
from lit_gans.editing.text.stylemc import find_direction

__all__ = [
    "CLIP_TEMPLATES", "ImageText", "StyleShift", "build_identity", "build_image_text", "find_channel_effects",
    "find_direction", "mapped", "optimize_latents", "read_effects", "read_mapper", "read_pair", "read_shift",
    "text_direction", "train_face_pair", "train_mapper", "train_pair",
]  # fmt: skip
