"""What several processes need to agree on, and nothing where there is one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

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


def share_of(total: int, *, rank: int, world: int) -> Tensor:
    """int64, ascending: which of so many things are this process's; none where the others have them all."""
    return torch.arange(total)[rank::world]


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


_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8)
_ROWS_AT_ONCE = 4096


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """rows [n, ...] with global numbers index int64 [n] -> all processes' rows [N, ...], sorted by index, on each.

    The result is allocated once and filled part by part. A process without rows gives some of the right width; rows of
    equal index stay in the order of the processes. Without a process group, rows already in order are not copied.
    """
    if not is_distributed():
        order = index.argsort(stable=True)
        in_order = bool((order == torch.arange(len(order), device=order.device)).all())
        return rows if in_order else rows[order]
    counts, dtype = _counts(rows)
    places = _places(index, counts)
    whole = torch.empty(sum(counts), *rows.shape[1:], dtype=dtype, device=rows.device)
    start = 0
    for source, count in enumerate(counts):
        for first in range(0, count, _ROWS_AT_ONCE):
            size = min(_ROWS_AT_ONCE, count - first)
            mine = source == dist.get_rank()
            part = rows[first : first + size].contiguous() if mine else whole.new_empty(size, *rows.shape[1:])
            dist.broadcast(part, src=source)
            whole[places[start + first : start + first + size]] = part
        start += count
    return whole


def _counts(rows: Tensor) -> tuple[list[int], torch.dtype]:
    """How many rows each process has, and the type of those that have some."""
    mine = torch.tensor([len(rows), _DTYPES.index(rows.dtype) if len(rows) else -1], device=rows.device)
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine)
    dtype = max(int(each[1]) for each in found)
    return [int(each[0]) for each in found], _DTYPES[dtype] if dtype >= 0 else rows.dtype


def _places(index: Tensor, counts: list[int]) -> Tensor:
    """int64 [N]: where each row, counted over the processes, stands in the sorted whole."""
    padded = index.new_zeros(max(counts))
    padded[: len(index)] = index
    found = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(found, padded)
    numbers = torch.cat([each[:count] for each, count in zip(found, counts, strict=True)])
    places = torch.empty_like(numbers)
    places[numbers.argsort(stable=True)] = torch.arange(len(numbers), device=numbers.device)
    return places


def find_device(name: str, *, double: bool = False) -> "torch.device":
    """The device called `name`; "auto" is this process's accelerator, else the CPU.

    `double`: an accelerator without double precision (Apple's) does not count.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if found is None or (double and found.type == "mps"):
            return torch.device("cpu")
        return torch.device(found.type, int(os.environ.get("LOCAL_RANK", 0)))
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # which of them depends on how torch was built
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} is not here ({reason}): give auto, cpu, cuda, cuda:1, ...") from error
    return torch.device(name)


def broadcast_state(module: nn.Module, *, buffers_only: bool = False) -> None:
    """Makes every process hold rank 0's parameters and buffers (all dtypes)."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    tensors = list(module.buffers()) + ([] if buffers_only else list(module.parameters()))
    for tensor in tensors:
        dist.broadcast(tensor.detach(), src=0)


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of equal-sized tensors of all processes."""
    if not is_distributed():
        return x
    dist.all_reduce(x)
    return x / dist.get_world_size()


def of_all_processes(rows: Tensor) -> Tensor:
    """Equal-sized rows [n, ...] of all processes, one process's behind the other's: [N, ...], on each."""
    if not is_distributed():
        return rows
    found = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(found, rows.contiguous())
    return torch.cat(found)


def rank_and_world() -> tuple[int, int]:
    """(rank, processes) of the process group, or (0, 1)."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the group that torchrun, or `--processes`, has started this process in; nothing where there is none."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def in_processes(module: str, count: int, argv: Sequence[str]) -> int:
    """The command `module` in `count` processes of this machine; the exit status."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    return subprocess.run([*launch, "-m", module, *argv], env=environment).returncode
