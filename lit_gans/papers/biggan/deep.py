"""BigGAN-deep's networks (Brock et al., 2019, App. B, Figure 16): narrower and more layers, plain shortcuts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from lit_gans.papers.biggan.layers import (
    OUT_EPS,
    Attention,
    BatchStatistics,
    Init,
    Layers,
    Norm,
    Norms,
    WeightNorm,
    initialise,
)
from lit_gans.papers.biggan.networks import (
    DISCRIMINATOR_MAPS,
    GENERATOR_MAPS,
    Embedded,
    Judge,
    check_attention,
    discriminator_sides,
    generator_sides,
    halvings,
    maps,
)

NARROWER = 4  # times, between a block's first and last convolution


def check_depth(depth: int) -> None:
    if depth < 1:
        raise ValueError(f"depth {depth} leaves no block at each resolution; published is 2")


class DeepUpBlock(nn.Module):
    """x [N, I, R, R], condition c [N, E] -> [N, O, R, R] or, if `up`, of twice the side (Figure 16b)."""

    def __init__(self, fan_in: int, fan_out: int, *, up: bool, layers: Layers, norms: Norms) -> None:
        super().__init__()
        hidden = max(fan_in // NARROWER, 1)
        self.up, self.fan_out = up, fan_out
        self.norm1 = norms(fan_in)
        self.norm2, self.norm3, self.norm4 = (norms(hidden) for _ in range(3))
        self.conv1 = layers.conv(fan_in, hidden, 1)
        self.conv2, self.conv3 = (layers.conv(hidden, hidden) for _ in range(2))
        self.conv4 = layers.conv(hidden, fan_out, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        y = relu(self.norm2(self.conv1(relu(self.norm1(x, c))), c))
        x = x[:, : self.fan_out]  # the shortcut drops what is too much
        if self.up:
            y, x = (interpolate(each, scale_factor=2) for each in (y, x))
        y = self.conv3(relu(self.norm3(self.conv2(y), c)))
        return self.conv4(relu(self.norm4(y, c))) + x


class DeepGenerator(Embedded):
    """z [N, Z], classes [N] (or weights of them [N, C]) -> images [N, 3, R, R] in [-1, 1].

    The class's embedding and the whole latent, one behind the other, go into the first layer and every norm.

    Args:
        depth: blocks at each resolution, of which the last enlarges.
        rgb_maps: what the last convolution makes, of which the image is the first; None: no more than that.
        statistics: at how many truncations the norms have statistics, see `StatisticsTable`; 0: running statistics.
        out_eps: of the last norm. others: see `Generator`.
    """

    def __init__(
        self,
        *,
        resolution: int = 128,
        channels: int = 3,
        z_dim: int = 128,
        num_classes: int = 1000,
        width: int = 128,
        depth: int = 2,
        attention: Sequence[int] = (64,),
        shared_dim: int = 128,
        weight_norm: WeightNorm = "spectral",
        sn_eps: float = 1e-6,
        sn_vectors: int = 1,
        sn_steps: int = 1,
        norm: Norm = "batch",
        bn_eps: float = 1e-5,
        out_eps: float = OUT_EPS,
        biased: bool = False,
        rgb_maps: int | None = None,
        statistics: int = 0,
        init: Init = "orthogonal",
    ) -> None:
        super().__init__()
        check_depth(depth)
        w, sides = maps(GENERATOR_MAPS, resolution, width=width), generator_sides(resolution)
        self.resolution, self.channels, self.num_classes, self.z_dim = resolution, channels, num_classes, z_dim
        embed_dim = (shared_dim or z_dim) if num_classes else 0
        layers = Layers(weight_norm, sn_eps, sn_vectors, sn_steps)
        norms = Norms(layers, norm, embed_dim + z_dim, 0, bn_eps, out_eps, biased, statistics)
        self.shared = nn.Embedding(num_classes, embed_dim) if embed_dim else None
        self.linear = layers.linear(embed_dim + z_dim, w[0] * 16)
        attention, self.blocks = check_attention(attention, sides), nn.ModuleList()
        for (fan_in, fan_out), side in zip(itertools.pairwise(w), sides, strict=True):
            for place in range(depth):  # the first of several keeps its width
                after = fan_out if place or depth == 1 else fan_in
                block = DeepUpBlock(fan_in, after, up=place == depth - 1, layers=layers, norms=norms)
                self.blocks.append(nn.ModuleList([block]))
                fan_in = after
            if side in attention:
                self.blocks[-1].append(Attention(fan_out, layers))
        self.norm, self.to_rgb = norms.out(w[-1]), layers.conv(w[-1], rgb_maps or channels)
        initialise(self, init)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        c = self.embedded(labels)
        c = z if c is None else torch.cat([c, z], dim=1)
        x = self.linear(c).unflatten(1, (-1, 4, 4))
        for block in itertools.chain.from_iterable(self.blocks):
            x = block(x, c)
        return torch.tanh(self.to_rgb(relu(self.norm(x)))[:, : self.channels])

    def idle_biases(self) -> Iterator[nn.Parameter]:
        """See `Generator.idle_biases`; here three of four convolutions come right before a norm."""
        blocks = list(itertools.chain.from_iterable(self.blocks))
        for place, block in enumerate(blocks):
            if isinstance(block, DeepUpBlock) and isinstance(block.norm1.norm, BatchStatistics):
                seen = any(isinstance(later, Attention) for later in blocks[place:])
                layers = [block.conv1, block.conv2, block.conv3]
                yield from (layer.bias for layer in (layers if seen else [*layers, block.conv4]))


class DeepDownBlock(nn.Module):
    """x [N, I, R, R] -> [N, O, R, R] or, if `down`, of half the side (Figure 16c).

    The shortcut keeps x and, where more goes out, adds maps of a 1x1 convolution behind it.
    """

    def __init__(self, fan_in: int, fan_out: int, *, down: bool, layers: Layers) -> None:
        super().__init__()
        hidden = max(fan_out // NARROWER, 1)
        self.down = down
        self.conv1 = layers.conv(fan_in, hidden, 1)
        self.conv2, self.conv3 = (layers.conv(hidden, hidden) for _ in range(2))
        self.conv4 = layers.conv(hidden, fan_out, 1)
        self.shortcut = layers.conv(fan_in, fan_out - fan_in, 1) if fan_out != fan_in else None

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.conv3(relu(self.conv2(relu(self.conv1(relu(x)))))))
        if self.down:
            y, x = avg_pool2d(y, 2), avg_pool2d(x, 2)
        return self.conv4(y) + (x if self.shortcut is None else torch.cat([x, self.shortcut(x)], dim=1))


class DeepDiscriminator(Judge):
    """Images [N, 3, R, R], classes [N] -> logits [N].

    Args:
        depth: blocks at each resolution, of which the first halves. others: see `Generator`.
    """

    def __init__(
        self,
        *,
        resolution: int = 128,
        channels: int = 3,
        num_classes: int = 1000,
        width: int = 128,
        depth: int = 2,
        attention: Sequence[int] = (64,),
        weight_norm: WeightNorm = "spectral",
        sn_eps: float = 1e-6,
        sn_vectors: int = 1,
        sn_steps: int = 1,
        init: Init = "orthogonal",
    ) -> None:
        super().__init__()
        check_depth(depth)
        w, layers = maps(DISCRIMINATOR_MAPS, resolution, width=width), Layers(weight_norm, sn_eps, sn_vectors, sn_steps)
        sides = discriminator_sides(resolution)[: len(w) - 1]
        self.from_rgb = layers.conv(channels, w[0])
        attention, self.blocks = check_attention(attention, sides), nn.ModuleList()
        for number, ((fan_in, fan_out), side) in enumerate(zip(itertools.pairwise(w), sides, strict=True)):
            first = DeepDownBlock(fan_in, fan_out, down=number < halvings(resolution), layers=layers)
            others = [DeepDownBlock(fan_out, fan_out, down=False, layers=layers) for _ in range(depth - 1)]
            looking = [Attention(fan_out, layers)] if side in attention else []
            self.blocks.append(nn.ModuleList([first, *others, *looking]))
        self.add_end(w[-1], num_classes, layers)
        initialise(self, init)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.from_rgb(images)
        for block in itertools.chain.from_iterable(self.blocks):
            x = block(x)
        return self.judged(x, labels)
