"""What a generator shows of itself: fixed seeds in rows and columns."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_gans.base.images import to_uint8

if TYPE_CHECKING:
    from lit_gans.adversarial.gan import GAN


def draw(
    gan: "GAN",
    seeds: Tensor,
    *,
    labels: Tensor | None = None,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    """uint8 [N, C, H, W] on the CPU, drawn in batches of 64 images of 256 x 256 pixels or as much memory."""
    size = batch_size or max(min(64 * 256**2 // gan.resolution**2, 64), 1)
    parts = []
    for start in range(0, len(seeds), size):
        part = slice(start, start + size)
        chosen = None if labels is None else labels[part]
        parts.append(to_uint8(gan.sample(seeds[part], labels=chosen, psi=psi, ema=ema)).cpu())
    return torch.cat(parts)
