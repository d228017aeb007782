"""AttnGAN (Xu et al., 2018), https://arxiv.org/abs/1711.10485: pictures of captions, drawn word by word."""

from lit_gans.papers.attngan.damsm import DAMSM
from lit_gans.papers.attngan.maps import WordMaps, attention_sheet, save_attention_sheet
from lit_gans.papers.attngan.matching import InceptionEncoder, SmallEncoder
from lit_gans.papers.attngan.networks import Discriminator, Discriminators, Generator, WordAttention
from lit_gans.papers.attngan.official import OFFICIAL_KEYS, from_official_generator
from lit_gans.papers.attngan.retrieval import r_precision_of
from lit_gans.papers.attngan.training import AttnGAN

__all__ = [
    "DAMSM", "OFFICIAL_KEYS", "AttnGAN", "Discriminator", "Discriminators", "Generator", "InceptionEncoder",
    "SmallEncoder", "WordAttention", "WordMaps", "attention_sheet", "from_official_generator",
    "r_precision_of", "save_attention_sheet",
]  # fmt: skip

for _class in (DAMSM, AttnGAN, Discriminator, Discriminators, Generator, InceptionEncoder, SmallEncoder, WordAttention):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
