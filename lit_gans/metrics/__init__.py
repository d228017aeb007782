"""How good a generator is: torchmetrics classes, feature extractors, and the evaluator that stamps each number."""

from lit_gans.metrics.building import build_extractor
from lit_gans.metrics.conditioning import ClassAgreement
from lit_gans.metrics.evaluator import Evaluation, evaluate_gan, evaluate_images
from lit_gans.metrics.extractors import Extractor, Features
from lit_gans.metrics.frechet import FrechetDistance, frechet_distance
from lit_gans.metrics.kernel import KernelDistance, kernel_distance
from lit_gans.metrics.manifold import ManifoldOverlap, PrecisionRecall, manifold_overlap, precision_recall
from lit_gans.metrics.modes import MixtureModes, StackedModes
from lit_gans.metrics.paired import PSNR, SSIM, MultiScaleSSIM, evaluate_pairs
from lit_gans.metrics.path_length import PathLength, measure_path_length
from lit_gans.metrics.perceptual import LPIPS, PerceptualDistance, PerceptualSimilarity, build_lpips
from lit_gans.metrics.plan import DEFAULT_METRICS, METRICS, Plan
from lit_gans.metrics.score import ClassScore, class_score
from lit_gans.metrics.separability import LinearSeparability, measure_separability
from lit_gans.metrics.sliced_wasserstein import SlicedWasserstein
from lit_gans.metrics.text import CLIPScore, RPrecision
from lit_gans.nn.clip import build_clip

__all__ = [
    "CLIPScore", "ClassAgreement", "ClassScore", "DEFAULT_METRICS", "Evaluation", "Extractor", "Features",
    "FrechetDistance", "KernelDistance", "LPIPS", "LinearSeparability", "METRICS", "ManifoldOverlap", "MixtureModes",
    "MultiScaleSSIM", "PSNR", "PathLength", "PerceptualDistance", "PerceptualSimilarity", "Plan", "PrecisionRecall",
    "RPrecision", "SSIM", "SlicedWasserstein", "StackedModes", "build_clip", "build_extractor", "build_lpips",
    "class_score", "evaluate_gan", "evaluate_images", "evaluate_pairs", "frechet_distance", "kernel_distance",
    "manifold_overlap", "measure_path_length", "measure_separability", "precision_recall",
]  # fmt: skip
