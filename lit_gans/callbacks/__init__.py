"""Callbacks on the image clock."""

from lit_gans.callbacks.checkpoint import Checkpoint
from lit_gans.callbacks.clock import EveryKimg, crossed
from lit_gans.callbacks.ema import EMA

__all__ = ["EMA", "Checkpoint", "EveryKimg", "crossed"]
