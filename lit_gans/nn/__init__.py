"""Blocks that two papers or more use identically. Nothing here knows Lightning."""

from lit_gans.nn.batch_norm import BatchNorm
from lit_gans.nn.maxout import Maxout
from lit_gans.nn.random import Draws, Dropout, drawing

__all__ = ["BatchNorm", "Draws", "Dropout", "Maxout", "drawing"]
