"""The transforms of adaptive augmentation (Karras et al., 2020, App. B), of images and numbers per image.

Which numbers, and how likely, is the affair of `lit_gans.augment.ada`. Everything can be differentiated twice in the
images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.nn.resample import downsample2d, upsample2d

# Low-pass taps of the symlets with 2 and 6 vanishing moments (Daubechies, 1992).
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip

BANDS = 4
# Share of each band in the power spectrum of natural images, as the paper takes it to be (App. B).
EXPECTED_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)


# ---- filters ---------------------------------------------------------------------------------------------------------


def geometry_filter() -> Tensor:
    """[12] float64, sum 1: the filter between the resolution of the images and twice that."""
    taps = torch.tensor(SYM6, dtype=torch.float64)
    return taps / taps.sum()


def filter_bank() -> Tensor:
    """[4, 43] float64: symmetric filters of the octave bands, lowest first, that add up to a unit impulse (App. B).

    Band b is the high-pass of the b-th octave from below behind the low-passes of the octaves above it; the lowest is
    all low-passes. Both come from the sym2 wavelet and its reflection, so that they have no phase.
    """
    low = torch.tensor(SYM2, dtype=torch.float64)
    high = low * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    low, high = (_convolved(taps, taps.flip(0)) / 2 for taps in (low, high))
    above = [torch.ones(1, dtype=torch.float64)]  # low-passes of the highest 0, 1, 2, 3 octaves
    for octave in range(BANDS - 1):
        above.append(_convolved(above[-1], _dilated(low, 2**octave)))
    bands = [above[-1]] + [_convolved(above[o], _dilated(high, 2**o)) for o in reversed(range(BANDS - 1))]
    return torch.stack([F.pad(b, [(len(bands[0]) - len(b)) // 2] * 2) for b in bands])


def _convolved(a: Tensor, b: Tensor) -> Tensor:
    """The full convolution of two rows of taps."""
    return F.conv1d(a[None, None], b.flip(0)[None, None], padding=len(b) - 1)[0, 0]


def _dilated(taps: Tensor, step: int) -> Tensor:
    """The taps with step - 1 zeros between them."""
    spread = taps.new_zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread


# ---- matrices --------------------------------------------------------------------------------------------------------


def matrices(*rows: Sequence[Tensor | float]) -> Tensor:
    """[N, len(rows), len(rows[0])] from entries [N] or constants."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    entries = [e if isinstance(e, Tensor) else torch.full_like(like, e) for row in rows for e in row]
    return torch.stack(entries, dim=-1).unflatten(-1, (len(rows), len(rows[0])))


def translation(x: Tensor, y: Tensor) -> Tensor:
    """[N, 3, 3] that moves points by x [N], y [N]."""
    return matrices([1, 0, x], [0, 1, y], [0, 0, 1])


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """[N, 3, 3] that stretches the axes by x [N], y [N]."""
    return matrices([x, 0, 0], [0, y, 0], [0, 0, 1])


def rotation(angle: Tensor) -> Tensor:
    """[N, 3, 3] that turns the x axis towards the y axis by angle [N] in radians."""
    sin, cos = angle.sin(), angle.cos()
    return matrices([cos, -sin, 0], [sin, cos, 0], [0, 0, 1])


def hue_rotation(angle: Tensor) -> Tensor:
    """[N, 4, 4] that turns colours by angle [N] in radians around the grey axis (Rodrigues' formula)."""
    cos, even, odd = angle.cos(), (1 - angle.cos()) / 3, angle.sin() / math.sqrt(3)
    same, next_, last = cos + even, even + odd, even - odd
    return matrices([same, last, next_, 0], [next_, same, last, 0], [last, next_, same, 0], [0, 0, 0, 1])


def along_grey(factor: Tensor, *, grey: bool) -> Tensor:
    """[N, 4, 4] that multiplies by factor [N] the part of a colour along the grey axis, or the part across it."""
    axis = F.pad(factor.new_ones(3) / math.sqrt(3), [0, 1])
    along, whole = torch.outer(axis, axis), torch.eye(4, dtype=factor.dtype, device=factor.device)
    factor = factor[:, None, None]
    return whole + (factor - 1) * along if grey else along + factor * (whole - along)


# ---- transforms ------------------------------------------------------------------------------------------------------


class _GridSample(torch.autograd.Function):
    """Bilinear, 0 outside; differentiable any number of times in the images, not in the grid.

    torch's own has no second derivative, which R1 takes. Sampling is linear, so the derivative of the derivative is
    sampling again.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _GridSpread.apply(gradient, *ctx.saved_tensors, ctx.shape), None


class _GridSpread(torch.autograd.Function):
    """The transpose of `_GridSample`: values at the points of the grid are spread over the pixels around them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        pixels = values.new_zeros(()).expand(shape)  # only its shape matters: no gradient of the grid is asked for
        modes = {"interpolation_mode": 0, "padding_mode": 0, "align_corners": False}  # bilinear, zeros
        return torch.ops.aten.grid_sampler_2d_backward(values, pixels, grid, **modes, output_mask=[True, False])[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _GridSample.apply(gradient, *ctx.saved_tensors), None, None


def warp(images: Tensor, inverse: Tensor, taps: Tensor) -> Tensor:
    """images [N, C, H, W] moved by the inverses of inverse [N, 3, 3], without aliasing (App. B).

    `inverse` maps a pixel's place in the result to its place in `images`, in pixels from the centre. Images are
    reflected at their edges as far as the farthest corner of the batch reaches (at most once), upsampled by 2 with
    `taps`, sampled bilinearly once, and downsampled with the reflected taps: for orthogonal wavelets such as sym6 the
    identity comes back exactly.
    """
    height, width = images.shape[2:]
    support = len(taps) // 4
    left, right, top, bottom = _margins(inverse, width, height, 2 * support)
    images = F.pad(images, [left, right, top, bottom], mode="reflect")
    source_w, source_h = images.shape[3], images.shape[2]
    target_w, target_h = 2 * (width + 2 * support), 2 * (height + 2 * support)
    # From [-1, 1] over the target to pixels from the centre, and from there to [-1, 1] over the padded source. Pixel
    # centres of the doubled images lie a quarter of a pixel off, which enters and leaves again.
    enter = _framing(inverse, x=(target_w / 4, 0.25), y=(target_h / 4, 0.25))
    x, y = (left - right - 0.5) / source_w, (top - bottom - 0.5) / source_h
    leave = _framing(inverse, x=(2 / source_w, x), y=(2 / source_h, y))
    theta = (leave @ inverse @ enter)[:, :2]
    grid = F.affine_grid(theta, [len(images), images.shape[1], target_h, target_w], align_corners=False)
    doubled = _GridSample.apply(upsample2d(images, taps, up=2), grid)
    return downsample2d(doubled, taps, down=2, padding=-2 * support, flip_filter=True)


def _margins(inverse: Tensor, width: int, height: int, extra: int) -> list[int]:
    """[left, right, top, bottom]: whole pixels by which the corners reach over the image's edges, and `extra`.

    On a GPU the most that there can be: the corners' places would have to be waited for, which costs a training step
    more than filtering a larger image. Whatever lies beyond the farthest corner changes nothing.
    """
    if not inverse.is_cpu:
        return [width - 1] * 2 + [height - 1] * 2
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = inverse.new_tensor([[-x, x, x, -x], [-y, -y, y, y], [1, 1, 1, 1]])
    places = (inverse @ corners)[:, :2].transpose(0, 1).flatten(1)
    reach = torch.stack([-places.amin(1), places.amax(1)], dim=1).tolist()
    limits = [(low_or_high, x) for low_or_high in reach[0]] + [(low_or_high, y) for low_or_high in reach[1]]
    return [math.ceil(min(max(far + extra - half, 0), 2 * half)) for far, half in limits]


def _framing(like: Tensor, *, x: tuple[float, float], y: tuple[float, float]) -> Tensor:
    """[3, 3] of factor and shift of x and of y; of entries that are filled in, since building it waits for a GPU."""
    matrix = torch.eye(3, dtype=like.dtype, device=like.device)
    for row, (factor, shift) in enumerate((x, y)):
        matrix[row, row].fill_(factor)
        matrix[row, 2].fill_(shift)
    return matrix


def recolor(images: Tensor, matrix: Tensor) -> Tensor:
    """images [N, C, H, W] with the affine map matrix [N, 4, 4] on their colours; for C = 1 its mean over R, G and B."""
    linear, shift = matrix[:, :3, :3], matrix[:, :3, 3:]
    if images.shape[1] == 1:
        linear, shift = linear.sum(2, keepdim=True).mean(1, keepdim=True), shift.mean(1, keepdim=True)
    return (linear @ images.flatten(2) + shift).reshape(images.shape)


def refilter(images: Tensor, gains: Tensor, bank: Tensor) -> Tensor:
    """images [N, C, H, W], reflected at the edges, with the bands of bank [B, K] amplified by gains [N, B].

    Raises:
        ValueError: the images are too small to be reflected so far.
    """
    n, channels, height, width = images.shape
    half = bank.shape[1] // 2
    if min(height, width) <= half:
        raise ValueError(
            f"imgfilter reflects {half} pixels at the edges, and the images have {height} x {width}: it needs at "
            f"least {half + 1}; leave imgfilter out (preset 'bgc')"
        )
    taps = (gains @ bank).repeat_interleave(channels, 0)[:, None, None]
    images = F.pad(images, [half] * 4, mode="reflect").flatten(0, 1)[None]
    images = F.conv2d(images, taps, groups=n * channels)
    images = F.conv2d(images, taps.transpose(2, 3), groups=n * channels)
    return images.view(n, channels, height, width)


def cut_square(images: Tensor, size: Tensor, centre: Tensor) -> Tensor:
    """images [N, C, H, W] with a rectangle set to 0: size [N] is its share of both sides, centre [N, 2] (x, y)."""
    height, width = images.shape[2:]
    x, y = ((torch.arange(side, device=images.device) + 0.5).to(images) / side for side in (width, height))
    keep_x = (x - centre[:, :1]).abs() >= size[:, None] / 2
    keep_y = (y - centre[:, 1:]).abs() >= size[:, None] / 2
    return images * (keep_x[:, None, None, :] | keep_y[:, None, :, None])
