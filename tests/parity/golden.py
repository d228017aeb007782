"""Recorded values of official code, chosen by what each file says of itself, never by its name."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("LIT_GANS_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
UNSTATED = 1e-4  # for a file that states no tolerance


def absent(reason: str) -> list:
    """One parameter set that is skipped with `reason`, or fails with it where recorded values are required."""
    required = os.environ.get("LIT_GANS_REQUIRE_GOLDEN") == "1"
    marks = () if required else pytest.mark.skip(reason)
    return [pytest.param(Golden(None, {"absent": reason}), id="absent", marks=marks)]


@dataclass(frozen=True, eq=False)
class Golden:
    """One recorded case: its metadata at once, its tensors at first use."""

    path: Path | None
    metadata: dict[str, str]

    @property
    def official_class(self) -> str:
        return self.metadata.get("official_class", "")

    @property
    def source(self) -> str:
        return self.metadata.get("source", "")

    @property
    def note(self) -> str:
        return self.metadata.get("note", "")

    @property
    def mode(self) -> str:
        return self.metadata.get("mode", "")

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
    def outputs(self) -> dict[str, Tensor]:
        """Results by name; those that begin with `grad/` are gradients."""
        return self._under("out/")

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        assert self.path is not None, self.metadata["absent"]
        return load_file(self.path)

    def _parsed(self, field: str) -> Any:
        assert self.path is not None, self.metadata["absent"]
        return json.loads(self.metadata.get(field) or "{}")

    def _under(self, prefix: str) -> dict[str, Tensor]:
        """Copies, so that a test may ask for gradients or change buffers in place."""
        return {name.removeprefix(prefix): t.clone() for name, t in self._tensors.items() if name.startswith(prefix)}


def cases(official_class_contains: str, source_contains: str = "") -> list:
    """A pytest.param(Golden) for every file whose metadata contain both texts; one that is skipped if there is none."""
    from safetensors import safe_open

    found = []
    for path in sorted(FOLDER.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            golden = Golden(path, file.metadata() or {})
        if official_class_contains in golden.official_class and source_contains in golden.source:
            found.append(pytest.param(golden, id=path.stem))
    return found or absent(f"no golden file of {official_class_contains} {source_contains} in {FOLDER}")


def assert_close(found: Tensor, expected: Tensor, tolerance: float, name: str) -> None:
    """Equal shapes, finite, and no further apart than `tolerance` times the largest expected absolute value."""
    assert found.shape == expected.shape, f"{name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    found, expected = found.detach().double(), expected.detach().double()
    assert torch.isfinite(found).all(), f"{name}: not finite"
    scale = expected.abs().max().item() or 1.0
    error = (found - expected).abs().max().item() / scale
    assert error <= tolerance, f"{name}: off by {error:.3g} of the largest value {scale:.3g}, tolerance {tolerance:g}"


def weighted_sum(y: Tensor) -> Tensor:
    """(y * sin(0, 1, 2, ...)).sum(): the scalar whose gradients many files record."""
    return (y * torch.arange(y.numel(), dtype=y.dtype).sin().reshape(y.shape)).sum()
