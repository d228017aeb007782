"""BigGAN (Brock et al., 2019), https://arxiv.org/abs/1809.11096: images of classes from large batches and networks."""

from lit_gans.papers.biggan.deep import DeepDiscriminator, DeepGenerator
from lit_gans.papers.biggan.layers import Attention
from lit_gans.papers.biggan.networks import Discriminator, Generator
from lit_gans.papers.biggan.official import HUB_KEYS, OFFICIAL, OFFICIAL_KEYS
from lit_gans.papers.biggan.training import BigGAN, BigGANDeep, LargeScaleGAN

__all__ = [
    "HUB_KEYS", "OFFICIAL", "OFFICIAL_KEYS", "Attention", "BigGAN", "BigGANDeep", "DeepDiscriminator", "DeepGenerator",
    "Discriminator", "Generator", "LargeScaleGAN",
]  # fmt: skip

for _class in (
    Attention, BigGAN, BigGANDeep, LargeScaleGAN, DeepDiscriminator, DeepGenerator, Discriminator, Generator,
):  # fmt: skip
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
