"""Linear separability of a latent space (Karras et al., 2019), https://arxiv.org/abs/1812.04948, Sec. 4.2.

Whether a plane in latent space tells images with an attribute from those without: of generated images that a classifier
has labelled, how much remains to be known of the label once the side of the best plane is known.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lit_gans.base.images import to_uint8
from lit_gans.base.precision import exact_float32, with_double
from lit_gans.base.processes import check_ranks, share_of
from lit_gans.metrics.features import FeatureSet
from lit_gans.metrics.measures import NO_EXTRACTOR, Context, Measure
from lit_gans.metrics.path_length import SEED_STRIDE, Space, check_space
from lit_gans.metrics.sources import FromLatents, HasStyles

NUM_SAMPLES = 200_000  # of which the more confident half is kept

AttributeClassifier = Callable[[Tensor], Tensor]
"""classifier(images): uint8 [N, C, H, W] -> logits [N], positive where the image has the attribute."""


class LinearSeparability(FeatureSet):
    """exp of the sum over attributes of H(label | side of the best plane), in float64: 1 if planes tell everything.

    Rows are a latent of D and A logits; those of all processes count, in the order of their index.
    """

    is_differentiable = False
    higher_is_better = False

    def __init__(self, num_latent: int, num_attributes: int, *, share: float = 0.5) -> None:
        super().__init__(num_latent + num_attributes)
        _check_share(share)
        self.num_latent, self.num_attributes, self.share = num_latent, num_attributes, share

    def update(self, latents: Tensor, logits: Tensor, index: Tensor | None = None) -> None:  # type: ignore[override]
        """latents [N, D]; logits [N, A] of their images; index int64 [N], their numbers, as for `FeatureSet`.

        Every process calls it at least once, with no rows if it has none.
        """
        wanted = (len(latents), self.num_latent), (len(latents), self.num_attributes)
        if (latents.shape, logits.shape) != wanted:
            raise ValueError(
                f"latents {list(latents.shape)} and logits {list(logits.shape)}, expected [N, {self.num_latent}] and "
                f"[N, {self.num_attributes}] of one N"
            )
        super().update(torch.cat([latents, logits.to(latents.device)], dim=1), index)

    def compute(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """score, float64 scalar of 1 or more, and the entropies of the attributes in nats, float64 [A].

        torchmetrics makes a scalar of the entropies where A is 1.
        """
        latents, logits = super().compute().split([self.num_latent, self.num_attributes], dim=1)
        return separability(latents, logits, share=self.share)


def separability(latents: Tensor, logits: Tensor, *, share: float = 0.5) -> tuple[Tensor, Tensor]:
    """latents [N, D], logits [N, A] -> exp(sum_i H(Y_i | X_i)), float64 scalar, and the H(Y_i | X_i), float64 [A].

    Y_i is the sign of an attribute's logit, for the `share` of the images that its classifier is surest of; X_i is the
    side of the plane that a linear support vector machine fits to those same latents. An attribute that all kept images
    have, or none, has an entropy of 0 without a plane, and a warning says so. ValueError for inputs that do not fit.
    """
    if latents.ndim != 2 or logits.ndim != 2 or len(latents) != len(logits) or len(latents) < 2:
        raise ValueError(
            f"latents {list(latents.shape)} and logits {list(logits.shape)}, expected [N, D] and [N, A] with N of 2 or "
            f"more: flatten ws, or take one of their rows"
        )
    if not (latents.isfinite().all() and logits.isfinite().all()):
        raise ValueError("latents or logits are not finite: the generator or a classifier is broken")
    entropies = []
    for attribute, column in enumerate(logits.T):
        kept = keep_confident(column, share=share)
        entropies.append(_entropy_given_plane(latents[kept], column[kept] > 0, attribute))
    found = torch.stack(entropies) if entropies else torch.zeros(0, dtype=torch.float64)
    return found.sum().exp(), found


def keep_confident(logits: Tensor, *, share: float = 0.5) -> Tensor:
    """logits [N] -> int64 [max(1, round(share N))], ascending: rows of the largest |logit|; of equal ones, the first.

    |logit| orders as the larger of the two probabilities does, and still does where those round to 1.
    """
    _check_share(share)
    count = max(1, round(len(logits) * share))
    return logits.abs().argsort(descending=True, stable=True)[:count].sort().values


def conditional_entropy(predicted: Tensor, labels: Tensor) -> Tensor:
    """predicted, labels bool [N] -> H(labels | predicted) in nats, float64 scalar in [0, ln 2].

    The official code counts in bits and raises 2 to their sum, which is the same score.
    """
    if predicted.shape != labels.shape or predicted.ndim != 1 or len(predicted) == 0:
        raise ValueError(f"predictions {list(predicted.shape)} and labels {list(labels.shape)}, expected both [N]")
    counts = torch.bincount(2 * predicted.long() + labels.long(), minlength=4).double().view(2, 2)
    conditional = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)  # p(y | x); a side without points counts 0
    return -torch.special.xlogy(counts, conditional).sum() / len(predicted) + 0.0


def predict_by_plane(latents: Tensor, labels: Tensor) -> Tensor:
    """latents [N, D], labels bool [N] of both kinds -> bool [N] on the CPU: the side of the fitted plane."""
    normal, offset = plane_between(latents, labels)
    return latents.double().cpu() @ normal + offset > 0


def plane_between(latents: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """latents [N, D], labels bool [N] of both kinds -> normal float64 [D] on the CPU, towards True, and offset.

    scikit-learn's LinearSVC (liblinear: squared hinge, C 1, intercept regularised) as in the official code, whose
    default solves the dual in random order; the primal has the same optimum and draws nothing.
    """
    from sklearn.svm import LinearSVC

    rows = latents.double().cpu().numpy()
    plane = LinearSVC(dual=False).fit(rows, labels.cpu().numpy())
    return torch.from_numpy(plane.coef_[0]), float(plane.intercept_[0])


def _entropy_given_plane(latents: Tensor, labels: Tensor, attribute: int) -> Tensor:
    positive = int(labels.sum())
    if positive in (0, len(labels)):
        warnings.warn(
            f"attribute {attribute}: {positive} of the {len(labels)} surest images have it, so that there is nothing "
            f"to separate; its entropy counts as 0",
            stacklevel=3,
        )
        return torch.zeros((), dtype=torch.float64)
    return conditional_entropy(predict_by_plane(latents, labels), labels.cpu())


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share {share} is not in (0, 1]: 0.5 keeps the surer half")


# ---- rows from a generator -----------------------------------------------------------------------------------------


@torch.no_grad()
def labelled_latents(
    sampler: FromLatents,
    classifiers: Mapping[str, AttributeClassifier],
    index: Tensor,
    *,
    space: Space = "z",
    labels: Tensor | None = None,
    seed: int = 0,
    psi: float = 1.0,
    ema: bool = True,
) -> tuple[Tensor, Tensor]:
    """latents [n, D] of the samples numbered `index` int64 [n], and the classifiers' logits [n, A], in their order.

    Sample i has the sampler's seed `seed` * 10^9 + i and, on a conditional model, the class labels[i] (int64 [n]; by
    default i modulo their number). In space "w" the latent is the last of the sample's ws. Classifiers are given uint8
    images, like all that measures here, and bring them to their own size, as extractors do.
    """
    if not classifiers:
        raise ValueError("no attribute classifiers were given: separability is of their labels")
    check_space(sampler, space)
    classes = _classes(sampler, labels, index)
    with exact_float32(torch.device(sampler.device)):
        z = sampler.seeded_latents(seed * SEED_STRIDE + index.cpu())
        if space == "w":
            assert isinstance(sampler, HasStyles)
            ws = sampler.styles(z, labels=classes, psi=psi, ema=ema)
            latents, images = ws[:, -1], to_uint8(sampler.synthesize(ws, ema=ema))
        else:
            latents, images = z, to_uint8(sampler.generate(z, labels=classes, psi=psi, ema=ema))
        logits = [_logits(name, classifier, images) for name, classifier in classifiers.items()]
    return latents, torch.stack(logits, dim=1)


def _logits(name: str, classifier: AttributeClassifier, images: Tensor) -> Tensor:
    found = classifier(images)
    if found.shape != images.shape[:1]:
        raise ValueError(
            f"classifier {name!r} gives {list(found.shape)} for {len(images)} images, expected [{len(images)}]"
        )
    return found


def _classes(sampler: FromLatents, labels: Tensor | None, index: Tensor) -> Tensor | None:
    if sampler.num_classes == 0:
        if labels is not None:
            raise ValueError("labels were given, but this model is unconditional (num_classes 0)")
        return None
    labels = index % sampler.num_classes if labels is None else labels
    if len(labels) != len(index):
        raise ValueError(f"{len(labels)} labels for {len(index)} samples: give one for each")
    return labels.to(sampler.device)


def measure_separability(
    sampler: FromLatents,
    classifiers: Mapping[str, AttributeClassifier],
    *,
    num_samples: int = NUM_SAMPLES,
    batch_size: int = 32,
    labels: Tensor | None = None,
    share: float = 0.5,
    rank: int = 0,
    world: int = 1,
    **settings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """score and the entropy of each classifier's attribute by name, the same on every process; all must call it.

    Process `rank` makes samples rank, rank + world, ...: `num_samples` together, of which each attribute keeps `share`.
    labels int64 [num_samples] are their classes. `settings` are those of `labelled_latents`.
    """
    check_ranks(rank, world)
    if num_samples < max(2, world) or batch_size < 1:
        raise ValueError(
            f"num_samples {num_samples} and batch_size {batch_size}; 2 samples or more, one for each of {world} "
            f"processes, in batches of 1 or more"
        )
    if labels is not None and len(labels) != num_samples:
        raise ValueError(f"{len(labels)} labels for {num_samples} samples: give one for each")
    metric, place = None, with_double(sampler.device)
    for index in share_of(num_samples, rank=rank, world=world).split(batch_size):
        asked = None if labels is None else labels.cpu()[index]
        latents, logits = labelled_latents(sampler, classifiers, index, labels=asked, **settings)
        if metric is None:
            metric = LinearSeparability(latents.shape[1], len(classifiers), share=share).to(place)
        metric.update(latents.to(place), logits.to(place), index)
    assert metric is not None  # no process is without samples
    score, entropies = metric.compute()
    return score, dict(zip(classifiers, entropies.reshape(-1), strict=True))


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class SeparabilityMeasure(Measure):
    """The separability in W, or in Z where there is no W, and the entropy of each attribute."""

    of_images = False

    def __init__(self, context: Context) -> None:
        if not context.judges.classifiers:
            raise ValueError(
                "separability needs attribute classifiers: pass attributes={'smiling': module, ...} in Python"
            )
        self.context, self.classifiers = context, context.judges.classifiers

    def values(self) -> dict[str, float]:
        model, plan = self.context.subject.model, self.context.plan
        score, entropies = measure_separability(
            model, self.classifiers, num_samples=plan.separability_samples, batch_size=plan.batch_size,
            rank=self.context.rank, world=self.context.world, seed=plan.seed, psi=plan.psi, ema=plan.ema,
            space="w" if isinstance(model, HasStyles) else "z",
        )  # fmt: skip
        named = {f"separability_entropy_{name}": value.item() for name, value in entropies.items()}
        return {"separability": score.item(), **named}

    def settings(self) -> dict[str, object]:
        samples = {"samples": self.context.plan.separability_samples, "attributes": sorted(self.classifiers)}
        return {**NO_EXTRACTOR, "n_real": None, "n_fake": None, **samples}
