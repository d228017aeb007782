"""BigGAN's networks (Brock et al., 2019, App. B, Figure 15), and by their parts those of SA-GAN and SN-GAN."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from lit_gans.papers.biggan.layers import (
    Attention,
    BatchStatistics,
    Init,
    Layers,
    Norm,
    Norms,
    WeightNorm,
    initialise,
)

# Multiples of the width: of the generator's maps at 4 px and after each doubling (Tables 4 to 6, and the official code
# for 32 and 64 px); of the discriminator's maps after each of its blocks.
GENERATOR_MAPS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
DISCRIMINATOR_MAPS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}


def maps(table: dict[int, tuple[int, ...]], resolution: int, *, width: int) -> list[int]:
    """Feature maps at each stage. ValueError for a resolution that has none."""
    if resolution not in table:
        raise ValueError(f"resolution {resolution} is not one of {', '.join(map(str, table))}, which BigGAN has")
    if width < 1:
        raise ValueError(f"width {width} is below 1; published are 96, 128 (deep) and on CIFAR-10 64")
    return [width * multiple for multiple in table[resolution]]


def generator_sides(resolution: int) -> list[int]:
    """Pixels after each doubling."""
    return [2**level for level in range(3, resolution.bit_length())]


def discriminator_sides(resolution: int) -> list[int]:
    """What the official code calls the pixels after each block: at 32 px all four are said to be of 16."""
    if resolution == 32:
        return [16] * 4
    return [max(resolution // 2**block, 4) for block in range(1, len(DISCRIMINATOR_MAPS[resolution]) + 1)]


def halvings(resolution: int) -> int:
    """How many of the discriminator's blocks, from the image on, halve the side."""
    return 2 if resolution == 32 else resolution.bit_length() - 3


def check_attention(attention: Sequence[int], sides: Sequence[int]) -> list[int]:
    """ValueError for a side that no block has."""
    if missing := [side for side in attention if side not in sides]:
        raise ValueError(
            f"attention at {missing[0]} px, and the blocks end at {', '.join(map(str, dict.fromkeys(sides)))} px: "
            "choose of these, or [] for none"
        )
    return list(attention)


# ---- classes and latents ---------------------------------------------------------------------------------------------


class Embedded(nn.Module):
    """What both generators do with classes: a table that all norms share, or none of it."""

    shared: nn.Embedding | None
    num_classes: int

    def embedded(self, labels: Tensor | None) -> Tensor | None:
        """Classes [N], or weights of classes [N, C] of which a mixture is drawn, -> [N, E]; None without classes.

        Of norms with tables of their own, which take no mixtures, the classes as they are.
        """
        if not self.num_classes:
            return None
        if labels is None:
            raise ValueError(f"this generator is conditional: give labels [N] of its {self.num_classes} classes")
        if labels.is_floating_point():
            if self.shared is None:
                raise ValueError("mixtures of classes need an embedding that all norms share: give classes [N]")
            return labels @ self.shared.weight
        return labels if self.shared is None else self.shared(labels)


# ---- the generator ---------------------------------------------------------------------------------------------------


class UpBlock(nn.Module):
    """x [N, I, R, R], condition c -> [N, O, 2 R, 2 R] (Figure 15b)."""

    def __init__(self, fan_in: int, fan_out: int, *, layers: Layers, norms: Norms) -> None:
        super().__init__()
        self.norm1, self.norm2 = norms(fan_in), norms(fan_out)
        self.conv1, self.conv2 = layers.conv(fan_in, fan_out), layers.conv(fan_out, fan_out)
        self.shortcut = layers.conv(fan_in, fan_out, 1)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        y = self.conv1(interpolate(relu(self.norm1(x, c)), scale_factor=2))
        # The authors enlarge before the 1x1 convolution, which commutes with it: convolve the small map.
        return self.conv2(relu(self.norm2(y, c))) + interpolate(self.shortcut(x), scale_factor=2)


class Generator(Embedded):
    """z [N, Z], classes [N] (or weights of them [N, C]) -> images [N, 3, R, R] in [-1, 1].

    Args:
        resolution: 32, 64, 128, 256 or 512.
        z_dim: of the latent; of a hierarchical one as much as its equal parts take, which is `self.z_dim`.
        num_classes: 0 for an unconditional generator.
        width: feature maps are multiples of it.
        attention: sides in px of the maps that attention looks at.
        shared: one embedding of classes for all norms, of which their gains and shifts are linear (Sec. 3). Without it
            each norm has a table of its own, as in SN-GAN.
        shared_dim: of that embedding; 0 for that of the latent.
        hierarchical: the latent is cut into parts: the first makes the map at 4 px, each further one goes with the
            class into the norms of a block (Sec. 3).
        weight_norm, sn_eps, sn_vectors, sn_steps: of weights, see `Layers`.
        norm: "batch", "instance" or "none", of the blocks. bn_eps: of theirs. biased: see `BatchStatistics`.
        init: "orthogonal" (Sec. 3), "normal" of deviation 0.02, "xavier".
    """

    def __init__(
        self,
        *,
        resolution: int = 128,
        channels: int = 3,
        z_dim: int = 120,
        num_classes: int = 1000,
        width: int = 96,
        attention: Sequence[int] = (64,),
        shared: bool = True,
        shared_dim: int = 128,
        hierarchical: bool = True,
        weight_norm: WeightNorm = "spectral",
        sn_eps: float = 1e-6,
        sn_vectors: int = 1,
        sn_steps: int = 1,
        norm: Norm = "batch",
        bn_eps: float = 1e-5,
        biased: bool = False,
        init: Init = "orthogonal",
    ) -> None:
        super().__init__()
        w, sides = maps(GENERATOR_MAPS, resolution, width=width), generator_sides(resolution)
        if hierarchical and num_classes and not shared:
            raise ValueError("hierarchical latents go into norms beside the shared embedding: set shared, or neither")
        self.resolution, self.channels, self.num_classes = resolution, channels, num_classes
        self.part = z_dim // len(w) if hierarchical else 0
        if hierarchical and not self.part:
            raise ValueError(f"z_dim {z_dim} does not give each of {len(w)} parts a number: use {len(w)} or more")
        self.z_dim = self.part * len(w) if hierarchical else z_dim
        embed_dim = (shared_dim or z_dim) if num_classes and shared else 0
        layers = Layers(weight_norm, sn_eps, sn_vectors, sn_steps)
        tables = num_classes if num_classes and not shared else 0
        norms = Norms(layers, norm, embed_dim + self.part, tables, bn_eps, biased=biased)
        self.shared = nn.Embedding(num_classes, embed_dim) if embed_dim else None
        self.linear = layers.linear(self.part or z_dim, w[0] * 16)
        attention = check_attention(attention, sides)
        self.blocks = nn.ModuleList()
        for (fan_in, fan_out), side in zip(itertools.pairwise(w), sides, strict=True):
            looking = [Attention(fan_out, layers)] if side in attention else []
            self.blocks.append(nn.ModuleList([UpBlock(fan_in, fan_out, layers=layers, norms=norms), *looking]))
        self.norm, self.to_rgb = norms.out(w[-1]), layers.conv(w[-1], channels)
        initialise(self, init)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        c, parts = self.embedded(labels), z.split(self.part, dim=1) if self.part else (z,)
        conditions = [part if c is None else torch.cat([c, part], dim=1) for part in parts[1:]]
        x = self.linear(parts[0]).unflatten(1, (-1, 4, 4))
        for stage, condition in zip(self.blocks, conditions or [c] * len(self.blocks), strict=True):
            for block in stage:
                x = block(x, condition)
        return torch.tanh(self.to_rgb(relu(self.norm(x))))

    def idle_biases(self) -> Iterator[nn.Parameter]:
        """Those that nothing depends on: a norm takes the mean of what they add to.

        That is so of a block's first convolution, and of what its other two add to maps, for these go through norms
        and 1x1 shortcuts alone, as far as no attention looks at them.
        """
        blocks = [block for stage in self.blocks for block in stage]
        for place, block in enumerate(blocks):
            if isinstance(block, UpBlock) and isinstance(block.norm1.norm, BatchStatistics):
                seen = any(isinstance(later, Attention) for later in blocks[place:])
                layers = [block.conv1] if seen else [block.conv1, block.conv2, block.shortcut]
                yield from (layer.bias for layer in layers)


# ---- the discriminator -----------------------------------------------------------------------------------------------


class DownBlock(nn.Module):
    """x [N, I, R, R] -> [N, O, R, R], or half of the side (Figure 15c).

    first: x is the image, which no rectifier comes before. wide: the maps between the convolutions are as many as go
    out; else, as in SN-GAN, as many as come in.
    """

    def __init__(self, fan_in: int, fan_out: int, *, layers: Layers, down: bool, first: bool, wide: bool) -> None:
        super().__init__()
        hidden = fan_out if wide else fan_in
        self.down, self.first = down, first
        self.conv1, self.conv2 = layers.conv(fan_in, hidden), layers.conv(hidden, fan_out)
        self.shortcut = layers.conv(fan_in, fan_out, 1) if down or fan_in != fan_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(relu(self.conv1(x if self.first else relu(x))))
        if self.down:
            y, x = avg_pool2d(y, 2), avg_pool2d(x, 2)
        # The authors' blocks but the first pool after the 1x1 convolution, with which means commute.
        return y + (x if self.shortcut is None else self.shortcut(x))


class Judge(nn.Module):
    """The end of both discriminators: sums over places, a linear layer, and the projection onto the class.

    Miyato and Koyama, 2018, Eq. 3.
    """

    def add_end(self, width: int, num_classes: int, layers: Layers) -> None:
        self.num_classes = num_classes
        self.linear = layers.linear(width, 1)
        self.embed = layers.embedding(num_classes, width) if num_classes else None

    def judged(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Maps [N, C, H, W] -> logits [N]."""
        features = relu(x).sum((2, 3))  # [N, C, H, W] -> [N, C]
        logits = self.linear(features).flatten()
        if self.embed is None:
            return logits
        if labels is None:
            raise ValueError(f"this discriminator is conditional: give labels [N] of its {self.num_classes} classes")
        return logits + (self.embed(labels) * features).sum(1)


class Discriminator(Judge):
    """Images [N, 3, R, R], classes [N] -> logits [N].

    Args: as for `Generator`; wide: see `DownBlock`.
    """

    def __init__(
        self,
        *,
        resolution: int = 128,
        channels: int = 3,
        num_classes: int = 1000,
        width: int = 96,
        attention: Sequence[int] = (64,),
        wide: bool = True,
        weight_norm: WeightNorm = "spectral",
        sn_eps: float = 1e-6,
        sn_vectors: int = 1,
        sn_steps: int = 1,
        init: Init = "orthogonal",
    ) -> None:
        super().__init__()
        w, layers = maps(DISCRIMINATOR_MAPS, resolution, width=width), Layers(weight_norm, sn_eps, sn_vectors, sn_steps)
        sides = discriminator_sides(resolution)
        attention, self.blocks = check_attention(attention, sides), nn.ModuleList()
        for place, ((fan_in, fan_out), side) in enumerate(zip(itertools.pairwise([channels, *w]), sides, strict=True)):
            down = place < halvings(resolution)
            block = DownBlock(fan_in, fan_out, layers=layers, down=down, first=place == 0, wide=wide)
            self.blocks.append(nn.ModuleList([block, *([Attention(fan_out, layers)] if side in attention else [])]))
        self.add_end(w[-1], num_classes, layers)
        initialise(self, init)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images
        for block in itertools.chain.from_iterable(self.blocks):
            x = block(x)
        return self.judged(x, labels)
