"""Batch normalisation over the global batch, on CPU and GPU, differentiable twice.

torch's SyncBatchNorm refuses CPU tensors and cannot be differentiated twice, which R1 through a normalised
discriminator needs. On one process this is torch's own batch norm.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce whose gradient is the all-reduce of the gradient, at every order."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return _SumOverProcesses.apply(grad)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of [N, C, ...] over all dimensions but C, and over all processes while training.

    Every process must hold as many values per channel as the others. State-dict names are torch's.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm needs [N, C, ...], found {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if not self.training or processes == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]  # [C] as [1, C, 1, ...]
        mean = _SumOverProcesses.apply(x.mean(axes)) / processes  # [N, C, ...] -> [C]
        centred = x - mean.view(shape)
        var = _SumOverProcesses.apply(centred.square().mean(axes)) / processes
        self._track(mean.detach(), var.detach(), count=processes * x.numel() // x.shape[1])
        y = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, *, count: int) -> None:
        """Running statistics as torch keeps them: unbiased variance, cumulative when momentum is None."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_((var * (count / max(count - 1, 1))).to(self.running_var.dtype), weight)
