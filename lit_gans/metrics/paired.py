"""How close images come to given partners, pixel by pixel: PSNR, SSIM, MS-SSIM, and folders of pictures in pairs.

SSIM is of Wang et al. (2004), https://doi.org/10.1109/TIP.2003.819861, MS-SSIM of Wang, Simoncelli and Bovik (2003),
https://doi.org/10.1109/ACSSC.2003.1292216.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from lit_gans.base.processes import check_ranks, is_distributed
from lit_gans.metrics.pair_mean import PairMean, check_pair
from lit_gans.metrics.reals import Progress

if TYPE_CHECKING:
    from lit_gans.data.sources import Source
    from lit_gans.metrics.perceptual import LPIPS, PerceptualDistance

PAIR_METRICS = ("psnr", "ssim", "ms_ssim", "lpips", "pd")
WINDOW_PX, WINDOW_SIGMA = 11, 1.5
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. (2003), Sec. 3.2, finest scale first
_PEAK = 255.0
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2  # Wang et al. (2004), Eq. 13 and Sec. III-C
_MULTI_SCALE_PX = (WINDOW_PX - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1  # halved four times, rounding up, it is 11
_NAMED = 5


def psnr(fake: Tensor, real: Tensor) -> Tensor:
    """uint8 pairs [N, C, H, W] -> [N] in dB, float64: 10 log10(255^2 / mean squared error); inf where equal."""
    check_pair(fake, real)
    mse = (fake.double() - real.double()).square().flatten(1).mean(dim=1)
    return 10 * (_PEAK**2 / mse).log10()


def ssim(fake: Tensor, real: Tensor) -> Tensor:
    """uint8 pairs [N, C, H, W] -> [N] in [-1, 1], float64; 1 where they are equal.

    Gaussian window of 11 x 11, sigma 1.5, K1 0.01, K2 0.03, only where the whole window lies in the image, as published
    (torchmetrics also counts a reflected border). The paper has luma; colours are taken one by one and averaged.
    ValueError for a side of less than 11 px.
    """
    check_pair(fake, real)
    _check_side(fake, WINDOW_PX, f"a window of {WINDOW_PX} x {WINDOW_PX}")
    whole, _ = _similarity(_planes(fake), _planes(real))
    return whole.view(fake.shape[:2]).mean(dim=1)


def ms_ssim(fake: Tensor, real: Tensor) -> Tensor:
    """uint8 pairs [N, C, H, W] -> [N] in [0, 1], float64; 1 where they are equal.

    The product over five scales of the mean contrast term (at the coarsest: of the mean SSIM), each to the power of its
    weight (Eq. 7). A scale averages 2 x 2 pixels of the one before, an odd last row or column by itself. A negative
    term, whose power is not real, counts as 0. Colours one by one, as in `ssim`.
    ValueError for a side of less than 161 px.
    """
    check_pair(fake, real)
    _check_side(fake, _MULTI_SCALE_PX, f"{len(SCALE_WEIGHTS)} scales of a window of {WINDOW_PX} x {WINDOW_PX}")
    a, b = _planes(fake), _planes(real)
    factors = []
    for scale in range(len(SCALE_WEIGHTS)):
        if scale > 0:
            a, b = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (a, b))
        whole, contrast = _similarity(a, b)
        factors.append(contrast)
    factors[-1] = whole
    weights = torch.tensor(SCALE_WEIGHTS, dtype=torch.float64, device=fake.device).unsqueeze(1)
    return torch.stack(factors).clamp(min=0).pow(weights).prod(dim=0).view(fake.shape[:2]).mean(dim=1)


def _planes(images: Tensor) -> Tensor:
    """[N, C, H, W] -> float64 [N C, 1, H, W]: variances as differences of squares need the digits."""
    return images.double().flatten(0, 1).unsqueeze(1)


def _similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """float64 [M, 1, H, W] twice -> mean SSIM [M] (Eq. 13) and the mean of its contrast and structure term [M]."""
    mean_a, mean_b, square_a, square_b, product = _windowed(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
    means, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    contrast = (2 * (product - means) + _C2) / (square_a + square_b - squares + _C2)
    luminance = (2 * means + _C1) / (squares + _C1)
    return (luminance * contrast).mean(dim=(1, 2, 3)), contrast.mean(dim=(1, 2, 3))


def _windowed(x: Tensor) -> Tensor:
    """[M, 1, H, W] -> [M, 1, H - 10, W - 10]: Gaussian averages of whole windows, down and then across."""
    at = torch.arange(WINDOW_PX, dtype=torch.float64) - WINDOW_PX // 2
    weights = (-at.square() / (2 * WINDOW_SIGMA**2)).exp()
    weights = (weights / weights.sum()).tolist()
    for dim in (2, 3):  # shifted and added: four times faster than a convolution in float64 on a CPU
        length, padded = x.shape[dim] - WINDOW_PX + 1, x
        x = padded.narrow(dim, 0, length) * weights[0]
        for start, weight in enumerate(weights[1:], start=1):
            x.add_(padded.narrow(dim, start, length), alpha=weight)
    return x


def _check_side(images: Tensor, least_px: int, what: str) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < least_px:
        raise ValueError(
            f"images of {width} x {height} px are too small for {what}: their sides must be {least_px} px or more"
        )


class PSNR(PairMean):
    """Mean of the pairs' own PSNR, in dB: no less than the PSNR of the mean squared error of all pairs.

    One pair of equal images makes the mean infinite. It is not capped; a warning says how many there are, and the mean
    over the others.
    """

    higher_is_better = True
    settings = {"mean": "of the dB of each pair", "peak": 255}

    def __init__(self) -> None:
        super().__init__()
        self.add_state("equal", torch.tensor(0), dist_reduce_fx="sum")

    def measure(self, fake: Tensor, real: Tensor) -> Tensor:
        return psnr(fake, real)

    def add(self, values: Tensor) -> None:
        equal = values.isinf()
        self.equal += equal.sum()
        super().add(values[~equal])

    def compute(self) -> Tensor:
        equal, others = int(self.equal), int(self.count)
        if equal == 0:
            return super().compute()
        rest = f"; over the other {others} it is {float(self.total / others):.4f} dB" if others else ""
        warnings.warn(f"{equal} of {equal + others} pairs are equal: the mean PSNR is infinite{rest}", stacklevel=2)
        return torch.full_like(self.total, torch.inf)


class SSIM(PairMean):
    """Mean of `ssim` over pairs."""

    higher_is_better = True
    settings = {"window": "Gaussian 11 x 11, sigma 1.5, whole windows", "k1": 0.01, "k2": 0.03, "colours": "averaged"}

    def measure(self, fake: Tensor, real: Tensor) -> Tensor:
        return ssim(fake, real)


class MultiScaleSSIM(PairMean):
    """Mean of `ms_ssim` over pairs."""

    higher_is_better = True
    settings = {**SSIM.settings, "scale_weights": list(SCALE_WEIGHTS)}

    def measure(self, fake: Tensor, real: Tensor) -> Tensor:
        return ms_ssim(fake, real)


def pair_measures(
    metrics: Sequence[str], *, lpips: LPIPS | None = None, pd: PerceptualDistance | None = None
) -> dict[str, PairMean]:
    """The metric objects by the name of their number: "lpips" and "pd" are named after their network.

    ValueError for an unknown name, or for "lpips" or "pd" without its network.
    """
    from lit_gans.metrics.perceptual import PerceptualSimilarity  # which builds on this file

    unknown = [name for name in metrics if name not in PAIR_METRICS]
    if unknown or not metrics:
        raise ValueError(f"metrics {list(metrics)}: choose one or more of {', '.join(PAIR_METRICS)}")
    if "lpips" in metrics and lpips is None:
        raise ValueError("metrics has 'lpips', which needs its network: pass lpips=build_lpips('vgg') or its like")
    if "pd" in metrics and pd is None:
        raise ValueError("metrics has 'pd', which needs its network: pass pd=build_perceptual_distance()")
    kinds = {"psnr": PSNR, "ssim": SSIM, "ms_ssim": MultiScaleSSIM}
    measures: dict[str, PairMean] = {name: kinds[name]() for name in metrics if name in kinds}
    for network in (lpips if "lpips" in metrics else None, pd if "pd" in metrics else None):
        if network is not None:
            measures[network.name] = PerceptualSimilarity(network)
    return measures


@torch.no_grad()
def evaluate_pairs(
    fakes: Source | str | Path,
    reals: Source | str | Path,
    *,
    metrics: Sequence[str] = ("psnr", "ssim"),
    lpips: LPIPS | None = None,
    pd: PerceptualDistance | None = None,
    batch_size: int = 16,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> dict[str, float]:
    """Name to number, of all pairs of pictures with the same name (endings aside), the same on every process.

    `fakes` and `reals` are folders or zips. Pictures are taken as RGB in their own size, which may change from pair to
    pair. Process `rank` takes pairs rank, rank + world, ...; `batch_size` pairs of one size are measured together.
    `metrics`: see `pair_measures`, which also says how each number is taken (`settings`).
    ValueError for names without a partner, pictures that cannot be read or measured, and sizes that differ in a pair.
    """
    check_ranks(rank, world)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
    measures = {name: m.to(device) for name, m in pair_measures(metrics, lpips=lpips, pd=pd).items()}
    fakes, reals = _opened(fakes), _opened(reals)
    mine = match_names(fakes, reals)[rank::world]
    failure: Exception | None = None
    try:
        _measure(measures, _batches(fakes, reals, mine, batch_size), len(mine), torch.device(device), progress)
    except Exception as error:  # re-raised below, after the others are told
        failure = error
    _raise_on_all(failure)
    return {name: measure.compute().item() for name, measure in measures.items()}


def match_names(fakes: Source, reals: Source) -> list[tuple[str, str]]:
    """(fake, real) names that are equal but for their endings, sorted. ValueError where one has no partner."""
    fake, real = _by_stem(fakes), _by_stem(reals)
    alone = [text for text in (_alone(fakes, fake, real), _alone(reals, real, fake)) if text]
    if alone:
        raise ValueError(f"pictures without a partner of their name: {'; '.join(alone)}. Rename or remove them")
    return [(fake[stem], real[stem]) for stem in sorted(fake)]


def _alone(source: Source, here: dict[str, str], there: dict[str, str]) -> str:
    """The first names that only `here` has, in words; empty where there is none."""
    stems = sorted(here.keys() - there.keys())
    more = f" and {len(stems) - _NAMED} more" if len(stems) > _NAMED else ""
    names = ", ".join(here[stem] for stem in stems[:_NAMED])
    return f"{len(stems)} of {len(here)} in {source.path}: {names}{more}" if stems else ""


def _by_stem(source: Source) -> dict[str, str]:
    """{name without ending: name}."""
    names: dict[str, str] = {}
    for name in source.names:
        stem = name.rsplit(".", 1)[0]
        if stem in names:
            raise ValueError(f"{source.path} has both {names[stem]} and {name}: remove one, partners share a name")
        names[stem] = name
    return names


def _opened(source: Source | str | Path) -> Source:
    from lit_gans.data.sources import open_source

    return open_source(Path(source)) if isinstance(source, str | Path) else source


def _measure(
    measures: dict[str, PairMean],
    batches: Iterator[tuple[str, Tensor, Tensor]],
    total: int,
    device: torch.device,
    progress: Progress | None,
) -> None:
    """Every batch into every metric; the others' gathering also waits for a process without pairs."""
    none = torch.empty(0, 3, 1, 1, dtype=torch.uint8, device=device)
    for measure in measures.values():
        measure.update(none, none)
    done = 0
    for name, fake, real in batches:
        try:
            for measure in measures.values():
                measure.update(fake.to(device), real.to(device))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        done += len(fake)
        if progress is not None:
            progress("pairs", done, total)
    assert done == total, (done, total)


def _batches(
    fakes: Source, reals: Source, names: Sequence[tuple[str, str]], batch_size: int
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(first name, fake, real uint8 [n, 3, H, W]) of consecutive pairs of one size."""
    first, kept = "", []
    for fake_name, real_name in names:
        pair = _decoded_pair(fakes, reals, fake_name, real_name)
        if kept and (len(kept) == batch_size or kept[0].shape != pair.shape):
            yield first, *torch.stack(kept, dim=1)
            kept = []
        first = first if kept else fake_name
        kept.append(pair)
    if kept:
        yield first, *torch.stack(kept, dim=1)


def _decoded_pair(fakes: Source, reals: Source, fake_name: str, real_name: str) -> Tensor:
    """uint8 [2, 3, H, W]."""
    fake, real = _decoded(fakes, fake_name), _decoded(reals, real_name)
    if fake.shape != real.shape:
        (fake_h, fake_w), (real_h, real_w) = fake.shape[1:], real.shape[1:]
        raise ValueError(
            f"{fake_name} in {fakes.path} is {fake_w} x {fake_h} px, its partner in {reals.path} {real_w} x {real_h}: "
            f"pairs are compared pixel by pixel, bring both to one size"
        )
    return torch.stack([fake, real])


def _decoded(source: Source, name: str) -> Tensor:
    """uint8 [3, H, W]."""
    import numpy as np

    from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, open_picture, to_mode

    try:
        with source.open(name) as file:
            pixels = np.array(to_mode(open_picture(file, MAX_PIXELS), "RGB"))
    except UNREADABLE as error:
        raise ValueError(f"{name} in {source.path} cannot be read: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _raise_on_all(failure: Exception | None) -> None:
    """Raises on every process where one failed: the others would wait for its sums for ever."""
    if is_distributed():
        told: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(told, None if failure is None else str(failure))
        first = next((number for number, text in enumerate(told) if text is not None), None)
        if failure is None and first is not None:
            raise RuntimeError(f"process {first} failed: {told[first]}")
    if failure is not None:
        raise failure
