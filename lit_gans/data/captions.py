"""Captions as numbers: words of a vocabulary, characters, or embeddings; which caption, and which words of a long one.

What is drawn depends on (seed, sample number) alone, as in `lit_gans.data.stream`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_gans.base.files import replacing
from lit_gans.data.checks import _one_of
from lit_gans.data.stream import random_bits, uniform

Letters = Literal["all", "ascii"]
LETTERS = ("all", "ascii")
END, UNKNOWN = "<end>", "<unk>"
MAX_WORDS = 2**12  # in one caption; their numbers are part of what is drawn from
# Of Reed et al. (2016); "-" stands in it twice and has the number of its second place.
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
_CHARACTERS = {character: number for number, character in enumerate(ALPHABET, 1)}
_NAMED = 5
_MAX_VOCABULARY_BYTES = 2**26


_JOINERS = "\u200c\u200d"  # inside words of Persian and of Indian languages
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def tokenize(caption: str, letters: Letters | None = "all") -> list[str]:
    """The words of a caption in lower case: runs of letters, digits and underscores, as AttnGAN's code takes them.

    letters: of which alphabets. "all" keeps those of all, with their marks, composed (NFC); Chinese characters, between
    which there are no spaces, are a word each, as in BERT. "ascii" is the published rule: what lies beyond is left out
    of the words, and two replacement characters, which CUB's captions have, are a space.
    """
    if letters != "ascii" and not caption.isascii():
        text = _IDEOGRAPH.sub(r" \g<0> ", unicodedata.normalize("NFC", caption.lower()))
        runs = "".join(c if _of_a_word(c) else " " for c in text).split()
        return [run.strip(_JOINERS) for run in runs if any(c.isalnum() or c == "_" for c in run)]
    words = re.findall(r"\w+", caption.replace("\ufffd\ufffd", " ").lower())
    return [word for word in (word.encode("ascii", "ignore").decode("ascii") for word in words) if word]


def _of_a_word(character: str) -> bool:
    """Letters and digits, and marks, which some alphabets write vowels with."""
    return character.isalnum() or character in "_" + _JOINERS or unicodedata.category(character)[0] == "M"


@dataclass(frozen=True)
class Vocabulary:
    """Words by number. Number 0 is "<end>", which fills up short captions; "<unk>", where it is one of them, is 1.

    Words that are not in it become "<unk>" or, without one (published vocabularies have none), are left out.
    A model that is given `words` can read captions long after the data are gone.

    letters: by which rule captions are parted into words; see `tokenize`. None is "ascii" where all words are, as in
    published vocabularies and those of runs that do not say, and "all" otherwise.
    """

    words: tuple[str, ...]
    letters: Letters | None = None

    def __post_init__(self) -> None:
        if self.letters is None:
            object.__setattr__(self, "letters", "ascii" if all(map(str.isascii, self.words)) else "all")
        _one_of("letters", self.letters, LETTERS)
        if not self.words or self.words[0] != END:
            found = repr(self.words[0]) if self.words else "no word at all"
            raise ValueError(
                f"a vocabulary begins with {END!r}, which fills up short captions; this begins with {found}"
            )
        if len(set(self.words)) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"the vocabulary has the word {twice!r} twice: its numbers would be ambiguous")

    @classmethod
    def build(
        cls, captions: Iterable[Sequence[str]], *, min_count: int = 1, letters: Letters | None = None
    ) -> Vocabulary:
        """Of captions in words: those that occur `min_count` times or more, the most frequent first, then by alphabet.

        The published order is that of the first occurrence; ours does not change with the order of the files.
        """
        counts = Counter(word for words in captions for word in words)
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        return cls((END, UNKNOWN, *kept), letters)

    @classmethod
    def read(cls, path: str | Path) -> Vocabulary:
        """As `save` wrote it: a JSON list of words. FileNotFoundError; ValueError where it holds anything else."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no vocabulary at {path}: give a JSON file with a list of words, {END!r} the first"
            )
        with path.open("rb") as file:
            content = file.read(_MAX_VOCABULARY_BYTES)
        try:
            words = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no JSON ({error}): give a list of words, {END!r} the first") from error
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f'{path} must read ["{END}", "word", ...], found {type(words).__name__}')
        return cls(tuple(words))

    def save(self, path: str | Path) -> None:
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(list(self.words)), encoding="utf-8")

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """{word: number}."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, words: Sequence[str]) -> list[int]:
        """The numbers of words; there may be fewer where the vocabulary has no "<unk>"."""
        unknown = self.numbers.get(UNKNOWN)
        numbers = (self.numbers.get(word, unknown) for word in words)
        return [number for number in numbers if number is not None]

    def parted(self, caption: str) -> list[str]:
        """The words of a caption by the rule of this vocabulary, known or not."""
        return tokenize(caption, self.letters)

    def knows(self, words: Sequence[str]) -> bool:
        """Whether one of them at least has a number of its own."""
        return any(word in self.numbers for word in words)

    def unknown(self, captions: Sequence[str]) -> list[str]:
        """The words of these captions that it has not, each once, as they are written.

        ValueError where nothing of a caption is known.
        """
        for caption in captions:
            if not self.knows(self.parted(caption)):
                some = ", ".join(word for word in self.words if word not in (END, UNKNOWN))
                raise ValueError(
                    f"the caption {caption!r:.80} has no word of the vocabulary: use some of its {len(self)}, such as "
                    f"{some:.80}"
                )
        written = dict.fromkeys(word for caption in captions for word in tokenize(caption))
        return [word for word in written if not self.knows(self.parted(word))]

    def decode(self, numbers: Iterable[int]) -> str:
        """The words of these numbers up to the first "<end>"."""
        words = []
        for number in numbers:
            if number == 0:
                break
            words.append(self.words[number])
        return " ".join(words)

    def batch(self, captions: Sequence[str], *, max_words: int) -> tuple[Tensor, Tensor]:
        """N captions -> words int64 [N, T], lengths int64 [N]; of longer ones the first T words.

        For captions that a user types. ValueError where one has no word that is known.
        """
        coded = [self.encode(self.parted(caption))[:max_words] for caption in captions]
        for caption, numbers in zip(captions, coded, strict=True):
            if not numbers:
                raise ValueError(f"the caption {caption!r:.80} has no word of the vocabulary: use one or more of them")
        words = torch.zeros(len(coded), max_words, dtype=torch.int64)
        for row, numbers in zip(words, coded, strict=True):
            row[: len(numbers)] = torch.tensor(numbers)
        return words, torch.tensor([len(numbers) for numbers in coded])


class Captions:
    """One caption or more of each of N pictures; caption `first[i] + j` is caption j of picture i.

    Raises:
        ValueError: pictures without a caption, captions that are blank or have thousands of words, with names.
    """

    def __init__(self, texts: Sequence[Sequence[str]], names: Sequence[str]) -> None:
        assert len(texts) == len(names)
        bare = [name for name, of_one in zip(names, texts, strict=True) if not of_one]
        if bare:
            raise ValueError(
                f"{len(bare)} of {len(names)} pictures have no caption: {_listed(bare)}. Add or remove them"
            )
        self.names = tuple(names)
        self.counts = np.array([len(of_one) for of_one in texts], dtype=np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.counts)])
        self.all = tuple(text for of_one in texts for text in of_one)
        self._words: dict[Letters | None, tuple[tuple[str, ...], ...]] = {}
        self._check()

    def __len__(self) -> int:
        """Of pictures."""
        return len(self.counts)

    def of(self, index: int) -> list[str]:
        """The captions of one picture."""
        return list(self.all[self.first[index] : self.first[index + 1]])

    def owner(self, number: int) -> str:
        """The name of the picture that caption `number` is of."""
        return self.names[int(np.searchsorted(self.first, number, side="right")) - 1]

    def of_pictures_without(self, good: Sequence[bool]) -> list[int]:
        """The numbers of all captions of the pictures none of whose captions is good."""
        count = np.add.reduceat(np.asarray(good, dtype=np.int64), self.first[:-1])
        return np.flatnonzero(np.repeat(count == 0, self.counts)).tolist()

    def drawn(self, indices: np.ndarray, seed: int, purpose: str, positions: np.ndarray) -> np.ndarray:
        """indices, positions int64 [N] -> int64 [N]: the number of the caption that each sample has of its picture."""
        share = uniform(seed, purpose, positions)
        return self.first[indices] + (share * self.counts[indices]).astype(np.int64)

    @cached_property
    def tokens(self) -> tuple[tuple[str, ...], ...]:
        """The words of each caption, of all alphabets."""
        return self.words("all")

    def words(self, letters: Letters | None) -> tuple[tuple[str, ...], ...]:
        """The words of each caption by this rule; see `tokenize`."""
        if letters not in self._words:
            self._words[letters] = tuple(tuple(tokenize(text, letters)) for text in self.all)
        return self._words[letters]

    def digest(self) -> str:
        text = json.dumps([self.names, self.counts.tolist(), self.all])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _check(self) -> None:
        empty = [number for number, text in enumerate(self.all) if not text.strip()]
        if empty:
            owners = _listed([self.owner(number) for number in empty])
            raise ValueError(f"{len(empty)} of {len(self.all)} captions are empty, of {owners}: write or remove them")
        longest = max(range(len(self.tokens)), key=lambda number: len(self.tokens[number]))
        if len(self.tokens[longest]) > MAX_WORDS:
            raise ValueError(
                f"a caption of {self.owner(longest)} has {len(self.tokens[longest])} words, more than {MAX_WORDS}: is "
                "it one?"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


class Encoding(ABC):
    """Captions as tensors, by their numbers."""

    @abstractmethod
    def encode(self, numbers: np.ndarray, seed: int, purpose: str, positions: np.ndarray) -> dict[str, Tensor]:
        """numbers int64 [N] of captions, positions int64 [N] of samples -> tensors of N rows by name."""

    @abstractmethod
    def digest(self) -> str:
        """Hex digits that change with what `encode` gives."""

    def blank(self) -> list[int]:
        """The numbers of the captions of which nothing is left."""
        return []


class WordEncoding(Encoding):
    """{"words": int64 [N, T], filled up with 0, "lengths": int64 [N]}.

    Of a caption of more than T words T are drawn, which stay in their order, as AttnGAN's code does. Where a caption
    has no word that is known, another one of its picture takes its place.
    """

    def __init__(self, captions: Captions, vocabulary: Vocabulary, *, max_words: int) -> None:
        self.vocabulary, self.max_words = vocabulary, max_words
        coded = [np.array(vocabulary.encode(words), dtype=np.int64) for words in captions.words(vocabulary.letters)]
        wordless = [number for number, words in enumerate(coded) if not len(words)]
        self._check(captions, captions.of_pictures_without([len(words) > 0 for words in coded]))
        for number in wordless:
            coded[number] = self._other(captions, coded, number)
        if wordless:
            rank_zero_warn(
                f"{len(wordless)} of {len(coded)} captions have no word of the vocabulary, such as "
                f"{captions.all[wordless[0]]!r:.40} of {captions.owner(wordless[0])}: another one of it is taken"
            )
        self.captions, self.coded = captions, coded

    @staticmethod
    def _other(captions: Captions, coded: list[np.ndarray], number: int) -> np.ndarray:
        """The first caption of the same picture that has a word."""
        index = int(np.searchsorted(captions.first, number, side="right")) - 1
        return next(words for words in coded[captions.first[index] : captions.first[index + 1]] if len(words))

    def _check(self, captions: Captions, mute: Sequence[int]) -> None:
        """ValueError for the captions of pictures none of whose captions has a word."""
        if not mute:
            return
        way_out = "mend it, or build the vocabulary from these captions"
        if captions.words("all")[mute[0]] != captions.words(self.vocabulary.letters)[mute[0]]:
            way_out = "letters 'ascii' leaves out those beyond A to Z, letters 'all' keeps them"
        owners = dict.fromkeys(captions.owner(number) for number in mute)
        raise ValueError(
            f"no caption of {_listed(list(owners))} has a word of the vocabulary, such as "
            f"{captions.all[mute[0]]!r:.40}: {way_out}"
        )

    def blank(self) -> list[int]:
        """Those of pictures of whose captions no word is known."""
        unknown = self.vocabulary.numbers.get(UNKNOWN)
        return self.captions.of_pictures_without([bool((words != unknown).any()) for words in self.coded])

    def encode(self, numbers: np.ndarray, seed: int, purpose: str, positions: np.ndarray) -> dict[str, Tensor]:
        words = np.zeros((len(numbers), self.max_words), dtype=np.int64)
        lengths = np.zeros(len(numbers), dtype=np.int64)
        for row, (number, position) in enumerate(zip(numbers.tolist(), positions.tolist(), strict=True)):
            caption = self.coded[number]
            if len(caption) > self.max_words:
                caption = caption[self._kept(len(caption), seed, purpose, position)]
            words[row, : len(caption)], lengths[row] = caption, len(caption)
        return {"words": torch.from_numpy(words), "lengths": torch.from_numpy(lengths)}

    def _kept(self, length: int, seed: int, purpose: str, position: int) -> np.ndarray:
        """int64 [T], ascending: which words of a long caption are kept."""
        bits = random_bits(seed, f"{purpose} words", position * MAX_WORDS + np.arange(length))
        return np.sort(np.argsort(bits, kind="stable")[: self.max_words])

    def digest(self) -> str:
        content = hashlib.sha256(json.dumps([self.max_words, self.vocabulary.words]).encode())
        for caption in self.coded:
            content.update(caption.tobytes() + b";")
        return content.hexdigest()


class CharacterEncoding(Encoding):
    """{"characters": int64 [N, T]}: numbers from 1 in `ALPHABET` of lower-case text, cut or filled up with 0 to T.

    T is 201 in Reed et al. (2016). What is not in the alphabet becomes a space.
    """

    def __init__(self, captions: Captions, *, max_characters: int = 201) -> None:
        self.captions, self.max_characters = captions, max_characters

    def encode(self, numbers: np.ndarray, seed: int, purpose: str, positions: np.ndarray) -> dict[str, Tensor]:
        texts = [self.captions.all[number] for number in numbers.tolist()]
        return {"characters": characters(texts, max_characters=self.max_characters)}

    def blank(self) -> list[int]:
        return [number for number, text in enumerate(self.captions.all) if not legible(text, self.max_characters)]

    def digest(self) -> str:
        return hashlib.sha256(f"characters {self.max_characters}".encode()).hexdigest()


def characters(captions: Sequence[str], *, max_characters: int = 201) -> Tensor:
    """N captions -> int64 [N, T], as `CharacterEncoding`."""
    space, result = _CHARACTERS[" "], torch.zeros(len(captions), max_characters, dtype=torch.int64)
    for row, caption in zip(result, captions, strict=True):
        numbers = [_CHARACTERS.get(character, space) for character in caption.lower()[:max_characters]]
        row[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    return result


def legible(caption: str, max_characters: int = 201) -> bool:
    """Whether a character of it is in `ALPHABET`, a space aside."""
    return any(character in _CHARACTERS for character in caption.lower()[:max_characters] if character != " ")


class EmbeddingEncoding(Encoding):
    """{"embedding": float32 [N, E]}: row k of `vectors` is the embedding of caption k."""

    def __init__(self, captions: Captions, vectors: Tensor) -> None:
        assert vectors.ndim == 2 and len(vectors) == len(captions.all), vectors.shape
        if not vectors.isfinite().all():
            bad = int((~vectors.isfinite().all(1)).nonzero()[0])
            raise ValueError(f"the embedding of a caption of {captions.owner(bad)} is not finite: make them again")
        self.vectors = vectors.float()

    def encode(self, numbers: np.ndarray, seed: int, purpose: str, positions: np.ndarray) -> dict[str, Tensor]:
        return {"embedding": self.vectors[torch.from_numpy(numbers)]}

    def digest(self) -> str:
        return hashlib.sha256(self.vectors.contiguous().numpy().tobytes()).hexdigest()


def refuse_blank(captions: Captions, encoding: Encoding, *, where: str) -> None:
    """ValueError for captions that would all look alike to the encoder, with the names of their pictures."""
    if blank := encoding.blank():
        owners = list(dict.fromkeys(captions.owner(number) for number in blank))
        raise ValueError(
            f"{where}: {len(blank)} of {len(captions.all)} say nothing to the encoder, such as "
            f"{captions.all[blank[0]]!r:.40}; they are of {_listed(owners)}. Words of all alphabets are read with "
            "encode 'words' and a vocabulary that is built from these captions (vocabulary null, min_count 1)"
        )


def report_words(captions: Captions, vocabulary: Vocabulary, *, max_words: int, where: str) -> None:
    """Warns of what the numbers will not tell: unknown words, characters that were left out, captions that are cut."""
    tokens = captions.words(vocabulary.letters)
    unknown = Counter(word for words in tokens for word in words if word not in vocabulary.numbers)
    if unknown:
        fate = f"become {UNKNOWN}" if UNKNOWN in vocabulary.numbers else "are left out"
        shown = _listed([word for word, _ in unknown.most_common()])
        rank_zero_warn(
            f"{where}: {sum(unknown.values())} words, {len(unknown)} different ones, are not in the vocabulary of "
            f"{len(vocabulary)} and {fate}: {shown}"
        )
    foreign = Counter(
        c for text in captions.all for c in text.replace("\ufffd\ufffd", " ") if c.isalnum() and not c.isascii()
    )
    if foreign and vocabulary.letters == "ascii":
        rank_zero_warn(
            f"{where}: {sum(foreign.values())} letters beyond ASCII are left out of the words: "
            f"{_listed(list(foreign))}; letters 'all' keeps them"
        )
    lengths = [len(words) for words in tokens]
    longer = sum(length > max_words for length in lengths)
    if longer:
        longest = lengths.index(max(lengths))
        rank_zero_warn(
            f"{where}: {longer} of {len(lengths)} captions have more than max_words {max_words} words, the longest "
            f"{lengths[longest]} ({captions.owner(longest)}); of each, {max_words} are drawn anew for every sample and "
            "stay in their order, as in AttnGAN"
        )


def report_characters(captions: Captions, *, max_characters: int, where: str) -> None:
    """Warns of characters that the alphabet does not have, and of captions that are cut."""
    foreign = Counter(c for text in captions.all for c in text.lower() if c not in _CHARACTERS)
    if foreign:
        rank_zero_warn(
            f"{where}: {sum(foreign.values())} characters are not among the {len(ALPHABET)} of the encoder and become "
            f"spaces: {_listed([repr(c) for c, _ in foreign.most_common()])}"
        )
    longer = sum(len(text) > max_characters for text in captions.all)
    if longer:
        rank_zero_warn(
            f"{where}: {longer} of {len(captions.all)} captions have more than {max_characters} characters, the "
            f"longest {max(map(len, captions.all))}: they are cut there"
        )
