"""One file per paper, each to be read beside its PDF."""

from lit_gans.papers.age_cgan import AgeCGAN
from lit_gans.papers.attngan import DAMSM, AttnGAN
from lit_gans.papers.biggan import BigGAN, BigGANDeep
from lit_gans.papers.cgan import CGAN
from lit_gans.papers.cyclegan import CycleGAN
from lit_gans.papers.dcgan import DCGAN
from lit_gans.papers.fastgan import FastGAN
from lit_gans.papers.gan import VanillaGAN
from lit_gans.papers.joint_embedding import JointEmbedding
from lit_gans.papers.msg_gan import MSGGAN
from lit_gans.papers.pggan import PGGAN
from lit_gans.papers.pix2pix import Pix2Pix
from lit_gans.papers.pix2pixhd import Pix2PixHD
from lit_gans.papers.projected_gan import ProjectedGAN
from lit_gans.papers.r3gan import R3GAN
from lit_gans.papers.stackgan import StackGAN
from lit_gans.papers.stackgan2 import StackGAN2
from lit_gans.papers.stylegan1 import StyleGAN1
from lit_gans.papers.stylegan2 import StyleGAN2
from lit_gans.papers.stylegan3 import StyleGAN3
from lit_gans.papers.stylegan_t import StyleGANT
from lit_gans.papers.stylegan_xl import StyleGANXL
from lit_gans.papers.wgan_gp import WGAN, WGANGP

__all__ = [
    "CGAN",
    "DAMSM",
    "DCGAN",
    "MSGGAN",
    "PGGAN",
    "R3GAN",
    "WGAN",
    "WGANGP",
    "AgeCGAN",
    "AttnGAN",
    "BigGAN",
    "BigGANDeep",
    "CycleGAN",
    "FastGAN",
    "JointEmbedding",
    "Pix2Pix",
    "Pix2PixHD",
    "ProjectedGAN",
    "StackGAN",
    "StackGAN2",
    "StyleGAN1",
    "StyleGAN2",
    "StyleGAN3",
    "StyleGANT",
    "StyleGANXL",
    "VanillaGAN",
]
