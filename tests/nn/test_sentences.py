"""Sentence encoders of transformers: what they make of captions, and what their folders must hold."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from lit_gans.data import CaptionFolder
from lit_gans.nn.sentences import MAX_TOKENS, SentenceEncoder, build_sentences, build_text_maker
from lit_gans.papers import StackGAN2
from tests.data.test_paired import picture, save

TEXTS = ["a red bird", "two dogs", "a bird"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network of BERT's kind, as all-MiniLM-L6-v2 is one, with a few words."""
    pytest.importorskip("transformers")
    from transformers import BertConfig, BertModel, BertTokenizer

    place = tmp_path_factory.mktemp("sentences")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "bird", "two", "dogs"]
    (place / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(place)
    torch.manual_seed(0)
    size = {"hidden_size": 12, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(place)
    return place


def test_a_sentence_is_the_mean_of_its_tokens(folder: Path) -> None:
    encoder = build_sentences(folder)
    found = encoder.texts(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        tokens = encoder.tokenizer(text, return_tensors="pt")
        alone = encoder.model(**tokens).last_hidden_state[0].mean(0)
        assert torch.allclose(row, alone, atol=1e-5)
        assert torch.equal(encoder.texts([text])[0], row) or torch.allclose(encoder.texts([text])[0], row, atol=1e-6)
    assert found.shape == (3, 12) and found.dtype == torch.float32 and not found.requires_grad
    assert build_text_maker(f"sentences:{folder}").fingerprint == encoder.fingerprint
    changed = SentenceEncoder(encoder.model, encoder.tokenizer, name="x")
    with torch.no_grad():
        next(changed.model.parameters()).add_(1)
    assert build_sentences(folder).fingerprint == encoder.fingerprint
    assert SentenceEncoder(changed.model, encoder.tokenizer, name="x").fingerprint != encoder.fingerprint


def test_long_captions_are_cut_and_counted(folder: Path) -> None:
    encoder = build_sentences(folder)
    with pytest.warns(UserWarning, match=f"a caption of 202 tokens is cut to the {MAX_TOKENS}"):
        encoder.texts(["bird " * 200])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.texts(["bird " * 100])
    assert encoder.truncated == 2


def test_data_and_models_read_by_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path))
    save(tmp_path / "pictures/x.png", picture(1))
    (tmp_path / "pictures/x.txt").write_text("a bird\na red bird\n", encoding="utf-8")
    name = f"sentences:{folder}"
    data = CaptionFolder(str(tmp_path / "pictures"), batch_size=8, resolution=16, encode="embeddings", embeddings=name)
    expected = build_sentences(folder).texts(["a bird", "a red bird"])
    distances = (data.stream().batch(0)["embedding"][:, None] - expected).abs().amax(2)
    assert distances.amin(1).max() < 1e-5 and data.embedding_dim == 12
    gan = StackGAN2(resolution=32, branches=1, width=4, discriminator_width=4, encoder=name, sentence_dim=12)
    gan.take_captions(data)
    assert torch.allclose(gan.read(["a red bird"]).sentence, expected[1:], atol=1e-5)
    other = CaptionFolder(str(tmp_path / "pictures"), batch_size=8, resolution=16)
    with pytest.raises(ValueError, match="the model reads embeddings, the data give words"):
        gan.take_captions(other)


def test_what_a_folder_must_hold(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as a text network of transformers"):
        build_sentences(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors in .*weights in other formats are not read"):
        build_sentences(copy)
