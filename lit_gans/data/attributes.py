"""Tables of attributes, such as CelebA's, and captions written from them."""

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


class AttributeTable(NamedTuple):
    """Names of pictures and of attributes, and which picture has which: bool [N, A]."""

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


def read_attributes(path: str | Path) -> AttributeTable:
    """The table of a file like CelebA's list_attr_celeba.txt: a count, the attributes, then a name and 1 or -1 each.

    FileNotFoundError; ValueError where it reads otherwise, with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no table of attributes at {path}: give one such as list_attr_celeba.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    attributes = tuple(lines[1].split()) if len(lines) > 2 and lines[0].strip().isdecimal() else ()
    if not attributes:
        raise ValueError(f"{path} begins with {lines[:1]}, expected a count, a line of attributes, then rows")
    files, values = [], []
    for number, line in enumerate(lines[2:], 3):
        if not line.strip():
            continue
        name, *row = line.split()
        if len(row) != len(attributes) or not set(row) <= {"1", "-1"}:
            raise ValueError(f"{path}, line {number}: {line:.60}..., expected a name and {len(attributes)} of 1 or -1")
        files.append(name)
        values.append([value == "1" for value in row])
    if len(files) != int(lines[0]):
        raise ValueError(f"{path} has {len(files)} rows, and its first line says {lines[0].strip()}: fetch it")
    return AttributeTable(tuple(files), attributes, torch.tensor(values, dtype=torch.bool))


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
