"""Directions in style space: what is added to the channel styles of some layers, times a strength."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_gans.base.checkpoints import under
from lit_gans.editing.found import read_found, write_found

KIND = "a direction in style space"


@dataclass(frozen=True)
class StyleShift:
    """offsets [C] by layer, for strength 1; settings: plain values that say how it was found, and for what."""

    offsets: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)

    def times(self, strength: float) -> dict[str, Tensor]:
        """The shifts that `synthesize_shifted` takes; those of a negative strength lead the other way."""
        return {name: strength * one for name, one in self.offsets.items()}

    def save(self, path: str | Path) -> None:
        """Writes a .safetensors file, which `read_shift` reads."""
        write_found(path, KIND, {f"offset.{name}": one for name, one in self.offsets.items()}, self.settings)


def read_shift(path: str | Path) -> StyleShift:
    """What `StyleShift.save` wrote. FileNotFoundError; ValueError for another file, or a damaged one."""
    tensors, settings = read_found(path, KIND, way_out="find one with ChannelEffects.shift or find_direction")
    return StyleShift(under(tensors, "offset."), settings)
