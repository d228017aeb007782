"""Checks of arguments that several data modules have."""

from __future__ import annotations


def _whole(name: str, value: int, least: int) -> int:
    """`value`, if it is a whole number of `least` or more; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of {least} or more")
    return value


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")
