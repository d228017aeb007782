"""How well images fit their captions: CLIP score, R-precision, and reading the captions of a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_gans.base.random import derive_seed
from lit_gans.metrics.measures import Context, FakeBatch, Measure, identity

CAPTIONS_FILE = "captions.json"
_MAX_TABLE_BYTES, _MAX_TEXT_BYTES = 2**28, 2**16

_CHUNK_ELEMENTS = 2**25  # numbers of candidates held at once: 256 MiB in float64
_NO_GROUP = -1
_SLACK = 1e-12  # of a cosine: what rounding can take from a tie


class TextImageEncoder(Protocol):
    """Puts images and captions into one space. `name`, `resize` and `fingerprint` as those of an `Extractor`."""

    name: str
    resize: str
    fingerprint: str

    def images(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 or 3, H, W] -> [N, D]."""

    def texts(self, captions: Sequence[str]) -> Tensor:
        """N captions -> [N, D]."""


class CLIPScore(Metric):
    """Mean over pairs of max(100 cos(image, caption), 0) (Hessel et al., 2021), https://arxiv.org/abs/2104.08718.

    The paper (Sec. 3) multiplies by 2.5 and puts "A photo depicts" before each caption. We follow torchmetrics: by 100,
    and captions as they are. But torchmetrics cuts at 0 after the mean; the paper, and we, before: the two differ only
    where pairs have cosines below 0.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, encoder: TextImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, images: Tensor, captions: Sequence[str]) -> None:
        """images uint8 [N, 1 or 3, H, W] and their N captions. ValueError where one is empty."""
        _check_captions(captions, len(images))
        if len(images):
            scores = clip_scores(self.encoder.images(images), self.encoder.texts(captions))
            self.total += scores.sum().to(self.total.device)
            self.count += len(scores)

    def compute(self) -> Tensor:
        """float64 scalar in [0, 100]."""
        if self.count == 0:
            raise ValueError("a CLIP score needs one pair of image and caption or more, got none")
        return self.total / self.count


def clip_scores(images: Tensor, texts: Tensor) -> Tensor:
    """Embeddings [N, D] of images and of their captions -> float64 [N] in [0, 100]."""
    return 100 * F.cosine_similarity(images.double(), texts.double(), dim=1).clamp(min=0)


def _check_captions(captions: Sequence[str], images: int) -> None:
    if isinstance(captions, str) or len(captions) != images:
        found = "one text" if isinstance(captions, str) else f"{len(captions)} captions"
        raise ValueError(f"{found} for {images} images: expected a list with a caption for each")
    for i, caption in enumerate(captions):
        if not isinstance(caption, str) or not caption.strip():
            raise ValueError(f"caption {i} of {images} is {caption!r}, expected a text that is not empty")


class RPrecision(Metric):
    """Share of images that are nearer to their own caption than to 99 others (Xu et al., 2018), Sec. 4.

    https://arxiv.org/abs/1711.10485, where embeddings come from DAMSM, 30,000 images are generated, and ten folds give
    mean and deviation. Rows carry their global index, so that processes and order change nothing.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    images: list[Tensor]
    texts: list[Tensor]
    index: list[Tensor]
    groups: list[Tensor]

    def __init__(self, num_features: int, *, candidates: int = 100, folds: int = 10, seed: int = 0) -> None:
        super().__init__()
        self.num_features, self.candidates, self.folds, self.seed = num_features, candidates, folds, seed
        for name in ("images", "texts", "index", "groups"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, images: Tensor, texts: Tensor, *, index: Tensor, groups: Tensor | None = None) -> None:
        """Embeddings [N, D] of images and of their captions; index int64 [N], the pairs' numbers in the whole set.

        `groups` int64 [N], 0 or more: pairs of one group, such as a class, do not serve each other as mismatches.
        Every process calls it at least once, with no rows if it has none.
        """
        if groups is None:
            groups = torch.full_like(index, _NO_GROUP)
        elif (groups < 0).any():
            raise ValueError(f"group {int(groups.min())}, expected numbers from 0 on")
        shapes, rows = [list(each.shape) for each in (images, texts, index, groups)], len(index)
        if shapes != [[rows, self.num_features]] * 2 + [[rows]] * 2:
            raise ValueError(
                f"images, texts, index, groups of shapes {shapes}, expected [N, {self.num_features}] twice, [N] twice"
            )
        self.images.append(images)
        self.texts.append(texts.to(images.device))
        self.index.append(index.to(images.device))
        self.groups.append(groups.to(images.device))

    def compute(self) -> tuple[Tensor, Tensor]:
        """mean, standard deviation over the folds: float64 scalars, the mean in [0, 1]."""
        if len(self.index) == 0:
            raise ValueError("R-precision needs pairs of image and text, got none")
        index, order = dim_zero_cat(self.index).sort(stable=True)
        images, texts, groups = (dim_zero_cat(each)[order] for each in (self.images, self.texts, self.groups))
        repeated = index[1:][index[1:] == index[:-1]]
        if len(repeated):
            raise ValueError(f"index {int(repeated[0])} was given twice: each pair has a number of its own")
        grouped = int((groups != _NO_GROUP).sum())
        if 0 < grouped < len(groups):
            raise ValueError(f"{grouped} of {len(groups)} pairs have a group: give all of them one, or none")
        settings = {"candidates": self.candidates, "folds": self.folds, "seed": self.seed}
        return r_precision(images, texts, **settings, groups=groups if grouped else None)


def r_precision(
    images: Tensor,
    texts: Tensor,
    *,
    candidates: int = 100,
    folds: int = 10,
    seed: int = 0,
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Embeddings images, texts [N, D] -> mean, deviation over min(folds, N) folds of the share of images with R = 1.

    That is, whose cosine with their own text is above those with candidates - 1 different texts of other rows, drawn by
    (seed, row), never of the same group in `groups` int64 [N]; a tie counts against. Two rows with the same text should
    share a group. Folds are consecutive, and the deviation divides by their number.
    ValueError for embeddings that do not fit or are not finite, and where some row has too few texts to draw from.
    """
    _check_embeddings(images, texts)
    hits = retrieved(images, texts, _mismatches(len(images), groups, candidates - 1, seed))
    folds = min(folds, len(hits))
    cuts = [i * len(hits) // folds for i in range(folds + 1)]
    shares = torch.stack([hits[a:b].double().mean() for a, b in zip(cuts, cuts[1:], strict=False)])
    return shares.mean(), shares.std(correction=0)


def retrieved(images: Tensor, texts: Tensor, mismatches: Tensor) -> Tensor:
    """images, texts [N, D], mismatches int64 [N, K] -> bool [N]: own text above all mismatching ones by cosine."""
    images, texts = (F.normalize(each.double(), dim=1) for each in (images, texts))
    own = (images * texts).sum(dim=1)
    hits = []
    for rows in _parts(len(images), mismatches.shape[1] * images.shape[1]):
        others = torch.einsum("nd,nkd->nk", images[rows], texts[mismatches[rows].to(texts.device)])
        hits.append((others < own[rows, None] - _SLACK).all(dim=1))
    return torch.cat(hits)


def _parts(rows: int, elements: int) -> Iterator[slice]:
    size = max(1, _CHUNK_ELEMENTS // elements)
    for start in range(0, rows, size):
        yield slice(start, start + size)


def _mismatches(rows: int, groups: Tensor | None, count: int, seed: int) -> Tensor:
    """int64 [N, count]: for each row, different rows of other groups, all such sets equally likely.

    With the rows of a group side by side, what a row may draw is everything but one run: a number below N less the
    run's length, moved past the run where it does not lie before it.
    """
    groups = torch.arange(rows) if groups is None else groups.cpu()
    if len(groups) != rows:
        raise ValueError(f"{len(groups)} groups for {rows} pairs")
    order = groups.argsort(stable=True)
    _, own, sizes = groups.unique(return_inverse=True, return_counts=True)
    start, length = (sizes.cumsum(0) - sizes)[own], sizes[own]
    few = int((rows - length).argmin())
    if count < 1 or rows - length[few] < count:
        raise ValueError(
            f"pair {few} of {rows} has {rows - int(length[few])} mismatching captions to draw {count} from: give more "
            f"pairs, or 2 or more but fewer candidates"
        )
    drawn = _distinct(_uniform(rows, count, seed), rows - length)
    return order[torch.where(drawn < start[:, None], drawn, drawn + length[:, None])]


def _uniform(rows: int, count: int, seed: int) -> Tensor:
    """float64 [rows, count] in [0, 1), a row's numbers derived from the seed and its position alone."""
    generator, u = torch.Generator(), torch.empty(rows, count, dtype=torch.float64)
    for i, row in enumerate(u):
        row.uniform_(generator=generator.manual_seed(derive_seed(seed, "r_precision", i)))
    return u


def _distinct(u: Tensor, below: Tensor) -> Tensor:
    """u [N, K] in [0, 1), below int64 [N] -> int64 [N, K]: K different numbers in [0, below) by Floyd's method.

    Step j draws from the first below - K + j + 1 numbers, and takes the last of them where it has drawn that before.
    """
    count = u.shape[1]
    drawn = torch.empty(u.shape, dtype=torch.int64)
    for j in range(count):
        last = below - count + j
        number = (u[:, j] * (last + 1)).long()
        drawn[:, j] = torch.where((drawn[:, :j] == number[:, None]).any(dim=1), last, number)
    return drawn


def _check_embeddings(images: Tensor, texts: Tensor) -> None:
    if images.ndim != 2 or images.shape != texts.shape or not len(images):
        raise ValueError(f"images {list(images.shape)} and texts {list(texts.shape)}, expected both [N, D], N above 0")
    for what, embeddings in (("image", images), ("text", texts)):
        bad = ~embeddings.isfinite().all(dim=1)
        if bad.any():
            raise ValueError(f"the embedding of {what} {int(bad.nonzero()[0])} is not finite")


def read_captions(folder: Path, names: Sequence[str]) -> list[str]:
    """The captions of the pictures `names` (forward slashes) in `folder`, in their order, without white space around.

    From captions.json, {"name.png": "caption", ...}, where there is one; else from a .txt file beside each picture,
    whose first line that is not empty is taken: CUB's files have several captions of one bird.
    FileNotFoundError without the folder; ValueError for a caption that is missing, empty, no UTF-8 or over long.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give the folder of the pictures and their captions")
    table = folder / CAPTIONS_FILE
    if table.is_file():
        return _from_table(_read_table(table), names, str(table))
    root = folder.resolve()
    return [_from_text(root, name) for name in names]


def _read_table(path: Path) -> Mapping[str, object]:
    content = _read_utf8(path, _MAX_TABLE_BYTES)
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error})") from error
    if not isinstance(table, dict):
        raise ValueError(f'{path} must read {{"name.png": "caption", ...}}, found {type(table).__name__}')
    return table


def _from_table(table: Mapping[str, object], names: Sequence[str], where: str) -> list[str]:
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"{where} lacks captions of {len(missing)} of {len(names)} pictures, first {missing[0]!r}")
    for name in names:
        caption = table[name]
        if not isinstance(caption, str) or not caption.strip():
            raise ValueError(f"{where} has {caption!r} for {name!r}, expected a text that is not empty")
    return [str(table[name]).strip() for name in names]


def _from_text(root: Path, name: str) -> str:
    path = (root / name).with_suffix(".txt")
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"the caption of {name!r} leads out of {root}: refused")
    if not path.is_file():
        raise ValueError(f"no caption of {name!r}: neither {path} nor {root / CAPTIONS_FILE} is there")
    lines = [line.strip() for line in _read_utf8(path, _MAX_TEXT_BYTES).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty, expected a caption of {name!r}")
    return lines[0]


def _read_utf8(path: Path, limit: int) -> str:
    """The file's text, without a byte-order mark."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} has more than {limit} bytes: refused")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it as such") from error


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class CaptionMeasure(Measure):
    """The CLIP score of pictures and their captions."""

    def __init__(self, context: Context) -> None:
        if context.judges.clip is None:
            raise ValueError("clip_score needs its network: pass clip=build_clip() or its like")
        self.context, self.metric = context, CLIPScore(context.judges.clip).to(context.device)
        self.metric.update(torch.empty(0, 3, 8, 8, dtype=torch.uint8), [])

    def update(self, batch: FakeBatch) -> None:
        assert batch.captions is not None
        self.metric.update(batch.images, batch.captions)

    def values(self) -> dict[str, float]:
        return {"clip_score": self.metric.compute().item()}

    def settings(self) -> dict[str, object]:
        return {**identity(self.metric.encoder), "n_real": None, "n_fake": self.context.subject.total}
