"""Lists of numbers as users write them: 0-63,100."""

from __future__ import annotations

from collections.abc import Sequence

SEED_LIMIT = 2**63


def parse_numbers(text: str, what: str = "seeds") -> list[int]:
    """ "0-3,7" -> [0, 1, 2, 3, 7].

    Raises:
        ValueError: not of that form, or a range that runs backwards.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{what} {text!r}: {part.strip()!r} is not a number or range; write as 0-63,100")
        if dash and int(last) < int(first):
            raise ValueError(f"{what} {text!r}: the range {part.strip()!r} runs backwards; write {last}-{first}")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def numbers_of(given: str | Sequence[int], what: str) -> list[int]:
    """Numbers, or a text of them, each once. ValueError where there is none, or none that can be a seed."""
    numbers = parse_numbers(given, what) if isinstance(given, str) else list(given)
    if not numbers:
        raise ValueError(f"{what} is empty: give one or more, as 0-63,100")
    wrong = [n for n in numbers if not 0 <= n < SEED_LIMIT]
    if wrong:
        raise ValueError(f"{what}: {wrong[0]} is not a number from 0 to 2^63 - 1")
    return list(dict.fromkeys(numbers))
