"""pix2pix (Isola et al., 2017), https://arxiv.org/abs/1611.07004: a translator from pairs of images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm, leaky_relu, relu

from lit_gans.adversarial.capabilities import Input
from lit_gans.adversarial.game import Game
from lit_gans.adversarial.losses import loss_by_path
from lit_gans.adversarial.optim import Schedule, lazy_adam
from lit_gans.base.images import to_uint8
from lit_gans.data import ImageData, TranslationData
from lit_gans.nn import BatchNorm, Draws, Dropout, drawing
from lit_gans.nn.mode import evaluating
from lit_gans.official.releases import Config, Release, State, numbered, renaming
from lit_gans.papers.dcgan import init_weights

Norm = Literal["batch", "instance", "none"]
PatchPx = Literal[1, 16, 34, 70, 142, 286]


# ---- the generator (Figure 3, App. 6.1.1) ----------------------------------------------------------------------------


class PairBatchNorm(BatchNorm):
    """Batch norm that can also take the statistics of each image alone, as the paper does at test time (Sec. 3.3)."""

    alone = False  # set by `as_in_training`

    def forward(self, input: Tensor) -> Tensor:
        if not self.alone:
            return super().forward(input)
        return instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Batch norm, instance norm without parameters and memory, or nothing.

    Raises:
        ValueError: `norm` is none of the three.
    """
    if norm not in ("batch", "instance", "none"):
        raise ValueError(f"norm {norm!r} is unknown: use 'batch', 'instance' or 'none'")
    if norm == "batch":
        return PairBatchNorm(channels)
    return nn.InstanceNorm2d(channels) if norm == "instance" else nn.Identity()


class UNet(nn.Module):
    """U-Net with skips at every level (Figure 3, App. 6.1.1): images [N, A, H, W] -> images [N, B, H, W] in [-1, 1].

    Args:
        width: channels after the first halving, doubling up to 8 times as many.
        levels: how often the image is halved; H and W must be multiples of 2 ** levels.
        dropout: with probability 0.5, between the innermost level and the fourth: the only noise (Sec. 3.1).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 64,
        levels: int = 8,
        norm: Norm = "batch",
        dropout: bool = True,
    ) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels {levels} leaves nothing between the halvings: use 2 or more, 8 at 256 pixels")
        self.stride, self.channels = 2**levels, (in_channels, out_channels)
        w = [width * min(2**i, 8) for i in range(levels)]
        bias = norm == "instance"  # the other norm has a bias of its own, and without norm the official code has none
        self.downs, self.down_norms, self.ups, self.up_norms = (nn.ModuleList() for _ in range(4))
        self.dropouts = nn.ModuleList()
        for i, (outer, inner) in enumerate(itertools.pairwise([in_channels, *w])):
            ends, innermost = i in (0, levels - 1), i == levels - 1
            self.downs.append(nn.Conv2d(outer, inner, 4, 2, 1, bias=bias))
            self.down_norms.append(nn.Identity() if ends else norm_layer(norm, inner))
            outer = out_channels if i == 0 else outer
            fan_in = inner if innermost else 2 * inner  # with the skip
            self.ups.append(nn.ConvTranspose2d(fan_in, outer, 4, 2, 1, bias=bias or i == 0))
            self.up_norms.append(nn.Identity() if i == 0 else norm_layer(norm, outer))
            self.dropouts.append(Dropout(0.5 if dropout and i > 3 and not innermost else 0.0))
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images, self.stride)
        x, skips = self.downs[0](images), []
        for down, norm in zip(self.downs[1:], self.down_norms[1:], strict=True):
            skips.append(leaky_relu(x, 0.2))
            x = norm(down(skips[-1]))
        for up, norm, dropout in reversed(list(zip(self.ups, self.up_norms, self.dropouts, strict=True))):
            x = dropout(norm(up(relu(x))))
            x = torch.cat([skips.pop(), x], 1) if skips else x  # the skip, rectified already, and x: [N, 2 C, H, W]
        return torch.tanh(x)


def check_size(images: Tensor, stride: int) -> None:
    """Networks that halve and double an image return its size only if the halvings divide it.

    Raises:
        ValueError: they do not.
    """
    height, width = images.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(
            f"images of {width}x{height} px do not fit the generator, which needs multiples of {stride}: pad or crop "
            f"them, to {-(-width // stride) * stride}x{-(-height // stride) * stride} for example"
        )


# ---- the discriminators (Sec. 3.2.2, App. 6.1.2) ---------------------------------------------------------------------


class PatchGAN(nn.Module):
    """Judges patches that overlap (Sec. 3.2.2, App. 6.1.2): images [N, C, H, W] -> logits [N, 1, H', W'].

    layers: how often the image is halved; 1, 3 and 5 see patches of 16, 70 and 286 pixels.
    """

    def __init__(self, *, channels: int = 6, width: int = 64, layers: int = 3, norm: Norm = "batch") -> None:
        super().__init__()
        w = [width * min(2**i, 8) for i in range(layers + 1)]
        stack: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(w), start=1):
            stride = 2 if i < layers else 1
            stack += [nn.Conv2d(fan_in, fan_out, 4, stride, 1, bias=norm == "instance"), norm_layer(norm, fan_out)]
            stack += [nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*stack, nn.Conv2d(w[-1], 1, 4, 1, 1))
        self.least_px = 3 * 2**layers  # on 3 pixels after the halvings, the last two convolutions leave 1
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class PixelGAN(nn.Module):
    """Judges each pixel alone (Sec. 4.4, App. 6.1.2): images [N, C, H, W] -> logits [N, 1, H, W]."""

    least_px = 1

    def __init__(self, *, channels: int = 6, width: int = 64, norm: Norm = "batch") -> None:
        super().__init__()
        bias = norm == "instance"
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 1, bias=bias),
            norm_layer(norm, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1, bias=bias),  # without a bias after batch norm, unlike PatchGAN's last
        )
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def patch_discriminator(patch_px: PatchPx, *, channels: int, width: int, norm: Norm) -> PatchGAN | PixelGAN:
    """The discriminator whose logits see `patch_px` pixels: 1 is the paper's PixelGAN, 286 its ImageGAN.

    Raises:
        ValueError: no stack of layers sees so many.
    """
    layers = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
    if patch_px not in layers:
        known = ", ".join(map(str, layers))
        raise ValueError(f"patch_px {patch_px} is the view of no discriminator: use one of {known}")
    if patch_px == 1:
        return PixelGAN(channels=channels, width=width, norm=norm)
    return PatchGAN(channels=channels, width=width, layers=layers[patch_px], norm=norm)


# ---- official networks -----------------------------------------------------------------------------------------------


def _unet_keys(levels: int) -> dict[str, str]:
    """The official U-Net is nested, a level inside the last, and has activations and norms as numbered modules."""
    keys = {r"model\.model\.0\.(\w+)": r"downs.0.\1", r"model\.model\.3\.(\w+)": r"ups.0.\1"}
    for i in range(1, levels):
        at = r"model\.model\.1\." + r"model\.3\." * (i - 1) + r"model\."
        keys |= {at + r"1\.(\w+)": rf"downs.{i}.\1", at + r"2\.(\w+)": rf"down_norms.{i}.\1"}
        # 3 and 4 in the innermost level, which has no norm on its way down and nothing inside.
        keys |= {at + r"[35]\.(\w+)": rf"ups.{i}.\1", at + r"[46]\.(\w+)": rf"up_norms.{i}.\1"}
    return keys


# State-dict names of pytorch-CycleGAN-and-pix2pix -> ours, of a U-Net of up to 12 levels, a PatchGAN or a PixelGAN.
OFFICIAL_KEYS: dict[str, str | None] = {
    **_unet_keys(12),
    r"(?:model|net)\.(\d+)\.(\w+)": r"layers.\1.\2",
}
REPOSITORY = "pytorch-CycleGAN-and-pix2pix"
IMAGES = {"input_nc": "in_channels", "output_nc": "out_channels", "ngf": "width", "norm": "norm"}
JUDGED = {"input_nc": "channels", "ndf": "width", "norm": "norm"}


def told_norm(state: State, conv: str, norm: str) -> str:
    """A convolution has a bias only before an instance norm, which has no weight."""
    if f"{norm}.weight" in state:
        return "batch"
    return "instance" if f"{conv}.bias" in state else "none"


def convs(state: State, prefix: str = "model.") -> list[tuple[int, torch.Size]]:
    """(number, shape) of the convolutions directly below `prefix`, in order."""
    found = numbered(state, prefix.replace(".", r"\.") + r"(\d+)\.weight")
    return [(number, tensor.shape) for number, tensor in found.items() if tensor.ndim == 4]


def _unet(state: State) -> Config:
    """Weights do not tell of a dropout, which its repository has where it trains with batch norm: in pix2pix."""
    at, levels = "model.model.1.model.", 1
    while f"{at}1.weight" in state:
        at, levels = f"{at}3.model.", levels + 1
    first, last = state["model.model.0.weight"].shape, state["model.model.3.weight"].shape
    norm = told_norm(state, "model.model.1.model.1", "model.model.1.model.2")
    config = {"input_nc": first[1], "output_nc": last[1], "num_downs": levels, "ngf": first[0], "norm": norm}
    return {**config, "use_dropout": norm == "batch"}


def _patch(state: State) -> Config:
    found = convs(state)
    second, (ndf, input_nc) = found[1][0], found[0][1][:2]
    norm = told_norm(state, f"model.{second}", f"model.{second + 1}")
    return {"input_nc": input_nc, "ndf": ndf, "n_layers": len(found) - 2, "norm": norm}


def _pixel(state: State) -> Config:
    ndf, input_nc = state["net.0.weight"].shape[:2]
    return {"input_nc": input_nc, "ndf": ndf, "norm": told_norm(state, "net.2", "net.3")}


# ---- test time (Sec. 3.3) --------------------------------------------------------------------------------------------


@contextmanager
def as_in_training(network: nn.Module) -> Iterator[None]:
    """Inside, the network runs as in a training batch of one image (Sec. 3.3): dropout on, batch norms with each
    image's own statistics. They remember none of them, and talk to no other process."""
    norms = [m for m in network.modules() if isinstance(m, PairBatchNorm)]
    with evaluating(network):
        for module in network.modules():
            if isinstance(module, Dropout):
                module.train()
        for norm in norms:
            norm.alone = True
        try:
            yield
        finally:
            for norm in norms:
                norm.alone = False


class SameDraws(Draws):
    """Every image is given the same dropout masks: a translation depends on its image alone."""

    def bernoulli(self, p: float, like: Tensor) -> Tensor:
        return super().bernoulli(p, like[:1]).expand_as(like).clone()  # [1, ...] -> [N, ...]


def check_direction(direction: str, directions: tuple[str, ...]) -> None:
    """Returns if a translator with these `directions` goes in `direction`.

    Raises:
        ValueError: it does not.
    """
    if direction not in directions:
        raise ValueError(f"direction {direction!r} is none of this translator's, which are {', '.join(directions)}")


def check_pairs(game: Game, data: Any, *, channels: tuple[int, int], stride: int, least_px: int) -> None:
    """Before training: the data must have pictures a and b of the channels and sizes that the networks were built for.

    Raises:
        ValueError: they are of another kind, or differ.
    """
    if not isinstance(data, ImageData):
        return
    name, kind = type(game).__name__, type(data).__name__
    if not isinstance(data, TranslationData):
        raise ValueError(
            f"{name} learns from pictures of two domains, and {kind} gives single ones: use lit_gans.data.Paired or "
            "lit_gans.data.Unpaired"
        )
    sides = data.dataset(data.train_split).sides
    if "a" not in sides:
        told = ", ".join(sides)
        raise ValueError(f"{name} translates pictures, and these data have {told}: use lit_gans.papers.Pix2PixHD")
    if channels != (data.a_channels, data.b_channels):
        raise ValueError(
            f"{name} translates {channels[0]} channels into {channels[1]}, and the data have {data.a_channels} and "
            f"{data.b_channels}: 1 is grey, 3 is RGB; set those of the model or a_channels and b_channels of the data"
        )
    height, width = data.size
    if height % stride or width % stride or min(height, width) < least_px:
        raise ValueError(
            f"the data's pictures of {width}x{height} px do not fit {name}, whose sides must be multiples of {stride} "
            f"and at least {least_px}: set data.init_args.resolution (and height), or build smaller networks"
        )


# ---- pictures of the progress ----------------------------------------------------------------------------------------

Views = Callable[[Tensor, Tensor], list[Tensor]]


def preview_rows(data: Any, views: Views, *, count: int, device: torch.device) -> Tensor:
    """uint8 [K * count, 3, H, W] on the CPU: for each of the first samples its K `views`, one after the other.

    views: (a, b) [N, C, H, W] in [-1, 1] -> K such tensors. Of pictures that training does not see, if there are any.

    Raises:
        ValueError: the data are of somebody's own kind.
    """
    if not isinstance(data, TranslationData):
        raise ValueError(f"{type(data).__name__} gives no samples to preview: set image_grid.every_kimg=0")
    first = torch.arange(min(count, len(data.dataset(data.preview_split))))
    shown = []
    for batch in data.batches(data.preview_split, 4, indices=first):
        batch = data.on_after_batch_transfer({name: x.to(device) for name, x in batch.items()}, 0)
        together = torch.stack([as_rgb(x) for x in views(batch["a"], batch["b"])], 1)  # [N, K, 3, H, W]
        shown.append(to_uint8(together.flatten(0, 1)).cpu())  # [N K, 3, H, W]: a sample's views one after the other
    return torch.cat(shown)


def as_rgb(images: Tensor) -> Tensor:
    """[N, 1 or 3, H, W] -> [N, 3, H, W]: grey is repeated."""
    return images.expand(-1, 3, -1, -1)


# ---- training (Sec. 3) -----------------------------------------------------------------------------------------------


class Pix2Pix(Game):
    """Sec. 3: the discriminator judges pairs of input and output; the generator is also drawn to the target by L1.

    Batches are {"a": input, "b": target}. Adam with lr 2e-4 (App. 6.2), which the official code lets fall to 0 in the
    second half.

    Args:
        in_channels, out_channels: of the input and the target.
        width: channels of the generator after its first halving; discriminator_width: of the discriminator.
        levels: halvings of the generator: 8 at 256 pixels, 7 at 128, 6 at 64.
        patch_px: what one logit sees: 70; 1 is the pixel variant, 286 the image variant (Sec. 4.4); also 16, 34, 142.
        norm: of both networks. "batch" is the paper's, for batches of 1 to 10. Translation takes each image's own
            statistics, so with larger batches "instance" keeps it what was trained.
        dropout: as noise, in training and in translation (Sec. 3.1).
        l1_weight: lambda of Eq. 4.
        loss: import path of an adversarial loss; the paper's is the non-saturating one.
        decay_from_kimg: where the linear schedule starts to fall; None is half of total_kimg. The official code steps
            once per epoch, to 1/101 in the last; here the rate falls with every batch.
        repair_gradients: see `Game`. Off, as in the official code: without penalties a gradient that is not finite
            comes from a loss that is not, which Health reports.
        **game: micro_batches, seed, ... of `Game`.
    """

    directions: tuple[str, ...] = ("ab",)

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 64,
        levels: int = 8,
        discriminator_width: int = 64,
        patch_px: int = 70,
        norm: str = "batch",
        dropout: bool = True,
        l1_weight: float = 100.0,
        loss: str = "lit_gans.adversarial.losses.non_saturating",
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        repair_gradients: bool = False,
        total_kimg: float = 80.0,
        schedule: Schedule = "linear",
        decay_from_kimg: float | None = None,
        **game: Any,
    ) -> None:
        decay = total_kimg / 2 if decay_from_kimg is None else decay_from_kimg
        plan = {"total_kimg": total_kimg, "schedule": schedule, "decay_from_kimg": decay}
        super().__init__(repair_gradients=repair_gradients, **plan, **game)
        self.save_hyperparameters()
        self.generator = UNet(
            in_channels=in_channels, out_channels=out_channels, width=width, levels=levels, norm=norm, dropout=dropout
        )
        self.discriminator = patch_discriminator(
            patch_px, channels=in_channels + out_channels, width=discriminator_width, norm=norm
        )
        self.channels = (in_channels, out_channels)
        self.lr, self.betas, self.loss, self.l1_weight = lr, betas, loss_by_path(loss), l1_weight

    @classmethod
    def from_generator(cls, generator: UNet) -> Pix2Pix:
        """A generator alone, such as a released one, for translating; the discriminator is a tiny one."""
        taken, made = generator.channels
        game = cls(in_channels=taken, out_channels=made, width=1, levels=2, discriminator_width=1, patch_px=1)
        game.generator = generator
        return game

    @property
    def stride(self) -> int:
        """Sides of images must be multiples of it, in pixels."""
        return self.generator.stride

    def takes(self, direction: str) -> Input:
        return Input(self.channels[0])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        a, b = batch["a"], batch["b"]
        fakes = self.for_both(self.generator, a)
        reals: list[Tensor] = []
        with self.updating(opt_d):
            for fake, (source, target) in zip(fakes, self.split(a, b), strict=True):
                # Fakes first: batch norm's running statistics see fake, real and below fake again.
                fake_logits = self.judge(source, fake.detach())
                reals.append(self.judge(source, target))
                d_loss = 0.5 * self.loss(reals[-1], fake_logits)[0]  # halved, to slow D down (Sec. 3.3)
                self.accumulate(d_loss)
                self.report_discriminator(d_loss, reals[-1], fake_logits)
        with self.updating(opt_g):
            for fake, real_logits, (source, target) in zip(fakes, reals, self.split(a, b), strict=True):
                adversarial = self.loss(real_logits.detach(), self.judge(source, fake))[1]
                l1 = (fake - target).abs().mean()
                self.accumulate(adversarial + self.l1_weight * l1)  # Eq. 4
                self.report(loss_g=adversarial + self.l1_weight * l1, adversarial=adversarial, l1=l1)

    def judge(self, source: Tensor, image: Tensor) -> Tensor:
        """The logits of a pair, in single precision: their means decide the losses."""
        return self.discriminator(torch.cat([source, image], 1)).float()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in self.networks()]

    def discriminators(self) -> list[nn.Module]:
        return [self.discriminator]

    def networks(self) -> list[nn.Module]:
        return [self.generator, self.discriminator]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            least = self.discriminator.least_px
            check_pairs(self, self.trainer.datamodule, channels=self.channels, stride=self.stride, least_px=least)

    @torch.no_grad()
    def translate(self, images: Tensor, *, direction: str = "ab", draws: Draws | None = None) -> Tensor:
        """images [N, A, H, W] in [-1, 1] -> [N, B, H, W] in [-1, 1]; H and W are multiples of `stride`.

        With the noise of `draws`, a row for each image; without, all images meet the same noise, from the seed.
        """
        check_direction(direction, self.directions)
        draws = SameDraws(self.seed, "translate", device=images.device) if draws is None else draws
        with as_in_training(self.generator), drawing(draws):
            return self.generator(images)

    def preview(self, data: Any, *, rows: int, columns: int, psi: float = 1.0) -> tuple[Tensor, int]:
        """Input | output | target, in so many columns as fit into `columns`, at least one. No use for psi."""
        across = max(columns // 3, 1)
        images = preview_rows(data, self.views, count=rows * across, device=self.device)
        return images, min(3 * across, len(images))

    def views(self, a: Tensor, b: Tensor) -> list[Tensor]:
        return [a, self.translate(a), b]


UNET = Release(
    REPOSITORY, "UnetGenerator", UNet, OFFICIAL_KEYS,
    renaming({**IMAGES, "num_downs": "levels", "use_dropout": "dropout"}), _unet,
    begins={"model.model.0.weight": (4, 4)}, model=Pix2Pix,
)  # fmt: skip
OFFICIAL = [
    UNET,
    Release(
        REPOSITORY, "NLayerDiscriminator", PatchGAN, OFFICIAL_KEYS, renaming({**JUDGED, "n_layers": "layers"}), _patch,
        begins={"model.0.weight": (4, 4)}, name="D",
    ),
    Release(
        REPOSITORY, "PixelDiscriminator", PixelGAN, OFFICIAL_KEYS, renaming(JUDGED), _pixel,
        begins={"net.0.weight": (1, 1)}, name="D",
    ),
]  # fmt: skip
