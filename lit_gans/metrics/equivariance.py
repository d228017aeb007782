"""Equivariance to translation and rotation (Karras et al., 2021), https://arxiv.org/abs/2106.12423, App. E.

How exactly an image moves when what it is made of is moved. In decibels: the peak signal-to-noise ratio, with a signal
of 2, between the image moved by resampling and the image that the generator draws when its input is moved: EQ-T by
whole pixels (Eq. 12 and 13), EQ-T_frac by fractions of them, EQ-R by an angle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.base.precision import exact_float32, with_double
from lit_gans.base.processes import check_ranks, gather_rows, share_of
from lit_gans.base.random import Draws
from lit_gans.metrics.measures import NO_EXTRACTOR, Context, Measure
from lit_gans.metrics.path_length import SEED_STRIDE
from lit_gans.metrics.sources import Transforms
from lit_gans.nn.resample import filter2d, upsample2d

Kind = Literal["eq_t", "eq_t_frac", "eq_r"]
Moved = tuple[Tensor, Tensor]
"""images [N, C, H, W], and bool [H, W]: where they are known, since what they were made of lay inside the picture."""
NUM_SAMPLES = 50_000
GROUP = 4  # samples that are moved alike: the batch of the official code
TRANSLATE_MAX = 0.125  # to each side, of the picture's width and height
LANCZOS = 3  # a: pixels from the middle of Lanczos' window to its end


# ---- pictures that are moved -----------------------------------------------------------------------------------------


def translated_by_pixels(images: Tensor, x: int, y: int) -> Moved:
    """images [N, C, H, W] moved by x pixels to the right and y down; zeros come in (Eq. 12)."""
    rows, columns = (_kept(size, by) for size, by in zip(images.shape[-2:], (y, x), strict=True))
    moved, known = torch.zeros_like(images), torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
    moved[..., rows[0], columns[0]] = images[..., rows[1], columns[1]]
    known[rows[0], columns[0]] = True
    return moved, known


def _kept(size: int, by: int) -> tuple[slice, slice]:
    """(where they lie afterwards, where they came from), of a line of so many pixels."""
    left = max(size - abs(by), 0)
    ahead, behind = slice(max(by, 0), max(by, 0) + left), slice(max(-by, 0), max(-by, 0) + left)
    return ahead, behind


def translated(images: Tensor, x: float, y: float) -> Moved:
    """images [N, C, H, W] moved by x of their width to the right and y of their height down, with Lanczos' filter."""
    height, width = images.shape[-2:]
    (down, rows), (across, columns) = _shift(height, y * height, images), _shift(width, x * width, images)
    return down @ images @ across.T, rows[:, None] & columns


def _shift(size: int, by: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """(matrix [size, size] that moves a line by so many pixels, bool [size]: where all taps lie inside of it)."""
    whole = math.floor(by)
    taps = torch.arange(1 - LANCZOS, LANCZOS + 1, dtype=torch.float64) - (by - whole)
    line = torch.arange(size, dtype=torch.float64)
    away = line[:, None] - line - by  # [to, from]
    matrix = torch.where(away.abs() < LANCZOS, _windowed(away), 0.0) / _windowed(taps).sum()
    inside = (line >= whole + LANCZOS) & (line < size + whole - LANCZOS + 1)
    return matrix.to(like), inside.to(like.device)


def _windowed(t: Tensor) -> Tensor:
    return t.sinc() * _lanczos(t)


def _lanczos(t: Tensor) -> Tensor:
    """The window, 0 from `LANCZOS` pixels on."""
    return torch.where(t.abs() < LANCZOS, (t / LANCZOS).sinc(), 0.0)


def rotation(angle: float) -> Tensor:
    """float64 [3, 3]: turns places in a picture, whose y runs down, by `angle` radians to the left."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)


def translation(x: float, y: float) -> Tensor:
    """float64 [3, 3]: moves places to the right by x and down by y."""
    return torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=torch.float64)


def rotated(images: Tensor, angle: float, *, up: int = 4) -> Moved:
    """images [N, C, H, W] turned by `angle` radians about their middle.

    Filtered for the pixels of both sides, on a grid `up` times finer, between whose points it is linear (App. E.3).
    """
    f = bandlimit_filter(rotation(angle), up=up).to(images)
    margin = len(f) // 2
    fine = upsample2d(images, f, up=up, padding=margin)
    inside = fine.new_zeros(1, 1, *fine.shape[-2:])
    inside[..., len(f) : -len(f), len(f) : -len(f)] = 1  # of all taps, and of the grid's neighbours
    places = _places(images, angle, up=up, margin=margin)
    moved = F.grid_sample(fine, places.expand(len(images), -1, -1, -1), align_corners=True)
    known = F.grid_sample(inside, places, mode="nearest", align_corners=True)
    return moved, known[0, 0] > 0


def _places(images: Tensor, angle: float, *, up: int, margin: int) -> Tensor:
    """[1, H, W, 2]: x and y of where each pixel comes from, from -1, the finer grid's first point, to 1, its last."""
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width)), indexing="ij")
    # In shares of the picture from its middle. On the finer grid a pixel's own point is the `up // 2`th of its `up`.
    source = torch.stack([x / width, y / height, torch.ones_like(x)], 2) @ rotation(angle).inverse()[:2].T
    sizes = torch.tensor([width, height], dtype=torch.float64)
    index = (source * sizes + (sizes - 1) / 2) * up + margin + up // 2
    return (index / (sizes * up + 2 * margin - 1) * 2 - 1)[None].to(images)


def pseudo_rotated(images: Tensor, angle: float) -> Moved:
    """images [N, C, H, W] that were turned by `angle`, with what resampling them from unturned ones would have lost.

    They are filtered as `rotated` ones are, and stay where they are (App. E.3).
    """
    f = bandlimit_filter(rotation(-angle), up=1).to(images)
    margin = len(f) // 2
    known = images.new_zeros(images.shape[-2:], dtype=torch.bool)
    known[margin:-margin, margin:-margin] = True
    return filter2d(images, f), known


def bandlimit_filter(matrix: Tensor, *, up: int, reach: int = 2 * LANCZOS, period: int = 64) -> Tensor:
    """float32 [2 * reach * up - 1, the same]: what a picture needs that is resampled by a linear `matrix` [2+, 2+].

    It keeps what the pixels of both sides can hold: the convolution of a sinc for each, one of them turned by the
    matrix, under that of two Lanczos windows. Taps are 1 / up pixels apart; convolutions are taken over a period of
    2 * `period` pixels. Each of the up^2 sets of taps, a pixel apart, that make a point of the finer grid has the same
    sum (App. E.3).
    """
    places, *unturned = _unturned(up, period)
    turned = places @ matrix[:2, :2].double().T
    shapes: tuple[Callable[[Tensor], Tensor], ...] = (torch.sinc, _lanczos)
    f, window = (
        torch.fft.irfft2(one * torch.fft.rfft2(shape(turned).prod(2)), s=places.shape[:2])
        for one, shape in zip(unturned, shapes, strict=True)
    )
    middle, side = len(f) // 2, reach * up - 1
    f = torch.fft.fftshift(f * window)[middle - side : middle + side + 1, middle - side : middle + side + 1]
    f = F.pad(f, (0, 1, 0, 1)).view(2 * reach, up, 2 * reach, up)
    f = f / f.sum((0, 2), keepdim=True) / up**2
    return f.reshape(2 * reach * up, -1)[:-1, :-1].float()


@cache
def _unturned(up: int, period: int) -> tuple[Tensor, Tensor, Tensor]:
    """x and y of the taps [n, n, 2], the first at 0; the spectra of the sinc and of the window over them."""
    n = 2 * period * up - 1
    line = torch.fft.ifftshift(torch.arange(n, dtype=torch.float64) - n // 2) / up
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), 2)
    return places, torch.fft.rfft2(places.sinc().prod(2)), torch.fft.rfft2(_lanczos(places).prod(2))


# ---- the metric ------------------------------------------------------------------------------------------------------


def squared_error(
    model: Transforms,
    ws: Tensor,
    kind: Kind,
    drawn: Tensor,
    *,
    translate_max: float = TRANSLATE_MAX,
    rotate_max: float = math.pi,
    ema: bool = True,
) -> tuple[float, int]:
    """(sum of squared errors, how many numbers they are of) of one move of the images of ws [N, L, W].

    drawn [5] from U[0, 1): x and y of the whole translation, x and y of the fractional one, and the angle; they reach
    from -`translate_max` to `translate_max` of the picture, from -`rotate_max` to `rotate_max` radians.
    """
    spread = (2 * drawn.double() - 1).tolist()
    images = model.synthesize_transformed(ws, torch.eye(3), ema=ema)
    size = images.shape[-1]
    if kind == "eq_r":
        angle = rotate_max * spread[4]
        expected, known = rotated(images, angle)
        found, also = pseudo_rotated(model.synthesize_transformed(ws, rotation(-angle), ema=ema), angle)
        known = known & also
    else:
        x, y = (translate_max * each for each in (spread[:2] if kind == "eq_t" else spread[2:4]))
        if kind == "eq_t":
            pixels = round(x * size), round(y * size)
            expected, known = translated_by_pixels(images, *pixels)
            x, y = (each / size for each in pixels)
        else:
            expected, known = translated(images, x, y)
        # A place in the moved picture shows what is as far on its other side.
        found = model.synthesize_transformed(ws, translation(-x, -y), ema=ema)
    errors = (expected - found)[..., known]
    return errors.to(with_double(errors.device)).double().square().sum().item(), errors.numel()


def decibels(error: float, count: float) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1], whose mean squared error is error / count (Eq. 13)."""
    return 20 * math.log10(2) - 10 * math.log10(error / count) if error else math.inf


@torch.no_grad()
def measure_equivariance(
    model: Transforms,
    kind: Kind,
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    psi: float = 1.0,
    ema: bool = True,
    rank: int = 0,
    world: int = 1,
) -> float:
    """Decibels over `num_samples` samples, the same on every process; all must call it. Infinite without any error.

    Sample i has the model's seed `seed` * 10^9 + i, of the class that is its remainder. Groups of `GROUP` samples are
    moved alike, by what is drawn from (`seed`, number of the group): so a number repeats, and all three kinds draw the
    same. Networks run without TF32 and autocast; noise maps, where there are some, stay the same, while the official
    code draws them anew for each group.

    Raises:
        ValueError: num_samples is below 1, or the images are so small that no pixel of a moved one is known.
    """
    check_ranks(rank, world)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}: give 1 or more")
    mine = share_of(math.ceil(num_samples / GROUP), rank=rank, world=world)
    place = with_double(model.device)
    sums = [torch.empty(0, 2, dtype=torch.float64)]
    with exact_float32(torch.device(model.device)):
        for group in mine.tolist():
            index = torch.arange(group * GROUP, min((group + 1) * GROUP, num_samples))
            labels = (index % model.num_classes).to(model.device) if model.num_classes else None
            ws = model.styles(model.seeded_latents(seed * SEED_STRIDE + index), labels=labels, psi=psi, ema=ema)
            drawn = Draws("equivariance", seed, group).uniform(5)
            sums.append(torch.tensor([squared_error(model, ws, kind, drawn, ema=ema)], dtype=torch.float64))
    error, count = gather_rows(torch.cat(sums).to(place), mine.to(place)).sum(0).tolist()
    if count == 0:
        raise ValueError(f"{kind}: no pixel of a moved image is known; {type(model).__name__}'s images are too small")
    return decibels(error, count)


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class EquivarianceMeasure(Measure):
    """One of the three numbers of the model that is measured; published ones have 50,000 samples."""

    of_images = False

    def __init__(self, context: Context, *, kind: Kind) -> None:
        self.context, self.kind = context, kind

    def values(self) -> dict[str, float]:
        context, plan = self.context, self.context.plan
        wanted = [name for name in plan.metrics if name.startswith("eq_")]
        context.tell("equivariance", wanted.index(self.kind), len(wanted))
        return {
            self.kind: measure_equivariance(
                context.subject.model, self.kind, num_samples=plan.equivariance_samples, seed=plan.seed, psi=plan.psi,
                ema=plan.ema, rank=context.rank, world=context.world,
            )
        }  # fmt: skip

    def settings(self) -> dict[str, Any]:
        samples = {"equivariance_samples": self.context.plan.equivariance_samples, "moved_alike": GROUP}
        return {**NO_EXTRACTOR, **samples, "n_real": None, "n_fake": None}
