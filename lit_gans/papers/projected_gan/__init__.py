"""Projected GAN (Sauer et al., 2021), https://arxiv.org/abs/2111.01007: discriminators that look through a frozen
network."""

from lit_gans.papers.projected_gan.discriminators import Condition, Discriminator, MultiScale
from lit_gans.papers.projected_gan.features import FeatureNetwork
from lit_gans.papers.projected_gan.projector import Projector
from lit_gans.papers.projected_gan.training import ProjectedGAN

__all__ = ["Condition", "Discriminator", "FeatureNetwork", "MultiScale", "ProjectedGAN", "Projector"]

for _class in (Condition, Discriminator, FeatureNetwork, MultiScale, ProjectedGAN, Projector):
    _class.__module__ = __name__  # what checkpoints and configs name does not depend on how the folder is cut
