"""StyleGAN-T (Sauer et al., 2023), https://arxiv.org/abs/2301.09515: text to image by one pass of a GAN."""

from lit_gans.papers.stylegan_t.discriminators import Discriminator, Head, LocalBatchNorm
from lit_gans.papers.stylegan_t.features import TokenNetwork
from lit_gans.papers.stylegan_t.guidance import CLIPGuide, JointGuide
from lit_gans.papers.stylegan_t.networks import Generator, MappingNetwork, SynthesisNetwork
from lit_gans.papers.stylegan_t.official import HEAD_KEYS, OFFICIAL, OFFICIAL_KEYS, from_official_config
from lit_gans.papers.stylegan_t.training import StyleGANT

__all__ = [
    "HEAD_KEYS", "OFFICIAL", "OFFICIAL_KEYS", "CLIPGuide", "Discriminator", "Generator", "Head", "JointGuide",
    "LocalBatchNorm", "MappingNetwork", "StyleGANT", "SynthesisNetwork", "TokenNetwork", "from_official_config",
]  # fmt: skip

for _class in (
    CLIPGuide, Discriminator, Generator, Head, JointGuide, LocalBatchNorm, MappingNetwork, StyleGANT, SynthesisNetwork,
    TokenNetwork,
):  # fmt: skip
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
