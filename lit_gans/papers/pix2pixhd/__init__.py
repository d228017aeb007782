"""pix2pixHD (Wang et al., 2018), https://arxiv.org/abs/1711.11585: photographs of up to 2048 pixels from label maps."""

from lit_gans.papers.pix2pixhd.losses import PerceptualLoss
from lit_gans.papers.pix2pixhd.networks import Encoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator
from lit_gans.papers.pix2pixhd.official import OFFICIAL, OFFICIAL_KEYS
from lit_gans.papers.pix2pixhd.training import Pix2PixHD

__all__ = [
    "OFFICIAL", "OFFICIAL_KEYS", "Encoder", "GlobalGenerator", "LocalEnhancer", "MultiscaleDiscriminator",
    "PerceptualLoss", "Pix2PixHD",
]  # fmt: skip

for _class in (Encoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator, PerceptualLoss, Pix2PixHD):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
