"""Two processes of which one has no gradient for some parameters."""

import torch
import torch.distributed as dist
from torch import nn

from lit_gans.adversarial.strategy import average_gradients


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    both, first_only, nobody = (nn.Parameter(torch.zeros(3)) for _ in range(3))
    both.grad = torch.full((3,), float(rank))
    if rank == 0:
        first_only.grad = torch.ones(3)
    average_gradients([both, first_only, nobody])
    assert both.grad.tolist() == [0.5] * 3
    assert first_only.grad.tolist() == [0.5] * 3
    assert nobody.grad is None
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
