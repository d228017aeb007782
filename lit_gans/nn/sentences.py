"""Sentence encoders (Reimers and Gurevych, 2019), https://arxiv.org/abs/1908.10084, as transformers has them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from lit_gans.base.cache import digest, key_of
from lit_gans.base.files import user_path
from lit_gans.base.precision import exact_float32
from lit_gans.nn.clip import build_clip

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_TOKENS = 64  # of longer captions the rest is cut
CLIP, SENTENCES = "clip:", "sentences:"
MAKERS = (CLIP, SENTENCES)
"""How the name of what makes embeddings of text begins: clip:<owner>/<name>, sentences:<folder>."""


class TextMaker(Protocol):
    """What makes embeddings of text. `fingerprint` changes with its weights."""

    fingerprint: str

    def texts(self, captions: Sequence[str]) -> Tensor:
        """N captions -> [N, D]."""


class SentenceEncoder(nn.Module):
    """A text network of transformers, frozen, in float32: of a caption the mean of its tokens' last features.

    So are all-MiniLM-L6-v2 and its like to be read, before they are brought to length 1. `fingerprint` is 16 hex digits
    of weights and vocabulary. `truncated` counts the captions that were cut.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str) -> None:
        super().__init__()
        self.name, self.tokenizer = name, tokenizer
        self.model = model.float().requires_grad_(False).eval()
        most = getattr(model.config, "max_position_embeddings", MAX_TOKENS)
        self.max_tokens = min(MAX_TOKENS, most)
        self.fingerprint = key_of(weights=digest(model.state_dict()), vocabulary=tokenizer.get_vocab(), pooling="mean")
        self.truncated = 0

    def train(self, mode: bool = True) -> SentenceEncoder:
        return super().train(False)

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """N captions -> float32 [N, D]; tokens past `max_tokens` are cut, with one warning."""
        lengths = [len(ids) for ids in self.tokenizer(list(captions), verbose=False)["input_ids"]]
        longer = sum(length > self.max_tokens for length in lengths)
        if longer and not self.truncated:
            warnings.warn(
                f"a caption of {max(lengths)} tokens is cut to the {self.max_tokens} that are read of it, as others "
                "will be without another word: the encoder's `truncated` counts them",
                stacklevel=2,
            )
        self.truncated += longer
        # One length for all: a caption's embedding does not depend on those that it comes with.
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        with exact_float32(self.model.device):
            found = self.model(**tokens).last_hidden_state  # [N, T, D]
        mask = tokens["attention_mask"][..., None].to(found.dtype)
        return (found * mask).sum(1) / mask.sum(1)


def build_sentences(folder: str | Path) -> SentenceEncoder:
    """The sentence encoder of a folder with config.json, model.safetensors and tokenizer.json (or vocab.txt).

    No pickle is read, and no code of the folder is run. FileNotFoundError for a folder that lacks files; ValueError
    without transformers, and for files of something else.
    """
    folder = user_path(folder)
    for file, other in (("config.json", None), ("model.safetensors", None), ("tokenizer.json", "vocab.txt")):
        if not (folder / file).is_file() and not (other and (folder / other).is_file()):
            raise FileNotFoundError(
                f"no {file} in {folder}: a sentence encoder such as all-MiniLM-L6-v2 is a folder with config.json, "
                "model.safetensors and tokenizer.json; weights in other formats are not read"
            )
    try:
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ValueError("sentences need transformers, the extra 'text': pip install 'lit-gans[text]'") from error
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model, found = AutoModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **local)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        wrong = f"{folder} cannot be read as a text network of transformers ({error}): fetch it again"
        raise ValueError(wrong) from error
    missing = [name for name in found["missing_keys"] if "pooler" not in name]  # which the mean does not pass
    if missing:  # transformers would leave them random
        raise ValueError(f"{folder} lacks {len(missing)} weights of its network, among them {min(missing)}")
    return SentenceEncoder(model, tokenizer, name=f"{SENTENCES}{folder}")


def build_text_maker(name: str) -> TextMaker:
    """What this name, which begins with one of `MAKERS`, means; errors as of `build_clip` and `build_sentences`."""
    if name.startswith(CLIP):
        return build_clip(name.removeprefix(CLIP))
    assert name.startswith(SENTENCES), name
    return build_sentences(name.removeprefix(SENTENCES))
