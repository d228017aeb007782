"""Large images as golden files record them: pooled, cropped, or small and enlarged before use."""

import re

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from tests.parity.golden import Golden, assert_close


def reduced(x: Tensor, name: str) -> Tensor:
    """`..._pool<q>`: means over q x q pixels; `..._crop<c>`: the central c x c; any other name: all of it."""
    if match := re.search(r"_pool(\d+)$", name):
        return avg_pool2d(x, int(match[1]))
    if match := re.search(r"_crop(\d+)$", name):
        edge, size = (x.shape[-1] - int(match[1])) // 2, int(match[1])
        return x[..., edge : edge + size, edge : edge + size]
    return x


def enlarged_to(x: Tensor, side: int) -> Tensor:
    """Nearest neighbours."""
    return x if x.shape[-1] == side else interpolate(x, size=side)


def check_outputs(found: dict[str, Tensor], golden: Golden, mode: str) -> None:
    """Every recorded output of a mode against `found`, whole images by the name before `_pool<q>` or `_crop<c>`."""
    recorded = {k.removeprefix(f"{mode}/"): t for k, t in golden.outputs.items() if k.startswith(f"{mode}/")}
    assert recorded, f"no output in {mode} mode is recorded"
    for name, expected in recorded.items():
        whole = found[re.sub(r"_(pool|crop)\d+$", "", name)]
        assert_close(reduced(whole, name), expected, golden.tolerance["forward"], f"{mode}/{name}")


def check_buffers(official: dict[str, Tensor], golden: Golden) -> None:
    """Buffers after a forward in training mode, under the official names."""
    recorded = {k.removeprefix("train_state/"): t for k, t in golden.outputs.items() if k.startswith("train_state/")}
    assert recorded, "no buffer is recorded"
    for name, expected in recorded.items():
        assert_close(official[name], expected, golden.tolerance["forward"], f"train_state/{name}")


def check_gradients(
    scalar: Tensor, golden: Golden, *, prefix: str, inputs: dict[str, Tensor], network: nn.Module, names: dict[str, str]
) -> None:
    """Gradients out/<prefix><name> of a scalar; `names` are the official ones of parameters to ours."""
    recorded = {k.removeprefix(prefix): t for k, t in golden.outputs.items() if k.startswith(prefix)}
    assert recorded, f"no gradient {prefix} is recorded"
    of = [inputs[name] if name in inputs else network.get_parameter(names[name]) for name in recorded]
    found = torch.autograd.grad(scalar, of, retain_graph=True)
    for (name, expected), gradient in zip(recorded.items(), found, strict=True):
        assert_close(gradient, expected, golden.tolerance["gradient"], prefix + name)
