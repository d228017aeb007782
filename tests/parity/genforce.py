"""What the recorded values of genforce's ports of PGGAN and StyleGAN have in common."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.official import apply_keys, dropped_keys, invert
from lit_gans.official.names import Table
from tests.parity.golden import Golden, under

SOURCE = "genforce"


def loaded(network: nn.Module, golden: Golden, keys: Table) -> nn.Module:
    """The network with the recorded weights; strict both ways."""
    network.load_state_dict(apply_keys(golden.state, keys, ours=network.state_dict()))
    return network.eval()


def with_groups(ours: dict[str, Any]) -> dict[str, Any]:
    """A group of one is the port's way to leave the minibatch standard deviation out."""
    return ours | ({"mbstd_group_size": 1, "mbstd_channels": 0} if ours.get("mbstd_group_size", 4) <= 1 else {})


def label(leaves: Mapping[str, Tensor]) -> Tensor | None:
    return leaves.get("label", leaves.get("labels"))


def check_at_every_lod(
    golden: Golden,
    network: nn.Module,
    output_at: Callable[[float], Tensor],
    *,
    kind: str,
    leaves: dict[str, Tensor],
    keys: Table,
    also: Mapping[str, Tensor] | None = None,
) -> None:
    """Outputs <kind>/lod<number>, those of `also`, and gradients at one level of detail."""
    found = dict(also or {})
    for number in under(golden.outputs, f"{kind}/lod"):
        found[f"{kind}/lod{number}"] = output_at(float(number))
    if under(golden.outputs, "grad/"):
        found |= golden.gradients(golden.scalar(output_at(golden.call["grad_lod"])), leaves, network, keys=keys)
    golden.compare(found)


def check_names(golden: Golden, network: nn.Module, keys: Table) -> dict[str, Tensor]:
    """The recorded weights come back; returns what ours do not keep."""
    dropped = dropped_keys(golden.state, keys)
    back = invert(network.state_dict(), keys, official=golden.state, dropped=dropped)
    assert back.keys() == golden.state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())
    return dropped
