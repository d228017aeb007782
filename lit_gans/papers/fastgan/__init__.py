"""FastGAN (Liu et al., 2021), https://arxiv.org/abs/2101.04775: a small generator, and how few images train it."""

from lit_gans.papers.fastgan.networks import ConditionalUpBlock, Generator, SkipExcitation, UpBlock
from lit_gans.papers.fastgan.official import OFFICIAL_KEYS, from_official_config

__all__ = ["OFFICIAL_KEYS", "ConditionalUpBlock", "Generator", "SkipExcitation", "UpBlock", "from_official_config"]

for _class in (ConditionalUpBlock, Generator, SkipExcitation, UpBlock):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
