"""Files like the golden ones, of other configurations: recorded from our own networks, which are built by hand here.

What the tests beside take from a file's metadata is given here in our own arguments, and written in the official ones.
"""

import json
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lit_gans.official import Change, invert
from lit_gans.official.names import Table

Tensors = dict[str, Tensor]


class Recorder:
    """Writes files into a folder, with random inputs and weights that depend on nothing but their order."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.generator = folder, "", torch.Generator().manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)

    def write(
        self, stem: str, official_class: str, config: Any, *, outputs: Tensors, inputs: Tensors | None = None,
        state: Tensors | None = None, call: Any = None,
    ) -> None:  # fmt: skip
        parts = {"in": inputs or {}, "out": outputs, "state": state or {}}
        tensors = {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()}
        metadata = {"official_class": official_class, "source": self.source, "config": json.dumps(config)}
        metadata["call"] = json.dumps(call or {})
        tensors = {name: t.detach().clone().contiguous() for name, t in tensors.items()}
        save_file(tensors, self.folder / f"{stem}.safetensors", metadata)

    def normal(self, *shape: int) -> Tensor:
        """A leaf, so that gradients of inputs can be recorded."""
        return torch.randn(*shape, generator=self.generator).requires_grad_()

    def filled(self, network: nn.Module) -> nn.Module:
        """Nothing is left at 0 or 1: biases, gains, averages and counts are moved."""
        for name, tensor in network.state_dict().items():
            if tensor.dtype == torch.long:
                tensor.fill_(7)
            elif "running_var" in name:
                tensor.uniform_(0.5, 1.5, generator=self.generator)
            elif tensor.dim() <= 1 and not name.endswith("lod"):
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=self.generator))
        return network


def gradient(scalar: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(scalar, of, retain_graph=True)[0]


# ---- official names --------------------------------------------------------------------------------------------------

_GROUP = re.compile(r"(?<!\\)\((?!\?)((?:[^()]|\(\?:[^()]*\))*)\)")


def official_name(ours: str, keys: Table, written: Mapping[str, str]) -> str:
    """The name that a table renames to ours; `written` says what else than its groups stands for in the patterns."""
    for pattern, entry in keys.items():
        new = (entry.name if isinstance(entry, Change) else entry) or ""
        groups = _GROUP.findall(pattern)
        known = re.sub(r"\\\\(\d)", lambda m, groups=groups: f"(?P<g{m[1]}>{groups[int(m[1]) - 1]})", re.escape(new))
        if match := re.fullmatch(known, ours):
            numbers = count(1)
            name = _GROUP.sub(lambda m, match=match, numbers=numbers: match[f"g{next(numbers)}"], pattern)
            for what, meant in written.items():
                name = name.replace(what, meant)
            return name.replace("\\", "")
    raise AssertionError(f"{ours} has no official name")


def official(network: nn.Module, keys: Table, written: Mapping[str, str] | None = None) -> Tensors:
    """A copy of the network's state under the official names."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return invert(state, keys, official=[official_name(ours, keys, written or {}) for ours in state], dropped={})
