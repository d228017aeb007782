"""Networks that read captions: words by a bidirectional LSTM (AttnGAN), characters by a char-CNN-RNN (Reed et al.)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lit_gans.nn.dropout import Dropout
from lit_gans.official.releases import Config, renaming

RNNS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
BAG = "bag"
ALPHABET_SIZE = 70


# ---- words (Xu et al., 2018, Sec. 3.1) -------------------------------------------------------------------------------


class WordEncoder(nn.Module):
    """The text encoder of AttnGAN (Xu et al., 2018, Sec. 3.1): embedded words through a bidirectional LSTM or GRU.

    `feature_dim` is D, what both directions have together. Dropout acts on the embedded words alone. It is trained
    with the DAMSM loss, its gradients clipped at 0.25.

    `rnn` "bag" is a bag of words: a linear layer in the network's place; the sentence is the sum over the root of the
    number of words. Their order is lost, but what words mean adds up, so that pairs that were never read together are
    understood. Untrained it tells all words apart already: each has a random vector of unit variance.
    """

    def __init__(
        self,
        num_words: int,
        *,
        embed_dim: int = 300,
        feature_dim: int = 256,
        rnn: Literal["lstm", "gru", "bag"] = "lstm",
        bidirectional: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        directions = 1 + bidirectional
        if rnn not in (*RNNS, BAG):
            raise ValueError(f"rnn is {rnn!r}; it must be one of {', '.join((*RNNS, BAG))}")
        if num_words < 1 or feature_dim % directions:
            raise ValueError(
                f"{num_words} words and feature_dim {feature_dim}: give one word or more, and a multiple of "
                f"{directions}, the number of directions"
            )
        self.num_words, self.feature_dim = num_words, feature_dim
        self.embedding, self.dropout = nn.Embedding(num_words, embed_dim), Dropout(dropout)
        self.rnn = (
            nn.Linear(embed_dim, feature_dim)
            if rnn == BAG
            else RNNS[rnn](embed_dim, feature_dim // directions, batch_first=True, bidirectional=bidirectional)
        )
        if rnn == BAG:
            nn.init.normal_(self.embedding.weight, std=(feature_dim / min(embed_dim, feature_dim)) ** 0.5)
            nn.init.orthogonal_(self.rnn.weight)
        else:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """words int64 [N, T], lengths int64 [N] -> features [N, T, D], 0 past each length, and sentence [N, D].

        The sentence is the last state of each direction. The official code wants captions sorted by length and cuts T
        to the longest; ours takes them in any order and keeps T: nothing depends on what else is in the batch.
        """
        embedded = self.dropout(self.embedding(words))  # [N, T] -> [N, T, E]
        if isinstance(self.rnn, nn.Linear):
            features = self.rnn(embedded) * word_mask(lengths, words.shape[1])[..., None]
            return features, features.sum(1) / lengths[:, None].sqrt()
        # Packed sequences take half of the time, and a GPU would have to be waited for: the host must know the lengths.
        features = (self._packed if lengths.is_cpu else self._padded)(embedded, lengths)
        ahead, back = features.tensor_split([self.rnn.hidden_size], 2)  # [N, T, D / 2] each, or D and 0
        last = ahead.take_along_dim(lengths[:, None, None] - 1, 1)  # [N, 1, D / 2]: at each caption's last word
        return features, torch.cat([last[:, 0], back[:, 0]], 1)  # backwards, the last state is at the first word

    def _packed(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=embedded.shape[1])[0]

    def _padded(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Each direction meets captions before their padding: backwards, it reads those moved to the right edge."""
        padding = embedded.shape[1] - lengths
        features = self.rnn(embedded)[0]
        if self.rnn.bidirectional:
            moved = rolled(self.rnn(rolled(embedded, padding))[0], -padding)
            half = self.rnn.hidden_size
            features = torch.cat([features[..., :half], moved[..., half:]], 2)
        return features * word_mask(lengths, embedded.shape[1])[..., None]


def rolled(x: Tensor, steps: Tensor) -> Tensor:
    """x [N, T, D], each row moved along T by its own number of steps [N], around the end."""
    places = torch.arange(x.shape[1], device=x.device) - steps[:, None]
    return x.take_along_dim((places % x.shape[1])[..., None], 1)


def word_mask(lengths: Tensor, max_words: int) -> Tensor:
    """lengths int64 [N] -> bool [N, T], true where there is a word."""
    return torch.arange(max_words, device=lengths.device) < lengths[:, None]


_RNN_ARGUMENTS = renaming({
    "ntoken": "num_words", "ninput": "embed_dim", "nhidden": "feature_dim", "drop_prob": "dropout",
    "RNN_TYPE": "rnn", "bidirectional": "bidirectional", "nlayers": None,
    "WORDS_NUM": None,  # how long captions may be is the data's to say
})  # fmt: skip


def from_official_rnn(official: Config) -> Config:
    """Arguments of the official RNN_ENCODER and of its configuration -> those of `WordEncoder`.

    ValueError for several layers, which no release has, and for arguments that are not known.
    """
    if (layers := official.get("nlayers", 1)) != 1:
        raise ValueError(f"nlayers is {layers}; the released encoders have 1 layer, and so has ours")
    ours = _RNN_ARGUMENTS(official)
    return ours | {"rnn": str(ours["rnn"]).lower()} if "rnn" in ours else ours


OFFICIAL_WORD_ENCODER_KEYS = {r"encoder\.weight": "embedding.weight", r"(rnn\..+)": r"\1"}


# ---- characters (Reed et al., 2016) ----------------------------------------------------------------------------------


class ReluRNN(nn.Module):
    """x [N, T, D] -> [N, D]: the mean over time of h = relu(W x + b + U h' + c); the first step has no U h' + c.

    The recurrent network of Reed et al. (2016), as its code has it.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.of_input, self.of_hidden = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        given = self.of_input(x)
        states = [F.relu(given[:, 0])]
        for step in range(1, x.shape[1]):
            states.append(F.relu(given[:, step] + self.of_hidden(states[-1])))
        return torch.stack(states).mean(0)  # [T, N, D] -> [N, D]


class MeanGRU(nn.Module):
    """x [N, T, D] -> [N, D]: the mean over time of a GRU's states, of which the first is tanh(W x + b), without gates.

    The update gate weighs the candidate, not the old state, and the reset gate acts before the matrix: the recurrent
    network of the encoder that was published for GANs (Reed et al., 2016, ICML).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        for gate in ("update", "reset", "state"):
            self.add_module(f"{gate}_input", nn.Linear(dim, dim))
            self.add_module(f"{gate}_hidden", nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        given = self.state_input(x)
        updates, resets = self.update_input(x), self.reset_input(x)
        states = [torch.tanh(given[:, 0])]
        for step in range(1, x.shape[1]):
            old = states[-1]
            update = torch.sigmoid(updates[:, step] + self.update_hidden(old))
            reset = torch.sigmoid(resets[:, step] + self.reset_hidden(old))
            candidate = torch.tanh(given[:, step] + self.state_hidden(reset * old))
            states.append(update * candidate + (1 - update) * old)
        return torch.stack(states).mean(0)  # [T, N, D] -> [N, D]


class CharCNNRNN(nn.Module):
    """characters int64 [N, T] -> [N, E]: the text encoder of Reed et al. (2016), https://arxiv.org/abs/1605.05395.

    Three convolutions of width 4 over one-hot characters, pooled, then a recurrent network, averaged over time. "rnn"
    is the paper's, with a pooling after the third convolution (8 steps of 201 characters; `width` 256); "gru" that of
    the embeddings of birds that all GANs use, without that pooling (18 steps; `width` 512). Number 0 is no character.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 1024,
        width: int = 512,
        rnn: Literal["rnn", "gru"] = "gru",
        widths: tuple[int, int] = (384, 512),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if rnn not in ("rnn", "gru"):
            raise ValueError(
                f"rnn is {rnn!r}; it must be 'rnn' (the paper's) or 'gru' (that of the published embeddings)"
            )
        self.embed_dim = embed_dim
        self.conv1 = nn.Conv1d(ALPHABET_SIZE, widths[0], 4)
        self.conv2 = nn.Conv1d(widths[0], widths[1], 4)
        self.conv3 = nn.Conv1d(widths[1], width, 4)
        self.last_pool = nn.MaxPool1d(3, 2) if rnn == "rnn" else nn.Identity()
        self.rnn = ReluRNN(width) if rnn == "rnn" else MeanGRU(width)
        self.dropout, self.to_embedding = Dropout(dropout), nn.Linear(width, embed_dim)
        for parameter in self.parameters():  # as the official code does, biases too
            nn.init.uniform_(parameter, -0.08, 0.08)

    @property
    def min_characters(self) -> int:
        """The shortest T that leaves a step to the recurrent network."""
        return 48 if isinstance(self.last_pool, nn.Identity) else 66

    def forward(self, characters: Tensor) -> Tensor:
        """characters int64 [N, T] from 0 (none) to 70 -> embedding [N, E]. ValueError for T below `min_characters`."""
        if characters.shape[1] < self.min_characters:
            raise ValueError(
                f"captions are {characters.shape[1]} characters long; this encoder needs {self.min_characters} or "
                "more: fill them up with 0, to 201 as in the paper"
            )
        x = F.one_hot(characters, ALPHABET_SIZE + 1)[..., 1:].to(self.conv1.weight.dtype).transpose(1, 2)  # [N, 70, T]
        x = F.max_pool1d(F.relu(self.conv1(x)), 3, 3)
        x = F.max_pool1d(F.relu(self.conv2(x)), 3, 3)
        x = self.last_pool(F.relu(self.conv3(x)))
        return self.to_embedding(self.dropout(self.rnn(x.transpose(1, 2))))  # [N, width, steps] -> [N, steps, width]


# ---- structured joint embeddings (Reed et al., 2016) -----------------------------------------------------------------


def joint_embedding_loss(images: Tensor, texts: Tensor, *, labels: Tensor | None = None) -> Tensor:
    """Embeddings images, texts [N, E] of N pairs of different classes -> scalar, hinges both ways.

    The structured joint embedding of Reed et al. (2016), with one text per class. Each picture's score with its own
    text, their inner product, shall exceed those with the other texts by 1, and each text's likewise; the
    mean over all N x N scores, the pairs themselves at 0, as the official code has it. labels int64 [N]: where batches
    have a class twice, its pairs with each other are at 0 too.
    """
    scores = images @ texts.T  # [N, N]: a row for each image
    own = scores.diagonal()
    classes = torch.arange(len(scores), device=scores.device) if labels is None else labels
    others = classes[:, None] != classes[None, :]
    by_image, by_text = (F.relu(1 + scores - right) * others for right in (own[:, None], own[None, :]))
    return (by_image + by_text).mean()
