"""Two processes, each with half of a batch, against torch's batch norm on the whole of it."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lit_gans.adversarial.penalties import r1
from lit_gans.nn import BatchNorm


def network(norm: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 3, 3), norm, nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(12, 1)).double()


def loss(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).square().mean() + r1(net, x)


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    x = torch.randn(8, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = network(BatchNorm(3)), network(nn.BatchNorm2d(3))
    loss(theirs, x).backward()
    loss(ours, x[rank * 4 : rank * 4 + 4]).backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        dist.all_reduce(p.grad)
        assert torch.allclose(p.grad / 2, q.grad, atol=1e-10), name
    for (name, p), q in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(p.double(), q.double(), atol=1e-10), name
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
