"""The image side of DAMSM (Xu et al., 2018, Sec. 3.2), and its losses over the batch of all processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.checkpoints import read_weights
from lit_gans.base.download import weights_file
from lit_gans.base.processes import of_all_processes, rank_and_world
from lit_gans.nn import BatchNorm
from lit_gans.official import apply_keys
from lit_gans.official.weights import read_published
from lit_gans.papers.attngan.losses import Matching, damsm_loss
from lit_gans.papers.attngan.official import OFFICIAL_KEYS
from lit_gans.papers.text.encoders import TextFeatures

ImageNetwork = Literal["inception", "small"]
INCEPTION_TRUNK = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "Mixed_5b", "Mixed_5c",
    "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c",
)  # fmt: skip
_POOLED_AFTER = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")
_REGIONS_AFTER = "Mixed_6e"
_INCEPTION_SHA256 = "0cc3c7bd"


# ---- image encoders --------------------------------------------------------------------------------------------------


class ImageEncoder(nn.Module, ABC):
    """images [N, 3, R, R] in [-1, 1] of any size -> regions [N, D, H, W], image [N, D], in the space of the captions.

    Images are scaled to `input_px` by plain bilinear interpolation.
    """

    input_px: int

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [N, 3, input_px, input_px] -> regions, image."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        size = (self.input_px, self.input_px)
        if images.shape[2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return self.encode(images)


class InceptionEncoder(ImageEncoder):
    """Inception v3, frozen, its 17 x 17 regions and its last average through a learned layer each (Sec. 3.2).

    The trunk never leaves evaluation mode. The official code trains the two layers with the trunk's batch norms in
    training mode, so that its statistics move: a checkpoint of it brings its own.
    """

    input_px = 299

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        from torchvision.models import inception_v3

        network = inception_v3(weights=None, init_weights=False, transform_input=False)  # images are in [-1, 1] already
        self.trunk = nn.ModuleDict({name: getattr(network, name) for name in INCEPTION_TRUNK}).requires_grad_(False)
        self.to_regions, self.to_image = nn.Conv2d(768, embed_dim, 1, bias=False), nn.Linear(2048, embed_dim)
        for layer in (self.to_regions, self.to_image):
            nn.init.uniform_(layer.weight, -0.1, 0.1)
        self.train()

    def train(self, mode: bool = True) -> InceptionEncoder:
        super().train(mode)
        self.trunk.eval()
        return self

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x, regions = images, None
        for name, layer in self.trunk.items():
            x = layer(x)
            if name in _POOLED_AFTER:
                x = F.max_pool2d(x, 3, 2)
            if name == _REGIONS_AFTER:
                regions = x
        return self.to_regions(regions), self.to_image(x.mean((2, 3)))  # 768 channels of 17 x 17, 2048 of 8 x 8

    def load_published(self, path: str | None = None) -> None:
        """Fills the trunk with torchvision's weights: the file `path`, the kept one, or downloaded.

        FileNotFoundError, ConnectionError without the file; ValueError for another.
        """
        from torchvision.models import Inception_V3_Weights

        url = Inception_V3_Weights.IMAGENET1K_V1.url
        hint = "or give model.init_args.image_weights its path; image_encoder 'small' needs none"
        file = weights_file(url, what="Inception v3", sha256_prefix=_INCEPTION_SHA256, path=path, hint=hint)
        published, ours = read_published(file), self.trunk.state_dict()
        missing = [name for name, t in ours.items() if name not in published or published[name].shape != t.shape]
        if missing:
            raise ValueError(
                f"{file} is not torchvision's Inception v3: {len(missing)} tensors such as {missing[0]} do not fit; "
                f"{url} has them"
            )
        self.trunk.load_state_dict({name: published[name] for name in ours})


class SmallEncoder(ImageEncoder):
    """A network of ours for small pictures, trained from scratch: regions of 8 x 8 at 64 pixels.

    It also sees where each pixel lies, since captions of drawn shapes name places.
    """

    def __init__(self, embed_dim: int, *, width: int = 32, input_px: int = 64) -> None:
        super().__init__()
        if input_px < 32 or input_px % 16:
            raise ValueError(f"image_px {input_px} is no multiple of 16 from 32, as the small encoder needs: use 64")
        self.input_px = input_px
        self.down = nn.Sequential(halved(5, width), halved(width, 2 * width), halved(2 * width, 4 * width))
        self.whole = halved(4 * width, 4 * width)
        self.to_regions = nn.Conv2d(4 * width, embed_dim, 1, bias=False)
        self.to_image = nn.Linear(4 * width * 16, embed_dim)
        ticks = (torch.arange(input_px) + 0.5) / input_px * 2 - 1
        self.register_buffer("places", torch.stack(torch.meshgrid(ticks, ticks, indexing="ij")), persistent=False)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        places = self.places.to(images.dtype).expand(len(images), -1, -1, -1)  # [2, R, R] -> [N, 2, R, R]
        h = self.down(torch.cat([images, places], dim=1))
        whole = F.adaptive_avg_pool2d(self.whole(h), 4)
        return self.to_regions(h), self.to_image(whole.flatten(1))  # whole [N, 4 width, 4, 4] -> [N, 64 width]


def halved(fan_in: int, fan_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(fan_in, fan_out, 4, 2, 1, bias=False), BatchNorm(fan_out), nn.LeakyReLU(0.2))


def build_image_encoder(kind: str, *, embed_dim: int, width: int, input_px: int) -> ImageEncoder:
    """The network "inception", which has a width and an input size of its own, or "small". ValueError for another."""
    if kind == "inception":
        return InceptionEncoder(embed_dim)
    if kind == "small":
        return SmallEncoder(embed_dim, width=width, input_px=input_px)
    raise ValueError(f"image_encoder is {kind!r}; it must be 'inception' (the paper's) or 'small'")


def load_image_encoder(encoder: ImageEncoder, path: str | Path) -> None:
    """Fills an `InceptionEncoder` from a file of AttnGAN's `image_encoder*.pth`.

    Released files are older than batch norm's count of batches, which nothing reads: it stays 0.
    ValueError, FileNotFoundError for another file.
    """
    if not isinstance(encoder, InceptionEncoder):
        raise ValueError(
            f"image_encoder_weights {path} is for image_encoder 'inception'; a small one comes with its run: give that "
            "as encoder_weights"
        )
    ours = encoder.state_dict()
    counts = {name: tensor for name, tensor in ours.items() if name.endswith("num_batches_tracked")}
    try:
        state = counts | apply_keys(read_weights(Path(path)), OFFICIAL_KEYS)
    except ValueError as error:
        raise ValueError(f"image_encoder_weights {path} is no image encoder of AttnGAN: {error}") from error
    sizes, wanted = ({name: tensor.shape for name, tensor in each.items()} for each in (state, ours))
    wrong = [name for name in sorted(sizes.keys() | wanted.keys()) if sizes.get(name) != wanted.get(name)]
    if wrong:
        raise ValueError(
            f"image_encoder_weights {path} does not fit in {len(wrong)} tensors such as {wrong[0]}: sentence_dim must "
            "be what it was trained with, 256 in the releases"
        )
    encoder.load_state_dict(state)


# ---- the losses over all processes -----------------------------------------------------------------------------------


def global_rows(x: Tensor) -> Tensor:
    """x [N, ...] of each process -> [world * N, ...], in their order; gradients reach this process's own rows alone."""
    rank, world = rank_and_world()
    if world == 1:
        return x
    parts = list(of_all_processes(x.detach()).chunk(world))
    parts[rank] = x
    return torch.cat(parts)


def processes() -> int:
    """How many there are."""
    return rank_and_world()[1]


def global_damsm_loss(
    regions: Tensor,
    image: Tensor,
    text: TextFeatures,
    *,
    classes: Tensor | None,
    gammas: tuple[float, float, float],
) -> Matching:
    """`damsm_loss` of the pairs of all processes: every process has the same value.

    Gradients are those of this process's own rows. Averaging over processes, as at an optimiser's step, then divides
    by `processes()`, by which the loss is to be multiplied before the backward pass.
    """
    assert text.words is not None and text.mask is not None
    rows = (global_rows(t.float()) for t in (regions, image, text.words, text.sentence))
    mask = global_rows(text.mask.to(torch.uint8)).bool()
    classes = None if classes is None else global_rows(classes)
    return damsm_loss(*rows, mask, classes=classes, gammas=gammas)
