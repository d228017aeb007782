"""What is done to images before a discriminator sees them."""

from lit_gans.augment.ada import PRESETS, AdaptiveAugment
from lit_gans.augment.diffaug import DiffAugment

__all__ = ["PRESETS", "AdaptiveAugment", "DiffAugment"]
