"""Checks of arguments that several constructors have."""

from __future__ import annotations


def power_of_two(name: str, value: int, *, least: int, most: int | None = None, why: str = "") -> int:
    """log2 of `value`.

    Raises:
        ValueError: it is no power of two from `least` to `most`; `why` says who needs one, and which to use.
    """
    if value < least or value & (value - 1) or (most is not None and value > most):
        upwards = "" if most is None else f" to {most}"
        raise ValueError(f"{name} {value} is not a power of two from {least}{upwards}{why and f'; {why}'}")
    return value.bit_length() - 1
