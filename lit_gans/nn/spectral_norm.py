"""Spectral normalisation (Miyato et al., 2018), https://arxiv.org/abs/1802.05957: layers that enlarge nothing.

A weight is divided by its largest singular value, u W v, of whose vectors each pass in training makes one step of power
iteration, before it uses them; in evaluation they stay. Processes with the same weights keep the same vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, linear, normalize

from lit_gans.nn.resample import no_autocast

Vectors = Sequence[tuple[Tensor, Tensor]]  # a buffer, and what is or was in it
FIRST_STEPS = 5  # so that a network that was never trained is of a sensible size


class SpectralLayer(nn.Module):
    """What the layers have in common: `u` and `v`, and `normalised`, their weight as it is used."""

    weight: Tensor
    u: Tensor
    v: Tensor
    outputs = 0  # the dimension of the weight that counts what comes out

    def add_vectors(self) -> None:
        """To be called once the weight is there."""
        rows, columns = self._matrix().shape
        self.register_buffer("u", normalize(torch.randn(rows), dim=0))
        self.register_buffer("v", normalize(torch.randn(columns), dim=0))
        self.approach()

    def _matrix(self) -> Tensor:
        """The weight [O, the rest]."""
        return self.weight.transpose(0, self.outputs).flatten(1)

    @torch.no_grad()
    def approach(self, steps: int = FIRST_STEPS) -> None:
        """So many steps of power iteration."""
        matrix = self._matrix()
        for _ in range(steps):
            self.v.copy_(normalize(matrix.T @ self.u, dim=0, eps=1e-12))
            self.u.copy_(normalize(matrix @ self.v, dim=0, eps=1e-12))

    def normalised(self) -> Tensor:
        with no_autocast(self.weight):
            if self.training:
                self.approach(1)
            u, v = self.u.clone(), self.v.clone()  # the next pass may come before this one's backward
            return self.weight / (u @ (self._matrix() @ v))


class SpectralConv2d(nn.Conv2d, SpectralLayer):
    def __init__(self, fan_in: int, fan_out: int, kernel_size: int, stride: int = 1, padding: int = 0, *,
                 groups: int = 1, bias: bool = True) -> None:  # fmt: skip
        super().__init__(fan_in, fan_out, kernel_size, stride, padding, groups=groups, bias=bias)
        self.add_vectors()

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.normalised(), self.bias)


class SpectralConvTranspose2d(nn.ConvTranspose2d, SpectralLayer):
    outputs = 1

    def __init__(self, fan_in: int, fan_out: int, kernel_size: int, stride: int = 1, padding: int = 0, *,
                 bias: bool = True) -> None:  # fmt: skip
        super().__init__(fan_in, fan_out, kernel_size, stride, padding, bias=bias)
        self.add_vectors()

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        return conv_transpose2d(input, self.normalised(), self.bias, self.stride, self.padding)  # type: ignore[arg-type]


class SpectralLinear(nn.Linear, SpectralLayer):
    def __init__(self, fan_in: int, fan_out: int, *, bias: bool = True) -> None:
        super().__init__(fan_in, fan_out, bias=bias)
        self.add_vectors()

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.normalised(), self.bias)


def vectors_of(network: nn.Module) -> Vectors:
    """All vectors of power iteration in it, and copies of what they are now."""
    layers = [module for module in network.modules() if isinstance(module, SpectralLayer)]
    return [(vector, vector.clone()) for layer in layers for vector in (layer.u, layer.v)]


@contextmanager
def vectors_from(earlier: Vectors) -> Iterator[None]:
    """With the vectors as they were when `vectors_of` was called; what they are now is put back after."""
    now = [vector.clone() for vector, _ in earlier]
    for vector, before in earlier:
        vector.copy_(before)
    try:
        yield
    finally:
        for (vector, _), after in zip(earlier, now, strict=True):
            vector.copy_(after)
