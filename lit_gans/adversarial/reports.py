"""Figures of training that are gathered in every step and read now and then, without waiting for the device."""

import torch
from torch import Tensor

FOLD_AFTER = 64  # values kept one by one before they are added up


class Reports:
    """Running means by name. Adding costs a list append; adding up is done rarely, reading when someone asks."""

    def __init__(self) -> None:
        self.written = False  # whether there is a callback that writes them down
        self.clear()

    def clear(self) -> None:
        self._pending: dict[str, list[Tensor]] = {}
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, name: str, value: Tensor) -> None:
        """All values of all names must lie on one device, where they are added up."""
        pending = self._pending.setdefault(name, [])
        pending.append(value.detach())
        if len(pending) >= FOLD_AFTER:
            self._fold()

    def add_logits(self, real: Tensor, fake: Tensor) -> None:
        """Gives real_logits, fake_logits (means), real_sign (share above 0) and fake_sign (share below 0)."""
        self._pairs.append((real.detach(), fake.detach()))
        if len(self._pairs) >= FOLD_AFTER:
            self._fold()

    def means(self) -> dict[str, Tensor]:
        """The mean of each name so far, as scalars on the device that they came from; sorted by name."""
        self._fold()
        return {name: total / count for name, (total, count) in sorted(self._sums.items())}

    def sums(self) -> dict[str, tuple[Tensor, int]]:
        """What the means are made of so far, sorted by name; `restore` goes on from it."""
        self._fold()
        return dict(sorted(self._sums.items()))

    def restore(self, sums: dict[str, tuple[float, int]], device: torch.device) -> None:
        self.clear()
        self._sums = {name: (torch.tensor(total, device=device), count) for name, (total, count) in sums.items()}

    def finite(self) -> Tensor | None:
        """Whether every mean is a finite number, as a bool on the device; None where there is nothing."""
        means = list(self.means().values())
        return torch.stack(means).isfinite().all() if means else None

    def _fold(self) -> None:
        pending, pairs = self._pending, self._pairs
        self._pending, self._pairs = {}, []
        for name, values in pending.items():
            self._add_up(name, [v.float().mean() for v in values])
        if pairs:
            real, fake = ([side.float().flatten() for side in sides] for sides in zip(*pairs, strict=True))
            self._add_up("real_logits", [r.mean() for r in real])
            self._add_up("fake_logits", [f.mean() for f in fake])
            self._add_up("real_sign", [(r > 0).float().mean() for r in real])
            self._add_up("fake_sign", [(f < 0).float().mean() for f in fake])

    def _add_up(self, name: str, values: list[Tensor]) -> None:
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = (total + torch.stack(values).sum(), count + len(values))
