"""StyleGAN-XL (Sauer et al., 2022), https://arxiv.org/abs/2202.00273: StyleGAN3 for many classes, stage by stage."""

from lit_gans.papers.stylegan_xl.networks import Generator, MappingNetwork, SynthesisNetwork
from lit_gans.papers.stylegan_xl.official import OFFICIAL, OFFICIAL_KEYS, from_official_config

__all__ = ["OFFICIAL", "OFFICIAL_KEYS", "Generator", "MappingNetwork", "SynthesisNetwork", "from_official_config"]

for _class in (Generator, MappingNetwork, SynthesisNetwork):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
