"""How a number was measured, and when two numbers may be ranked against each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from lit_gans.metrics.catalog import direction

__all__ = ["NOT_COMPARED", "differing", "direction", "key_of", "stamp"]

NOT_COMPARED = ("images_seen", "images", "skipped", "versions", "numbers")
"""What says which model was measured and with what software, not how: it may differ between ranked numbers."""


def stamp(protocol: Mapping[str, object], name: str) -> dict[str, object]:
    """The whole protocol of one number: what all numbers of the evaluation share, and its own settings over that."""
    numbers = protocol.get("numbers")
    own = numbers.get(name, {}) if isinstance(numbers, Mapping) else {}
    return _true_subsets({key: value for key, value in {**protocol, **own}.items() if key != "numbers"})


def _true_subsets(own: dict[str, object]) -> dict[str, object]:
    """Of a kernel distance of few images earlier versions told the subsets that were asked for, not those drawn."""
    counts = [n for n in (own.get("n_real"), own.get("n_fake")) if isinstance(n, int)]
    size = own.get("kid_subset_size")
    if len(counts) == 2 and isinstance(size, int) and size > min(counts):
        subsets = 1 if counts[0] == counts[1] else own["kid_subsets"]
        return {**own, "kid_subset_size": min(counts), "kid_subsets": subsets}
    return own


def differing(stamps: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """Field to its value in each stamp (None where absent), for the fields that forbid ranking: empty if none does."""
    fields = sorted({field for each in stamps for field in each} - set(NOT_COMPARED))
    table = {field: [each.get(field) for each in stamps] for field in fields}
    return {field: values for field, values in table.items() if any(value != values[0] for value in values)}


def key_of(stamp: Mapping[str, object]) -> str:
    """12 hex digits, the same for two stamps of which nothing is `differing`."""
    compared = {name: value for name, value in stamp.items() if name not in NOT_COMPARED and value is not None}
    plain = json.loads(json.dumps(compared, default=str), parse_int=float)  # 1 and 1.0 are equal
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
