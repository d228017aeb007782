"""For the reference: `lr, betas: of Adam.` in a docstring is a row for each of the names."""

import re
from typing import Any

import griffe

SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+): (.+(?:\n\1 +.+)*)", re.M)


class OneRowEach(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring and "Args:" in obj.docstring.value:
            head, args, rest = obj.docstring.value.partition("Args:")
            obj.docstring.value = head + args + SEVERAL.sub(_rows, rest)


def _rows(found: re.Match[str]) -> str:
    indent, names, text = found.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))
