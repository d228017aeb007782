"""What several processes need to agree on, and nothing where there is one."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def is_distributed() -> bool:
    """True inside an initialised process group."""
    return dist.is_available() and dist.is_initialized()


def check_ranks(rank: int, world: int) -> None:
    """ValueError unless `rank` and `world` are those of the process group: each metric waits for every process."""
    found = (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)
    if (rank, world) != found:
        raise ValueError(
            f"rank {rank} of {world} was given, but this is process {found[0]} of {found[1]}: "
            f"pass those, and call on every process"
        )


def first_on_rank_zero(work: Callable[[], T]) -> T:
    """work() on process 0 while the others wait, then on them: they find on disk what it left there.

    Where it fails on process 0, it fails on all, so that none waits for ever.
    """
    if not is_distributed():
        return work()
    failure: Exception | None = None
    if dist.get_rank() == 0:
        try:
            result = work()
        except Exception as error:  # re-raised below, after the others are told
            failure = error
    told = [None if failure is None else f"{type(failure).__name__}: {failure}"]
    dist.broadcast_object_list(told, src=0)
    if failure is not None:
        raise failure
    if told[0] is not None:
        raise RuntimeError(f"process 0 failed: {told[0]}")
    return result if dist.get_rank() == 0 else work()


def as_rank_zero_says(answer: bool, device: torch.device) -> bool:
    """Process 0's answer, on every process."""
    if not is_distributed():
        return answer
    said = torch.tensor(int(answer), device=device)
    dist.broadcast(said, src=0)
    return bool(said.item())
