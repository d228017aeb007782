"""Embeddings of captions: published pickles in every form, pickles that are none, and what is made once and kept."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_gans.data import CaptionFolder
from lit_gans.data.captions import Captions
from lit_gans.data.embeddings import (
    cached_embeddings,
    made_embeddings,
    published_embeddings,
    read_classes,
    read_names,
    read_vocabulary,
)
from lit_gans.nn.clip import build_clip
from tests.metrics.test_text import tiny  # noqa: F401

from .common import taken
from .test_paired import picture, save

NAMES = ["001.A/x", "001.A/y", "002.B/z"]
VECTORS = np.random.default_rng(0).standard_normal((3, 2, 5)).astype(np.float32)


def dump(path: Path, value: object, protocol: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol))


def published(folder: Path, *, protocol: int = 2, vectors: object = None) -> Path:
    dump(folder / "train/filenames.pickle", NAMES, protocol)
    dump(folder / "train/class_info.pickle", [1, 1, 2], protocol)
    dump(folder / "train/char-CNN-RNN-embeddings.pickle", list(VECTORS) if vectors is None else vectors, protocol)
    return folder


def two_each(*stems: str) -> Captions:
    return Captions([["one", "two"]] * len(stems), [f"{stem}.jpg" for stem in stems])


def python2_array(values: np.ndarray, *, protocol: int) -> bytes:
    """An array [a, b] of float32 as Python 2 pickled it: its bytes as text."""
    data = values.tobytes()
    a, b = values.shape
    if protocol == 0:
        inside = "".join(f"\\x{byte:02x}" for byte in data).encode()
        string = b"S'" + inside + b"'\n"
        code, order = b"S'f4'\n", b"S'<'\n"
    else:
        string = b"T" + len(data).to_bytes(4, "little") + data
        code, order = b"U\x02f4", b"U\x01<"
    dtype = b"cnumpy\ndtype\n(" + code + b"I0\nI1\ntR(I3\n" + order + b"NNNI-1\nI-1\nI0\ntb"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    return made + f"(I1\n(I{a}\nI{b}\nt".encode() + dtype + b"I00\n" + string + b"tb"


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_embeddings_are_matched_by_name(protocol: int, tmp_path: Path) -> None:
    folder = published(tmp_path, protocol=protocol)
    found = published_embeddings(folder, "train", two_each("002.B/z", "001.A/x"))
    assert np.array_equal(found.numpy(), VECTORS[[2, 0]].reshape(4, 5)) and found.dtype == torch.float32
    assert read_names(folder / "train/filenames.pickle") == NAMES
    assert read_classes(folder / "train/class_info.pickle", 3) == [1, 1, 2]
    dump(folder / "train/class_info.pickle", [np.int64(5), np.int64(300), 2], protocol)
    assert read_classes(folder / "train/class_info.pickle", 3) == [5, 300, 2]
    python2 = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbS'\\xff"
    (folder / "train/class_info.pickle").write_bytes(b"(" + python2 + b"\\x00" * 7 + b"'\ntRl.")
    assert read_classes(folder / "train/class_info.pickle", 1) == [255]


@pytest.mark.parametrize("protocol", [0, 2])
def test_embeddings_that_python_2_wrote(protocol: int, tmp_path: Path) -> None:
    folder = published(tmp_path)
    start, end = (b"", b".") if protocol == 0 else (b"\x80\x02", b".")
    body = start + b"(" + b"".join(python2_array(v, protocol=protocol) for v in VECTORS) + b"l" + end
    (folder / "train/char-CNN-RNN-embeddings.pickle").write_bytes(body)
    found = published_embeddings(folder, "train", two_each(*NAMES))
    assert np.array_equal(found.numpy(), VECTORS.reshape(6, 5))


class Harm:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (list(VECTORS[:2]), r"embeddings of 2 pictures, .*filenames.pickle names of 3"),
        (list(VECTORS[:, :1]), r"1 embeddings per picture, and 001.A/x.jpg has 2 captions"),
        ([VECTORS[0], VECTORS[1], VECTORS[2, :1]], r"arrays of shape \[1, 5\] and of \[2, 5\]"),
        ([1, 2, 3], "holds a list of int, expected an array"),
        ([Harm()], "asks for posix.mkdir"),
        ([np.array(["x"], dtype=object)], "nothing in it was run"),
    ],
)
def test_other_embeddings_are_refused_and_nothing_is_run(
    vectors: list, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = published(tmp_path, vectors=vectors)
    with pytest.raises(ValueError, match=message):
        published_embeddings(folder, "train", two_each(*NAMES))
    assert not (tmp_path / "harm").exists()


def test_pictures_and_classes_that_the_release_does_not_have(tmp_path: Path) -> None:
    folder = published(tmp_path)
    with pytest.raises(ValueError, match="lacks 1 of 2 pictures, such as '003.C/w'"):
        published_embeddings(folder, "train", two_each("001.A/x", "003.C/w"))
    dump(folder / "train/class_info.pickle", [1, 1], 2)
    with pytest.raises(ValueError, match="2 class numbers for 3 pictures"):
        published_embeddings(folder, "train", two_each("001.A/x"))
    with pytest.raises(FileNotFoundError, match="there is no .*test"):
        published_embeddings(folder, "test", two_each("001.A/x"))


def test_vocabulary_of_attngan(tmp_path: Path) -> None:
    words = {0: "<end>", 1: "bird", 2: "red"}
    dump(tmp_path / "captions.pickle", [[[1]], [[2]], words, {w: i for i, w in words.items()}], 2)
    assert read_vocabulary(tmp_path / "captions.pickle").words == ("<end>", "bird", "red")
    dump(tmp_path / "captions.pickle", [[[1]], [[2]], {1: "bird"}, {}], 2)
    with pytest.raises(ValueError, match="expected four parts"):
        read_vocabulary(tmp_path / "captions.pickle")


class Lengths:
    """Embeds a text as its length, and remembers how many were asked for at once."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint, self.calls = fingerprint, []

    def texts(self, captions: list[str]) -> torch.Tensor:
        self.calls.append(len(captions))
        return torch.tensor([[float(len(caption)), 1.0] for caption in captions])


def test_embeddings_are_made_once_and_kept_by_fingerprint(tmp_path: Path) -> None:
    encoder, texts = Lengths("one"), ["x" * i for i in range(300)]
    first = cached_embeddings(encoder, texts, folder=tmp_path)
    assert first[:, 0].tolist() == list(range(300)) and encoder.calls == [256, 44]
    assert torch.equal(cached_embeddings(encoder, texts, folder=tmp_path), first) and len(encoder.calls) == 2
    assert torch.equal(cached_embeddings(encoder, texts[::-1], folder=tmp_path), first.flip(0))
    other = Lengths("two")
    assert torch.equal(cached_embeddings(other, texts, folder=tmp_path), first) and other.calls == [256, 44]


def test_clip_reads_every_caption_once(
    tiny: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path))
    shutil.copytree(tiny, tmp_path / "clip/some/clip")
    save(tmp_path / "pictures/x.png", picture(1))
    (tmp_path / "pictures/x.txt").write_text("a bird\na red bird\n")
    data = CaptionFolder(
        str(tmp_path / "pictures"), batch_size=8, resolution=16, encode="embeddings", embeddings="clip:some/clip"
    )
    batch, expected = taken(data, 2), build_clip("some/clip").texts(["a bird", "a red bird"])
    assert batch["embedding"].shape == (16, 8) and data.embedding_dim == 8
    distances = (batch["embedding"][:, None] - expected).abs().amax(2)
    assert distances.amin(1).max() < 1e-5 and set(distances.argmin(1).tolist()) == {0, 1}
    assert len(list((tmp_path / "embeddings").glob("*.safetensors"))) == 1
    assert torch.equal(made_embeddings("clip:some/clip", ["a bird", "a red bird"]), data.dataset().encoding.vectors)
    assert len(list((tmp_path / "embeddings").glob("*.safetensors"))) == 1
