"""Arithmetic that does not depend on a GPU's shortcuts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No autocast and, on a GPU, no TF32 within; as before afterwards."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        try:
            conv.fp32_precision = matmul.fp32_precision = "ieee"
            yield
        finally:
            conv.fp32_precision, matmul.fp32_precision = before
