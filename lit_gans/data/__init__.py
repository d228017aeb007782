"""Data modules: what a GAN is trained on, and the order in which it sees it."""

from lit_gans.data.aged import AgedFaces
from lit_gans.data.base import ImageData
from lit_gans.data.captioned import CaptionedSet, CaptionStream, TextData
from lit_gans.data.captioned_files import CaptionFolder, CocoCaptions
from lit_gans.data.captions import Vocabulary
from lit_gans.data.cifar import CIFAR10
from lit_gans.data.cub import CUB
from lit_gans.data.digits import Digits
from lit_gans.data.ffhq import FFHQ
from lit_gans.data.flickr8k import Flickr8k
from lit_gans.data.images import Images
from lit_gans.data.mixtures import grid, ring, sample_mixture
from lit_gans.data.mnist import KMNIST, MNIST, FashionMNIST
from lit_gans.data.paired import Paired
from lit_gans.data.sets import ImageSet, TensorSet
from lit_gans.data.shapes import Shapes
from lit_gans.data.shapes_captions import ShapeCaptions
from lit_gans.data.shapes_domains import ShapeDomains, ShapePairs
from lit_gans.data.shards import Shards
from lit_gans.data.stacked_mnist import StackedMNIST
from lit_gans.data.stream import Stream
from lit_gans.data.translation import Domain, TranslationData, TranslationSet
from lit_gans.data.unpaired import Unpaired

__all__ = [
    "CIFAR10",
    "CUB",
    "FFHQ",
    "KMNIST",
    "MNIST",
    "AgedFaces",
    "CaptionFolder",
    "CaptionStream",
    "CaptionedSet",
    "CocoCaptions",
    "Digits",
    "Domain",
    "FashionMNIST",
    "Flickr8k",
    "ImageData",
    "ImageSet",
    "Images",
    "Paired",
    "ShapeCaptions",
    "ShapeDomains",
    "ShapePairs",
    "Shapes",
    "Shards",
    "StackedMNIST",
    "Stream",
    "TensorSet",
    "TextData",
    "TranslationData",
    "TranslationSet",
    "Unpaired",
    "Vocabulary",
    "grid",
    "ring",
    "sample_mixture",
]
