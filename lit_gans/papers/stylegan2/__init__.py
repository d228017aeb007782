"""StyleGAN2 (Karras et al., 2020a), https://arxiv.org/abs/1912.04958, configuration F, and its training with few images
and adaptive augmentation (ADA; Karras et al., 2020b), https://arxiv.org/abs/2006.06676."""

from lit_gans.papers.stylegan2.networks import (
    Discriminator,
    Generator,
    MappingNetwork,
    SynthesisNetwork,
)
from lit_gans.papers.stylegan2.official import OFFICIAL, OFFICIAL_KEYS, from_official_config
from lit_gans.papers.stylegan2.training import StyleGAN2

__all__ = [
    "OFFICIAL", "OFFICIAL_KEYS", "Discriminator", "Generator", "MappingNetwork", "StyleGAN2", "SynthesisNetwork",
    "from_official_config",
]  # fmt: skip

for _class in (Discriminator, Generator, MappingNetwork, StyleGAN2, SynthesisNetwork):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
