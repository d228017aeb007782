"""Folders of pictures as they are stored, in pairs by their names."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, Framing, open_picture, to_mode, upright_size
from lit_gans.data.described import Description
from lit_gans.data.images import FileSet, Images, describe_source
from lit_gans.data.labels import labels_of
from lit_gans.data.sources import Source, open_source
from lit_gans.metrics.evaluator import evaluate
from lit_gans.metrics.measures import FakeBatch, Judges
from lit_gans.metrics.perceptual import LPIPS, PerceptualDistance
from lit_gans.metrics.plan import Plan
from lit_gans.metrics.subjects import Subject

_NAMED = 5


class PairedFiles(Subject):
    """All pairs of pictures of the same name, endings aside, as RGB in their own size, which may change from pair to
    pair; consecutive ones of one size are measured together."""

    what = "pairs"

    def __init__(self, fakes: Source, reals: Source) -> None:
        self.fakes, self.others = fakes, reals
        self.names = match_names(fakes, reals)
        self.total = len(self.names)
        self.own = {"resolution": "as stored", "split": None, "dataset": reals.digest(reals.names)[:16]}

    def batches(self, mine: Tensor, batch_size: int) -> Iterator[FakeBatch]:
        kept: list[Tensor] = []
        for place, i in enumerate(mine.tolist()):
            pair = _decoded_pair(self.fakes, self.others, *self.names[i])
            if kept and (len(kept) == batch_size or kept[0].shape != pair.shape):
                yield self._batch(kept, mine[place - len(kept) : place])
                kept = []
            kept.append(pair)
        if kept:
            yield self._batch(kept, mine[len(mine) - len(kept) :])

    def _batch(self, kept: list[Tensor], index: Tensor) -> FakeBatch:
        fake, real = torch.stack(kept, dim=1)
        return FakeBatch(fake, index, partner=real, name=self.names[int(index[0])][0])


def evaluate_pairs(
    fakes: Source | str | Path,
    reals: Source | str | Path,
    *,
    metrics: Sequence[str] = ("psnr", "ssim"),
    lpips: LPIPS | None = None,
    pd: PerceptualDistance | None = None,
    batch_size: int = 16,
    **where: Any,
) -> dict[str, float]:
    """Name to number, of all pairs of pictures with the same name: `evaluate` of `PairedFiles`.

    `fakes` and `reals` are folders or zips. `metrics`: see `pair_measures`, which also says how each number is taken
    (`settings`). ValueError for names without a partner, pictures that cannot be read or measured, and sizes that
    differ in a pair.
    """
    plan = Plan(kind="pairs", metrics=metrics, batch_size=batch_size)
    subject = PairedFiles(_opened(fakes), _opened(reals))
    return evaluate(subject, plan=plan, judges=Judges(lpips=lpips, pd=pd), **where).values


class WholeImages(Images):
    """The pictures of a folder or zip as they are stored, RGB, whole and in their own size: extractors stretch each to
    their input, as published evaluators do. `batches` holds consecutive ones of one size."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), batch_size=1, resolution=1, cache_mb=0, labels=labels_for(path))
        self.resolution = "as stored"  # type: ignore[assignment]

    @property
    def sizes(self) -> str:
        """Those of the pictures, in words."""
        sizes = sorted(sizes_of(self._source(self.path)))
        more = f" and {len(sizes) - 1} more sizes up to {in_px(sizes[-1])}" if len(sizes) > 1 else ""
        return f"{in_px(sizes[0])}{more}"

    def transform(self) -> dict[str, object]:
        return {"framing": "as stored", "labels": self.labels}

    def load(self, split: str) -> FileSet:
        source = self._source(self.location(split))
        return FileSet(source, source.names, self._numbers(split, source.names), Framing(1))

    def describe(self, split: str | None = None) -> Description:
        own = describe_source(self._source(self.path))
        return replace(own, classes=self.class_names, framing="as stored, whole")

    def batches(
        self, split: str = "train", batch_size: int = 64, *, indices: Tensor | None = None
    ) -> Iterator[dict[str, Tensor]]:
        files, kept = self.dataset(split), list[Tensor]()
        assert isinstance(files, FileSet)
        for i in range(len(files)) if indices is None else indices.tolist():
            picture = _decoded(files.source, files.names[i])
            if kept and (len(kept) == batch_size or kept[0].shape != picture.shape):
                yield {"image": torch.stack(kept)}
                kept = []
            kept.append(picture)
        if kept:
            yield {"image": torch.stack(kept)}


def labels_for(path: Path) -> str:
    """`Images.labels`: "auto", or "none", after a warning, where folders are no classes that can be relied on."""
    try:
        labels_of(open_source(path))
    except ValueError as error:
        warnings.warn(f"{error}. Here they are measured together", stacklevel=2)
        return "none"
    return "auto"


def sizes_of(source: Source) -> dict[tuple[int, int], int]:
    """{(width, height) in px, upright: how many pictures have it}, in the order of their names.

    ValueError for a picture that cannot be read.
    """
    counts = Counter[tuple[int, int]]()
    for name in source.names:
        try:
            with source.open(name) as file:
                counts[upright_size(open_picture(file, MAX_PIXELS))] += 1
        except UNREADABLE as error:
            raise ValueError(f"{name} in {source.path} cannot be read: {error}") from error
    return counts


def in_px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"


def match_names(fakes: Source, reals: Source) -> list[tuple[str, str]]:
    """(fake, real) names that are equal but for their endings, sorted. ValueError where one has no partner."""
    fake, real = _by_stem(fakes), _by_stem(reals)
    alone = [text for text in (_alone(fakes, fake, real), _alone(reals, real, fake)) if text]
    if alone:
        raise ValueError(f"pictures without a partner of their name: {'; '.join(alone)}. Rename or remove them")
    return [(fake[stem], real[stem]) for stem in sorted(fake)]


def _alone(source: Source, here: dict[str, str], there: dict[str, str]) -> str:
    """The first names that only `here` has, in words; empty where there is none."""
    stems = sorted(here.keys() - there.keys())
    more = f" and {len(stems) - _NAMED} more" if len(stems) > _NAMED else ""
    names = ", ".join(here[stem] for stem in stems[:_NAMED])
    return f"{len(stems)} of {len(here)} in {source.path}: {names}{more}" if stems else ""


def _by_stem(source: Source) -> dict[str, str]:
    """{name without ending: name}."""
    names: dict[str, str] = {}
    for name in source.names:
        stem = name.rsplit(".", 1)[0]
        if stem in names:
            raise ValueError(f"{source.path} has both {names[stem]} and {name}: remove one, partners share a name")
        names[stem] = name
    return names


def _opened(source: Source | str | Path) -> Source:
    return open_source(Path(source)) if isinstance(source, str | Path) else source


def _decoded_pair(fakes: Source, reals: Source, fake_name: str, real_name: str) -> Tensor:
    """uint8 [2, 3, H, W]."""
    fake, real = _decoded(fakes, fake_name), _decoded(reals, real_name)
    if fake.shape != real.shape:
        (fake_h, fake_w), (real_h, real_w) = fake.shape[1:], real.shape[1:]
        raise ValueError(
            f"{fake_name} in {fakes.path} is {fake_w} x {fake_h} px, its partner in {reals.path} {real_w} x {real_h}: "
            f"pairs are compared pixel by pixel, bring both to one size"
        )
    return torch.stack([fake, real])


def _decoded(source: Source, name: str) -> Tensor:
    """uint8 [3, H, W]."""
    try:
        with source.open(name) as file:
            pixels = np.array(to_mode(open_picture(file, MAX_PIXELS), "RGB"))
    except UNREADABLE as error:
        raise ValueError(f"{name} in {source.path} cannot be read: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)
