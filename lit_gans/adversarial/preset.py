"""Presets: settings that follow from the data and the machine, which a paper's room computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Facts:
    """What a preset computes from.

    `resolution` as the config or the command line has it; `pictures` in the training split and `side_px`, the median of
    their shorter sides, both 0 where they are not known before the data are read; `devices` of all machines; `parent`:
    arguments of the model whose weights training begins with, {} where it begins with random ones.
    """

    resolution: int
    pictures: int
    side_px: int
    devices: int
    cuda: bool
    parent: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        seen = f"{self.pictures:,} pictures" if self.pictures else "pictures that are not counted yet"
        size = f" of about {self.side_px} px" if self.side_px else ""
        device = "GPU" if self.cuda else "CPU process"
        return f"{seen}{size}, {self.devices} {device}{'' if self.devices == 1 else 's' if self.cuda else 'es'}"


Preset = Callable[[Facts], dict[str, Any]]
"""Settings by their keys in a config, "model.init_args.r1_gamma", from what is known before training."""
