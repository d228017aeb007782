"""Data-parallel training of alternating optimisers: plain replicas, gradients averaged once when an optimiser steps.

DistributedDataParallel around a whole module expects every parameter in every backward; a discriminator step has none
of the generator's. Here nothing is wrapped: one flat all-reduce per optimiser step, whatever passes led to it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import nn
from torch.optim import Optimizer
from typing_extensions import override

from lit_gans.base.processes import broadcast_state


@torch.no_grad()
def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes, in one all-reduce per dtype.

    A gradient that is missing on some processes counts as zero there; one that is missing on all stays missing, so
    that the optimiser skips it as it would on one process.
    """
    parameters = [p for p in parameters if p.requires_grad]  # what is frozen is frozen on all
    for dtype in sorted({p.dtype for p in parameters}, key=str):
        _average([p for p in parameters if p.dtype == dtype])


def _average(group: list[nn.Parameter]) -> None:
    held = [i for i, p in enumerate(group) if p.grad is not None]
    missing = [i for i, p in enumerate(group) if p.grad is None]
    present = torch.ones(len(group), dtype=group[0].dtype, device=group[0].device)
    for i in missing:
        present[i].zero_()  # where it lies: a tensor made of numbers, of the host's, would be waited for
    pieces = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in group]
    flat = torch.cat([*pieces, present])
    dist.all_reduce(flat)
    *pieces, present = flat.div_(dist.get_world_size()).split([*map(len, pieces), len(group)])
    means = [piece.view_as(p) for p, piece in zip(group, pieces, strict=True)]
    if held:  # torch refuses empty lists
        torch._foreach_copy_([p.grad for p in group if p.grad is not None], [means[i] for i in held])
    if missing:  # a GPU is waited for: the others alone know whether what is missing here is missing everywhere
        somewhere = (present > 0).tolist()
        for i in missing:
            group[i].grad = means[i].clone() if somewhere[i] else None


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
