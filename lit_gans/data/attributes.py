"""Tables of attributes, and captions written from them.

A table has CelebA's form (Liu et al., 2015), https://arxiv.org/abs/1411.7766: the name of a picture, then -1 or 1 for
each of its attributes; or it is a CSV file of -1 and 1, or of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_gans.data.stream import uniform

# What is said of CelebA's 40 attributes where a face has them, and where it has not. Words before the noun:
BEFORE = {
    "Attractive": ("attractive", None), "Smiling": ("smiling", "serious"), "Young": ("young", "old"),
    "Bald": ("bald", None), "Chubby": ("chubby", None), "Pale_Skin": ("pale", None),
}  # fmt: skip
# and behind it:
BEHIND = {
    "Black_Hair": ("black hair", None), "Blond_Hair": ("blond hair", None), "Brown_Hair": ("brown hair", None),
    "Gray_Hair": ("gray hair", None), "Straight_Hair": ("straight hair", None), "Wavy_Hair": ("wavy hair", None),
    "Bangs": ("bangs", None), "Receding_Hairline": ("a receding hairline", None), "Sideburns": ("sideburns", None),
    "Eyeglasses": ("glasses", None), "Wearing_Hat": ("a hat", None), "Wearing_Earrings": ("earrings", None),
    "Wearing_Necklace": ("a necklace", None), "Wearing_Necktie": ("a necktie", None),
    "Heavy_Makeup": ("heavy makeup", None), "Wearing_Lipstick": ("lipstick", None),
    "Rosy_Cheeks": ("rosy cheeks", None),
    "No_Beard": (None, "a beard"), "Goatee": ("a goatee", None), "Mustache": ("a mustache", None),
    "5_o_Clock_Shadow": ("stubble", None), "Mouth_Slightly_Open": ("an open mouth", "a closed mouth"),
    "Big_Lips": ("big lips", None), "Big_Nose": ("a big nose", None), "Pointy_Nose": ("a pointy nose", None),
    "High_Cheekbones": ("high cheekbones", None), "Oval_Face": ("an oval face", None),
    "Double_Chin": ("a double chin", None), "Narrow_Eyes": ("narrow eyes", None),
    "Bags_Under_Eyes": ("bags under the eyes", None), "Arched_Eyebrows": ("arched eyebrows", None),
    "Bushy_Eyebrows": ("bushy eyebrows", None),
}  # fmt: skip
NOUNS = {True: "man", False: "woman"}  # by "Male"
VAGUE = ("person", "face")  # said in place of them
_VAGUE_SHARE = 0.2
_VALUES = {"1": True, "+1": True, "-1": False, "0": False}


class AttributeTable(NamedTuple):
    """files: names of N pictures; attributes: names of A; values bool [N, A]: which picture has which."""

    files: tuple[str, ...]
    attributes: tuple[str, ...]
    values: Tensor

    def column(self, attribute: str) -> Tensor:
        """bool [N]. ValueError for an attribute that is not in it."""
        if attribute not in self.attributes:
            raise ValueError(f"the table has no attribute {attribute!r}; it has {', '.join(self.attributes)}")
        return self.values[:, self.attributes.index(attribute)]

    def rows(self, files: Sequence[str]) -> AttributeTable:
        """Those of these pictures, in their order; folders before a name do not count. ValueError for one without."""
        known = {file: row for row, file in enumerate(self.files)}
        names = [file.rpartition("/")[2] for file in files]
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"the table has no row for {len(missing)} of {len(names)} pictures, first {missing[0]!r}")
        return AttributeTable(tuple(names), self.attributes, self.values[[known[name] for name in names]])

    def rows_of(self, files: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(places in `files`, rows here), int64 [M] each, of the pictures that are in both."""
        known = {file: row for row, file in enumerate(self.files)}
        both = [(place, known[file]) for place, file in enumerate(files) if file in known]
        places, rows = torch.tensor(both, dtype=torch.int64).reshape(-1, 2).unbind(1)
        return places, rows


def read_attributes(path: str | Path) -> AttributeTable:
    """The table in a file.

    Raises:
        FileNotFoundError: there is none. ValueError: it is none, with the line that says so, or not whole.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no table of attributes {path}: give a file such as list_attr_celeba.txt")
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text, and so no table of attributes: {error}") from error
    comma = "," if path.suffix.lower() == ".csv" else None
    rows = [[word.strip() for word in line.split(comma)] for line in lines]
    count = int(rows[0][0]) if rows and len(rows[0]) == 1 and rows[0][0].isdecimal() else None  # CelebA's begins so
    rows = rows if count is None else rows[1:]
    if len(rows) < 2 or len(rows[1]) < 2:
        raise ValueError(f"{path} is no table of attributes: a line of names, then a picture and -1 or 1 for each name")
    names = rows[0][1:] if len(rows[0]) == len(rows[1]) else rows[0]  # in a CSV the pictures' column has a name too
    for number, row in enumerate(rows[1:], len(lines) - len(rows) + 2):
        if len(row) != len(names) + 1 or not _VALUES.keys() >= set(row[1:]):
            raise ValueError(f"{path}, line {number}: a picture and {len(names)} values of -1, 0 or 1; found {row[:4]}")
    if count not in (None, len(rows) - 1):
        raise ValueError(f"{path} has {len(rows) - 1} rows, and its first line says {count}: it is not whole")
    values = torch.tensor([[_VALUES[word] for word in row[1:]] for row in rows[1:]])
    return AttributeTable(tuple(row[0] for row in rows[1:]), tuple(names), values)


def attribute_captions(table: AttributeTable, *, each: int = 2, share: float = 0.7, seed: int = 0) -> list[list[str]]:
    """`each` captions of every row, such as "a smiling young woman with blond hair and glasses".

    Every thing that can be said of it is said with probability `share`; what is said depends on (seed, row, number of
    the caption) alone. Attributes that BEFORE and BEHIND do not have are passed over.
    ValueError for a table that has none of them.
    """
    told = [name for name in (*BEFORE, *BEHIND) if name in table.attributes]
    if not told:
        raise ValueError(f"nothing is known to say of the attributes {', '.join(table.attributes)[:80]}: see BEHIND")
    drawn = (*told, "noun")
    positions = np.arange(len(table.files) * each)
    chances = np.stack([uniform(seed, f"captions {name}", positions) for name in drawn], 1).tolist()
    captions = []
    for row, values in enumerate(table.values.tolist()):
        has = dict(zip(table.attributes, values, strict=True))
        own = chances[row * each : (row + 1) * each]
        captions.append([_caption(has, dict(zip(drawn, one, strict=True)), share) for one in own])
    return captions


def _caption(has: dict[str, bool], chance: dict[str, float], share: float) -> str:
    noun = NOUNS[has["Male"]] if "Male" in has and chance["noun"] >= _VAGUE_SHARE else None
    noun = noun or VAGUE[chance["noun"] < _VAGUE_SHARE / 2]
    before, behind = (
        [word for name, words in kind.items() if name in has and chance[name] < share if (word := words[not has[name]])]
        for kind in (BEFORE, BEHIND)
    )
    start = " ".join([*before, noun])
    listed = ", ".join(behind[:-1]) + (" and " if len(behind) > 1 else "") + behind[-1] if behind else ""
    return f"{'an' if start[0] in 'aeiou' else 'a'} {start}" + (f" with {listed}" if listed else "")
