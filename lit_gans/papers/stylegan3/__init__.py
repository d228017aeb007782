"""StyleGAN3 (Karras et al., 2021), https://arxiv.org/abs/2106.12423: alias-free, configurations T and R."""

from lit_gans.papers.stylegan3.networks import Generator, SynthesisInput, SynthesisNetwork
from lit_gans.papers.stylegan3.official import OFFICIAL, OFFICIAL_KEYS, from_official_config
from lit_gans.papers.stylegan3.training import StyleGAN3

__all__ = [
    "OFFICIAL", "OFFICIAL_KEYS", "Generator", "StyleGAN3", "SynthesisInput", "SynthesisNetwork", "from_official_config",
]  # fmt: skip

for _class in (Generator, StyleGAN3, SynthesisInput, SynthesisNetwork):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
