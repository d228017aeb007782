"""What the recorded values of genforce's ports of PGGAN and StyleGAN have in common."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.official import apply_keys
from tests.parity.golden import FOLDER, Golden, absent, assert_close

SOURCE = "genforce"


def translated(config: dict[str, Any], names: dict[str, str | None], fixed: dict[str, Any]) -> dict[str, Any]:
    """Our arguments for the port's `config`; those without a name of ours must have their `fixed` value."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if names[name] is None:
            assert value == fixed[name], f"{name} is {value!r}, ours have {fixed[name]!r} alone"
        else:
            found[names[name]] = value
    if found.get("mbstd_group_size", 4) <= 1:  # the port's way to leave the layer out
        found |= {"mbstd_group_size": 1, "mbstd_channels": 0}
    return found


def check_gradients(
    golden: Golden, network: nn.Module, output: Tensor, inputs: dict[str, Tensor], *, keys: dict[str, str | None]
) -> None:
    """Of (output * grad_weight).sum(), with respect to whatever the file has gradients of."""
    expected = {name.removeprefix("grad/"): t for name, t in golden.outputs.items() if name.startswith("grad/")}
    assert {*expected} - {*inputs} == {*golden.call["grads"]}
    names = {theirs: next(iter(apply_keys({theirs: t}, keys))) for theirs, t in expected.items()
             if theirs not in inputs}  # fmt: skip
    of = [inputs[name] if name in inputs else network.get_parameter(names[name]) for name in expected]
    found = torch.autograd.grad((output * golden.inputs["grad_weight"].view_as(output)).sum(), of)
    for name, gradient in zip(expected, found, strict=True):
        assert_close(gradient, expected[name], golden.tolerance["gradient"], name)


def published(prefix: str) -> list:
    """(name, counts) of every recorded configuration whose name begins with `prefix`."""
    path = FOLDER / "param_counts.json"
    if not path.is_file():
        return absent(f"no {path}")
    counts = json.loads(path.read_text())
    return [pytest.param((name, counts[name]), id=name) for name in counts if name.startswith(prefix)]
