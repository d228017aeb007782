"""pix2pixHD's networks (Wang et al., 2018, Sec. 3, App. A), layer for layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lit_gans.papers.pix2pix import Norm, check_size, norm_layer
from lit_gans.papers.pix2pixhd.instances import averaged

Features = list[list[Tensor]]  # of every scale, finest first, of every group of layers; the last is the prediction


# ---- generators (Sec. 3.2, App. A) -----------------------------------------------------------------------------------
# Convolutions have biases even before a norm, as in the official code, where instance norm takes them away again.


def stem(fan_in: int, width: int, norm: Norm) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(fan_in, width, 7), norm_layer(norm, width), nn.ReLU()]


def halving(width: int, norm: Norm) -> list[nn.Module]:
    """[N, width, H, W] -> [N, 2 width, H / 2, W / 2]."""
    return [nn.Conv2d(width, 2 * width, 3, 2, 1), norm_layer(norm, 2 * width), nn.ReLU()]


def doubling(width: int, norm: Norm) -> list[nn.Module]:
    """[N, 2 width, H, W] -> [N, width, 2 H, 2 W]."""
    up = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1)
    return [up, norm_layer(norm, width), nn.ReLU()]


def to_image(width: int, channels: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh()]


class ResidualBlock(nn.Module):
    """Two convolutions and no rectifier after the sum: [N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        first, second = ([nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm_layer(norm, width)] for _ in range(2))
        self.layers = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class GlobalGenerator(nn.Module):
    """G1 (Sec. 3.2, App. A): inputs [N, A, H, W] -> images [N, B, H, W] in [-1, 1], H and W multiples of `stride`."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int = 3,
        width: int = 64,
        downsamplings: int = 4,
        blocks: int = 9,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        self.stride, self.channels = 2**downsamplings, (in_channels, out_channels)
        widths = [width * 2**i for i in range(downsamplings)]
        layers = stem(in_channels, width, norm)
        for w in widths:
            layers += halving(w, norm)
        layers += [ResidualBlock(width * self.stride, norm) for _ in range(blocks)]
        for w in reversed(widths):
            layers += doubling(w, norm)
        self.layers = nn.Sequential(*layers, *to_image(width, out_channels))
        init_weights(self)

    def forward(self, inputs: Tensor) -> Tensor:
        check_size(inputs, self.stride)
        return self.layers(inputs)


class Enhancer(nn.Module):
    """G2's two halves (Sec. 3.2): inputs at its own size and the coarser net's features at half of it -> features."""

    def __init__(self, *, in_channels: int, width: int, blocks: int, norm: Norm, out_channels: int | None) -> None:
        super().__init__()
        self.down = nn.Sequential(*stem(in_channels, width, norm), *halving(width, norm))
        end = [] if out_channels is None else to_image(width, out_channels)
        residual = [ResidualBlock(2 * width, norm) for _ in range(blocks)]
        self.up = nn.Sequential(*residual, *doubling(width, norm), *end)

    def forward(self, inputs: Tensor, coarser: Tensor) -> Tensor:
        return self.up(self.down(inputs) + coarser)


class LocalEnhancer(nn.Module):
    """G1 at a fraction of the size, and enhancers that double it (Figure 3): shapes as of `GlobalGenerator`.

    G1 ends before its last convolution: its features are added to those of the first enhancer.

    Args:
        width: channels at full size; G1 has 2 ** enhancers times as many at its own.
        enhancers: 1 in the paper; the finest has the highest number.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int = 3,
        width: int = 32,
        downsamplings: int = 4,
        blocks: int = 9,
        enhancers: int = 1,
        local_blocks: int = 3,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        self.stride, self.channels = 2 ** (downsamplings + enhancers), (in_channels, out_channels)
        coarse = {"width": width * 2**enhancers, "downsamplings": downsamplings, "blocks": blocks, "norm": norm}
        # By the names that they have in G1, whose weights a run may start from.
        self.layers = GlobalGenerator(in_channels=in_channels, **coarse).layers[:-3]
        self.enhancers = nn.ModuleDict()
        for n in range(1, enhancers + 1):
            size = {"in_channels": in_channels, "width": width * 2 ** (enhancers - n), "blocks": local_blocks}
            last = out_channels if n == enhancers else None
            self.enhancers[str(n)] = Enhancer(**size, norm=norm, out_channels=last)
        init_weights(self)

    def forward(self, inputs: Tensor) -> Tensor:
        check_size(inputs, self.stride)
        pyramid = [inputs]
        for _ in self.enhancers:
            pyramid.append(halved(pyramid[-1]))
        x = self.layers(pyramid.pop())  # G1 at the smallest size, with twice the first enhancer's width
        for enhancer in self.enhancers.values():
            x = enhancer(pyramid.pop(), x)  # [N, 2 w, H, W] -> [N, w, 2 H, 2 W], the last one an image
        return x

    @property
    def finest(self) -> Enhancer:
        return self.enhancers[str(len(self.enhancers))]


def halved(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, H / 2, W / 2]: means of 3x3, of fewer pixels at the border."""
    return avg_pool2d(x, 3, 2, 1, count_include_pad=False)


def init_weights(network: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for the gains of batch norm; biases of convolutions stay torch's own."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


# ---- the encoder of instances (Sec. 3.4) -----------------------------------------------------------------------------


class Encoder(GlobalGenerator):
    """E (Sec. 3.4): photographs [N, C, H, W], instance ids [N, H, W] -> features [N, F, H, W], one per instance."""

    def __init__(
        self, *, channels: int = 3, features: int = 3, width: int = 16, downsamplings: int = 4, norm: Norm = "instance"
    ) -> None:
        size = {"width": width, "downsamplings": downsamplings, "blocks": 0, "norm": norm}
        super().__init__(in_channels=channels, out_channels=features, **size)

    def forward(self, images: Tensor, instance: Tensor) -> Tensor:
        return averaged(super().forward(images), instance)


# ---- discriminators (Sec. 3.2, App. A) -------------------------------------------------------------------------------


class PatchDiscriminator(nn.Module):
    """One scale (App. A): [N, C, H, W] -> what each of its groups of layers makes of it, the prediction last."""

    def __init__(self, *, channels: int, width: int, layers: int, norm: Norm) -> None:
        super().__init__()
        widths = [min(width * 2**i, 512) for i in range(layers + 1)]
        conv = {"kernel_size": 4, "padding": 2}
        self.groups = nn.ModuleList([nn.Sequential(nn.Conv2d(channels, width, stride=2, **conv), nn.LeakyReLU(0.2))])
        for i in range(1, layers + 1):
            down = nn.Conv2d(widths[i - 1], widths[i], stride=2 if i < layers else 1, **conv)
            self.groups.append(nn.Sequential(down, norm_layer(norm, widths[i]), nn.LeakyReLU(0.2)))
        self.groups.append(nn.Sequential(nn.Conv2d(widths[-1], 1, stride=1, **conv)))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [x]
        for group in self.groups:
            found.append(group(found[-1]))
        return found[1:]


class MultiscaleDiscriminator(nn.Module):
    """Equal discriminators of ever smaller images (Sec. 3.2): [N, C, H, W] -> `Features`.

    `scales` are in the official order, the finest last.
    """

    def __init__(
        self, *, channels: int, width: int = 64, layers: int = 3, scales: int = 3, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        one = {"channels": channels, "width": width, "layers": layers, "norm": norm}
        self.scales = nn.ModuleList(PatchDiscriminator(**one) for _ in range(scales))
        init_weights(self)

    def forward(self, x: Tensor) -> Features:
        found = []
        for scale in reversed(self.scales):
            x = halved(x) if found else x
            found.append(scale(x))
        return found
