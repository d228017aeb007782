"""Randomness that is derived, never ambient: the same numbers after a resume and on any number of processes.

A stream of draws is keyed by (seed, image clock, purpose). Every process draws the rows of the whole global batch and
keeps its own share, so that two processes see exactly the rows that one process would.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of `key` and on nothing else."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Draws:
    """A stream of random tensors, of which this process (or micro-batch) keeps share `share` out of `shares`.

    The `n` of each method counts the rows of this share; rows are contiguous slices of the global batch.
    """

    def __init__(self, *key: int | str, share: int = 0, shares: int = 1, device: torch.device | str = "cpu") -> None:
        assert 0 <= share < shares
        self.key, self.share, self.shares, self.device = key, share, shares, torch.device(device)

    @cached_property
    def generator(self) -> torch.Generator:
        """Seeded at the first draw: most streams of a training step are never drawn from."""
        return torch.Generator(self.device).manual_seed(derive_seed(*self.key))

    def _mine(self, rows: Tensor) -> Tensor:
        return rows if self.shares == 1 else rows.chunk(self.shares)[self.share]

    def normal(self, n: int, *shape: int) -> Tensor:
        """[n, *shape] from N(0, 1)."""
        return self._mine(torch.randn(n * self.shares, *shape, generator=self.generator, device=self.device))

    def uniform(self, n: int, *shape: int) -> Tensor:
        """[n, *shape] from U[0, 1)."""
        return self._mine(torch.rand(n * self.shares, *shape, generator=self.generator, device=self.device))

    def bernoulli(self, p: float, like: Tensor) -> Tensor:
        """Of `like`'s shape [n, ...] and dtype: 1 with probability p, else 0."""
        shape = (len(like) * self.shares, *like.shape[1:])
        rows = torch.empty(shape, dtype=like.dtype, device=self.device).bernoulli_(p, generator=self.generator)
        return self._mine(rows)


_current: list[Draws] = []


@contextmanager
def drawing(draws: Draws) -> Iterator[Draws]:
    """Within it, layers with randomness of their own (`Dropout`) take it from `draws`."""
    _current.append(draws)
    try:
        yield draws
    finally:
        _current.pop()


def current_draws() -> Draws | None:
    """The stream of the innermost enclosing `drawing`; None outside of one: the layer then has torch's global one."""
    return _current[-1] if _current else None


@torch.compiler.disable
def random_noise(n: int, *, like: Sequence[Tensor]) -> list[Tensor]:
    """[n, 1, H, W] of N(0, 1) for each [H, W], from the enclosing `drawing`; outside of one, from torch's generator."""
    draws = current_draws()
    if draws is None:
        return [torch.randn(n, 1, *x.shape, dtype=x.dtype, device=x.device) for x in like]
    return [draws.normal(n, 1, *x.shape).to(x.dtype) for x in like]
