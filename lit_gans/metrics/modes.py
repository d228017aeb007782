"""How many modes a generator covers: the 1,000 of stacked MNIST, and the centres of a mixture of Gaussians."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_gans.metrics.extractors import Extractor
from lit_gans.metrics.measures import Context, FakeBatch, Measure

STACKED_MODES = 1000
HIGH_QUALITY_SIGMAS = 3


class StackedModes(Metric):
    """Modes of stacked MNIST that were drawn, and the divergence of their frequencies from the real ones.

    Metz et al. (2017), https://arxiv.org/abs/1611.02163, Sec. 3.3.1, with the 26,000 samples that Srivastava et al.
    (2017), https://arxiv.org/abs/1705.07761, and Lin et al. (2018), https://arxiv.org/abs/1712.04086, take. One sample
    makes a mode. The number of samples is part of the protocol: n perfect ones are at a divergence of about
    999 / (2 n), 0.019 for 26,000.
    """

    is_differentiable = False
    full_state_update = False
    reference: Tensor | None
    counts: Tensor

    def __init__(self, reference: Tensor | None = None) -> None:
        """reference [1000]: how often each mode occurs in real data; None: all equally often."""
        super().__init__()
        if reference is not None:
            _check_frequencies("reference", reference, (STACKED_MODES,))
        self.register_buffer("reference", reference, persistent=False)
        self.add_state("counts", torch.zeros(STACKED_MODES, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor) -> None:
        """logits [N, 3, 10]: a digit classifier's for each of the three channels; see `stacked_logits`."""
        self.counts += torch.bincount(stacked_classes(logits), minlength=STACKED_MODES)

    def compute(self) -> tuple[Tensor, Tensor]:
        """modes, int64 scalar in [0, 1000], and divergence in nats, float64 scalar. ValueError without samples."""
        return mode_count(self.counts), mode_divergence(self.counts, self.reference)


class MixtureModes(Metric):
    """Modes of a mixture of Gaussians that were found, and the share of high-quality samples.

    As Srivastava et al. (2017), https://arxiv.org/abs/1705.07761, "Synthetic Dataset", count on 2,500 samples: one is
    of high quality if it lies within three standard deviations of the nearest centre, which is then a mode found.
    In two dimensions the data itself has a share of 1 - exp(-9/2) = 0.989. See `lit_gans.data.mixtures` for centres.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    centres: Tensor
    found: Tensor
    count: Tensor

    def __init__(self, centres: Tensor, sigma: float) -> None:
        """centres [K, D]; sigma, the standard deviation along each axis."""
        super().__init__()
        if centres.ndim != 2 or len(centres) == 0:
            raise ValueError(f"centres of shape {list(centres.shape)}, expected [K, D] with K > 0")
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma is {sigma!r}; it must be above 0")
        self.sigma = sigma
        self.register_buffer("centres", centres.double(), persistent=False)
        self.add_state("found", torch.zeros(len(centres), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, points: Tensor) -> None:
        """points [N, D]; those that are not finite count as samples of low quality."""
        if points.ndim != 2 or points.shape[1] != self.centres.shape[1]:
            raise ValueError(f"points of shape {list(points.shape)}, expected [N, {self.centres.shape[1]}]")
        distances, nearest = (points.double()[:, None] - self.centres).norm(dim=2).min(dim=1)
        close = distances <= HIGH_QUALITY_SIGMAS * self.sigma
        self.found += torch.bincount(nearest[close], minlength=len(self.found))
        self.count += len(points)

    def compute(self) -> tuple[Tensor, Tensor]:
        """modes, int64 scalar in [0, K], and share of high quality, float64 scalar in [0, 1]."""
        if self.count == 0:
            raise ValueError("a share of high-quality samples needs one point or more, got none")
        return mode_count(self.found), self.found.sum().double() / self.count


def stacked_logits(extractor: Extractor, images: Tensor) -> Tensor:
    """images uint8 [N, 3, H, W] -> logits [N, 3, 10] of the three channels, each classified as a grey picture.

    ValueError for other images, and for an extractor that does not tell ten digits apart.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images {list(images.shape)}, expected [N, 3, H, W]: one digit in each channel")
    if extractor.num_classes != 10:
        raise ValueError(
            f"extractor {extractor.name!r} has {extractor.num_classes} classes, expected the 10 digits: use "
            "'stackedmnist'"
        )
    logits = extractor.extract(images.reshape(-1, 1, *images.shape[2:])).logits
    assert logits is not None
    return logits.view(-1, 3, 10)


def stacked_classes(logits: Tensor) -> Tensor:
    """logits [N, 3, 10] -> int64 [N] in [0, 1000): 100 a + 10 b + c for the digits a, b, c of channels 0, 1, 2."""
    if tuple(logits.shape[1:]) != (3, 10):
        raise ValueError(f"logits of shape {list(logits.shape)}, expected [N, 3, 10]: ten digits for three channels")
    return (logits.argmax(dim=2) * torch.tensor([100, 10, 1], device=logits.device)).sum(dim=1)


def mode_count(counts: Tensor) -> Tensor:
    """counts [K], samples in each mode -> how many modes have one or more, int64 scalar."""
    return (counts > 0).sum()


def mode_divergence(counts: Tensor, reference: Tensor | None = None) -> Tensor:
    """KL(generated || real) over modes in nats, float64 scalar, called the reverse divergence in the papers.

    counts [K] generated samples in each mode; reference [K] real frequencies, in any unit (None: all equal).
    Modes that were not generated add nothing; one that was, but does not occur in the reference, makes it infinite.
    """
    _check_frequencies("counts", counts, (len(counts),))
    reference = torch.ones_like(counts) if reference is None else reference.to(counts.device)
    _check_frequencies("reference", reference, (len(counts),))
    p, q = (x.double() / x.sum(dtype=torch.float64) for x in (counts, reference))
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()


def _check_frequencies(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(values.shape) != shape or bool((values < 0).any()) or not bool(values.sum() > 0):
        raise ValueError(
            f"{name} of shape {list(values.shape)} with sum {values.sum().item():g}, "
            f"expected {list(shape)} frequencies of 0 or more, not all 0"
        )


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class ModeMeasure(Measure):
    """Modes of stacked MNIST, told apart by a classifier of its digits, and their divergence from the real ones."""

    def __init__(self, context: Context) -> None:
        count, real = context.classes.count, context.classes.real
        if count != STACKED_MODES or real is None:
            raise ValueError(
                f"modes are counted on StackedMNIST, with {STACKED_MODES} classes; the data have {count}"
            )
        self.context = context
        self.metric = StackedModes(real.bincount(minlength=STACKED_MODES)).to(context.device)
        self.metric.update(torch.empty(0, 3, 10, device=context.device))

    def update(self, batch: FakeBatch) -> None:
        self.metric.update(stacked_logits(self.context.extractor, batch.images))

    def values(self) -> dict[str, float]:
        modes, divergence = self.metric.compute()
        return {"modes": modes.item(), "mode_divergence": divergence.item()}

    def settings(self) -> dict[str, object]:
        """How well the classifier, if it was trained here, tells digits apart that it was not trained on."""
        accuracy = self.context.extractor.held_out_accuracy
        return {} if accuracy is None else {"classifier_accuracy": accuracy}
