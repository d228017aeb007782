"""Callbacks on the image clock."""

from lit_gans.callbacks.adaptive_augment import AdaptiveAugmentation
from lit_gans.callbacks.checkpoint import Checkpoint
from lit_gans.callbacks.clock import EveryKimg, crossed
from lit_gans.callbacks.data_report import DataReport
from lit_gans.callbacks.ema import EMA
from lit_gans.callbacks.evaluate import Evaluate
from lit_gans.callbacks.evaluate_translation import EvaluateTranslation
from lit_gans.callbacks.fade_in import FadeIn
from lit_gans.callbacks.health import DivergenceError, Health
from lit_gans.callbacks.image_grid import ImageGrid
from lit_gans.callbacks.page import Page
from lit_gans.callbacks.progress import Progress
from lit_gans.callbacks.report import Report
from lit_gans.callbacks.separability import Separability
from lit_gans.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "AdaptiveAugmentation",
    "Checkpoint",
    "DataReport",
    "DivergenceError",
    "Evaluate",
    "EvaluateTranslation",
    "EveryKimg",
    "FadeIn",
    "Health",
    "ImageGrid",
    "Page",
    "Progress",
    "Report",
    "Separability",
    "Throughput",
    "crossed",
]
