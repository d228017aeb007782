"""What was understood of data, said in a few lines: nothing is guessed in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, Header, open_picture, to_mode
from lit_gans.data.sources import Source

_NAMED, _CLASSES, _DEEP = 5, 20, 16
# Beside pictures these are no surprise; of all other endings that are passed over there is a warning.
_TEXTS = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".xml", ".html", ".yaml", ".yml", ".log", ".pdf", ".py")


@dataclass
class Survey:
    """What the heads of all pictures say together."""

    smallest: Header | None = None
    largest: Header | None = None
    enlarged: int = 0
    paged: int = 0
    pages: int = 0  # beyond the first of each file
    deep: int = 0
    deep_first: list[int] = field(default_factory=list)  # some of those of 16 bits, by number
    unreadable: int = 0

    def add(self, index: int, header: Header, *, enlarged: bool) -> None:
        area = header.width * header.height
        if self.smallest is None or area < self.smallest.width * self.smallest.height:
            self.smallest = header
        if self.largest is None or area > self.largest.width * self.largest.height:
            self.largest = header
        self.enlarged += enlarged
        self.paged += header.pages > 1
        self.pages += header.pages - 1
        self.deep += header.deep
        if header.deep and len(self.deep_first) < _DEEP:
            self.deep_first.append(index)


@dataclass(frozen=True)
class Description:
    """What was understood of data: one line each of what there is to say; `as_dict` is for files."""

    what: str
    used: str
    split: str = ""
    left: str = ""
    sizes: str = ""
    layout: str = ""
    classes: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    framing: str = ""

    def lines(self) -> list[str]:
        used = f"{self.used}, split {self.split!r}" if self.split else self.used
        rows = {
            "used": used, "left out": self.left, "sizes": self.sizes, "layout": self.layout,
            "classes": listed_classes(self.classes, self.counts), "framing": self.framing,
        }  # fmt: skip
        return [f"data: {self.what}", *(f"  {name:<9}{text}" for name, text in rows.items() if text)]

    def as_dict(self) -> dict[str, Any]:
        texts = {"data": self.what, "used": self.used, "split": self.split, "left_out": self.left, "sizes": self.sizes}
        return {**texts, "layout": self.layout, "framing": self.framing, "class_names": list(self.classes)}


def listed_classes(classes: Sequence[str], counts: Sequence[int] = ()) -> str:
    """ "0=cat (12), 1=dog (3)"; of many the first and the last."""
    told = [f"{number}={name}" for number, name in enumerate(classes)]
    if counts:
        told = [f"{text} ({count})" for text, count in zip(told, counts, strict=True)]
    if len(told) > _CLASSES:
        told = [*told[: _CLASSES - 2], "...", told[-1]]
    return ", ".join(told)


@rank_zero_only
def say(description: Description) -> None:
    """Prints what was understood, on standard error, where results are not looked for."""
    import sys

    print("\n".join(description.lines()), file=sys.stderr, flush=True)


# ---- of files --------------------------------------------------------------------------------------------------------


def told_left(sources: Sequence[Source], survey: Survey, *, known: Sequence[str] = ()) -> str:
    """What is not used of sources, in words; `known` endings are of files that are used, though no pictures."""
    parts = []
    for source in sources:
        own = source.told_left(known=known) + ([f"hidden: {_some(sorted(source.hidden))}"] if source.hidden else [])
        own += source.told_links()
        parts += [f"{', '.join(own)}" + (f" in {source.path.name}" if len(sources) > 1 else "")] if own else []
    parts += [f"{survey.unreadable} that cannot be used"] if survey.unreadable else []
    parts += [f"{survey.pages} further pages of {survey.paged} files"] if survey.pages else []
    return ", ".join(parts)


def told_sizes(survey: Survey, *, to: str = "") -> str:
    """The smallest and the largest picture; how many of them `to` enlarges; how many have 16 bits."""
    if survey.smallest is None or survey.largest is None:
        return ""
    low, high = (f"{h.width} x {h.height}" for h in (survey.smallest, survey.largest))
    parts = [low if low == high else f"{low} to {high}"]
    parts += [f"{survey.enlarged} smaller than {to} and enlarged"] if survey.enlarged and to else []
    parts += [f"{survey.deep} of 16 bits, which become 8"] if survey.deep else []
    return "; ".join(parts)


def told_endings(names: Iterable[str]) -> str:
    """ ".jpg 12, .png 3"."""
    endings = Counter(f".{name.rsplit('.', 1)[-1].lower()}" for name in names)
    return ", ".join(f"{count} {ending}" for ending, count in endings.most_common())


def told_folders(source: Source) -> str:
    """Where in a source its pictures lie, in words."""
    folders = sorted({name.split("/", 1)[0] for name in source.names if "/" in name})
    return f"all pictures of {source.path}" + (f" and its folders {_some(folders)}" if folders else "")


def warn_of_left(source: Source) -> None:
    """Warns of files that may be pictures and are passed over, and of links that are not followed."""
    if left := source.told_left(known=_TEXTS):
        rank_zero_warn(f"files in {source.path} are left out by their endings: {', '.join(left)}")
    for links in source.told_links():
        rank_zero_warn(f"in {source.path} {links}")


def warn_of_contents(source: Source, names: Sequence[str], survey: Survey) -> None:
    """Warns of pages that are left out, and of pictures of 16 bits that become nearly black."""
    if survey.pages:
        rank_zero_warn(
            f"{survey.paged} files in {source.path} have {survey.pages} pages beyond the first, which are left out: "
            "save each page as a file of its own to use it"
        )
    brightest = max((_brightest(source, names[i]) for i in survey.deep_first), default=-1)
    brightest = 255 if brightest < 0 else brightest
    if brightest < 128:
        rank_zero_warn(
            f"{survey.deep} pictures in {source.path} have 16 bits and use a small part of their range, which is "
            f"scaled to 8 bits as a whole: of {len(survey.deep_first)} looked at the brightest value becomes "
            f"{brightest} of 255. Scale them to the full range first, if they are not meant to be so dark"
        )


def _brightest(source: Source, name: str) -> int:
    """The highest value of a picture of 16 bits after conversion to 8; -1 of others, 255 where it cannot be read."""
    try:
        with source.open(name) as file:
            image = open_picture(file, MAX_PIXELS)
            return int(np.asarray(to_mode(image, "RGB")).max()) if Header.of(image).deep else -1
    except UNREADABLE:
        return 255


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


