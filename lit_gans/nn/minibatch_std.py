"""Minibatch standard deviation (Karras et al., 2018), https://arxiv.org/abs/1710.10196, Section 3."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def minibatch_std(x: Tensor, *, group_size: int | None, num_channels: int = 1) -> Tensor:
    """x [N, C, H, W] -> [N, num_channels, H, W]: how much the samples of a group differ, constant over pixels.

    Sample i belongs to group i mod (N / G) with G = min(group_size, N); None: one group of the whole batch. The
    channels are split into `num_channels` parts, each of which gives one channel: the biased standard deviation over
    the group, averaged over the part's channels and pixels.

    Raises:
        ValueError: N is not a multiple of G, or C is not one of num_channels.
    """
    n, c, h, w = x.shape
    g = n if group_size is None else min(group_size, n)
    if n % g or c % num_channels:
        raise ValueError(
            f"a batch of {n} with {c} channels does not divide into groups of {g} and {num_channels} parts of the "
            f"channels: use a batch that is a multiple of {g} (per process) and channels of {num_channels}"
        )
    y = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(g, -1, num_channels, c // num_channels, h, w)
    variance = (y - y.mean(0)).square().mean(0)  # y [G, N/G, num_channels, c, H, W] -> [N/G, num_channels, c, H, W]
    y = (variance + 1e-8).sqrt().mean((2, 3, 4)).to(x.dtype)  # [N/G, num_channels]
    return y.repeat(g, 1)[:, :, None, None].expand(-1, -1, h, w)  # [N/G, num_channels] -> [N, num_channels, H, W]


class MinibatchStd(nn.Module):
    """x [N, C, H, W] -> [N, C + num_channels, H, W] with `minibatch_std` appended.

    A group never reaches over processes: each sees only its own share of the global batch.
    """

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        if num_channels < 1 or (group_size is not None and group_size < 1):
            raise ValueError(f"group_size {group_size} and num_channels {num_channels} must be 1 or more")
        self.group_size, self.num_channels = group_size, num_channels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, minibatch_std(x, group_size=self.group_size, num_channels=self.num_channels)], dim=1)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, num_channels={self.num_channels}"
