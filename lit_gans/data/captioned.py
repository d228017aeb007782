"""What text-to-image models learn from: pictures with captions, and partners that do not fit, on the image clock."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_gans.base.images import from_uint8
from lit_gans.data.base import ImageData
from lit_gans.data.captions import (
    LETTERS,
    Captions,
    CharacterEncoding,
    EmbeddingEncoding,
    Encoding,
    Letters,
    Vocabulary,
    WordEncoding,
    refuse_blank,
    report_characters,
    report_words,
)
from lit_gans.data.checks import _one_of, _whole
from lit_gans.data.embeddings import made_embeddings, published_embeddings, vocabulary_of
from lit_gans.data.sets import ImageSet
from lit_gans.data.stream import Stream, uniform
from lit_gans.nn.sentences import MAKERS

Encode = Literal["words", "characters", "embeddings"]
Wrong = Literal["none", "image", "caption"]
ENCODES, WRONGS = ("words", "characters", "embeddings"), ("none", "image", "caption")


class CaptionedSet(ImageSet):
    """Pictures with captions. Two pictures of different `groups` int64 [len] are a wrong pair for certain."""

    def __init__(self, captions: Captions, encoding: Encoding, groups: Tensor, labels: Tensor | None) -> None:
        self.captions, self.encoding, self.groups, self.labels = captions, encoding, groups, labels
        self._partners = Partners(torch.zeros_like(groups), groups)

    def __len__(self) -> int:
        return len(self.captions)

    @abstractmethod
    def windows(self, indices: Tensor, *, across: np.ndarray, down: np.ndarray) -> Tensor:
        """indices int64 [N] -> crops uint8 [N, 3, R, R], as training sees them.

        across, down float64 [N] in [0, 1): where in its margin each crop lies.
        """

    @abstractmethod
    def pictures_digest(self) -> str:
        """Hex digits that change with the pictures or their order."""

    def fetch(self, indices: Tensor) -> dict[str, Tensor]:
        """Whole pictures and the first caption of each."""
        batch = super().fetch(indices)
        chosen = indices.numpy()
        return {**batch, **self.encoding.encode(self.captions.first[chosen], 0, "fetch", chosen)}

    def others(self, indices: np.ndarray, share: np.ndarray) -> np.ndarray:
        """indices int64 [N], share float64 [N] in [0, 1) -> int64 [N]: pictures of other groups, all equally likely."""
        return self._partners.draw(indices, share)

    def digest(self) -> str:
        content = hashlib.sha256(f"{self.pictures_digest()} {self.captions.digest()} {self.encoding.digest()}".encode())
        content.update(self.groups.numpy().tobytes() + (b"" if self.labels is None else self.labels.numpy().tobytes()))
        return content.hexdigest()


class Partners:
    """For each picture those of the same `bucket` int64 [len] that have another `value` int64 [len].

    With a bucket's pictures of one value side by side, the partners of one are the whole bucket but one run: a number
    below their count, moved past the run where it does not lie before it.
    """

    def __init__(self, bucket: Tensor, value: Tensor) -> None:
        keys = [bucket.numpy(), value.numpy()]
        self._order = np.lexsort(keys[::-1])
        self._start, self._size = _runs(keys[:1], self._order)
        self._own_start, self._own_size = _runs(keys, self._order)

    def count(self, indices: np.ndarray) -> np.ndarray:
        """indices int64 [N] -> int64 [N]: how many partners each picture has."""
        return self._size[indices] - self._own_size[indices]

    def draw(self, indices: np.ndarray, share: np.ndarray) -> np.ndarray:
        """indices int64 [N], share float64 [N] in [0, 1) -> int64 [N]: a partner of each, which must have one."""
        place = self._start[indices] + (share * self.count(indices)).astype(np.int64)
        return self._order[np.where(place < self._own_start[indices], place, place + self._own_size[indices])]


def _runs(keys: list[np.ndarray], order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the run of equal keys that each picture is in starts, in this order, and how long it is: int64 [len]."""
    rows = np.stack(keys, 1)[order]
    first = np.append(True, (rows[1:] != rows[:-1]).any(1))
    starts = np.flatnonzero(first)
    run = np.empty(len(order), dtype=np.int64)
    run[order] = np.cumsum(first) - 1
    return starts[run], np.diff(starts, append=len(order))[run]


class CaptionStream(Stream):
    """A stream of captioned pictures; crop, flip, caption and wrong partner are drawn by (seed, sample number)."""

    images: CaptionedSet

    def __init__(
        self,
        images: CaptionedSet,
        batch_size: int,
        *,
        wrong: Wrong = "none",
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        mirror: bool = False,
    ) -> None:
        super().__init__(images, batch_size, seed=seed, start=start, rank=rank, world=world, mirror=mirror)
        if wrong != "none" and len(images.groups.unique()) < 2:
            raise ValueError(
                f"wrong {wrong!r} needs partners of another class, and all {len(images)} pictures are of one: give "
                "more classes, or set wrong='none'"
            )
        self.wrong = wrong

    def batch(self, k: int) -> dict[str, Tensor]:
        """This process's rows of batch k: image, captions, label where there are any, and the wrong partner.

        That is "wrong" uint8 [local, 3, R, R], or the tensors of a wrong caption under "wrong_" and their own name.
        """
        positions = self.positions(k)
        indices = self.indices(positions)
        batch = {"image": self._pictures(indices, positions, "")}
        if self.images.labels is not None:
            batch["label"] = self.images.labels[torch.from_numpy(indices)]
        batch |= self._captions(indices, positions, "")
        if self.wrong == "none":
            return batch
        others = self.images.others(indices, uniform(self.seed, "wrong", positions))
        if self.wrong == "image":
            return {**batch, "wrong": self._pictures(others, positions, "wrong ")}
        return batch | {f"wrong_{name}": t for name, t in self._captions(others, positions, "wrong ").items()}

    def _pictures(self, indices: np.ndarray, positions: np.ndarray, kind: str) -> Tensor:
        places = {name: uniform(self.seed, f"{kind}crop {name}", positions) for name in ("across", "down")}
        pictures = self.images.windows(torch.from_numpy(indices), **places)
        if not self.mirror:
            return pictures
        flips = torch.from_numpy(uniform(self.seed, f"{kind}mirror", positions) < 0.5)
        return torch.where(flips[:, None, None, None], pictures.flip(-1), pictures)

    def _captions(self, indices: np.ndarray, positions: np.ndarray, kind: str) -> dict[str, Tensor]:
        numbers = self.images.captions.drawn(indices, self.seed, f"{kind}caption", positions)
        return self.images.encoding.encode(numbers, self.seed, f"{kind}caption", positions)


class TextData(ImageData):
    """Batches for a text-to-image model: {"image": [N, 3, R, R], captions, and "label" int64 [N] where there are any}.

    `encode` says what a caption is: "words" gives "words" int64 [N, max_words] and "lengths" int64 [N] in `vocabulary`;
    "characters" gives "characters" int64 [N, max_characters]; "embeddings" gives "embedding" float32 [N, E], from
    `embeddings`: a folder with published pickles (`train/char-CNN-RNN-embeddings.pickle` and so on),
    "clip:<owner>/<name>" of Hugging Face, or "sentences:<folder>", a sentence encoder such as all-MiniLM-L6-v2 in
    transformers' files. The vocabulary is built from the training captions, words that occur fewer
    than `min_count` times left out; or it is given: as words, or as the path of a JSON file of them or of AttnGAN's
    `captions.pickle`. `letters` "all" keeps the letters of all alphabets in words, "ascii" is the published rule, which
    leaves all but A to Z out; by default "all" where the vocabulary is built here, and for one that is given the rule
    that it was built by: see `Vocabulary`.

    `wrong` adds a partner of another class to each sample: "image" a picture "wrong" [N, 3, R, R], "caption" the
    tensors of a caption under "wrong_words" and so on.

    Pictures are scaled to `load_px`, and training cuts crops of `resolution` out of them, flipped at random by
    `mirror`. They are the largest scale; models that see several make the others of it.
    """

    gives = "pictures with captions"

    def __init__(
        self,
        *,
        resolution: int = 64,
        load_px: int | None = None,
        encode: Encode = "words",
        max_words: int = 18,
        max_characters: int = 201,
        min_count: int = 1,
        vocabulary: list[str] | str | None = None,
        letters: Letters | None = None,
        embeddings: str | None = None,
        wrong: Wrong = "none",
        **options: Any,
    ) -> None:
        super().__init__(resolution=resolution, **options)
        _one_of("encode", encode, ENCODES)
        _one_of("wrong", wrong, WRONGS)
        _one_of("letters", letters, (*LETTERS, None))
        self._margin = (resolution if load_px is None else _whole("load_px", load_px, 1)) / resolution
        if self._margin < 1:
            raise ValueError(
                f"load_px {load_px} is smaller than resolution {resolution}, which is cut out of it: use {resolution} "
                f"(no margin) or more, such as {resolution * 76 // 64} as StackGAN does"
            )
        if (encode == "embeddings") != (embeddings is not None):
            raise ValueError(
                f"encode is {encode!r} and embeddings is {embeddings!r}: give encode='embeddings' and a folder of "
                "published pickles, 'clip:<owner>/<name>' or 'sentences:<folder>', or neither"
            )
        self.encode, self.wrong, self.embeddings = encode, wrong, embeddings
        self.max_words, self.min_count = _whole("max_words", max_words, 1), _whole("min_count", min_count, 1)
        self.max_characters = _whole("max_characters", max_characters, 1)
        self.letters, self._given, self._vocabulary = letters, vocabulary, None
        self._captions: dict[str, Captions] = {}
        self._reported: set[str] = set()

    @property
    def load_px(self) -> int:
        """What pictures are scaled to before a crop of `resolution` is cut out; it grows with the resolution."""
        return round(self.resolution * self._margin)

    @abstractmethod
    def read_captions(self, split: str) -> Captions:
        """The captions of a split, in the order of its pictures. Raises FileNotFoundError or ValueError."""

    @abstractmethod
    def captioned(self, split: str, captions: Captions, encoding: Encoding) -> CaptionedSet:
        """The pictures of a split with these captions."""

    def load(self, split: str) -> CaptionedSet:
        """Raises FileNotFoundError or ValueError naming the files; warns once of captions that do not come through."""
        captions = self.split_captions(split)
        encoding = self._encoding(split, captions)
        if split == self.train_split:
            refuse_blank(captions, encoding, where=f"captions of split {split!r}")
        return self.captioned(split, captions, encoding)

    def transform(self) -> dict[str, object]:
        return {"load_px": self.load_px, "encode": self.encode}

    def split_captions(self, split: str) -> Captions:
        """All captions of a split, as text; read at the first call."""
        if split not in self.splits:
            raise ValueError(f"{type(self).__name__} has no split {split!r}; it has {', '.join(self.splits)}")
        if split not in self._captions:
            self._captions[split] = self.read_captions(split)
        return self._captions[split]

    def captions(self, indices: Tensor, split: str = "train") -> list[str]:
        """indices int64 [N] -> the first caption of each of these pictures."""
        captions = self.split_captions(split)
        return [captions.all[captions.first[index]] for index in indices.tolist()]

    @property
    def vocabulary(self) -> Vocabulary:
        """The one that was given, else that of the training captions."""
        if self._vocabulary is None:
            if self._given is None:
                letters = self.letters or "all"
                words = self.split_captions(self.train_split).words(letters)
                self._vocabulary = Vocabulary.build(words, min_count=self.min_count, letters=letters)
            else:
                self._vocabulary = vocabulary_of(self._given, self.letters)
        return self._vocabulary

    @property
    def embedding_dim(self) -> int:
        """E of encode "embeddings"."""
        encoding = self.dataset(self.train_split).encoding  # type: ignore[attr-defined]
        if not isinstance(encoding, EmbeddingEncoding):
            raise ValueError(f"encode {self.encode!r} gives no embeddings: use encode='embeddings'")
        return encoding.vectors.shape[1]

    def stream(self, *, start: int = 0, rank: int = 0, world: int = 1) -> Stream:
        images = self.dataset(self.train_split)
        assert isinstance(images, CaptionedSet)
        place = {"start": start, "rank": rank, "world": world}
        return CaptionStream(
            images, self.batch_size, wrong=self.wrong, seed=self.seed, mirror=self.mirror, **place
        )  # fmt: skip

    def setup(self, stage: str | None = None) -> None:
        """Raises before training starts what would stop it, wrong partners that there are none of among it."""
        super().setup(stage)
        self.stream()

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Pictures uint8 [N, 3, R, R] -> float32 in [-1, 1], on the device."""
        pictures = {name: from_uint8(batch[name]) for name in ("image", "wrong") if _is_uint8(batch.get(name))}
        return {**batch, **pictures}

    def _encoding(self, split: str, captions: Captions) -> Encoding:
        where = f"captions of split {split!r}"
        first = split not in self._reported  # a network that grows loads its data often
        self._reported.add(split)
        if self.encode == "words":
            if first:
                report_words(captions, self.vocabulary, max_words=self.max_words, where=where)
            return WordEncoding(captions, self.vocabulary, max_words=self.max_words)
        if self.encode == "characters":
            if first:
                report_characters(captions, max_characters=self.max_characters, where=where)
            return CharacterEncoding(captions, max_characters=self.max_characters)
        assert self.embeddings is not None
        if self.embeddings.startswith(MAKERS):
            rank_zero_info(f"{where}: {len(captions.all)} embeddings of {self.embeddings}")
            return EmbeddingEncoding(captions, made_embeddings(self.embeddings, captions.all))
        return EmbeddingEncoding(captions, published_embeddings(Path(self.embeddings), split, captions))


def _is_uint8(pictures: Tensor | None) -> bool:
    return pictures is not None and pictures.dtype == torch.uint8
