"""Adaptive discriminator augmentation (Karras et al., 2020), https://arxiv.org/abs/2006.06676, Sec. 2 and 3.

The discriminator sees reals and fakes only through a chain of transforms, each of which happens to an image with
probability `multiplier * p`. While p is below about 0.8 the generator cannot hide in them: the distribution of the
augmented images determines that of the clean ones (Sec. 2.2). The AdaptiveAugmentation callback moves p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from lit_gans.augment.diffaug import enclosing_draws
from lit_gans.augment.transforms import (
    BANDS,
    EXPECTED_POWER,
    along_grey,
    cut_square,
    filter_bank,
    geometry_filter,
    hue_rotation,
    matrices,
    recolor,
    refilter,
    rotation,
    scaling,
    translation,
    warp,
)
from lit_gans.base.precision import with_double
from lit_gans.base.random import Draws

BLIT = ("xflip", "rotate90", "xint")
GEOM = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
FILTER, NOISE, CUTOUT = ("imgfilter",), ("noise",), ("cutout",)

# Which transforms are on: the six categories of Sec. 2.3, and sums of them; "bgc" is the paper's default.
PRESETS: dict[str, tuple[str, ...]] = {
    "blit": BLIT,
    "geom": GEOM,
    "color": COLOR,
    "filter": FILTER,
    "noise": NOISE,
    "cutout": CUTOUT,
    "bg": BLIT + GEOM,
    "bgc": BLIT + GEOM + COLOR,
    "bgcf": BLIT + GEOM + COLOR + FILTER,
    "bgcfn": BLIT + GEOM + COLOR + FILTER + NOISE,
    "bgcfnc": BLIT + GEOM + COLOR + FILTER + NOISE + CUTOUT,
}


# ---- random numbers --------------------------------------------------------------------------------------------------


class _Rolls:
    """Random numbers for n images, 0 for those that a transform passes by: every transform is neutral at 0.

    With a percentile there is no chance: every transform happens to every image, with that percentile of its strength.
    """

    def __init__(self, images: Tensor, draws: Draws | None, percentile: float | None) -> None:
        self.like, self.n, self.draws, self.percentile = images, len(images), draws, percentile

    def uniform(self, chance: Tensor, *shape: int) -> Tensor:
        """[n, *shape] from -1 to 1."""
        if self.percentile is not None:
            return self._all(2 * self.percentile - 1, *shape)
        return (2 * self._moved(self.draws.uniform(self.n, *shape)) - 1) * self._chosen(chance, *shape)

    def normal(self, chance: Tensor, *shape: int) -> Tensor:
        """[n, *shape] from N(0, 1). The percentile lacks the inverse error function's sqrt(2), as the official one."""
        if self.percentile is not None:
            return self._all(_erfinv(2 * self.percentile - 1), *shape)
        return self._moved(self.draws.normal(self.n, *shape)) * self._chosen(chance, *shape)

    def half_normal(self, chance: Tensor) -> Tensor:
        """[n]: sizes of N(0, 1)."""
        return self.normal(chance).abs() if self.percentile is None else self._all(_erfinv(self.percentile))

    def below(self, sides: int, chance: Tensor) -> Tensor:
        """[n]: whole numbers from 0 to sides - 1."""
        if self.percentile is not None:
            return self._all(math.floor(sides * self.percentile))
        return (sides * self._moved(self.draws.uniform(self.n))).floor() * self._chosen(chance)

    def chosen(self, chance: Tensor) -> Tensor:
        """[n]: 1 with the chance, else 0."""
        return self._all(1.0) if self.percentile is not None else self._chosen(chance)

    def anywhere(self, *shape: int) -> Tensor:
        """[n, *shape] from 0 to 1."""
        if self.percentile is not None:
            return self._all(self.percentile, *shape)
        return self._moved(self.draws.uniform(self.n, *shape))

    def _chosen(self, chance: Tensor, *shape: int) -> Tensor:
        chosen = self._moved(self.draws.uniform(self.n)) < chance
        return chosen.to(self.like.dtype).view(self.n, *[1] * len(shape))  # [n] -> [n, 1, ...]

    def _all(self, value: float, *shape: int) -> Tensor:
        return self.like.new_full((self.n, *shape), value)

    def _moved(self, drawn: Tensor) -> Tensor:
        return drawn.to(self.like)


def _erfinv(x: float) -> float:
    return torch.erfinv(torch.tensor(x)).item()


# ---- module ----------------------------------------------------------------------------------------------------------


class AdaptiveAugment(nn.Module):
    """Augments every image that passes with probability `multiplier * p` per transform, in training and evaluation.

    The buffer `p`, a scalar saved with the weights, starts at `p` and is moved by the AdaptiveAugmentation callback,
    for which the discriminator's step hands its real logits to `observe`. Random numbers come from the enclosing
    `drawing`. Args ending in `_std`, `_max`, `_bands` and `_size` are strengths, at the paper's values (App. B); the
    others are multipliers, of which 0 takes a transform out: see `preset`.

    Args:
        xflip, rotate90, xint: mirror left and right, turn by quarters, shift by whole pixels (at most the share
            `xint_max` of the side).
        scale, rotate, aniso, xfrac: stretch evenly (log2 N(0, scale_std)), turn (at most `rotate_max` of 180 degrees),
            stretch one axis against the other, shift by a share N(0, xfrac_std) of the side.
        brightness, contrast, lumaflip, hue, saturation: add N(0, brightness_std), multiply (log2 N(0, contrast_std)),
            mirror the lightness, turn the hue (at most `hue_max` of 180 degrees), multiply the saturation. Grey images
            take the mean effect on the channels, and neither hue nor saturation.
        imgfilter: amplify each octave band (log2 N(0, imgfilter_std)), with the multiplier imgfilter_bands[b] besides;
            needs images of more than 21 pixels.
        noise, cutout: add noise of standard deviation |N(0, noise_std)|; cut out a square of `cutout_size` of the side.

    Raises:
        ValueError: a negative chance, or not one multiplier for each band.
    """

    def __init__(
        self,
        *,
        p: float = 0.0,
        xflip: float = 0.0,
        rotate90: float = 0.0,
        xint: float = 0.0,
        scale: float = 0.0,
        rotate: float = 0.0,
        aniso: float = 0.0,
        xfrac: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        lumaflip: float = 0.0,
        hue: float = 0.0,
        saturation: float = 0.0,
        imgfilter: float = 0.0,
        noise: float = 0.0,
        cutout: float = 0.0,
        xint_max: float = 0.125,
        scale_std: float = 0.2,
        rotate_max: float = 1.0,
        aniso_std: float = 0.2,
        xfrac_std: float = 0.125,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1.0,
        saturation_std: float = 1.0,
        imgfilter_bands: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        imgfilter_std: float = 1.0,
        noise_std: float = 0.1,
        cutout_size: float = 0.5,
    ) -> None:
        super().__init__()
        self.multipliers = {
            "xflip": xflip, "rotate90": rotate90, "xint": xint,
            "scale": scale, "rotate": rotate, "aniso": aniso, "xfrac": xfrac,
            "brightness": brightness, "contrast": contrast, "lumaflip": lumaflip, "hue": hue, "saturation": saturation,
            "imgfilter": imgfilter, "noise": noise, "cutout": cutout,
        }  # fmt: skip
        for name, value in {"p": p, **self.multipliers}.items():
            if value < 0:
                raise ValueError(f"AdaptiveAugment: {name} is {value}, and no chance is below 0; 0 switches it off")
        if len(imgfilter_bands) != BANDS:
            raise ValueError(f"imgfilter_bands has {len(imgfilter_bands)} numbers; give {BANDS}, the lowest band first")
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("taps", geometry_filter().float(), persistent=False)
        self.register_buffer("bank", filter_bank().float(), persistent=False)
        self.xint_max, self.scale_std, self.rotate_max = xint_max, scale_std, rotate_max
        self.aniso_std, self.xfrac_std = aniso_std, xfrac_std
        self.brightness_std, self.contrast_std = brightness_std, contrast_std
        self.hue_max, self.saturation_std = hue_max, saturation_std
        self.imgfilter_bands, self.imgfilter_std = tuple(imgfilter_bands), imgfilter_std
        self.noise_std, self.cutout_size = noise_std, cutout_size
        self._signs: Tensor | None = None
        self._logits = 0

    @classmethod
    def preset(cls, name: str = "bgc", *, p: float = 0.0) -> AdaptiveAugment:
        """The transforms of `PRESETS[name]`, each with multiplier 1 and the paper's strength.

        Raises:
            ValueError: there is no such preset.
        """
        if name not in PRESETS:
            raise ValueError(f"there is no preset {name!r} of augmentations; there are {', '.join(PRESETS)}")
        return cls(p=p, **dict.fromkeys(PRESETS[name], 1.0))

    # ---- what the adaptation needs -----------------------------------------------------------------------------------

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        """Counts the signs of real logits, which must be those of augmented reals; never waits for the device."""
        signs = (real_logits > 0).sum() - (real_logits < 0).sum()  # whole numbers, exact on every device
        self._signs = signs if self._signs is None else self._signs + signs
        self._logits += real_logits.numel()

    def take_observed(self) -> tuple[Tensor | None, int]:
        """(sum of the signs, how many) since the last call, on this process; (None, 0) when nothing was observed."""
        taken = self._signs, self._logits
        self._signs, self._logits = None, 0
        return taken

    # ---- augmentation ------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor, *, percentile: float | None = None) -> Tensor:
        """images [N, C, H, W] in [-1, 1] -> the same shape and type; colours may leave the range.

        percentile: every transform that is on happens, with this percentile (0 to 1) of its strength; nothing is
        random but the noise, and p does not count. For comparing and for looking at single transforms.

        Raises:
            ValueError: neither grey nor RGB, outside of a `drawing`, too small for `imgfilter`,
                or a percentile outside of (0, 1).
        """
        if percentile is not None and not 0 < percentile < 1:
            raise ValueError(f"percentile {percentile} does not lie between 0 and 1")
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images have {images.shape[1]} channels; colours are transformed in 1 (grey) or 3 (RGB)")
        p = self.p.to(with_double(self.p.device)).double()
        chances = {name: m * p for name, m in self.multipliers.items() if m > 0}
        # Asking a GPU for p would wait for it: there all is done, and undone below where p is 0.
        if not chances or (percentile is None and self.p.is_cpu and self.p == 0):
            return images
        draws = enclosing_draws(self) if percentile is None or "noise" in chances else None
        with torch.autocast(images.device.type, enabled=False):  # half precision would blur what is learned from
            x = images.to(torch.promote_types(images.dtype, torch.float32))
            augmented = self._augment(x, chances, _Rolls(x, draws, percentile)).to(images.dtype)
        return augmented if percentile is not None else torch.where(self.p > 0, augmented, images)

    def _augment(self, x: Tensor, chances: dict[str, Tensor], rolls: _Rolls) -> Tensor:
        if steps := self._geometry(chances, rolls, width=x.shape[3], height=x.shape[2]):
            x = warp(x, reduce(torch.matmul, steps), self.taps.to(x.dtype))  # inverses: the first step stands leftmost
        if steps := self._colors(chances, rolls, channels=x.shape[1]):
            x = recolor(x, reduce(torch.matmul, reversed(steps)))  # not inverses: the first step stands rightmost
        if "imgfilter" in chances:
            x = refilter(x, self._gains(chances["imgfilter"], rolls), self.bank.to(x.dtype))
        if "noise" in chances:
            sigma = rolls.half_normal(chances["noise"]) * self.noise_std
            x = x + rolls.draws.normal(*x.shape).to(x) * sigma[:, None, None, None]
        if "cutout" in chances:
            x = cut_square(x, rolls.chosen(chances["cutout"]) * self.cutout_size, rolls.anywhere(2))
        return x

    def _geometry(self, chances: dict[str, Tensor], rolls: _Rolls, *, width: int, height: int) -> list[Tensor]:
        """Inverses [N, 3, 3] of the steps in the order in which they happen to the image (App. B).

        The inverse of a chain is the product of the inverses in the same order: the last step is undone first.
        """
        steps = []
        if "xflip" in chances:
            mirrored = 1 - 2 * rolls.below(2, chances["xflip"])  # 1 or -1
            steps.append(scaling(mirrored, torch.ones_like(mirrored)))
        if "rotate90" in chances:
            steps.append(rotation(rolls.below(4, chances["rotate90"]) * (math.pi / 2)))
        if "xint" in chances:
            x, y = (rolls.uniform(chances["xint"], 2) * self.xint_max).unbind(1)  # [N, 2] -> 2 of [N]
            steps.append(translation(-(x * width).round(), -(y * height).round()))
        if "scale" in chances:
            shrink = torch.exp2(-rolls.normal(chances["scale"]) * self.scale_std)  # the inverse of a stretch
            steps.append(scaling(shrink, shrink))
        if "rotate" in chances:
            # Turned before and after the stretch, each with the chance that makes `rotate * p` together.
            half_chance = 1 - (1 - chances["rotate"].clamp(max=1)).sqrt()
            steps.append(rotation(rolls.uniform(half_chance) * (math.pi * self.rotate_max)))
        if "aniso" in chances:
            shrink = torch.exp2(-rolls.normal(chances["aniso"]) * self.aniso_std)
            steps.append(scaling(shrink, 1 / shrink))
        if "rotate" in chances and rolls.percentile is None:
            steps.append(rotation(rolls.uniform(half_chance) * (math.pi * self.rotate_max)))
        if "xfrac" in chances:
            x, y = (rolls.normal(chances["xfrac"], 2) * self.xfrac_std).unbind(1)  # [N, 2] -> 2 of [N]
            steps.append(translation(-x * width, -y * height))
        return steps

    def _colors(self, chances: dict[str, Tensor], rolls: _Rolls, *, channels: int) -> list[Tensor]:
        """Maps [N, 4, 4] of the steps in the order in which they happen to the image (App. B)."""
        steps = []
        if "brightness" in chances:
            shift = rolls.normal(chances["brightness"]) * self.brightness_std
            steps.append(matrices([1, 0, 0, shift], [0, 1, 0, shift], [0, 0, 1, shift], [0, 0, 0, 1]))
        if "contrast" in chances:
            factor = torch.exp2(rolls.normal(chances["contrast"]) * self.contrast_std)
            steps.append(matrices([factor, 0, 0, 0], [0, factor, 0, 0], [0, 0, factor, 0], [0, 0, 0, 1]))
        if "lumaflip" in chances:
            steps.append(along_grey(1 - 2 * rolls.below(2, chances["lumaflip"]), grey=True))
        if "hue" in chances and channels > 1:
            steps.append(hue_rotation(rolls.uniform(chances["hue"]) * (math.pi * self.hue_max)))
        if "saturation" in chances and channels > 1:
            steps.append(along_grey(torch.exp2(rolls.normal(chances["saturation"]) * self.saturation_std), grey=False))
        return steps

    def _gains(self, chance: Tensor, rolls: _Rolls) -> Tensor:
        """[N, 4]: amplification of each band; the change of any one keeps the expected power (App. B)."""
        gains = rolls.like.new_ones(rolls.n, BANDS)
        power = torch.stack([gains.new_full((), share) for share in EXPECTED_POWER])
        for band, multiplier in enumerate(self.imgfilter_bands):
            if multiplier > 0:
                change = torch.ones_like(gains)
                change[:, band] = torch.exp2(rolls.normal(chance * multiplier) * self.imgfilter_std)
                gains = gains * change / (power * change.square()).sum(1, keepdim=True).sqrt()
        return gains

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={m:g}" for name, m in self.multipliers.items() if m > 0)
