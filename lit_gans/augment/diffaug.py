"""Differentiable augmentation (Zhao et al., 2020), https://arxiv.org/abs/2006.10738.

Each transform is a function of images [N, C, H, W] in [-1, 1] and of one random number per image; `DiffAugment` draws
the numbers. All of them can be differentiated twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.random import Draws, current_draws

POLICIES = ("color", "translation", "cutout")


def enclosing_draws(user: nn.Module) -> Draws:
    """The stream of the enclosing `drawing`.

    Raises:
        ValueError: there is none.
    """
    draws = current_draws()
    if draws is None:
        raise ValueError(
            f"{type(user).__name__} takes its random numbers from the enclosing `drawing`, and there is none: call it "
            "inside `with self.updating(optimizer):`, or inside `with drawing(Draws(seed)):` of lit_gans.nn"
        )
    return draws


# ---- transforms ------------------------------------------------------------------------------------------------------


def shift_brightness(images: Tensor, shift: Tensor) -> Tensor:
    """[N, C, H, W] with shift [N], from -0.5 to 0.5 in the paper, added to every pixel."""
    return images + _per_image(shift)


def scale_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """[N, C, H, W] with the distance to each pixel's mean colour times factor [N], from 0 to 2 in the paper."""
    grey = images.mean(1, keepdim=True)
    return (images - grey) * _per_image(factor) + grey


def scale_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """[N, C, H, W] with the distance to each image's mean times factor [N], from 0.5 to 1.5 in the paper."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * _per_image(factor) + mean


def translate(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[N, C, H, W] whose pixel (i, j) is the input's (i + rows[n], j + columns[n]), and 0 outside of it.

    rows, columns [N]: int64.
    """
    n, channels, height, width = images.shape
    padded = F.pad(images, (1, 1, 1, 1))
    i = (_positions(height, rows) + rows[:, None] + 1).clamp(0, height + 1)
    j = (_positions(width, columns) + columns[:, None] + 1).clamp(0, width + 1)
    padded = padded.gather(2, i[:, None, :, None].expand(n, channels, height, width + 2))
    return padded.gather(3, j[:, None, None, :].expand(n, channels, height, width))


def cut_out(images: Tensor, row: Tensor, column: Tensor, *, size: tuple[int, int]) -> Tensor:
    """[N, C, H, W] with a rectangle of `size` pixels set to 0 around (row[n], column[n]), cut off at the edges.

    row, column [N]: int64. An edge pixel also stands for those of the rectangle that lie beyond it, as in the authors'
    code: a rectangle wholly outside of the image still blackens its edge.
    """
    inside = _covered(images.shape[2], row, size[0])[:, :, None] & _covered(images.shape[3], column, size[1])[:, None]
    return images * (~inside)[:, None]


def _covered(length: int, centre: Tensor, size: int) -> Tensor:
    """[N, length]: whether a position is one of the `size` around the centre, moved to the nearest edge."""
    first = (centre - size // 2).clamp(0, length - 1)[:, None]
    last = (centre - size // 2 + size - 1).clamp(0, length - 1)[:, None]
    positions = _positions(length, centre)
    return (positions >= first) & (positions <= last)


def _positions(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, device=like.device)[None]


def _per_image(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]


# ---- module ----------------------------------------------------------------------------------------------------------


class DiffAugment(nn.Module):
    """Augments every image that passes, with random numbers from the enclosing `drawing`.

    Args:
        policy: which of "color" (brightness, saturation, contrast), "translation" and "cutout", in their order.
        translation: largest shift as a share of the side; 1/8 in the paper.
        cutout: side of the square that is cut out as a share of the image's; 1/2 in the paper (Projected GAN: 0.2).

    Raises:
        ValueError: an unknown transform or a share outside of [0, 1].
    """

    def __init__(self, policy: Sequence[str] = POLICIES, *, translation: float = 0.125, cutout: float = 0.5) -> None:
        super().__init__()
        unknown = [name for name in policy if name not in POLICIES]
        if unknown or isinstance(policy, str):
            raise ValueError(f"policy {policy!r} is not a list of {', '.join(POLICIES)}")
        for name, share in (("translation", translation), ("cutout", cutout)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} {share} is not a share of the image's side: give 0 to 1")
        self.policy, self.translation, self.cutout = tuple(policy), translation, cutout

    def forward(self, images: Tensor) -> Tensor:
        """images [N, C, H, W] in [-1, 1] -> the same shape; colours may leave the range.

        Raises:
            ValueError: outside of a `drawing`.
        """
        draws = enclosing_draws(self)
        steps = {"color": self._color, "translation": self._translation, "cutout": self._cutout}
        for name in self.policy:
            images = steps[name](images, draws)
        return images

    def _color(self, images: Tensor, draws: Draws) -> Tensor:
        brightness, saturation, contrast = draws.uniform(len(images), 3).to(images).unbind(1)
        images = shift_brightness(images, brightness - 0.5)
        images = scale_saturation(images, saturation * 2)
        return scale_contrast(images, contrast + 0.5)

    def _translation(self, images: Tensor, draws: Draws) -> Tensor:
        most = [_pixels(self.translation, side) for side in images.shape[2:]]
        rows, columns = (_integers(images, draws, 2 * m + 1) - m for m in most)
        return translate(images, rows, columns)

    def _cutout(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = (_pixels(self.cutout, side) for side in images.shape[2:])
        # One more place for an even size, so that every pixel is as likely to be its centre.
        places = [side + 1 - size % 2 for side, size in zip(images.shape[2:], (height, width), strict=True)]
        row, column = (_integers(images, draws, p) for p in places)
        return cut_out(images, row, column, size=(height, width))

    def extra_repr(self) -> str:
        return f"{','.join(self.policy)}, translation={self.translation}, cutout={self.cutout}"


def _pixels(share: float, side: int) -> int:
    return int(share * side + 0.5)


def _integers(images: Tensor, draws: Draws, count: int) -> Tensor:
    """[N] int64 from 0 to count - 1."""
    return (draws.uniform(len(images)) * count).long().clamp_(max=count - 1).to(images.device)
