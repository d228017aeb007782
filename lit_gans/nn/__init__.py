"""Blocks that two papers or more use identically. Nothing here knows Lightning."""

from lit_gans.base.random import Draws, drawing
from lit_gans.nn.batch_norm import BatchNorm
from lit_gans.nn.dropout import Dropout
from lit_gans.nn.maxout import Maxout

__all__ = ["BatchNorm", "Draws", "Dropout", "Maxout", "drawing"]
