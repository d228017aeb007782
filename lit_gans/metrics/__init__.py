"""How good a generator is: torchmetrics classes, feature extractors, and the evaluator that stamps each number."""

from lit_gans.metrics.conditioning import ClassAgreement
from lit_gans.metrics.evaluator import METRICS, Evaluation, check_settings, evaluate_gan, evaluate_images
from lit_gans.metrics.extractors import Extractor, Features, build_extractor
from lit_gans.metrics.frechet import FrechetDistance, frechet_distance
from lit_gans.metrics.kernel import KernelDistance, kernel_distance
from lit_gans.metrics.manifold import PrecisionRecall, precision_recall
from lit_gans.metrics.score import ClassScore, class_score

__all__ = [
    "METRICS", "ClassAgreement", "ClassScore", "Evaluation", "Extractor", "Features", "FrechetDistance",
    "KernelDistance", "PrecisionRecall", "build_extractor", "check_settings", "class_score", "evaluate_gan",
    "evaluate_images", "frechet_distance", "kernel_distance", "precision_recall",
]  # fmt: skip
