"""What StyleCLIP (Patashnik et al., 2021), https://arxiv.org/abs/2103.17249, and StyleMC weigh against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Identity = Callable[[Tensor], Tensor]
"""identity(images [N, 3, H, W] in [-1, 1]) -> [N, D] of length 1, alike for pictures of one person; differentiable."""


def text_distance(images: Tensor, texts: Tensor, *, logit_scale: float = 100.0) -> Tensor:
    """Embeddings of images [N, D] and of a text [1, D] (or one each) -> [N]: 1 - logit / 100 (Eq. 1).

    The paper has the cosine distance; the code divides CLIP's logit, whose scale is 100, by 100.
    """
    return 1 - logit_scale * (images * texts).sum(-1) / 100


def squared_shift(latent: Tensor | Mapping[str, Tensor], start: Tensor | Mapping[str, Tensor]) -> Tensor:
    """ws [N, L, W], or styles [N, C] by layer, and those of the start -> [N]: the SUM of squared differences (Eq. 1).

    0.008 is its weight. The latent mapper's is the mean instead, with a weight of 0.8.
    """
    if isinstance(latent, Tensor):
        assert isinstance(start, Tensor)
        return (latent - start).square().flatten(1).sum(1)
    assert not isinstance(start, Tensor)
    return torch.stack([squared_shift(latent[name], start[name]) for name in latent]).sum(0)


def identity_distance(identity: Identity, images: Tensor, before: Tensor) -> Tensor:
    """images and those before [N, 3, H, W] -> [N]: 1 - the cosine of who is seen (Eq. 2)."""
    return 1 - (identity(images) * identity(before)).sum(1)


def spherical_distance(x: Tensor, targets: Tensor) -> Tensor:
    """x [N, D], targets [P, D] -> [N]: the squares of half the angles to all targets, twice, together (StyleMC).

    Not to be differentiated where x is a target: the root of 0 is there.
    """
    chords = (F.normalize(x, dim=-1)[:, None] - F.normalize(targets, dim=-1)).norm(dim=-1)  # [N, P]
    return (chords / 2).arcsin().square().mul(2).sum(1)
