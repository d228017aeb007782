"""How good a generator is: torchmetrics classes, feature extractors, and the evaluator that stamps each number."""

from importlib import import_module
from typing import Any

_IN = {
    ".building": ("build_extractor",),
    ".conditioning": ("ClassAgreement",),
    ".evaluator": ("Evaluation", "evaluate_gan", "evaluate_images"),
    ".extractors": ("Extractor", "Features"),
    ".folders": ("evaluate_pairs",),
    ".frechet": ("FrechetDistance", "frechet_distance"),
    ".kernel": ("KernelDistance", "kernel_distance"),
    ".manifold": ("ManifoldOverlap", "PrecisionRecall", "manifold_overlap", "precision_recall"),
    ".modes": ("MixtureModes", "StackedModes"),
    ".paired": ("PSNR", "SSIM", "MultiScaleSSIM"),
    ".path_length": ("PathLength", "measure_path_length"),
    ".perceptual": ("LPIPS", "PerceptualDistance", "PerceptualSimilarity", "build_lpips"),
    ".plan": ("DEFAULT_METRICS", "METRICS", "Plan"),
    ".score": ("ClassScore", "class_score"),
    ".separability": ("LinearSeparability", "measure_separability"),
    ".sliced_wasserstein": ("SlicedWasserstein",),
    ".text": ("CLIPScore", "RPrecision"),
    "..nn.clip": ("build_clip",),
}
_FILES = {name: file for file, names in _IN.items() for name in names}
__all__ = sorted(_FILES)


def __getattr__(name: str) -> Any:
    ".""The public name out of its file, which is read now: the catalog alone is light."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FILES[name], __name__), name)
