"""Maxout units (Goodfellow et al., 2013), https://arxiv.org/abs/1302.4389."""

from torch import Tensor, nn


class Maxout(nn.Module):
    """The largest of `pieces` linear maps per unit: [N, in_features] -> [N, units]."""

    def __init__(self, in_features: int, units: int, *, pieces: int) -> None:
        super().__init__()
        self.units, self.pieces = units, pieces
        self.linear = nn.Linear(in_features, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (self.units, self.pieces)).amax(2)  # [N, U P] -> [N, U, P] -> [N, U]
