"""Perceptual path length (Karras et al., 2019), https://arxiv.org/abs/1812.04948, Sec. 4.1, Eq. 2 and 3.

How far an image moves, perceptually, for a small step in latent space. Published variants: z, full, crop and w, full,
crop (StyleGAN, 100,000 pairs); w, end, no crop (StyleGAN2, https://arxiv.org/abs/1912.04958, 50,000 pairs).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.interpolation import lerp, spherical
from lit_gans.base.precision import exact_float32, with_double
from lit_gans.base.processes import check_ranks, share_of
from lit_gans.base.random import derive_seed
from lit_gans.metrics.features import FeatureSet
from lit_gans.metrics.measures import NO_EXTRACTOR, Context, Measure
from lit_gans.metrics.perceptual import build_lpips
from lit_gans.metrics.sources import FromLatents, HasStyles, Latent

NUM_SAMPLES = 100_000
DISTANCE_PX = 256  # larger images are averaged down to it
SEED_STRIDE = 10**9  # a measurement with seed s uses the generator's seeds from s * 10^9 on

Space = Literal["z", "w"]
Sampling = Literal["full", "end"]
Distance = Callable[[Tensor, Tensor], Tensor]
"""distance(a, b): images float [N, C, H, W] in [-1, 1] -> [N], quadratic in small differences, as LPIPS is."""
Interpolation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""interpolation(a, b, t): a, b [N, ...] at t, which broadcasts against them -> [N, ...]."""


class PathLength(FeatureSet):
    """Mean distance per squared step, without the lowest and the highest percent, in float64."""

    higher_is_better = False
    is_differentiable = False

    def __init__(self, *, lower: float = 1.0, upper: float = 99.0) -> None:
        super().__init__(1)
        self.lower, self.upper = lower, upper

    def update(self, distances: Tensor, index: Tensor | None = None) -> None:
        """distances [N] from `path_distances`; index int64 [N], their numbers in the whole, as for `FeatureSet`.

        Every process calls it at least once, with no distances if it has none.
        """
        super().update(distances.double().reshape(-1, 1), index)

    def compute(self) -> Tensor:
        """float64 scalar, 0 or more."""
        return path_length(super().compute()[:, 0], lower=self.lower, upper=self.upper)


def path_length(distances: Tensor, *, lower: float = 1.0, upper: float = 99.0) -> Tensor:
    """distances [N], divided by epsilon^2 already -> mean of those between two percentiles, float64 scalar.

    The bounds are distances that occur, the next below the `lower` and the next above the `upper` percentile, and are
    kept, as in the official code. ValueError for no distances, or where one is not finite.
    """
    if not 0 <= lower < upper <= 100:
        raise ValueError(f"percentiles {lower} and {upper}, expected 0 <= lower < upper <= 100: use 1 and 99")
    if len(distances) == 0:
        raise ValueError("a path length needs one distance or more, got none")
    bad = int((~distances.isfinite()).sum())
    if bad:
        raise ValueError(f"{bad} of {len(distances)} distances are not finite: the generator's images are not either")
    low, high = rejection_bounds(distances, lower=lower, upper=upper)
    distances = distances.double()
    return distances[(distances >= low) & (distances <= high)].mean()


def rejection_bounds(distances: Tensor, *, lower: float = 1.0, upper: float = 99.0) -> tuple[Tensor, Tensor]:
    """distances [N] -> the smallest and the largest that are kept, float64 scalars."""
    ranked, last = distances.double().sort().values, len(distances) - 1
    return ranked[math.floor(last * lower / 100)], ranked[math.ceil(last * upper / 100)]


# ---- where a path runs ---------------------------------------------------------------------------------------------


def default_interpolation(space: Space, prior: Latent) -> Interpolation:
    """`spherical` in the Z of a normal prior (Eq. 2); `lerp` in W (Eq. 3) and in the cube of a uniform prior."""
    return spherical if space == "z" and prior.spherical else lerp


# ---- what is compared ----------------------------------------------------------------------------------------------


def crop_face(images: Tensor) -> Tensor:
    """images [N, C, H, H] -> [N, C, H/2, H/2]: rows 3/8 to 7/8, columns 2/8 to 6/8, where FFHQ's faces are."""
    height, width = images.shape[-2:]
    if height != width or height < 8:
        raise ValueError(f"images of {height} x {width} px cannot be cropped to the face: square ones of 8 px or more")
    eighth = height // 8
    return images[..., 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]


def shrink(images: Tensor) -> Tensor:
    """images [N, C, H, W] -> means over squares of (H // 256)^2 pixels, so that 512 and 1024 become 256.

    H is that of a cropped image, as in StyleGAN's own code; the later PyTorch ones take the uncropped side, and measure
    crops of 1024 px at 128.
    """
    factor = images.shape[-2] // DISTANCE_PX
    return F.avg_pool2d(images, factor) if factor > 1 else images


# ---- the walk ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def path_distances(
    sampler: FromLatents,
    distance: Distance,
    index: Tensor,
    *,
    space: Space = "z",
    sampling: Sampling = "full",
    epsilon: float = 1e-4,
    crop: bool = False,
    interpolation: Interpolation | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
    psi: float = 1.0,
    ema: bool = True,
) -> Tensor:
    """distance(g(t), g(t + epsilon)) / epsilon^2 for the paths numbered `index` int64 [n]: float64 [n].

    Path i runs between the latents of the sampler's seeds `seed` * 10^9 + 2 i and the next; its t is drawn from U[0, 1)
    ("full"), or is 0 ("end"). labels int64 [n] are the paths' classes, by default drawn evenly. All of it follows from
    `seed` and i, so that batches and processes matter by rounding only. 1 / epsilon^2 magnifies that: interpolation is
    in float64, and networks run without TF32 and autocast. `interpolation`: default `default_interpolation`.
    ValueError for settings that cannot be met.
    """
    _check(sampler, space=space, sampling=sampling, epsilon=epsilon, labels=labels, count=len(index))
    device = torch.device(sampler.device)
    place = with_double(device)
    if len(index) == 0:
        return torch.empty(0, dtype=torch.float64, device=place)
    t, drawn = _draw(index, seed, sampler.num_classes)
    classes = drawn if labels is None else labels
    walk = interpolation or default_interpolation(space, sampler.prior)
    steps = torch.cat([t if sampling == "full" else 0 * t] * 2)
    steps[len(t) :] += epsilon
    seeds = seed * SEED_STRIDE + 2 * index.cpu()
    with exact_float32(device):
        images = _render(sampler, seeds, steps.to(place), space, walk, _twice(classes, device), psi, ema)
        images = shrink(crop_face(images) if crop else images)
        found = distance(*images.chunk(2))
    if found.shape != t.shape:
        raise ValueError(f"the distance of {len(t)} pairs has shape {list(found.shape)}, expected [{len(t)}]")
    return found.to(place).double() / epsilon**2


def measure_path_length(
    sampler: FromLatents,
    distance: Distance,
    *,
    num_samples: int = NUM_SAMPLES,
    batch_size: int = 32,
    labels: Tensor | None = None,
    rank: int = 0,
    world: int = 1,
    **settings,
) -> Tensor:
    """The path length over `num_samples` paths, float64 scalar, the same on every process; all must call it.

    Process `rank` walks paths rank, rank + world, ...; labels int64 [num_samples] are their classes. A short batch is
    filled with its last path, not counted again: another size is another rounding, which 1 / epsilon^2 would make a
    difference between numbers of processes. `settings` are those of `path_distances`.
    """
    check_ranks(rank, world)
    if num_samples < 1 or batch_size < 1:
        raise ValueError(f"num_samples {num_samples} and batch_size {batch_size}; both must be 1 or more")
    if labels is not None and len(labels) != num_samples:
        raise ValueError(f"{len(labels)} labels for {num_samples} paths: give one for each")
    place = with_double(sampler.device)
    metric = PathLength().to(place)
    metric.update(torch.empty(0, device=place))
    mine, size = share_of(num_samples, rank=rank, world=world), min(batch_size, num_samples)
    for index in mine.split(size) if len(mine) else ():
        filled = torch.cat([index, index[-1:].expand(size - len(index))])
        asked = None if labels is None else labels.cpu()[filled]
        distances = path_distances(sampler, distance, filled, labels=asked, **settings)
        metric.update(distances[: len(index)], index)
    return metric.compute()


def check_space(sampler: object, space: str) -> None:
    """ValueError for a space that is none, or that the sampler has not."""
    if space not in ("z", "w"):
        raise ValueError(f"space {space!r} is neither 'z' nor 'w'")
    if space == "w" and not isinstance(sampler, HasStyles):
        raise ValueError(
            f"space 'w' needs a style-based generator, with styles() and synthesize(); {type(sampler).__name__} has "
            f"no W: use space 'z'"
        )


def _check(
    sampler: FromLatents, *, space: str, sampling: str, epsilon: float, labels: Tensor | None, count: int
) -> None:
    check_space(sampler, space)
    if sampling not in ("full", "end"):
        raise ValueError(f"sampling {sampling!r} is neither 'full' (t from U[0, 1)) nor 'end' (t = 0)")
    if not epsilon > 0:
        raise ValueError(f"epsilon {epsilon} is not positive: use 1e-4")
    if labels is not None and sampler.num_classes == 0:
        raise ValueError("labels were given, but this model is unconditional (num_classes 0)")
    if labels is not None and len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} paths: give one for each")


def _draw(index: Tensor, seed: int, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """t float64 [n] in [0, 1), and classes int64 [n] or None; row by row from (seed, index)."""
    generator, t, classes = torch.Generator(), [], []
    for i in index.tolist():
        generator.manual_seed(derive_seed("path length", seed, i))
        t.append(torch.rand((), generator=generator, dtype=torch.float64))
        classes.append(torch.randint(max(num_classes, 1), (), generator=generator))
    return torch.stack(t), torch.stack(classes) if num_classes else None


def _twice(labels: Tensor | None, device: torch.device) -> Tensor | None:
    return None if labels is None else labels.to(device).repeat(2)


def _render(
    sampler: FromLatents,
    seeds: Tensor,
    steps: Tensor,
    space: Space,
    walk: Interpolation,
    labels: Tensor | None,
    psi: float,
    ema: bool,
) -> Tensor:
    """steps [2n], the paths' t and then their t + epsilon -> images [2n, C, H, W], one batch."""
    ends = torch.cat([sampler.seeded_latents(seeds), sampler.seeded_latents(seeds + 1)])
    if space == "w":
        ends = cast(HasStyles, sampler).styles(ends, labels=labels, psi=psi, ema=ema)
    a, b = (torch.cat([end, end]) for end in ends.to(steps.device).double().chunk(2))
    points = walk(a, b, steps.view(-1, *[1] * (a.ndim - 1))).to(ends.dtype).to(ends.device)
    if space == "w":
        return cast(HasStyles, sampler).synthesize(points, ema=ema)
    return sampler.generate(points, labels=labels, psi=psi, ema=ema)


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class PathMeasure(Measure):
    """The path length of the model that is measured; published ones have 50,000 or 100,000 paths."""

    of_images = False

    def __init__(self, context: Context, *, name: str, **path: Any) -> None:
        self.context, self.name, self.path = context, name, path
        distance = context.judges.lpips or build_lpips("vgg")
        self.distance = distance.to(context.subject.model.device) if isinstance(distance, nn.Module) else distance

    def values(self) -> dict[str, float]:
        context, plan = self.context, self.context.plan
        wanted = [name for name in plan.metrics if name.startswith("ppl_")]
        context.tell("path lengths", wanted.index(self.name), len(wanted))
        length = measure_path_length(
            context.subject.model, self.distance, num_samples=plan.path_samples, batch_size=plan.batch_size,
            rank=context.rank, world=context.world, seed=plan.seed, psi=plan.psi, ema=plan.ema, **self.path,
        )  # fmt: skip
        return {self.name: length.item()}

    def settings(self) -> dict[str, object]:
        name = getattr(self.distance, "name", type(self.distance).__name__)
        named = {"distance": name, "distance_fingerprint": getattr(self.distance, "fingerprint", None)}
        return {**NO_EXTRACTOR, **named, "path_samples": self.context.plan.path_samples, "n_real": None, "n_fake": None}
