"""How exactly single precision is multiplied: TF32, which GPUs may use for it, keeps 10 of the 23 bits of a factor.

torch has older switches and newer ones (`fp32_precision`). Once a newer one has been set, reading the older raises, as
torch.compile does; so here the older ones alone are used, which keep both in step.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def set_float32_precision(precision: str) -> None:
    """Products of matrices in "highest" (no TF32), "high" or "medium"; convolutions in TF32 unless it is "highest"."""
    _switch(precision, convolutions=precision != "highest")


def with_double(device: torch.device | str) -> torch.device:
    """`device`, or the CPU for one that has no float64: Apple's. What is on it is moved before it is converted."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32 within, nor convolutions chosen by a race; as before afterwards."""
    cudnn = torch.backends.cudnn
    matmul, convolutions, race = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    set_float32_precision("highest")
    cudnn.benchmark = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _switch(matmul, convolutions=convolutions)
        cudnn.benchmark = race


def _switch(matmul: str, *, convolutions: bool) -> None:
    if torch.get_float32_matmul_precision() != matmul:  # the newer switch need not have been touched
        torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolutions
