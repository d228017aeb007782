"""The networks of AttnGAN (Xu et al., 2018): attention over words, a generator in stages, its discriminators."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.nn import BatchNorm

# ---- blocks ----------------------------------------------------------------------------------------------------------


def conv3x3(fan_in: int, fan_out: int) -> nn.Conv2d:
    """Keeps the size; no bias."""
    return nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)


class UpBlock(nn.Module):
    """Doubles the size: [N, A, H, W] -> [N, B, 2H, 2W]. Half of the convolution's channels gate the others."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.conv, self.norm = conv3x3(fan_in, 2 * fan_out), BatchNorm(2 * fan_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.norm(self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))), dim=1)


class ResidualBlock(nn.Module):
    """Gated, without an activation after the sum: [N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv3x3(channels, 2 * channels),
            BatchNorm(2 * channels),
            nn.GLU(dim=1),
            conv3x3(channels, channels),
            BatchNorm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class DownBlock(nn.Sequential):
    """Halves the size: [N, A, H, W] -> [N, B, H/2, W/2]."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(nn.Conv2d(fan_in, fan_out, 4, 2, 1, bias=False), BatchNorm(fan_out), nn.LeakyReLU(0.2))


class SameBlock(nn.Sequential):
    """Keeps the size: [N, A, H, W] -> [N, B, H, W]."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(conv3x3(fan_in, fan_out), BatchNorm(fan_out), nn.LeakyReLU(0.2))


class ConditioningAugmentation(nn.Module):
    """sentence [N, D], eps [N, C] or None -> condition [N, C] = mu + exp(logvar / 2) eps, mu and logvar [N, C].

    Without eps the condition is mu. From StackGAN, with a gate in place of its rectifier, as in the official code.
    """

    def __init__(self, sentence_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(sentence_dim, 4 * condition_dim)

    def forward(self, sentence: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = F.glu(self.linear(sentence), dim=1).chunk(2, dim=1)  # [N, 4 C] -> [N, 2 C] -> 2 of [N, C]
        condition = mu if eps is None else mu + (0.5 * logvar).exp() * eps
        return condition, mu, logvar


# ---- attention (Sec. 3.1) --------------------------------------------------------------------------------------------


class WordAttention(nn.Module):
    """F^attn (Sec. 3.1): each place of h attends to the words, whose projections into its space are not scaled.

    h [N, C, H, W], words [N, T, D] and their mask -> context [N, C, H, W], maps [N, T, H, W], whose sum over T is 1.
    The mask is true where there is a word: bool [N, T], or [N, H W, T] with one for each place in rows. None: all are.

    The official code pairs places with the masks of other samples when it flattens both (row r = n H W + place with
    mask r mod N). We give each sample its own: nothing depends on what else is in the batch.
    """

    def __init__(self, channels: int, word_dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(word_dim, channels, 1, bias=False)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        values = self.project(words.transpose(1, 2).unsqueeze(3)).squeeze(3)  # [N, C, T]
        scores = h.flatten(2).transpose(1, 2) @ values  # [N, H W, C] @ [N, C, T] -> [N, H W, T]
        if mask is not None:
            scores = scores.masked_fill(~(mask if mask.dim() == 3 else mask[:, None]), -torch.inf)
        maps = scores.softmax(dim=2).transpose(1, 2)  # over the words: [N, T, H W]
        return (values @ maps).unflatten(2, h.shape[2:]), maps.unflatten(2, h.shape[2:])  # H W -> H, W


# ---- generator (Figure 2) --------------------------------------------------------------------------------------------


def halvings(resolution: int, *, least: int) -> int:
    """How often `resolution` is halved until it is 4.

    Raises:
        ValueError: it is not a power of two from `least`.
    """
    times = resolution.bit_length() - 3
    if resolution != 4 << max(times, 0) or resolution < least:
        raise ValueError(
            f"images of {resolution} pixels: AttnGAN's layers double from 4 and its smallest images have {least}; give "
            "a power of two, 256 in the paper, or fewer stages"
        )
    return times


LEAST_PX = 16


def scales(resolution: int, stages: int) -> list[int]:
    """Sides of the images of each stage, the finest last. ValueError where the first is too small."""
    if stages < 1:
        raise ValueError(f"stages {stages} is below 1; the paper has 3")
    halvings(resolution, least=LEAST_PX << (stages - 1))
    return [resolution >> i for i in reversed(range(stages))]


class FirstStage(nn.Module):
    """F_0 (Eq. 1): condition and latent, in this order, [N, C + Z] -> h [N, width, R, R]."""

    def __init__(self, input_dim: int, *, width: int, resolution: int) -> None:
        super().__init__()
        doublings = halvings(resolution, least=LEAST_PX)
        self.top = width << doublings
        values = self.top * 4 * 4 * 2
        self.project, self.norm = nn.Linear(input_dim, values, bias=False), BatchNorm(values)
        self.ups = nn.ModuleDict({str(i + 1): UpBlock(self.top >> i, self.top >> (i + 1)) for i in range(doublings)})

    def forward(self, x: Tensor) -> Tensor:
        h = F.glu(self.norm(self.project(x)), dim=1).unflatten(1, (self.top, 4, 4))  # [N, 16 top] -> [N, top, 4, 4]
        for up in self.ups.values():
            h = up(h)
        return h


class NextStage(nn.Module):
    """F_i (Eq. 1): h [N, C, H, W], words, mask -> h [N, C, 2H, 2W], maps [N, T, H, W].

    All stages keep the width, where StackGAN++ halves it.
    """

    def __init__(self, width: int, *, word_dim: int, blocks: int) -> None:
        super().__init__()
        self.attention = WordAttention(width, word_dim)
        self.refine = nn.Sequential(*(ResidualBlock(2 * width) for _ in range(blocks)))
        self.up = UpBlock(2 * width, width)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        context, maps = self.attention(h, words, mask)
        return self.up(self.refine(torch.cat([h, context], dim=1))), maps


class Drawn(NamedTuple):
    """What a pass through the generator gives.

    images: [N, 3, R_i, R_i] in [-1, 1] of every stage, the finest last; maps: [N, T, R_i, R_i] of every stage but the
    last, of which the next one is made; mu, logvar [N, C] of the conditioning augmentation.
    """

    images: list[Tensor]
    maps: list[Tensor]
    mu: Tensor
    logvar: Tensor


class Generator(nn.Module):
    """G_0 to G_{m-1} (Figure 2).

    Args:
        embed_dim: D of words and sentence.
        condition_dim: of the conditioning augmentation.
        width: N_g, feature maps at each stage's full size.
        blocks: residual blocks of every stage but the first.
    """

    def __init__(
        self,
        *,
        resolution: int = 256,
        stages: int = 3,
        z_dim: int = 100,
        condition_dim: int = 100,
        embed_dim: int = 256,
        width: int = 32,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        sides = scales(resolution, stages)
        self.condition = ConditioningAugmentation(embed_dim, condition_dim)
        later = {str(i + 1): NextStage(width, word_dim=embed_dim, blocks=blocks) for i in range(1, stages)}
        first = FirstStage(condition_dim + z_dim, width=width, resolution=sides[0])
        self.stages = nn.ModuleDict({"1": first, **later})
        self.to_rgb = nn.ModuleDict({name: conv3x3(width, 3) for name in self.stages})
        init_weights(self)

    def forward(
        self, z: Tensor, sentence: Tensor, words: Tensor, mask: Tensor | None = None, *, eps: Tensor | None = None
    ) -> Drawn:
        """z [N, Z], sentence [N, D], words [N, T, D], mask bool [N, T], eps [N, C] of N(0, 1) or None -> `Drawn`."""
        condition, mu, logvar = self.condition(sentence, eps)
        images, maps, h = [], [], None
        for name, stage in self.stages.items():
            if h is None:
                h = stage(torch.cat([condition, z], dim=1))
            else:
                h, attended = stage(h, words, mask)
                maps.append(attended)
            images.append(torch.tanh(self.to_rgb[name](h)))
        return Drawn(images, maps, mu, logvar)


# ---- discriminators --------------------------------------------------------------------------------------------------


class Head(nn.Module):
    """features [N, C, 4, 4], and a sentence [N, D] where `sentence_dim` is above 0 -> logits [N]."""

    def __init__(self, channels: int, *, sentence_dim: int = 0) -> None:
        super().__init__()
        self.joint = SameBlock(channels + sentence_dim, channels) if sentence_dim else None
        self.to_logit = nn.Conv2d(channels, 1, 4)

    def forward(self, features: Tensor, sentence: Tensor | None = None) -> Tensor:
        if self.joint is not None:
            assert sentence is not None
            everywhere = sentence[:, :, None, None].expand(-1, -1, *features.shape[2:])  # [N, D] -> [N, D, 4, 4]
            features = self.joint(torch.cat([features, everywhere], dim=1))
        return self.to_logit(features).flatten()  # [N, 1, 1, 1] -> [N]


class Discriminator(nn.Module):
    """D_i: images [N, 3, R, R] -> features [N, C, 4, 4], which the heads `conditional` and `unconditional` judge.

    `unconditional` is None without the joint conditional-unconditional loss of Eq. 5. Below 64 pixels, which the paper
    has none of, there are fewer halvings and C is smaller.
    """

    def __init__(self, *, resolution: int, width: int = 64, embed_dim: int = 256, joint: bool = True) -> None:
        super().__init__()
        times = halvings(resolution, least=LEAST_PX)
        sixteenth = min(times, 4)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for i in range(1, sixteenth):
            layers += DownBlock(width << (i - 1), width << i)
        self.encode = nn.Sequential(*layers)
        # Larger images are halved on to 4 pixels, then their feature maps brought back to as many as at 64.
        more = range(sixteenth, times)
        self.down = nn.ModuleDict({str(2 << i): DownBlock(width << (i - 1), width << i) for i in more})
        back = {str(i + 1): SameBlock(width << (times - 1 - i), width << (times - 2 - i)) for i in range(len(more))}
        self.narrow = nn.ModuleDict(back)
        channels = width << (sixteenth - 1)
        self.conditional = Head(channels, sentence_dim=embed_dim)
        self.unconditional = Head(channels) if joint else None
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        h = self.encode(images)
        for block in (*self.down.values(), *self.narrow.values()):
            h = block(h)
        return h


class Discriminators(nn.Module):
    """One for each stage: `at[str(R)]` judges images of R pixels."""

    def __init__(self, *, resolution: int, stages: int, width: int, embed_dim: int, joint: bool) -> None:
        super().__init__()
        arguments = {"width": width, "embed_dim": embed_dim, "joint": joint}
        sides = scales(resolution, stages)
        self.at = nn.ModuleDict({str(side): Discriminator(resolution=side, **arguments) for side in sides})

    def forward(self, images: Tensor, sentence: Tensor) -> Tensor:
        """images of one stage, sentence [N, D] -> conditional logits [N]."""
        one = self.at[str(images.shape[-1])]
        return one.conditional(one(images), sentence)


def init_weights(network: nn.Module) -> None:
    """Orthogonal weights, batch-norm gains from N(1, 0.02), biases of linear layers 0, as in the authors' code."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(module.weight)
        elif isinstance(module, BatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)
        if isinstance(module, (nn.Linear, BatchNorm)) and module.bias is not None:
            nn.init.zeros_(module.bias)
