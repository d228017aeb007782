"""Official names of weights to ours and back, by a paper's table, with nothing forgotten on either side.

    OFFICIAL_KEYS = {r"b(\\d+)\\.conv\\.weight": r"blocks.\\1.conv.weight", r".*\\.resample_filter": None}

A name is renamed by the first entry whose whole pattern it matches; None lists it as dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Change:
    """Another name, and the tensor changed by `forward`; `backward` undoes it exactly."""

    name: str
    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


Table = Mapping[str, str | Change | None]


def apply_keys(
    state: Mapping[str, Tensor], table: Table, *, ours: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The official state under our names, without what the table drops.

    ours: our network's `state_dict()`, all of which must be filled, in its shapes.
    ValueError names the first five on each side that fit nothing.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for official, own in _names(state, table).items():
        if own is None:
            continue
        name = _name(own, official)
        if name in origin:
            raise ValueError(f"{origin[name]!r} and {official!r} both become {name!r}: the table must part them")
        origin[name] = official
        entry = own[0]
        renamed[name] = entry.forward(state[official]) if isinstance(entry, Change) else state[official]
    if ours is not None:
        _check_filled(renamed, ours)
    return renamed


def dropped_keys(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """The part of the official state that the table drops: to be kept aside where it must come back."""
    return {official: state[official] for official, own in _names(state, table).items() if own is None}


def invert(
    ours: Mapping[str, Tensor],
    table: Table,
    *,
    official: Iterable[str],
    dropped: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Our state under the official names.

    official: all names of the release, in the order that the result shall have; dropped: the tensors that the table
    drops, as `dropped_keys` gave them.
    ValueError names the first five that have no counterpart on either side.
    """
    state, used, missing = {}, set(), []
    for name, own in _names(dict.fromkeys(official), table).items():
        source, key = (dropped, name) if own is None else (ours, _name(own, name))
        used.add(key)
        if key not in source:
            missing.append(name)
        else:
            state[name] = own[0].backward(source[key]) if own and isinstance(own[0], Change) else source[key]
    unused = [name for name in (*ours, *dropped) if name not in used]
    if missing or unused:
        raise ValueError(
            f"{len(missing)} official names are not filled: {_first(missing)}; "
            f"{len(unused)} of ours have no official name: {_first(unused)}"
        )
    return state


# ---- one name --------------------------------------------------------------------------------------------------------

_Found = tuple[str | Change, "re.Match[str]"]


def _names(official: Iterable[str], table: Table) -> dict[str, _Found | None]:
    """For each official name its entry and match, or None where it is dropped."""
    patterns = [(re.compile(pattern), entry) for pattern, entry in table.items()]
    found: dict[str, _Found | None] = {}
    unmatched = []
    for name in official:
        for pattern, entry in patterns:
            if (match := pattern.fullmatch(name)) is not None:
                found[name] = None if entry is None else (entry, match)
                break
        else:
            unmatched.append(name)
    if unmatched:
        raise ValueError(f"{len(unmatched)} official names fit no entry of the table: {_first(unmatched)}")
    return found


def _name(found: _Found, official: str) -> str:
    entry, match = found
    return match.expand(entry.name if isinstance(entry, Change) else entry)


def _check_filled(renamed: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    missing = [name for name in ours if name not in renamed]
    unknown = [name for name in renamed if name not in ours]
    shapes = [
        f"{name} {_kind(tensor)} for {_kind(ours[name])}"
        for name, tensor in renamed.items()
        if name in ours and _kind(tensor) != _kind(ours[name])
    ]
    problems = [
        f"{len(names)} {what}: {_first(names)}"
        for names, what in (
            (missing, "of ours are not filled"),
            (unknown, "are not in our network"),
            (shapes, "have another shape or type"),
        )
        if names
    ]
    if problems:
        raise ValueError(f"the official weights do not fit: {'; '.join(problems)}")


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _first(names: list[str]) -> str:
    return (", ".join(names[:5]) or "none") + (", ..." if len(names) > 5 else "")
