"""CycleGAN (Zhu et al., 2017), https://arxiv.org/abs/1703.10593: a translator between two sets of unpaired images."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_gans.adversarial.capabilities import Input
from lit_gans.adversarial.game import Game
from lit_gans.adversarial.optim import Schedule, lazy_adam
from lit_gans.augment.image_pool import ImagePool
from lit_gans.nn import Draws, Dropout, drawing
from lit_gans.nn.mode import evaluating
from lit_gans.official.releases import Config, Release, State, renaming
from lit_gans.papers.dcgan import init_weights
from lit_gans.papers.pix2pix import (
    IMAGES,
    REPOSITORY,
    UNET,
    Norm,
    PatchGAN,
    SameDraws,
    as_in_training,
    check_direction,
    check_pairs,
    check_size,
    convs,
    norm_layer,
    preview_rows,
    told_norm,
)

Padding = Literal["reflect", "replicate", "zero"]


# ---- the generators (App. 7.2) ---------------------------------------------------------------------------------------


def padded_conv(channels: int, padding: Padding, *, bias: bool) -> list[nn.Module]:
    """A 3x3 convolution that keeps the size.

    Raises:
        ValueError: `padding` is none of the three.
    """
    pads = {"reflect": [nn.ReflectionPad2d(1)], "replicate": [nn.ReplicationPad2d(1)], "zero": []}
    if padding not in pads:
        raise ValueError(f"padding {padding!r} is unknown: use 'reflect', 'replicate' or 'zero'")
    return [*pads[padding], nn.Conv2d(channels, channels, 3, padding=int(padding == "zero"), bias=bias)]


class ResidualBlock(nn.Module):
    """Two convolutions and no rectifier after the sum (App. 7.2): [N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, channels: int, *, norm: Norm, padding: Padding, dropout: bool) -> None:
        super().__init__()
        conv = {"padding": padding, "bias": norm == "instance"}
        self.layers = nn.Sequential(
            *padded_conv(channels, **conv),
            norm_layer(norm, channels),
            nn.ReLU(),
            *([Dropout(0.5)] if dropout else []),
            *padded_conv(channels, **conv),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResNet(nn.Module):
    """Two halvings, residual blocks, two doublings (App. 7.2): images [N, A, H, W] -> images [N, B, H, W] in [-1, 1].

    Args:
        width: channels at full size; four times as many in the blocks.
        blocks: 6 for images of 128 pixels, 9 from 256.
        padding: of the blocks; the two 7x7 convolutions always reflect.
        dropout: in the blocks, with probability 0.5; the paper has none.
    """

    stride = 4

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "instance",
        padding: Padding = "reflect",
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.channels = (in_channels, out_channels)
        bias, c = norm == "instance", width
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(in_channels, c, 7, bias=bias), norm_layer(norm, c), nn.ReLU()]
        for c in (width, 2 * width):
            layers += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), norm_layer(norm, 2 * c), nn.ReLU()]
        layers += [ResidualBlock(4 * width, norm=norm, padding=padding, dropout=dropout) for _ in range(blocks)]
        for c in (2 * width, width):
            layers += [nn.ConvTranspose2d(2 * c, c, 3, 2, 1, 1, bias=bias), norm_layer(norm, c), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh())
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images, self.stride)
        return self.layers(images)


# ---- training (Sec. 3, App. 7.1) -------------------------------------------------------------------------------------


class CycleGAN(Game):
    """Sec. 3: two generators that undo each other, two discriminators, least squares, pools of former fakes.

    Batches are {"a": images, "b": images}, unpaired. Adam with lr 2e-4, constant and then falling to 0 (App. 7.1).

    Args:
        channels_a, channels_b: of the two domains.
        width, blocks: of the generators; discriminator_width: of the discriminators, which see patches of 70 pixels.
        norm: of all four. "instance" is the paper's. It leaves little of a picture's colours where these are few and
            flat, as in drawings; "batch" keeps them, with batches of 8 or so, and translates by running statistics.
        cycle_weight: lambda of Eq. 3, for both cycles, or one each for a's and b's, as the official code can have.
        identity_weight: of the identity loss (Sec. 5.2), as a share of that domain's cycle; 0 spares two passes.
        pool_size: former fakes of each domain that the discriminators may be shown again; 0 shows the newest only.
        decay_from_kimg: where the linear schedule starts to fall; None is half of total_kimg. The official code steps
            once per epoch, to 1/101 in the last; here the rate falls with every batch.
        repair_gradients: see `Game`. Off, as in the official code: without penalties a gradient that is not finite
            comes from a loss that is not, which Health reports.
        **game: micro_batches, seed, ... of `Game`.

    Raises:
        ValueError: an identity loss between domains of different channels.
    """

    directions: tuple[str, ...] = ("ab", "ba")
    mode = staticmethod(evaluating)  # in which a generator translates

    def __init__(
        self,
        *,
        channels_a: int = 3,
        channels_b: int = 3,
        width: int = 64,
        blocks: int = 9,
        discriminator_width: int = 64,
        norm: str = "instance",
        cycle_weight: float | tuple[float, float] = 10.0,
        identity_weight: float = 0.5,
        pool_size: int = 50,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        repair_gradients: bool = False,
        total_kimg: float = 200.0,
        schedule: Schedule = "linear",
        decay_from_kimg: float | None = None,
        **game: Any,
    ) -> None:
        decay = total_kimg / 2 if decay_from_kimg is None else decay_from_kimg
        plan = {"total_kimg": total_kimg, "schedule": schedule, "decay_from_kimg": decay}
        super().__init__(repair_gradients=repair_gradients, **plan, **game)
        self.save_hyperparameters()
        if identity_weight and channels_a != channels_b:
            raise ValueError(
                f"the identity loss compares images of {channels_a} and of {channels_b} channels: set identity_weight=0"
            )
        size, judge = {"width": width, "blocks": blocks, "norm": norm}, {"width": discriminator_width, "norm": norm}
        self.generator_ab = ResNet(in_channels=channels_a, out_channels=channels_b, **size)
        self.generator_ba = ResNet(in_channels=channels_b, out_channels=channels_a, **size)
        self.discriminator_a = PatchGAN(channels=channels_a, **judge)
        self.discriminator_b = PatchGAN(channels=channels_b, **judge)
        self.pool_a, self.pool_b = ImagePool(pool_size), ImagePool(pool_size)
        self.channels = (channels_a, channels_b)
        self.cycle_weights = (cycle_weight,) * 2 if isinstance(cycle_weight, (int, float)) else tuple(cycle_weight)
        self.identity_weight = identity_weight
        self.lr, self.betas = lr, betas

    @classmethod
    def from_generator(cls, ab: nn.Module | None = None, ba: nn.Module | None = None) -> CycleGAN:
        """Generators alone, such as released ones, of one direction or both; all else is tiny.

        They run as at the end of their training, which is how the official code tests.
        """
        given = {direction: network for direction, network in (("ab", ab), ("ba", ba)) if network is not None}
        if not given:
            raise ValueError("no generator was given: give that of one direction, ab or ba, or both")
        a, b = ab.channels if ab is not None else ba.channels[::-1]
        game = cls(channels_a=a, channels_b=b, width=1, blocks=0, discriminator_width=1, identity_weight=0)
        for direction, network in given.items():
            setattr(game, f"generator_{direction}", network)
        game.directions, game.mode = tuple(given), as_in_training
        return game

    @property
    def stride(self) -> int:
        """Sides of images must be multiples of it, in pixels."""
        return max(self.maker(direction).stride for direction in self.directions)

    def takes(self, direction: str) -> Input:
        return Input(self.channels[0 if direction == "ab" else 1])

    def maker(self, direction: str) -> nn.Module:
        return self.generator_ab if direction == "ab" else self.generator_ba

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        a, b = batch["a"], batch["b"]
        weight_a, weight_b = self.cycle_weights
        fakes: list[tuple[Tensor, Tensor]] = []
        with self.updating(opt_g):
            for a_part, b_part in self.split(a, b):
                fake_b, fake_a = self.generator_ab(a_part), self.generator_ba(b_part)
                fakes.append((fake_a.detach(), fake_b.detach()))
                adversarial = squared(self.discriminator_b(fake_b), 1) + squared(self.discriminator_a(fake_a), 1)
                cycle_a = distance(self.generator_ba(fake_b), a_part)  # Eq. 2, one half
                cycle_b = distance(self.generator_ab(fake_a), b_part)  # the other half
                g_loss = adversarial + weight_a * cycle_a + weight_b * cycle_b  # Eq. 3
                self.report(adversarial=adversarial, cycle=cycle_a + cycle_b)
                if self.identity_weight:  # each generator leaves images of its own target domain as they are
                    same_a = distance(self.generator_ba(a_part), a_part)
                    same_b = distance(self.generator_ab(b_part), b_part)
                    g_loss = g_loss + self.identity_weight * (weight_a * same_a + weight_b * same_b)  # Sec. 5.2
                    self.report(identity=same_a + same_b)
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)
        fake_a, fake_b = (torch.cat(parts) for parts in zip(*fakes, strict=True))
        shown_a = self.pool_a.query(fake_a, self.draws("pool", "a"))  # a history of fakes, against oscillation (Sec. 4)
        shown_b = self.pool_b.query(fake_b, self.draws("pool", "b"))
        with self.updating(opt_d):
            for real_a, real_b, fake_a, fake_b in self.split(a, b, shown_a, shown_b):
                self.accumulate(self.judged("a", real_a, fake_a) + self.judged("b", real_b, fake_b))

    def judged(self, domain: Literal["a", "b"], real: Tensor, fake: Tensor) -> Tensor:
        """The loss of one domain's discriminator, halved to slow it down (App. 7.1)."""
        discriminator = self.discriminator_a if domain == "a" else self.discriminator_b
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        d_loss = 0.5 * (squared(real_logits, 1) + squared(fake_logits, 0))
        self.report_discriminator(d_loss, real_logits, fake_logits)
        self.report(**{f"loss_d_{domain}": d_loss})
        return d_loss

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for both generators, one for both discriminators."""
        sides = (self.generator_ab, self.generator_ba), (self.discriminator_a, self.discriminator_b)
        parameters = [[p for network in side for p in network.parameters()] for side in sides]
        return [lazy_adam(p, lr=self.lr, betas=self.betas, fused=self.fused) for p in parameters]

    def discriminators(self) -> list[nn.Module]:
        return [self.discriminator_a, self.discriminator_b]

    def networks(self) -> list[nn.Module]:
        return [self.generator_ab, self.generator_ba, self.discriminator_a, self.discriminator_b]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            least = self.discriminator_a.least_px
            check_pairs(self, self.trainer.datamodule, channels=self.channels, stride=self.stride, least_px=least)

    @torch.no_grad()
    def translate(self, images: Tensor, *, direction: str = "ab", draws: Draws | None = None) -> Tensor:
        """images [N, C, H, W] in [-1, 1] -> [N, C', H, W] in [-1, 1], each from its image alone.

        H and W are multiples of `stride`. "ab" makes an image of domain b from one of a, "ba" the other way round.
        `draws` are used by released generators that have dropout; without, all images meet the same noise.
        """
        check_direction(direction, self.directions)
        generator = self.maker(direction)
        draws = SameDraws(self.seed, "translate", device=images.device) if draws is None else draws
        with self.mode(generator), drawing(draws):
            return generator(images)

    def preview(self, data: Any, *, rows: int, columns: int, psi: float = 1.0) -> tuple[Tensor, int]:
        """a | b made of it | a again; beside it, with 6 columns or more, b | a made of it | b again. No use for psi."""
        both = columns >= 6
        across = max(columns // (6 if both else 3), 1)
        views = self.both_ways if both else self.there_and_back
        images = preview_rows(data, views, count=rows * across, device=self.device)
        return images, min((6 if both else 3) * across, len(images))

    def there_and_back(self, a: Tensor, b: Tensor, *, direction: str = "ab") -> list[Tensor]:
        start = a if direction == "ab" else b
        there = self.translate(start, direction=direction)
        return [start, there, self.translate(there, direction=direction[::-1])]

    def both_ways(self, a: Tensor, b: Tensor) -> list[Tensor]:
        return self.there_and_back(a, b) + self.there_and_back(a, b, direction="ba")


def squared(logits: Tensor, target: float) -> Tensor:
    """Least squares (Sec. 4), in single precision."""
    return (logits.float() - target).square().mean()


def distance(images: Tensor, others: Tensor) -> Tensor:
    """Mean absolute difference (Eq. 2)."""
    return (images - others).abs().mean()


# ---- official networks -----------------------------------------------------------------------------------------------

# State-dict names of pytorch-CycleGAN-and-pix2pix -> ours, of a ResNet or a PatchGAN.
OFFICIAL_KEYS: dict[str, str | None] = {
    r"model\.(\d+)\.conv_block\.(\d+)\.(\w+)": r"layers.\1.layers.\2.\3",
    r"model\.(\d+)\.(\w+)": r"layers.\1.\2",
}


def halvings(found: list[tuple[int, torch.Size]]) -> int:
    """There are as many doublings, and both have kernels of 3 pixels, as no other convolution outside of blocks."""
    return sum(shape[-1] == 3 for _, shape in found) // 2


def residual_blocks(state: State, prefix: str = "model.") -> list[list[int]]:
    """For each residual block below `prefix` the numbers of the convolutions in it."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.conv_block\.(\d+)\.weight")
    found: dict[int, list[int]] = {}
    for name, tensor in state.items():
        if (match := pattern.fullmatch(name)) and tensor.ndim == 4:
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return [sorted(numbers) for _, numbers in sorted(found.items())]


def in_one_row(state: State) -> bool:
    """Whether layers are numbered through."""
    return all(re.match(r"model\.\d+\.", name) for name in state)


def is_resnet(state: State) -> bool:
    """With two halvings, and no biases before batch norms: else pix2pixHD's global generator is the same network."""
    biased = {"model.1.bias", "model.2.weight"} <= state.keys()
    return in_one_row(state) and bool(residual_blocks(state)) and halvings(convs(state)) == 2 and not biased


def _resnet(state: State) -> Config:
    """A padding that could be "reflect" or "replicate" is taken for "reflect", as in all that was published."""
    found, blocks = convs(state), residual_blocks(state)
    (ngf, input_nc), (first, second) = found[0][1][:2], blocks[0]
    config = {"input_nc": input_nc, "output_nc": found[-1][1][0], "ngf": ngf, "n_blocks": len(blocks)}
    config |= {"padding_type": "zero" if first == 0 else "reflect", "norm": told_norm(state, "model.1", "model.2")}
    return {**config, "use_dropout": second > (3 if first == 0 else 5)}  # a layer more between the convolutions


OFFICIAL = [
    Release(
        REPOSITORY, "ResnetGenerator", ResNet, OFFICIAL_KEYS,
        renaming({**IMAGES, "n_blocks": "blocks", "padding_type": "padding", "use_dropout": "dropout"}), _resnet,
        begins={"model.1.weight": (7, 7)}, fits=is_resnet,
        model=CycleGAN, parts={"G_A": "ab", "G_B": "ba", "G": "ab"},
    ),
    # pix2pix's generator under the names of CycleGAN's two: recognised there.
    replace(UNET, begins={}, model=CycleGAN, parts={"G_A": "ab", "G_B": "ba"}),
]  # fmt: skip
