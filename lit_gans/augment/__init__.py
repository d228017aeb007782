"""What is done to images before a discriminator sees them."""

from lit_gans.augment.ada import PRESETS, AdaptiveAugment
from lit_gans.augment.diffaug import DiffAugment
from lit_gans.augment.image_pool import ImagePool, pool_buffers

__all__ = ["PRESETS", "AdaptiveAugment", "DiffAugment", "ImagePool", "pool_buffers"]
