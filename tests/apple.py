"""A stand-in for Apple's GPUs where there is none: tensors that say `mps`, compute on the CPU and refuse float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

MPS, CPU = torch.device("mps", 0), torch.device("cpu")
REFUSAL = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
    "Please use float32 instead."
)
OF_THE_DEVICE = {getattr(Tensor, name).__get__ for name in ("device", "is_cpu", "is_cuda", "is_mps")}
MOVES = {Tensor.to, Tensor.copy_, Tensor.type_as}


class _OnMps(Tensor):
    """Values on the CPU under the name of another device; forward passes only."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> _OnMps:
        if inner.dtype == torch.float64:
            raise TypeError(REFUSAL)
        found = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=MPS)
        found.inner = inner
        return found

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in OF_THE_DEVICE:
            return super().__torch_function__(func, types, args, kwargs or {})
        return _compute(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} came past __torch_function__")


class _Moves(TorchFunctionMode):
    """Takes what names the device, and has no tensor on it yet."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        plain = func in (torch.device, torch._C._nn._parse_to) or any(isinstance(x, _OnMps) for x in leaves)
        if not plain and any(_is_mps(x) for x in leaves):
            return _compute(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _is_mps(x: Any) -> bool:
    return (isinstance(x, torch.device) and x.type == "mps") or (isinstance(x, str) and x.startswith("mps"))


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    leaves = tree_leaves((args, kwargs))
    there = [x for x in leaves if isinstance(x, _OnMps)]
    if func is torch._has_compatible_shallow_copy_type:
        return False
    if func is Tensor.numpy:
        raise TypeError("can't convert mps:0 device type tensor to numpy.")
    strangers = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, _OnMps) and x.ndim]
    if there and strangers and func not in MOVES:
        raise RuntimeError("Expected all tensors to be on the same device, but found two devices, mps:0 and cpu!")
    if torch.float64 in [x for x in leaves if isinstance(x, torch.dtype)]:  # on the way to the CPU too, as Apple's
        raise TypeError(REFUSAL)
    named = [x for x in leaves if isinstance(x, torch.device) or (isinstance(x, str) and x in ("cpu", "mps"))]
    target = [x for x in leaves[1:] if isinstance(x, Tensor)] if func in MOVES - {Tensor.copy_} else []
    if named:
        stays = _is_mps(named[0])
    elif target:
        stays = isinstance(target[0], _OnMps)
    else:
        stays = func is not Tensor.cpu and (isinstance(args[0], _OnMps) if func is Tensor.copy_ else bool(there))
    args, kwargs = tree_map_only(_OnMps, lambda x: x.inner, (args, kwargs))
    found = func(*tree_map(lambda x: CPU if _is_mps(x) else x, args),
                 **tree_map(lambda x: CPU if _is_mps(x) else x, kwargs))  # fmt: skip
    return tree_map_only(Tensor, _OnMps, found) if stays else found


@contextmanager
def apple() -> Iterator[torch.device]:
    """The device `mps`, there while it lasts; its tensors neither mix with the CPU's nor hold float64."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Moves(), torch.no_grad():
            yield MPS
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
