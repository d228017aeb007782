"""Data-parallel training of alternating optimisers: plain replicas, gradients averaged once when an optimiser steps.

DistributedDataParallel around a whole module expects every parameter in every backward; a discriminator step has none
of the generator's. Here nothing is wrapped: one flat all-reduce per optimiser step, whatever passes led to it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from lit_gans.base.processes import broadcast_state


@torch.no_grad()
def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes, in one all-reduce per dtype.

    A gradient that is missing on some processes counts as zero there; one that is missing on all stays missing, so
    that the optimiser skips it as it would on one process.
    """
    world = dist.get_world_size()
    for dtype in sorted({p.dtype for p in parameters}, key=str):
        group = [p for p in parameters if p.dtype == dtype]
        present = torch.tensor([p.grad is not None for p in group], dtype=dtype, device=group[0].device)
        pieces = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in group]
        flat = torch.cat([*pieces, present])
        dist.all_reduce(flat)
        _scatter_back(flat.div_(world), group)


def _scatter_back(flat: Tensor, group: list[nn.Parameter]) -> None:
    *pieces, present = flat.split([p.numel() for p in group] + [len(group)])
    held_somewhere = None
    for i, (p, piece) in enumerate(zip(group, pieces, strict=True)):
        if p.grad is not None:
            p.grad.copy_(piece.view_as(p))
            continue
        if held_somewhere is None:  # read back only when something is missing: reading synchronises a GPU
            held_somewhere = (present > 0).tolist()
        if held_somewhere[i]:
            p.grad = piece.view_as(p).clone()


class SyncAtStep(DDPStrategy):
    """`DDPStrategy` without the wrapper; see the module's docstring. Registered as "sync_at_step"."""

    @override
    def configure_ddp(self) -> None:
        assert self.model is not None
        broadcast_state(self.model)

    @override
    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        # Before the precision plugin: a gradient scaler must unscale, and find infinities in, the averaged gradient.
        average_gradients([p for group in optimizer.param_groups for p in group["params"]])
        return super().optimizer_step(optimizer, closure, model, **kwargs)

    @classmethod
    @override
    def register_strategies(cls, strategy_registry: Any) -> None:
        for name, start_method in (("sync_at_step", "popen"), ("sync_at_step_spawn", "spawn")):
            strategy_registry.register(
                name, cls, description="plain replicas, gradients averaged at each step", start_method=start_method
            )


if "sync_at_step" not in StrategyRegistry:
    SyncAtStep.register_strategies(StrategyRegistry)
