"""Data modules: what a GAN is trained on, and the order in which it sees it."""

from lit_gans.data.base import ImageData, ImageSet, TensorSet
from lit_gans.data.digits import Digits
from lit_gans.data.mnist import KMNIST, MNIST, FashionMNIST
from lit_gans.data.stream import Stream

__all__ = ["MNIST", "KMNIST", "Digits", "FashionMNIST", "ImageData", "ImageSet", "Stream", "TensorSet"]
