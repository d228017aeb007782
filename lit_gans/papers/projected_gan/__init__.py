"""Projected GAN (Sauer et al., 2021), https://arxiv.org/abs/2111.01007: discriminators that look through a frozen
network."""

from lit_gans.papers.projected_gan.discriminators import Condition, Discriminator, MultiScale
from lit_gans.papers.projected_gan.features import FeatureNetwork
from lit_gans.papers.projected_gan.projector import Projector

__all__ = ["Condition", "Discriminator", "FeatureNetwork", "MultiScale", "Projector"]
