"""Projected GAN (Sauer et al., 2021), https://arxiv.org/abs/2111.01007: discriminators that look through a frozen
network."""

from lit_gans.papers.projected_gan.discriminators import Condition, Discriminator, MultiScale
from lit_gans.papers.projected_gan.features import FeatureNetwork
from lit_gans.papers.projected_gan.official import OFFICIAL, OFFICIAL_KEYS, from_official_config
from lit_gans.papers.projected_gan.projector import Projector
from lit_gans.papers.projected_gan.training import ProjectedGAN

__all__ = [
    "OFFICIAL", "OFFICIAL_KEYS", "Condition", "Discriminator", "FeatureNetwork", "MultiScale", "ProjectedGAN",
    "Projector", "from_official_config",
]  # fmt: skip

for _class in (Condition, Discriminator, FeatureNetwork, MultiScale, ProjectedGAN, Projector):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
