"""FastGAN (Liu et al., 2021), https://arxiv.org/abs/2101.04775: a small generator, and how few images train it."""

from lit_gans.papers.fastgan.networks import ConditionalUpBlock, Discriminator, Generator, SkipExcitation, UpBlock
from lit_gans.papers.fastgan.official import OFFICIAL, OFFICIAL_KEYS, from_official_config
from lit_gans.papers.fastgan.training import FastGAN

__all__ = [
    "OFFICIAL", "OFFICIAL_KEYS", "ConditionalUpBlock", "Discriminator", "FastGAN", "Generator", "SkipExcitation",
    "UpBlock", "from_official_config",
]  # fmt: skip

for _class in (ConditionalUpBlock, Discriminator, FastGAN, Generator, SkipExcitation, UpBlock):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
