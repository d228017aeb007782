"""What reads the captions of a text-to-image game: a network of ours with its vocabulary, or embeddings as they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_gans.adversarial.priors import Normal
from lit_gans.base.checkpoints import open_checkpoint, read_weights, under
from lit_gans.data.captions import ALPHABET, Letters, Vocabulary, characters, legible
from lit_gans.data.embeddings import vocabulary_of
from lit_gans.nn.sentences import MAKERS, build_text_maker
from lit_gans.official import apply_keys
from lit_gans.papers.text.networks import BAG, OFFICIAL_WORD_ENCODER_KEYS, CharCNNRNN, WordEncoder, word_mask

# Constructor arguments that say what an encoder is built from; a run's are taken over with its weights.
SIZES = (
    "vocabulary", "letters", "sentence_dim", "max_words", "max_characters", "word_dim", "encoder_rnn", "encoder_width",
)  # fmt: skip
# By a run that trains a reader of words; letters by one from before there was a choice.
_UNSAID = {"encoder": "words", "max_characters": 201, "encoder_width": 512, "letters": "ascii"}


# ---- what reads captions ---------------------------------------------------------------------------------------------


class TextFeatures(NamedTuple):
    """sentence [N, D]; of encoders that read words also words [N, T, D] and mask bool [N, T], true where one is."""

    sentence: Tensor
    words: Tensor | None = None
    mask: Tensor | None = None

    def rows(self, chosen: Tensor | slice) -> TextFeatures:
        """Those of some of the captions."""
        return TextFeatures(*(None if t is None else t[chosen] for t in self))

    def to(self, device: torch.device) -> TextFeatures:
        return TextFeatures(*(None if t is None else t.to(device) for t in self))


class CaptionEncoder(nn.Module, ABC):
    """Captions to features. `reads` is the `encode` of the data whose batches it takes, `sentence_dim` is D.

    needs_training: whether random weights would make little of captions.
    """

    reads: Literal["words", "characters", "embeddings"]
    sentence_dim: int
    needs_training = True

    @abstractmethod
    def forward(self, batch: Mapping[str, Tensor], *, prefix: str = "") -> TextFeatures:
        """The features of a batch's captions; those of its wrong ones with prefix "wrong_"."""

    @abstractmethod
    def tensors(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """N captions as a user types them -> what `forward` takes. ValueError for those that cannot be read."""

    def unknown(self, captions: Sequence[str]) -> list[str]:
        """What of captions it does not know, each once. ValueError where it knows nothing of one."""
        return []

    def made_up(self, seeds: Sequence[int] | Tensor) -> TextFeatures:
        """N(0, 1) in the place of features; row i depends on seeds[i] alone."""
        return TextFeatures(Normal().of_seeds(seeds, self.sentence_dim, purpose="made-up sentence"))


class WordReader(CaptionEncoder):
    """A `WordEncoder` with the words that it knows: "words" int64 [N, T] and "lengths" int64 [N]."""

    reads = "words"

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        letters: Letters | None = None,
        sentence_dim: int,
        max_words: int,
        word_dim: int,
        rnn: Literal["lstm", "gru", "bag"],
    ) -> None:
        super().__init__()
        self.vocabulary = Vocabulary(tuple(vocabulary), letters)
        self.max_words, self.sentence_dim = max_words, sentence_dim
        self.network = WordEncoder(len(self.vocabulary), embed_dim=word_dim, feature_dim=sentence_dim, rnn=rnn)
        self.needs_training = rnn != BAG

    def forward(self, batch: Mapping[str, Tensor], *, prefix: str = "") -> TextFeatures:
        numbers, lengths = batch[f"{prefix}words"], batch[f"{prefix}lengths"]
        words, sentence = self.network(numbers, lengths)
        return TextFeatures(sentence, words, word_mask(lengths, numbers.shape[1]))

    def tensors(self, captions: Sequence[str]) -> dict[str, Tensor]:
        words, lengths = self.vocabulary.batch(captions, max_words=self.max_words)
        return {"words": words, "lengths": lengths}

    def unknown(self, captions: Sequence[str]) -> list[str]:
        return self.vocabulary.unknown(captions)

    def made_up(self, seeds: Sequence[int] | Tensor) -> TextFeatures:
        mask = word_mask(torch.as_tensor(seeds) % self.max_words + 1, self.max_words)
        flat = Normal().of_seeds(seeds, self.max_words * self.sentence_dim, purpose="made-up words")
        words = flat.unflatten(1, (self.max_words, self.sentence_dim)) * mask[..., None]
        return super().made_up(seeds)._replace(words=words, mask=mask)


class CharacterReader(CaptionEncoder):
    """A `CharCNNRNN`: "characters" int64 [N, T]."""

    reads = "characters"

    def __init__(self, *, sentence_dim: int, max_characters: int, width: int, rnn: Literal["rnn", "gru"]) -> None:
        super().__init__()
        self.max_characters, self.sentence_dim = max_characters, sentence_dim
        self.network = CharCNNRNN(embed_dim=sentence_dim, width=width, rnn=rnn)
        if max_characters < self.network.min_characters:
            raise ValueError(
                f"max_characters {max_characters} is below {self.network.min_characters}, what this encoder needs: "
                "use 201 as in the paper"
            )

    def forward(self, batch: Mapping[str, Tensor], *, prefix: str = "") -> TextFeatures:
        return TextFeatures(self.network(batch[f"{prefix}characters"]))

    def tensors(self, captions: Sequence[str]) -> dict[str, Tensor]:
        return {"characters": characters(captions, max_characters=self.max_characters)}

    def unknown(self, captions: Sequence[str]) -> list[str]:
        for caption in captions:
            if not legible(caption, self.max_characters):
                raise ValueError(f"the caption {caption!r:.80} has no character of the {len(ALPHABET)} that are read")
        return list(dict.fromkeys(c for caption in captions for c in caption.lower() if c not in ALPHABET))


class EmbeddingReader(CaptionEncoder):
    """Embeddings that the data bring: "embedding" float32 [N, E]. `maker`, where named, makes those of text."""

    reads = "embeddings"
    needs_training = False

    def __init__(self, *, sentence_dim: int, maker: str | None = None) -> None:
        super().__init__()
        self.sentence_dim, self.maker = sentence_dim, maker

    def forward(self, batch: Mapping[str, Tensor], *, prefix: str = "") -> TextFeatures:
        return TextFeatures(batch[f"{prefix}embedding"])

    def tensors(self, captions: Sequence[str]) -> dict[str, Tensor]:
        if self.maker is None:
            raise ValueError(
                "this model reads published embeddings, which cannot be made of text here: sample it with the captions "
                "of its data (leave the text out), or train one with encoder 'words', 'characters', 'clip:<name>' or "
                "'sentences:<folder>'"
            )
        return {"embedding": build_text_maker(self.maker).texts(captions).float().cpu()}


# ---- building and filling one ----------------------------------------------------------------------------------------


def encoder_arguments(
    *,
    encoder: str,
    weights: str | None,
    vocabulary: Sequence[str] | str | None,
    letters: Letters | None,
    **sizes: Any,
) -> dict[str, Any]:
    """What `build_encoder` is given: the arguments, or those of the run that `weights` is, and the words themselves.

    `vocabulary` may be the path of a JSON file of words or of AttnGAN's `captions.pickle`; letters: as `Vocabulary`.
    ValueError, FileNotFoundError for what cannot be read, and for a run of another kind.
    """
    if weights is not None and is_run(weights):
        return arguments_of_run(weights, encoder)
    if encoder == "words" or vocabulary is not None:
        sizes |= words_of(vocabulary, letters)
    return {"encoder": encoder, "vocabulary": None, "letters": letters, **sizes}


def words_of(vocabulary: Sequence[str] | str | None, letters: Letters | None) -> dict[str, Any]:
    """{"vocabulary": the words, or those of the file that they are in, "letters": the rule that they are parted by}.

    ValueError for None, and a file of another kind.
    """
    if vocabulary is None:
        raise ValueError(
            "encoder 'words' has no vocabulary: give encoder_weights a run that trained one, or vocabulary a list "
            "of words or the path of one (JSON, or AttnGAN's captions.pickle)"
        )
    found = vocabulary_of(vocabulary, letters)
    return {"vocabulary": list(found.words), "letters": found.letters}


def build_encoder(
    *,
    encoder: str,
    vocabulary: Sequence[str] | None,
    letters: Letters | None,
    sentence_dim: int,
    max_words: int,
    max_characters: int,
    word_dim: int,
    encoder_rnn: str | None,
    encoder_width: int,
) -> CaptionEncoder:
    """The encoder of this name: "words", "characters", "embeddings", "clip:<owner>/<name>" or "sentences:<folder>"; see
    `TextGAN`.

    encoder_rnn: None is "lstm" for words and "gru" for characters. "words" needs a vocabulary, which
    `encoder_arguments` sees to. ValueError for another name.
    """
    if encoder == "words":
        return WordReader(
            vocabulary, letters=letters, sentence_dim=sentence_dim, max_words=max_words, word_dim=word_dim,
            rnn=encoder_rnn or "lstm",
        )  # fmt: skip
    if encoder == "characters":
        return CharacterReader(
            sentence_dim=sentence_dim, max_characters=max_characters, width=encoder_width, rnn=encoder_rnn or "gru"
        )
    if encoder == "embeddings" or encoder.startswith(MAKERS):
        return EmbeddingReader(sentence_dim=sentence_dim, maker=None if encoder == "embeddings" else encoder)
    raise ValueError(
        f"encoder is {encoder!r}; it must be 'words', 'characters', 'embeddings', 'clip:<owner>/<name>' or "
        "'sentences:<folder>'"
    )


def load_encoder(encoder: CaptionEncoder, weights: str) -> None:
    """Fills an encoder from a run that trained it, or from a file of its network: ours, or AttnGAN's `text_encoder`.

    ValueError where the tensors do not fit.
    """
    if is_run(weights):
        state = _state_of_run(weights)
    else:
        state = {name.removeprefix("network."): tensor for name, tensor in read_weights(Path(weights)).items()}
        if isinstance(encoder, WordReader) and "encoder.weight" in state:
            state = apply_keys(state, OFFICIAL_WORD_ENCODER_KEYS)
        state = {f"network.{name}": tensor for name, tensor in state.items()}
    ours = encoder.state_dict()
    wrong = [
        k
        for k in sorted(ours.keys() | state.keys())
        if k not in ours or k not in state or ours[k].shape != state[k].shape
    ]
    if wrong:
        found = {k: list(state[k].shape) if k in state else "none" for k in wrong[:2]}
        wanted = {k: list(ours[k].shape) if k in ours else "none" for k in wrong[:2]}
        raise ValueError(
            f"encoder_weights {weights} does not fit the encoder in {len(wrong)} tensors: found {found}, wanted "
            f"{wanted}; set vocabulary, sentence_dim, word_dim, encoder_width and encoder_rnn as then"
        )
    encoder.load_state_dict(state)


def as_then(game: pl.LightningModule, checkpoint: Mapping[str, Any]) -> None:
    """What a game with a reader of words does when a checkpoint is loaded into it.

    One from before there was a choice of letters reads ASCII. ValueError where its words are others: the weights of
    each would come to stand for another.
    """
    encoder, then = game.text_encoder, checkpoint["hyper_parameters"]
    if not isinstance(encoder, WordReader):
        return
    words, saved = encoder.vocabulary.words, tuple(then["vocabulary"])
    if words != saved:
        new = next((w for w, old in zip(words, saved, strict=False) if w != old), words[-1])
        raise ValueError(
            f"the checkpoint's encoder reads {len(saved)} words, and this one {len(words)} others, such as {new!r}: go "
            "on with the config.yaml of the run, which has its words, or (one from before there were letters) with "
            "--model.init_args.letters=ascii --data.init_args.letters=ascii"
        )
    if "letters" not in then and not all(map(str.isascii, words)):
        encoder.vocabulary = replace(encoder.vocabulary, letters="ascii")
        game.hparams.update(letters="ascii")


def is_run(path: str) -> bool:
    """Whether it is a run folder or a checkpoint, not a file of weights."""
    return Path(path).is_dir() or path.endswith(".ckpt")


def arguments_of_run(path: str, encoder: str) -> dict[str, Any]:
    arguments = _UNSAID | _checkpoint(path)["hyper_parameters"]
    missing = [name for name in ("encoder", *SIZES) if name not in arguments]
    if missing:
        raise ValueError(
            f"encoder_weights {path} is a run without a text encoder (it lacks {', '.join(missing)}): give one that "
            "trains one, such as lit_gans.papers.JointEmbedding"
        )
    if arguments["encoder"] != encoder:
        raise ValueError(
            f"encoder_weights {path} trained an encoder of {arguments['encoder']!r}, and encoder is {encoder!r}: set "
            f"encoder={arguments['encoder']!r}"
        )
    return {name: arguments[name] for name in ("encoder", *SIZES)}


def _state_of_run(path: str) -> dict[str, Tensor]:
    return under(_checkpoint(path)["state_dict"], "text_encoder.")


def _checkpoint(path: str) -> dict[str, Any]:
    return open_checkpoint(path)[1]
