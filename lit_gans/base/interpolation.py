"""Ways from one latent to another."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """a + t (b - a), of a, b [..., Z]; t broadcasts against them."""
    return a + t * (b - a)


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The UNIT vectors [..., Z] on the great circle from a/|a| (t = 0) to b/|b| (t = 1); t [..., 1].

    In the plane of a and b, at angle t omega from a. Parallel a and b give a; opposite ones have no circle, and stay on
    their line.
    """
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    cosine = (a * b).sum(dim=-1, keepdim=True)
    across = b - cosine * a
    omega = torch.atan2(across.norm(dim=-1, keepdim=True), cosine)  # as acos(cosine), but exact for small angles too
    on_circle = a * torch.cos(t * omega) + F.normalize(across, dim=-1) * torch.sin(t * omega)
    return F.normalize(on_circle, dim=-1)


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """`slerp` at length sqrt(Z), that of a typical latent: a, b [..., Z], t [..., 1] -> [..., Z].

    StyleGAN's mapping normalises z to that length first, so that the official unit vectors and these give one image. A
    generator that does not normalise has never seen a latent as short as a unit vector.
    """
    return math.sqrt(a.shape[-1]) * slerp(a, b, t)


def arc(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """`slerp` whose length goes evenly from that of a to that of b: from a itself to b itself, [..., Z]."""
    return lerp(a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True), t) * slerp(a, b, t)
