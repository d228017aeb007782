"""StyleGAN-XL (Sauer et al., 2022), https://arxiv.org/abs/2202.00273: StyleGAN3 for many classes, stage by stage."""

from lit_gans.papers.stylegan_xl.discriminators import Classifier, Condition, Discriminator
from lit_gans.papers.stylegan_xl.networks import Generator, MappingNetwork, SynthesisNetwork
from lit_gans.papers.stylegan_xl.official import HEAD_KEYS, OFFICIAL, OFFICIAL_KEYS, from_official_config
from lit_gans.papers.stylegan_xl.training import StyleGANXL

__all__ = [
    "HEAD_KEYS", "OFFICIAL", "OFFICIAL_KEYS", "Classifier", "Condition", "Discriminator", "Generator",
    "MappingNetwork", "StyleGANXL", "SynthesisNetwork", "from_official_config",
]  # fmt: skip

for _class in (Classifier, Condition, Discriminator, Generator, MappingNetwork, StyleGANXL, SynthesisNetwork):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
