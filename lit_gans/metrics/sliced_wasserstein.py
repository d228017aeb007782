"""Sliced Wasserstein distance of image patches (Karras et al., 2018), https://arxiv.org/abs/1710.10196, Sec. 5.

Images are split into a Laplacian pyramid, so that each level holds the structure of one scale; the distance is taken
between the patches of real and generated images at each level. Rabin et al. (2011) is the source of the slicing.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_gans.base.images import as_channels
from lit_gans.base.random import derive_seed
from lit_gans.metrics.features import _arrival, in_order
from lit_gans.metrics.measures import NO_EXTRACTOR, Context, FakeBatch, Measure
from lit_gans.metrics.reals import real_indices

_SMALLEST_PX = 16
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_DIRECTIONS_AT_ONCE = 64  # of 2.1 million patches: 1.1 GB of projections on either side
_ROWS_AT_ONCE = 2**16


class SlicedWasserstein(Metric):
    """Distance times 1000 at every level of the pyramid, and the mean over levels, in float64.

    The defaults are the paper's: 128 patches of 7x7 pixels per level and image, 512 directions. The state holds the
    patches in float32: with 3 channels and 16,384 images, the paper's number, 1.2 GB per level and side (12 GB for both
    sides at 256 pixels, 17 GB at 1024), and `compute` needs about 8 GB more. Grey images may be given with 3 channels
    as well as with 1; the latter takes a third of that.

    Patches lie where (seed, level, index) puts them: neither batch size nor number of processes changes the value.
    Deviation: the official code draws anew for either side. Here real and generated images of one index are cut at the
    same places, so that a set is at distance 0 from itself.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    real_index: list[Tensor]
    fake_index: list[Tensor]

    def __init__(
        self,
        resolution: int,
        channels: int = 3,
        *,
        patches: int = 128,
        patch_px: int = 7,
        directions: int = 128,
        repeats: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.levels = pyramid_sizes(resolution)
        if not 1 <= patch_px <= self.levels[-1]:
            raise ValueError(f"patches of {patch_px} pixels do not fit into the smallest level of {self.levels[-1]}")
        self.resolution, self.channels, self.seed = resolution, channels, seed
        self.patches, self.patch_px = patches, patch_px
        self.directions, self.repeats = directions, repeats
        for side in ("real", "fake"):
            self.add_state(f"{side}_index", [], dist_reduce_fx="cat")
            for px in self.levels:
                self.add_state(f"{side}_{px}", [], dist_reduce_fx="cat")

    def update(self, images: Tensor, *, real: bool, index: Tensor | None = None) -> None:
        """images uint8 [N, C, R, R]; index int64 [N], their numbers in the whole set (default: in order of arrival).

        Every process updates both sides at least once, with no images if it has none.
        """
        if tuple(images.shape[2:]) != (self.resolution, self.resolution):
            raise ValueError(f"images {list(images.shape)}, expected [N, C, {self.resolution}, {self.resolution}]")
        side = "real" if real else "fake"
        indices = getattr(self, f"{side}_index")
        index = _arrival(indices, images) if index is None else index.to(images.device)
        pyramid = laplacian_pyramid(as_channels(images, self.channels).float())
        for px, level in zip(self.levels, pyramid, strict=True):
            seed = derive_seed(self.seed, "patches", px)
            cut = descriptors(level, index, patches=self.patches, patch_px=self.patch_px, seed=seed)
            getattr(self, f"{side}_{px}").append(cut.flatten(1))
        indices.append(index)

    def compute(self) -> dict[str, Tensor]:
        """{"32": value, "16": value, ..., "mean": their mean}: float64 scalars, the distances times 1000.

        ValueError unless there are as many generated images as real ones, and any.
        """
        real, fake = (len(dim_zero_cat(index)) if len(index) else 0 for index in (self.real_index, self.fake_index))
        if real != fake or real == 0:
            raise ValueError(
                f"a sliced Wasserstein distance compares equally many images, got {real} real and {fake} generated: "
                f"use {min(real, fake) or 'the same number'} of each"
            )
        values = {str(px): 1000 * self._distance(px) for px in self.levels}
        return {**values, "mean": torch.stack(list(values.values())).mean()}

    def _distance(self, px: int) -> Tensor:
        seed = derive_seed(self.seed, "directions", px)
        real, fake = self._normalised("real", px), self._normalised("fake", px)
        return sliced_wasserstein(real, fake, directions=self.directions, repeats=self.repeats, seed=seed)

    def _normalised(self, side: str, px: int) -> Tensor:
        """float32 [images * patches, C * P * P] in the order of the index."""
        rows = in_order(getattr(self, f"{side}_{px}"), getattr(self, f"{side}_index"))
        return normalise(rows.view(-1, self.channels, self.patch_px, self.patch_px))


def pyramid_sizes(resolution: int) -> tuple[int, ...]:
    """The widths of the levels: `resolution` and its halves down to 16, in pixels.

    ValueError below 16 pixels, and where a half would not be whole.
    """
    if resolution < _SMALLEST_PX:
        raise ValueError(f"images of {resolution} pixels are below the smallest level of {_SMALLEST_PX}: enlarge them")
    sizes = [resolution]
    while sizes[-1] // 2 >= _SMALLEST_PX:
        if sizes[-1] % 2:
            raise ValueError(
                f"resolution {resolution} does not halve down to {_SMALLEST_PX} pixels ({sizes[-1]} is odd): "
                f"use a power of two, or resize the images"
            )
        sizes.append(sizes[-1] // 2)
    return tuple(sizes)


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """images float [N, C, R, R] -> one tensor per level, widths as `pyramid_sizes` says, largest first.

    Each level but the last is what is lost by halving (Burt and Adelson, 1983): a level plus the `enlarge`d image of
    the next is the image of that level again. The last is the smallest image itself.
    """
    levels = [images]
    for _ in pyramid_sizes(images.shape[-1])[1:]:
        smaller = shrink(levels[-1])
        levels[-1:] = [levels[-1] - enlarge(smaller), smaller]
    return levels


def shrink(x: Tensor) -> Tensor:
    """x [N, C, H, W] -> [N, C, H/2, W/2]: smoothed, then every other pixel from the first on."""
    return _smooth(x)[:, :, ::2, ::2]


def enlarge(x: Tensor) -> Tensor:
    """x [N, C, H, W] -> [N, C, 2H, 2W]: zeros between the pixels, then smoothed and four times as bright."""
    spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    spread[:, :, ::2, ::2] = x
    return 4 * _smooth(spread)


def _smooth(x: Tensor) -> Tensor:
    """Binomial 5x5 filter, mirrored at the border without repeating it.

    Written as sums of shifted images and not as a convolution: no reduced precision on any device, and exact for bytes.
    """
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    rows = cast(Tensor, sum(weight * padded.narrow(2, i, x.shape[2]) for i, weight in enumerate(_BINOMIAL)))
    return cast(Tensor, sum(weight * rows.narrow(3, i, x.shape[3]) for i, weight in enumerate(_BINOMIAL)))


def descriptors(level: Tensor, index: Tensor, *, patches: int = 128, patch_px: int = 7, seed: int = 0) -> Tensor:
    """level [N, C, S, S], index int64 [N] -> patches [N, `patches`, C, `patch_px`, `patch_px`], whole inside the image.

    Where they are cut is a function of (seed, index) alone, evenly distributed.
    """
    top, left = _corners(index, level.shape[-1] - patch_px + 1, patches, seed).to(level.device).unbind(2)
    reach = torch.arange(patch_px, device=level.device)
    image = torch.arange(len(level), device=level.device)[:, None, None, None]
    rows, columns = top[:, :, None, None] + reach[:, None], left[:, :, None, None] + reach
    return level.transpose(0, 1)[:, image, rows, columns].permute(1, 2, 0, 3, 4).contiguous()


def _corners(index: Tensor, places: int, count: int, seed: int) -> Tensor:
    """index int64 [N] -> int64 [N, count, 2] in [0, places)."""
    drawn = torch.empty(len(index), count, 2, dtype=torch.int64)
    generator = torch.Generator()
    for row, number in zip(drawn, index.tolist(), strict=True):
        row.random_(places, generator=generator.manual_seed(derive_seed(seed, number)))
    return drawn


def normalise(patches: Tensor) -> Tensor:
    """patches [M, C, P, P] -> [M, C * P * P]: mean 0 and standard deviation 1 in each channel over the whole set.

    A channel without variation becomes 0. Each set has its own mean and deviation, so that the distance is blind to
    a shift of colour or a gain in contrast that all images share.
    """
    over = (0, 2, 3)
    centred = patches - patches.mean(over, keepdim=True, dtype=torch.float64).to(patches.dtype)
    norm = torch.linalg.vector_norm(centred, dim=over, keepdim=True, dtype=torch.float64)
    std = norm / math.sqrt(max(1, patches[:, 0].numel()))
    return centred.div_(torch.where(std > 0, std, 1.0).to(patches.dtype)).flatten(1)


def sliced_wasserstein(a: Tensor, b: Tensor, *, directions: int = 128, repeats: int = 4, seed: int = 0) -> Tensor:
    """a, b [M, D] -> mean over random directions of the 1-D Wasserstein-1 distances of the projections, float64 scalar.

    `repeats` times `directions` unit vectors are drawn, evenly over the sphere; they are a function of the seed.
    ValueError unless both sets have the same shape and hold anything.
    """
    if a.shape != b.shape or a.ndim != 2 or len(a) == 0:
        raise ValueError(f"sets of shapes {list(a.shape)} and {list(b.shape)}, expected twice the same [M, D], M > 0")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(repeats * directions, a.shape[1], generator=generator, dtype=torch.float64)
    units = (drawn / drawn.norm(dim=1, keepdim=True)).to(a.device)
    parts = units.split(_DIRECTIONS_AT_ONCE)
    return torch.cat([(_sorted(a, part) - _sorted(b, part)).abs().mean(dim=1) for part in parts]).mean()


def _sorted(rows: Tensor, units: Tensor) -> Tensor:
    """rows [M, D], units [K, D] -> float64 [K, M]: the projections in ascending order."""
    projections = torch.cat([units @ part.double().T for part in rows.split(_ROWS_AT_ONCE)], dim=1)
    if projections.device.type != "cpu":
        return projections.sort(dim=1).values
    projections.numpy().sort(axis=1)  # ten times faster than torch's, which keeps track of the order
    return projections


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class PixelMeasure(Measure):
    """The distance of the images themselves, with as many reals as there are images, drawn once and for all."""

    def __init__(self, context: Context) -> None:
        assert context.reals is not None
        self.context, self.reals, self.total = context, context.reals, context.subject.total
        if self.total > self.reals.available:
            raise ValueError(
                f"swd compares as many real images as generated ones, and split {self.reals.split!r} has "
                f"{self.reals.available} for {self.total}: use num_images of {self.reals.available} or less, or leave "
                f"swd out"
            )
        if isinstance(self.reals.data.resolution, str):
            raise ValueError("swd needs images of one square size, and these are of several: give --resolution for all")
        self.metric = SlicedWasserstein(self.reals.data.resolution, self.reals.data.channels).to(context.device)

    def begin(self) -> None:
        reals, device = self.reals, self.context.device
        shape = 0, reals.data.channels, reals.data.resolution, reals.data.resolution
        for real in (True, False):
            none = torch.empty(shape, dtype=torch.uint8, device=device)
            self.metric.update(none, real=real, index=torch.empty(0, dtype=torch.int64))
        indices = real_indices(reals.available, self.total if self.total < reals.available else None)
        done, mine = 0, self.context.share(self.total)
        for batch in reals.data.batches(reals.split, self.context.plan.batch_size, indices=indices[mine]):
            index = mine[done : done + len(batch["image"])]
            self.metric.update(batch["image"].to(device), real=True, index=index)
            done += len(index)
            self.context.tell("real images, pixels", done, len(mine))

    def update(self, batch: FakeBatch) -> None:
        self.metric.update(batch.images, real=False, index=batch.index)

    def values(self) -> dict[str, float]:
        levels = self.metric.compute()
        return {f"swd_{level}" if level != "mean" else "swd": value.item() for level, value in levels.items()}

    def settings(self) -> dict[str, object]:
        metric = self.metric
        return {**NO_EXTRACTOR, "n_real": self.total, "patches": metric.patches, "patch_px": metric.patch_px,
                "swd_seed": metric.seed, "directions": metric.directions * metric.repeats}  # fmt: skip
