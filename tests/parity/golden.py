"""Recorded values of official code, chosen by what each file says of itself, never by its name.

A test computes what it can of a file, under the recorded names, and hands it to `Golden.compare`: what the file lacks
is not asked for, and what is recorded but computed by nobody fails by name.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn

from lit_gans.official import apply_keys
from lit_gans.official.names import Table

FOLDER = Path(os.environ.get("LIT_GANS_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
REQUIRED = os.environ.get("LIT_GANS_REQUIRE_GOLDEN") == "1"
UNSTATED = 1e-4  # for a file that states no tolerance


@dataclass(frozen=True, eq=False)
class Golden:
    """One recorded case: its metadata at once, its tensors at first use. Without a path all use fails, and says why."""

    path: Path | None
    metadata: dict[str, str]

    @property
    def official_class(self) -> str:
        return self._said("official_class")

    @property
    def source(self) -> str:
        return self._said("source")

    @property
    def mode(self) -> str:
        return self._said("mode")

    @property
    def config(self) -> Any:
        """Constructor arguments, or the list of op calls."""
        return self._parsed("config")

    @property
    def call(self) -> Any:
        """Arguments of the recorded call."""
        return self._parsed("call")

    @property
    def tolerance(self) -> dict[str, float]:
        """`forward` and `gradient`, each a fraction of a tensor's largest absolute value."""
        stated = self._parsed("tolerance")
        return {kind: float(stated.get(kind, UNSTATED)) for kind in ("forward", "gradient")}

    @property
    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers under the official names."""
        return self._under("state/")

    @property
    def inputs(self) -> dict[str, Tensor]:
        return self._under("in/")

    @property
    def leaves(self) -> dict[str, Tensor]:
        """The inputs, all of which may be asked for gradients."""
        return {name: t.requires_grad_(t.is_floating_point()) for name, t in self.inputs.items()}

    @property
    def outputs(self) -> dict[str, Tensor]:
        """Results by name; those that begin with `grad` are gradients."""
        return self._under("out/")

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        assert self.path is not None, self.metadata["absent"]
        return load_file(self.path)

    def _said(self, field: str) -> str:
        assert self.path is not None, self.metadata["absent"]
        return self.metadata.get(field, "")

    def _parsed(self, field: str) -> Any:
        return json.loads(self._said(field) or "{}")

    def _under(self, prefix: str) -> dict[str, Tensor]:
        """Copies, so that a test may ask for gradients or change buffers in place."""
        return under({name: t.clone() for name, t in self._tensors.items()}, prefix)

    def __iter__(self) -> NoReturn:
        """What stands for an absent file may stand for several values of a test."""
        raise AssertionError(self.metadata.get("absent", "a golden file is one value"))

    def __getitem__(self, _: object) -> NoReturn:
        self.__iter__()

    # ---- comparing ---------------------------------------------------------------------------------------------------

    def compare(
        self,
        found: Mapping[str, Tensor],
        *,
        recorded: Mapping[str, Tensor] | None = None,
        tolerance: float | None = None,
        scales: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Every recorded output (or of `recorded`) against what was found under its name; one that was not fails.

        scales: of outputs that are small beside the terms of which they are sums.
        """
        recorded = self.outputs if recorded is None else recorded
        assert recorded, f"{self.path} has no outputs"
        unknown = sorted(recorded.keys() - found.keys())
        assert not unknown, f"recorded, and computed by nothing here: {', '.join(unknown)}"
        for name, expected in recorded.items():
            allowed = self.tolerance["gradient" if name.startswith("grad") else "forward"]
            scale = (scales or {}).get(name)
            assert_close(found[name], expected, allowed if tolerance is None else tolerance, name, scale=scale)

    def scalar(self, y: Tensor) -> Tensor:
        """The scalar whose gradients are recorded: (y * in/grad_weight).sum(), or (y * sin(0, 1, 2, ...)).sum()."""
        weight = self.inputs.get("grad_weight")
        return weighted_sum(y) if weight is None else (y * weight.view_as(y)).sum()

    def gradients(
        self,
        scalar: Tensor,
        inputs: Mapping[str, Tensor],
        *networks: nn.Module,
        keys: Table | None = None,
        prefix: str = "grad/",
    ) -> dict[str, Tensor]:
        """Of a scalar, as the file has them: with respect to inputs, or to a network's parameters by official names."""
        recorded = under(self.outputs, prefix)
        if not recorded:
            return {}
        of = [
            inputs[name] if name in inputs else networks[0].get_parameter(our_name(name, tensor, keys or {}))
            for name, tensor in recorded.items()
        ]
        found = torch.autograd.grad(scalar, of, retain_graph=True, allow_unused=True, materialize_grads=True)
        return {prefix + name: gradient for name, gradient in zip(recorded, found, strict=True)}

    def buffers(self, network: nn.Module, keys: Table, *, prefix: str = "train_state/") -> dict[str, Tensor]:
        """The network's, as the file has them: by official names."""
        ours = network.state_dict()
        recorded = under(self.outputs, prefix)
        return {prefix + name: ours[our_name(name, tensor, keys)] for name, tensor in recorded.items()}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def our_name(official: str, tensor: Tensor, keys: Table) -> str:
    """Of a parameter or buffer with an official name."""
    ours = apply_keys({official: tensor}, keys)
    assert ours, f"{official} has no place in our network"
    return next(iter(ours))


def translated(
    official: Mapping[str, Any], names: Mapping[str, str | None], fixed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Our arguments for official ones. Those without a name of ours must have their `fixed` value, if they have one."""
    found: dict[str, Any] = {}
    for name, value in official.items():
        assert name in names, f"{name!r} is no argument that is known here; known are {', '.join(names)}"
        if (ours := names[name]) is not None:
            found[ours] = value
        elif fixed is not None and name in fixed:
            assert value == fixed[name], f"{name} is {value!r}; there is {fixed[name]!r} alone here"
    return found


def assert_close(found: Tensor, expected: Tensor, tolerance: float, name: str, *, scale: Tensor | None = None) -> None:
    """Equal shapes, finite, and no further apart than `tolerance` times the largest expected absolute value.

    scale: another size than that value, if it is larger.
    """
    assert found.shape == expected.shape, f"{name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    found, expected = found.detach().double(), expected.detach().double()
    assert torch.isfinite(found).all(), f"{name}: not finite"
    size = max(expected.abs().max().item(), 0.0 if scale is None else scale.item()) or 1.0
    error = (found - expected).abs().max().item() / size
    assert error <= tolerance, f"{name}: off by {error:.3g} of the largest value {size:.3g}, tolerance {tolerance:g}"


def weighted_sum(y: Tensor) -> Tensor:
    """(y * sin(0, 1, 2, ...)).sum()."""
    return (y * torch.arange(y.numel(), dtype=y.dtype).sin().reshape(y.shape)).sum()


# ---- what there is ---------------------------------------------------------------------------------------------------

COMPARED: set[Path] = set()  # files that some test has asked for


def cases(official_class_contains: str, source_contains: str = "", *, without: str | None = None) -> list:
    """A pytest.param(Golden) for every file whose metadata contain both texts; one that is skipped if there is none.

    without: a text that the official class must not contain.
    """
    found = []
    for golden in (golden for golden in files() if golden.path is not None):
        name = golden.official_class
        wanted = official_class_contains in name and source_contains in golden.source
        if wanted and (without is None or without not in name):
            found.append(pytest.param(golden, id=golden.path.stem))
            COMPARED.add(golden.path)
    return found or absent(f"no golden file of {official_class_contains} {source_contains} in {FOLDER}")


@cache
def files() -> tuple[Golden, ...]:
    """Every file of the folder, with its metadata; without a path where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    found = []
    for path in sorted(FOLDER.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                found.append(Golden(path, file.metadata() or {}))
        except SafetensorError as error:
            found.append(Golden(None, {"absent": f"{path} cannot be read: {error}"}))
    return tuple(found)


def absent(reason: str) -> list:
    """One parameter set that is skipped with `reason`, or fails with it where recorded values are required."""
    marks = () if REQUIRED else pytest.mark.skip(reason)
    return [pytest.param(Golden(None, {"absent": reason}), id="absent", marks=marks)]


def published(file: str, prefix: str) -> list:
    """(name, value) of every entry of a JSON file whose name begins with `prefix`, such as parameter counts."""
    path = FOLDER / file
    content = json.loads(path.read_text()) if path.is_file() else {}
    entries = content.get("counts", content)
    found = [pytest.param((name, value), id=name) for name, value in entries.items() if name.startswith(prefix)]
    return found or absent(f"no entry of {prefix} in {path}")


def facts(file: str) -> dict[str, Any]:
    """A JSON file's content. Without the file, the test that asks is skipped, or fails where it is required."""
    path = FOLDER / file
    if not path.is_file() and not REQUIRED:
        pytest.skip(f"no {path}")
    return json.loads(path.read_text())


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
