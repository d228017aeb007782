"""What every evaluation has: settings, judging networks, places, processes and progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from lit_gans.data import ImageData
    from lit_gans.metrics import Extractor, Plan


@dataclass(frozen=True)
class Settings:
    """What a run's Evaluate callback was configured with, or else these values."""

    num_images: int = 50_000
    extractor: str = "inception"
    metrics: Sequence[str] | None = None
    batch_size: int = 64
    split: str = "train"
    num_real: int | None = None
    neighbours: int = 5
    path_samples: int = 50_000
    weights_path: str | None = None


@dataclass(frozen=True)
class Networks:
    """Which networks judge pairs, paths and captions; built only where a metric asks for them."""

    lpips: str
    lpips_weights: str | Path | None
    clip: str
    clip_folder: str | Path | None

    def similarity(self) -> Any:
        from lit_gans.metrics.perceptual import build_lpips

        return build_lpips(self.lpips, weights_path=self.lpips_weights)


@dataclass(frozen=True)
class Where:
    """What does not change a number: the device, where statistics are kept, where pictures go."""

    device: torch.device
    cache_dir: Path | None
    plots: Path | None
    trust: str | None = None  # another package whose classes the run may name

    def show(self, data: ImageData, split: str, written: list[Path]) -> Callable[[Any], None] | None:
        """What draws the pictures, and adds their paths to `written`."""
        if self.plots is None:
            return None
        from lit_gans.metrics.pictures import draw_pictures

        return lambda seen: written.extend(draw_pictures(seen, data, self.plots, split=split))


def settings_of(config: dict[str, Any] | None, given: dict[str, Any]) -> Settings:
    """`given`, completed from the config's `evaluate` section, if evaluation was on there."""
    section = (config or {}).get("evaluate") or {}
    found = {name: value for name, value in section.items() if name in Settings.__dataclass_fields__}
    if not section.get("every_kimg"):
        found = {}
    if given.get("extractor", found.get("extractor")) != found.get("extractor"):
        found.pop("weights_path", None)  # the configured weights are another network's
    return Settings(**{**found, **given})


def plan_of(settings: Settings, *, metrics: Sequence[str], num_images: int, **samples: Any) -> Plan:
    from lit_gans.metrics import Plan

    return Plan(
        metrics=metrics, num_images=num_images, batch_size=settings.batch_size, split=settings.split,
        num_real=settings.num_real, neighbours=settings.neighbours, path_samples=settings.path_samples, **samples,
    )  # fmt: skip


def extractor_of(settings: Settings, plan: Plan, data: ImageData, where: Where) -> Extractor | None:
    """None where neither a metric nor a picture looks through one: its weights need not be there then."""
    from lit_gans.metrics import build_extractor

    if not plan.needs_extractor and where.plots is None:
        return None
    spatial = "spatial_frechet" in plan.metrics
    return build_extractor(settings.extractor, weights_path=settings.weights_path, data=data, spatial=spatial)


# ---- processes and progress ------------------------------------------------------------------------------------------


def tell_pictures(written: Sequence[Path]) -> None:
    if written:
        print(f"pictures: {', '.join(str(path) for path in written)}", file=sys.stderr)
