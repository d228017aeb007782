"""Random projections of feature maps (Sauer et al., 2021, Sec. 3.2): over channels (CCM), then over scales (CSM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import interpolate

from lit_gans.papers.projected_gan.features import freeze, seeded
from lit_gans.papers.stylegan2.networks import check_choice

Mixing = Literal["none", "channels", "scales"]


class Projector(nn.Module):
    """Feature maps, the finest first -> as many levels for the discriminators; random, never trained, saved.

    Args:
        channels: of the feature maps.
        out_channels: of the finest level; with `expand` each coarser map is mixed to twice as many.
        mixing: "scales" (CCM and CSM) doubles the side of every map, "channels" is CCM alone; "none" mixes nothing.
        seed: of the weights.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        out_channels: int = 64,
        expand: bool = True,
        mixing: Mixing = "scales",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("mixing", mixing, Mixing)
        self.mixing = mixing
        widths = [out_channels * 2**k if expand else out_channels for k in range(len(channels))]
        # A mixed map joins the next finer one, which has half its channels; the finest keeps its own.
        joined = [widths[0], *widths[:-1]]
        self.channels = {"none": list(channels), "channels": widths, "scales": joined}[mixing]
        with seeded(seed):
            ccm = [nn.Conv2d(a, b, 1) for a, b in zip(channels, widths, strict=True)] if mixing != "none" else []
            csm = [nn.Conv2d(a, b, 1) for a, b in zip(widths, joined, strict=True)] if mixing == "scales" else []
        self.ccm, self.csm = (freeze(nn.ModuleList(layers), saved=True) for layers in (ccm, csm))

    def sizes(self, sizes: Sequence[int]) -> list[int]:
        """Sides of the feature maps -> of the levels."""
        return [2 * sizes[0], *sizes[:-1]] if self.mixing == "scales" else list(sizes)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        if self.mixing == "none":
            return list(maps)
        mixed = [layer(x) for layer, x in zip(self.ccm, maps, strict=True)]
        if self.mixing == "channels":
            return mixed
        levels: list[Tensor] = []
        sizes = self.sizes([x.shape[-1] for x in mixed])
        for x, layer, size in zip(mixed[::-1], self.csm[::-1], sizes[::-1], strict=True):
            x = x + levels[-1] if levels else x
            # The authors convolve after they enlarge. A 1x1 convolution and a weighted mean of pixels are exchanged
            # freely, and here the convolution has a quarter of the pixels.
            levels.append(interpolate(layer(x), (size, size), mode="bilinear", align_corners=True))
        return levels[::-1]
