"""Dropout whose masks are derived, never ambient."""

from __future__ import annotations

from torch import Tensor, nn

from lit_gans.base.random import current_draws


class Dropout(nn.Module):
    """Dropout whose mask comes from the enclosing `drawing`; outside of one, from torch's global generator."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability {p} is not in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x [N, ...] -> [N, ...], each value 0 with probability p, else divided by 1 - p."""
        if not self.training or self.p == 0:
            return x
        draws = current_draws()
        if draws is None:
            return nn.functional.dropout(x, self.p)
        return x * draws.bernoulli(1 - self.p, x).div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
