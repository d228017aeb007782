"""How a number was measured, and when two numbers may be ranked against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

NOT_COMPARED = ("images_seen", "images", "skipped", "versions", "numbers")
"""What says which model was measured and with what software, not how: it may differ between ranked numbers."""

LOWER = ("fid", "sfid", "rfid", "intra_fid", "kid", "frechet", "kernel", "spatial_frechet", "intra_frechet", "ppl",
         "separability", "lpips", "pd", "swd", "mode_divergence")  # fmt: skip
HIGHER = ("is", "score", "precision", "recall", "density", "coverage", "class_accuracy", "class_share_min", "psnr",
          "ssim", "ms_ssim", "clip_score", "r_precision", "modes")  # fmt: skip


def stamp(protocol: Mapping[str, object], name: str) -> dict[str, object]:
    """The whole protocol of one number: what all numbers of the evaluation share, and its own settings over that."""
    numbers = protocol.get("numbers")
    own = numbers.get(name, {}) if isinstance(numbers, Mapping) else {}
    return {key: value for key, value in {**protocol, **own}.items() if key != "numbers"}


def differing(stamps: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """Field to its value in each stamp (None where absent), for the fields that forbid ranking: empty if none does."""
    fields = sorted({field for each in stamps for field in each} - set(NOT_COMPARED))
    table = {field: [each.get(field) for each in stamps] for field in fields}
    return {field: values for field, values in table.items() if any(value != values[0] for value in values)}


def direction(name: str) -> Literal["lower", "higher"] | None:
    """Whether lower or higher values of a number are better; None for one that says neither."""
    if name.endswith("_std"):  # how far a number is spread, not how good it is
        return None
    for kinds, better in ((LOWER, "lower"), (HIGHER, "higher")):
        if any(name == kind or name.startswith(f"{kind}_") for kind in kinds):
            return better
    return None
