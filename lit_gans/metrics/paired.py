"""How close images come to given partners, pixel by pixel: PSNR, SSIM, MS-SSIM.

SSIM is of Wang et al. (2004), https://doi.org/10.1109/TIP.2003.819861, MS-SSIM of Wang, Simoncelli and Bovik (2003),
https://doi.org/10.1109/ACSSC.2003.1292216.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.metrics.catalog import chosen
from lit_gans.metrics.measures import Context
from lit_gans.metrics.pair_mean import PairMean, PairMeasure, check_pair
from lit_gans.metrics.perceptual import LPIPS, PerceptualDistance, PerceptualSimilarity

WINDOW_PX, WINDOW_SIGMA = 11, 1.5
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. (2003), Sec. 3.2, finest scale first
_PEAK = 255.0
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2  # Wang et al. (2004), Eq. 13 and Sec. III-C
_MULTI_SCALE_PX = (WINDOW_PX - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1  # halved four times, rounding up, it is 11


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
    shares = (weights / weights.sum()).tolist()
    for dim in (2, 3):  # shifted and added: four times faster than a convolution in float64 on a CPU
        length, padded = x.shape[dim] - WINDOW_PX + 1, x
        x = padded.narrow(dim, 0, length) * shares[0]
        for start, weight in enumerate(shares[1:], start=1):
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
    equal: Tensor

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


KINDS: dict[str, type[PairMean]] = {"psnr": PSNR, "ssim": SSIM, "ms_ssim": MultiScaleSSIM}


def pair_measures(
    metrics: Sequence[str], *, lpips: LPIPS | None = None, pd: PerceptualDistance | None = None
) -> dict[str, PairMean]:
    """The metric objects by the name of their number: "lpips" and "pd" are named after their network.

    ValueError for an unknown name, or for "lpips" or "pd" without its network.
    """
    measures: dict[str, PairMean] = {}
    networks: dict[str, LPIPS | PerceptualDistance | None] = {"lpips": lpips, "pd": pd}
    for name in chosen(metrics, "pairs"):
        network = networks.get(name)
        if name not in KINDS and network is None:
            build = {"lpips": "build_lpips('vgg') or its like", "pd": "build_perceptual_distance()"}[name]
            raise ValueError(f"metrics has {name!r}, which needs its network: pass {name}={build}")
        measures[network.name if network else name] = PerceptualSimilarity(network) if network else KINDS[name]()
    return measures


def pair_measure(context: Context, *, which: str) -> PairMeasure:
    """The mean over the pairs of the evaluation."""
    judges = context.judges
    ((name, mean),) = pair_measures([which], lpips=cast(LPIPS | None, judges.lpips), pd=judges.pd).items()
    return PairMeasure(context, name, mean)
