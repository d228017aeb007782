"""Every metric there is: what it may be asked for by, what it looks at, and which way its numbers are better.

Nothing heavy is imported here: a metric's own file, which `build` names, is read when the metric is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lit_gans.metrics.measures import Context, Measure

Better = Literal["lower", "higher"]
CLIP = "openai/clip-vit-base-patch16"  # of clip_score, unless another is named
OFFERS: Mapping[str, frozenset[str]] = {
    "samples": frozenset({"features", "spatial", "logits", "sets", "classes", "reals", "latents", "styles", "lpips",
                          "transforms", "classifiers"}),
    "images": frozenset({"features", "spatial", "logits", "sets", "classes", "reals"}),
    "translations": frozenset({"features", "sets", "pairs", "lpips", "segmenter"}),
    "pairs": frozenset({"pairs", "lpips", "pd"}),
    "captions": frozenset({"captions", "clip"}),
}  # fmt: skip
"""By kind of what is measured, what a metric can look at there: see `Metric.needs`."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Args:
        name: what it is asked for by; `also`: other names for it.
        numbers: the beginnings of its numbers' names, with the better direction: "kid" also stands for "kid_ba".
        needs: what it looks at. "features" of the extractor that is chosen, its "spatial" ones and "logits", whole
            "sets" of features and not moments alone, the real images themselves ("reals"), their "classes"; "latents",
            "styles" and "transforms" of a generator; "pairs" of pictures; "captions"; the networks "lpips", "pd",
            "clip", "segmenter" and "classifiers"; "retrieval", which no evaluation has: it is taken in Python.
        help: what it says, in a line.
        build: "module:function" in `lit_gans.metrics`; function(context, **options) gives the `Measure`, or None where
            the context says why there is none.
        default: the kinds of what is measured (see `OFFERS`) that are measured with it unless others are asked for.
    """

    name: str
    numbers: Mapping[str, Better]
    needs: frozenset[str]
    help: str
    build: str
    also: Sequence[str] = ()
    default: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def measure(self, context: Context) -> Measure | None:
        module, _, function = self.build.partition(":")
        return getattr(import_module(f"lit_gans.metrics.{module}"), function)(context, **self.options)


def _metric(name: str, build: str, needs: str, help: str, better: Better | None = None, **more: Any) -> Metric:
    """A row of the catalog: `needs` separated by blanks; one number of the metric's own name if it has no others."""
    numbers = more.pop("numbers", {name: better})
    return Metric(name=name, build=build, needs=frozenset(needs.split()), help=help, numbers=numbers, **more)


def _overlap(name: str, help: str, **more: Any) -> Metric:
    options = {"which": name}
    return _metric(name, "manifold:OverlapMeasure", "features sets", help, "higher", options=options, **more)


def _of_pairs(name: str, needs: str, help: str, better: Better, **more: Any) -> Metric:
    """Of folders by file name, of a translator."""
    options = {"which": name}
    return _metric(name, "paired:pair_measure", needs, f"of pairs: {help}", better, options=options, **more)


def _path(space: str, sampling: str, crop: bool) -> Metric:
    name = f"ppl_{space}_{sampling}{'_crop' if crop else ''}"
    where = "whole paths" if sampling == "full" else "ends of paths"
    return _metric(
        name,
        "path_length:PathMeasure",
        f"latents lpips{' styles' if space == 'w' else ''}",
        f"perceptual path length in {space.upper()}, of {where}{' and the face alone' if crop else ''}",
        "lower",
        options={"name": name, "space": space, "sampling": sampling, "crop": crop},
    )


def _equivariance(name: str, help: str) -> Metric:
    build, needs = "equivariance:EquivarianceMeasure", "latents styles transforms"
    return _metric(name, build, needs, f"equivariance to {help}, in dB", "higher", options={"kind": name})


CATALOG: Mapping[str, Metric] = {metric.name: metric for metric in (
    _metric("frechet", "frechet:FrechetMeasure", "features", "Fréchet distance of features", also=("fid",),
            numbers={"fid": "lower", "frechet": "lower"}, default=("samples", "translations")),
    _metric("spatial_frechet", "frechet:spatial_frechet", "features spatial",
            "Fréchet distance of spatial features", also=("sfid",),
            numbers={"sfid": "lower", "spatial_frechet": "lower"}),
    _metric("kid", "kernel:KernelMeasure", "features sets", "kernel distance of features",
            numbers={"kid": "lower", "kernel": "lower"}, default=("samples", "translations")),
    _metric("intra_frechet", "frechet:intra_frechet", "features sets classes",
            "Fréchet distance within each class, mean", also=("intra_fid",),
            numbers={"intra_fid": "lower", "intra_frechet": "lower"}),
    _overlap("precision", "share of samples among the reals (by `--neighbours`)", default=("samples",)),
    _overlap("recall", "share of reals among the samples", default=("samples",)),
    _overlap("density", "how many reals' neighbourhoods a sample lies in"),
    _overlap("coverage", "share of reals with a sample in their neighbourhood"),
    _metric("is", "score:score", "features logits", "Inception Score, of any classifier's logits",
            numbers={"is": "higher", "score": "higher"}, default=("samples",)),
    _metric("torchmetrics_fid", "torchmetrics_classes:TorchmetricsFrechet", "features",
            "Fréchet distance by torchmetrics' own class (docs/metrics.md)", "lower"),
    _metric("torchmetrics_is", "torchmetrics_classes:torchmetrics_is", "features logits",
            "Inception Score by torchmetrics' own class (docs/metrics.md)", "higher"),
    _metric("class_accuracy", "conditioning:class_accuracy", "features logits classes",
            "share of samples of the class that was asked for, and of the class that is drawn least",
            numbers={"class_accuracy": "higher", "class_share_min": "higher"}, default=("samples",)),
    _metric("random_frechet", "frechet:random_frechet", "reals", "Fréchet distance in a network never trained",
            also=("rfid",), numbers={"rfid": "lower"}),
    _metric("swd", "sliced_wasserstein:PixelMeasure", "reals", "sliced Wasserstein distance of a Laplacian pyramid",
            "lower"),
    _metric("modes", "modes:ModeMeasure", "features logits classes", "of StackedMNIST's 1000 modes, those drawn",
            numbers={"modes": "higher", "mode_divergence": "lower"}),
    *(_path(space, sampling, crop) for space in ("z", "w") for sampling in ("full", "end") for crop in (False, True)),
    _equivariance("eq_t", "translation by whole pixels"),
    _equivariance("eq_t_frac", "translation by fractions of pixels"),
    _equivariance("eq_r", "rotation"),
    _metric("separability", "separability:SeparabilityMeasure", "latents classifiers",
            "linear separability of attributes (from Python)", "lower"),
    _of_pairs("psnr", "pairs", "peak signal-to-noise ratio, in dB", "higher", default=("translations",)),
    _of_pairs("ssim", "pairs", "structural similarity", "higher", default=("translations",)),
    _of_pairs("ms_ssim", "pairs", "structural similarity over five scales", "higher"),
    _of_pairs("lpips", "pairs lpips", "perceptual distance", "lower", default=("translations",)),
    _of_pairs("pd", "pairs pd", "feature reconstruction distance of VGG16", "lower"),
    _metric("segmentation", "segmentation:SegmentMeasure", "pairs segmenter", "what a segmenter reads in translations",
            numbers={"pixel_accuracy": "higher", "mean_class_accuracy": "higher", "mean_iou": "higher"},
            default=("translations",)),
    _metric("clip_score", "text:CaptionMeasure", "captions clip",
            "of a folder with captions: CLIP's agreement with the pictures", "higher"),
    _metric("r_precision", "text:RPrecision", "retrieval", "share of images nearer to their caption than to others' "
            "(from Python)", "higher"),
)}  # fmt: skip
_NAMES = {other: metric.name for metric in CATALOG.values() for other in (metric.name, *metric.also)}
_STEMS = {stem: metric for metric in CATALOG.values() for stem in metric.numbers}


def of(kind: str) -> tuple[str, ...]:
    """Names of the metrics that can be measured of a kind of thing: see `OFFERS`. Those of pairs first."""
    found = [metric for metric in CATALOG.values() if metric.needs <= OFFERS[kind]]
    return tuple(metric.name for metric in sorted(found, key=lambda metric: "pairs" not in metric.needs))


def defaults(kind: str) -> tuple[str, ...]:
    """What is measured of a kind of thing unless others are asked for."""
    return tuple(name for name in of(kind) if kind in CATALOG[name].default)


def chosen(metrics: Sequence[str], kind: str) -> tuple[str, ...]:
    """The metrics' own names. ValueError for none, and for what is not measured of that kind of thing."""
    names, known = tuple(_NAMES.get(name, name) for name in metrics), of(kind)
    if not names or not set(names) <= set(known):
        raise ValueError(f"metrics {list(names)}: choose one or more of {', '.join(known)}")
    return names


def looking_at(metrics: Sequence[str], *needs: str) -> list[str]:
    """Those of the metrics that look at any of the things: see `Metric.needs`."""
    return [name for name in metrics if CATALOG[name].needs & set(needs)]


def metric_of(number: str) -> Metric | None:
    """The metric that a number, such as "precision_k5", is of; None for a number of no evaluation."""
    stem = _stem(number)
    return None if stem is None else _STEMS[stem]


def direction(number: str) -> Better | None:
    """Whether lower or higher values of a number are better; None for one that says neither."""
    stem = None if number.endswith("_std") else _stem(number)  # how far a number is spread, not how good it is
    return None if stem is None else _STEMS[stem].numbers[stem]


def _stem(number: str) -> str | None:
    fitting = [stem for stem in _STEMS if f"{number}_".startswith(f"{stem}_")]
    return max(fitting, key=len, default=None)
