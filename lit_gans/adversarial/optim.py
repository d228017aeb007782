"""Optimisers and learning-rate schedules of adversarial training."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

REPAIRED = {"nan": 0.0, "posinf": 1e5, "neginf": -1e5}
SMALL = 2**16  # numbers in a tensor
Schedule = Literal["constant", "linear", "cosine"]
HOW = ("params", "fused", "foreach", "capturable", "differentiable")  # of a group, what changes no number
Options = list[list[dict[str, Any]]]


def lazy_adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float = 1e-8,
    interval: int = 1,
    fused: bool = True,
) -> torch.optim.Adam:
    """Adam for a network that is regularised only every `interval` steps (Karras et al., 2020, App. B).

    The learning rate and betas are given as published, before the correction: with ratio k / (k + 1), lr is
    multiplied and both betas are exponentiated by it. `interval=1` means no separate regularisation step. The fused
    kernel is the same arithmetic in one pass; pass `GAN.fused`, which is False where a gradient scaler must see the
    gradients before the step.
    """
    ratio = interval / (interval + 1) if interval > 1 else 1.0
    corrected = (float(betas[0]) ** ratio, float(betas[1]) ** ratio)  # 0 ** ratio must be a float for torch >= 2.15
    return torch.optim.Adam(parameters, lr=lr * ratio, betas=corrected, eps=eps, fused=fused)


def repair(gradients: Sequence[Tensor]) -> None:
    """Sets what is NaN to 0 and what is infinite to 1e5 or -1e5; all else stays.

    To start work on a small tensor takes a GPU longer than to do it: there they go together. On a CPU copying them
    takes 1.5 to 3 times as long (200 tensors of 64 to 16,384 numbers).
    """
    small: list[Tensor] = []
    others: list[Tensor] = []
    for gradient in gradients:
        (others if gradient.is_cpu or gradient.numel() > SMALL else small).append(gradient)
    for gradient in others:
        gradient.nan_to_num_(**REPAIRED)
    if small:
        repair_together(small)


def repair_together(tensors: list[Tensor]) -> None:
    """`repair` of copies side by side, in one pass."""
    flat = torch.cat([t.flatten() for t in tensors]).nan_to_num_(**REPAIRED)
    parts = flat.split([t.numel() for t in tensors])
    torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])


def learning_rate_factor(
    kimg: float, *, schedule: Schedule, total_kimg: float, warmup_kimg: float = 0.0, decay_from_kimg: float = 0.0
) -> float:
    """What the published learning rate is multiplied by at `kimg` on the image clock, in [0, 1].

    Linear warm-up over `warmup_kimg`; then constant, or from `decay_from_kimg` falling linearly or by a half cosine
    to 0 at `total_kimg`.
    """
    warm = min(kimg / warmup_kimg, 1.0) if warmup_kimg > 0 else 1.0
    if schedule == "constant":
        return warm
    progress = min(max((kimg - decay_from_kimg) / max(total_kimg - decay_from_kimg, 1e-12), 0.0), 1.0)
    return warm * (1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress)))


def half_cosine(kimg: float, start: float, end: float, *, over_kimg: float) -> float:
    """From `start` at 0 on the image clock to `end` at `over_kimg`, along half a wave of a cosine; then `end`.

    With `over_kimg` 0 it is `end` at all times.
    """
    if over_kimg <= 0 or kimg >= over_kimg:
        return end
    return start + 0.5 * (1 - math.cos(math.pi * kimg / over_kimg)) * (end - start)


def options_of(optimizers: Sequence[Optimizer]) -> Options:
    """What each group of each optimiser was built with: lr, betas, ... as plain values."""
    return [[_options(group) for group in optimizer.param_groups] for optimizer in optimizers]


def apply_changed(optimizers: Sequence[Optimizer], *, before: Options | None, now: Options, but: str = "") -> list[str]:
    """Gives resumed optimisers what differs between the options they were built with `before` and those of `now`.

    A checkpoint brings its own options back, whatever was asked for since. Others, which a schedule set meanwhile, stay
    as the checkpoint has them, and so does the option `but`. Without `before` the present ones stand for it. Returns
    what was changed, such as "lr 0.001 -> 0.0005".
    """
    changed = []
    for number, optimizer in enumerate(optimizers):
        for place, group in enumerate(optimizer.param_groups):
            old = _options(group) if before is None else before[number][place]
            for name, value in now[number][place].items():
                if name != but and old.get(name) != value:
                    group[name] = value
                    if name == "lr":
                        group.pop("initial_lr", None)  # what a schedule multiplies
                    changed.append(f"{name} {old.get(name)} -> {value}")
    return list(dict.fromkeys(changed))


def _options(group: dict[str, Any]) -> dict[str, Any]:
    given = {**group, "lr": group.get("initial_lr", group["lr"])}
    plain = {name: float(v) if isinstance(v, Tensor) else v for name, v in given.items()}
    return {name: v for name, v in plain.items() if name not in (*HOW, "initial_lr")}
