"""What StyleGAN-T's discriminators look through (Sauer et al., 2023, Sec. 3.2): the tokens of a frozen network."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from lit_gans.papers.projected_gan.features import FeatureNetwork, Tokens

DINO = "vit_small_patch16_224.dino"


class TokenNetwork(FeatureNetwork):
    """images [N, 1 or 3, H, W] in [-1, 1] -> tokens [N, C, T] of several depths; never trained, always evaluating.

    Of a vision transformer those of the patches after each quarter of the blocks, then those that enter the first, each
    with the class token added to it: five times, as published for DINO. Of a convolutional network, which is ours, the
    positions of its four maps, row by row. Images are resized to `px` by area.

    `channels` and `tokens` are C and T of each. Weights, fingerprint and errors: see `FeatureNetwork`.
    """

    def __init__(self, name: str, *, px: int, **options: Any) -> None:
        super().__init__(name, px=px, normalise=True, **options)
        self.tokens = [size**2 for size in self.sizes]
        if self.maps is not None:  # the random maps that other discriminators make of tokens
            self.maps, self.channels, self.tokens = None, [self.channels[-1]] * 5, [self.tokens[2]] * 5

    def forward(self, images: Tensor) -> list[Tensor]:
        self.load()
        assert self.network is not None
        x = images.expand(-1, 3, -1, -1)
        if x.shape[2:] != (self.px, self.px):
            x = interpolate(x, (self.px, self.px), mode="area")
        x = (x - self.mean) / self.std
        if isinstance(self.network, Tokens):
            prefix = self.network.network.num_prefix_tokens
            return [read_out(tokens, prefix=prefix) for tokens in tokens_of(self.network, x)]
        return [x.flatten(2) for x in self.network(x)]


def tokens_of(cut: Tokens, images: Tensor) -> list[Tensor]:
    """images [N, 3, H, W] -> [N, prefix + T, C] after each of the cut's blocks, then what enters the first."""
    network: Any = cut.network
    first = network._pos_embed(network.patch_embed(images))
    x, found = network.norm_pre(network.patch_drop(first)), []
    for number, block in enumerate(network.blocks):
        x = block(x)
        if number in cut.blocks:
            found.append(x)
    return [*found, first]


def read_out(tokens: Tensor, *, prefix: int) -> Tensor:
    """tokens [N, prefix + T, C] -> [N, C, T]: to each patch's the mean of those of no patch is added."""
    return (tokens[:, prefix:] + tokens[:, :prefix].mean(1, keepdim=True)).mT.contiguous()

