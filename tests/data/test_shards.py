"""Shards: the batches that `Images` gives, from maps, and every damage named."""

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gans.data import Images, Stream, shard_files
from lit_gans.data import packing as verb
from lit_gans.data.sets import resize
from lit_gans.data.shard_files import Index, Shard, is_whole, read_index
from lit_gans.data.shards import Shards
from lit_gans.prepare import prepare

SIZE = 5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """23 pictures of several sizes in three classes."""
    for i in range(23):
        pixels = np.random.default_rng(i).integers(0, 256, (6 + i % 3, 9 - i % 4, 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "png")
        path = tmp_path / "in" / "xyz"[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(out.getvalue())
    return tmp_path / "in"


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(verb, "SHARD_IMAGES", 4)
    return prepare(root, tmp_path / "out", resolution=SIZE, workers=1)


def data(folder: Path, **options: object) -> Shards:
    return Shards(str(folder), **{"batch_size": 6, "resolution": SIZE, **options})


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def first(loader: object, count: int) -> list[dict[str, torch.Tensor]]:
    return [batch for _, batch in zip(range(count), loader, strict=False)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_those_of_images(root: Path, folder: Path, num_workers: int) -> None:
    options = {"batch_size": 6, "resolution": SIZE, "mirror": True, "seed": 3}
    images, shards = Images(str(root), **options), Shards(str(folder), **options, num_workers=num_workers)
    shards.setup()
    assert (shards.class_names, shards.num_classes, shards.channels) == (images.class_names, 3, 3)
    expected = first(images.train_dataloader(), 9)  # more than two epochs
    assert all(map(same, expected, first(shards.train_dataloader(), 9)))
    assert all(map(same, images.batches("train", 10), shards.batches("train", 10)))


def test_processes_share_out_the_same_batches(folder: Path) -> None:
    images = data(folder).dataset()
    whole = Stream(images, 6, seed=1, mirror=True)
    parts = [Stream(pickle.loads(pickle.dumps(images)), 6, seed=1, mirror=True, rank=r, world=3) for r in range(3)]
    for k in range(5):
        rows = [part.batch(k) for part in parts]
        assert same(whole.batch(k), {key: torch.cat([row[key] for row in rows]) for key in rows[0]})


def test_maps_are_opened_when_needed_and_never_sent(folder: Path) -> None:
    images = data(folder).dataset()
    images.fetch(torch.tensor([0, 9]))
    assert sorted(images._maps) == [0, 2] and not images._maps[0].flags.owndata and not images._maps[0].flags.writeable
    assert pickle.loads(pickle.dumps(images))._maps == {}
    batch = images.images(torch.tensor([0]))
    batch.zero_()  # a batch is its own memory
    assert images.images(torch.tensor([0])).any()


def test_held_out_pictures_are_test(folder: Path) -> None:
    everything = data(folder).dataset("all")
    for where, expected in (("spread", [2, 6, 11, 16, 20]), ("end", [18, 19, 20, 21, 22])):
        shards = data(folder, held_out=5, held_out_at=where)
        rest = [i for i in range(23) if i not in expected]
        for split, members in (("test", expected), ("train", rest), ("all", range(23))):
            images = shards.dataset(split)
            assert len(images) == len(members)
            assert same(images.fetch(torch.arange(len(images))), everything.fetch(torch.tensor(members)))
    assert len(data(folder).dataset("train")) == 23 and data(folder, train_split="all").train_split == "all"
    with pytest.raises(ValueError, match="split 'test' of .*out is empty: held_out is 0 of 23 pictures; set it to"):
        data(folder).dataset("test")
    with pytest.raises(ValueError, match="split 'train' of .* is empty: held_out is 23 of 23 pictures; hold out fewer"):
        data(folder, held_out=23).setup()
    with pytest.raises(ValueError, match="held_out is 24, but .* has only 23 pictures"):
        data(folder, held_out=24).setup()


def test_another_resolution_is_scaled(folder: Path) -> None:
    shards = data(folder)
    whole = shards.dataset().images(torch.arange(23))
    shards.resolution = 3
    assert torch.equal(shards.dataset().images(torch.arange(23)), resize(whole, 3))


def test_the_digest_is_that_of_the_index_and_changes_with_everything(root: Path, folder: Path, tmp_path: Path) -> None:
    before = data(folder, held_out=3)
    assert before.dataset("train").digest() != before.dataset("test").digest() != data(folder).dataset().digest()
    found = {before.fingerprint(), before.fingerprint("test"), data(folder).fingerprint()}
    found.add(data(folder, held_out=3, held_out_at="end").fingerprint())
    found.add(data(folder, held_out=3, resolution=4).fingerprint())
    copied = data(prepare(root, tmp_path / "again", resolution=SIZE, workers=1), held_out=3)
    assert copied.fingerprint() == before.fingerprint()
    found.add(data(prepare(root, tmp_path / "box", resolution=SIZE, workers=1, resize_filter="box")).fingerprint())
    found.add(data(prepare(root, tmp_path / "bare", resolution=SIZE, workers=1, labels="none")).fingerprint())
    assert len(found) == 7
    (folder / "shard-00000.bin").write_bytes(bytes(4 * 75))
    with pytest.raises(ValueError, match="shard-00000.bin is damaged"):
        data(folder, held_out=3).fingerprint()


def test_shards_without_classes(root: Path, tmp_path: Path) -> None:
    shards = data(prepare(root, tmp_path / "bare", resolution=SIZE, workers=1, labels="none"))
    assert shards.num_classes == 0 and shards.dataset().fetch(torch.tensor([1])).keys() == {"image"}


def test_an_empty_shard_is_passed_over(tmp_path: Path) -> None:
    settings = {"crop": "center"}
    empty, ten, thirty = (
        Shard(len(content), hashlib.sha256(content).hexdigest(), "") for content in (b"", b"\x0a\x0b", b"\x1e\x1f")
    )
    for number, value in ((1, 10), (3, 30)):
        (tmp_path / f"shard-{number:05d}.bin").write_bytes(bytes([value, value + 1]))
    for number in (0, 2, 4):
        (tmp_path / f"shard-{number:05d}.bin").touch()
    index = Index((1, 1, 1), settings, (), None, (empty, ten, empty, thirty, empty))
    (tmp_path / "index.json").write_text(index.dumps())
    assert read_index(tmp_path) == index
    found = data(tmp_path, resolution=1).dataset().images(torch.tensor([3, 0, 2, 1]))
    assert found.flatten().tolist() == [31, 10, 30, 11]


def test_files_that_are_cut_missing_or_changed_are_named(folder: Path) -> None:
    whole = (folder / "shard-00002.bin").read_bytes()
    (folder / "shard-00002.bin").write_bytes(whole[:-1])
    told = r"shard-00002.bin has 299 bytes, and the index says 300 \(4 pictures \[3, 5, 5\]\): run the same"
    with pytest.raises(ValueError, match=told):
        data(folder).setup()
    (folder / "shard-00002.bin").unlink()
    with pytest.raises(ValueError, match="shard-00002.bin is missing, and the index says 300"):
        data(folder).setup()
    (folder / "shard-00002.bin").write_bytes(whole)
    for change in (lambda c: c[:-1] + b"\x01", lambda c: c[:-8], lambda c: c + bytes(2**20)):
        kept = (folder / "labels.npy").read_bytes()
        (folder / "labels.npy").write_bytes(change(kept))
        with pytest.raises(ValueError, match="labels.npy is not the file that the index describes"):
            data(folder).setup()
        (folder / "labels.npy").write_bytes(kept)
    (folder / "labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match="labels.npy is missing, and the index says there are labels"):
        data(folder).setup()
    with pytest.raises(FileNotFoundError, match="no index.json in .*nowhere, so it is no finished folder of shards"):
        data(folder / "nowhere").setup()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "it does not say that its format is 'lit-gans shards 1'"),
        ({"shape": [3, 5]}, "its shape, settings, count, classes or shards are missing or do not fit"),
        ({"shape": [3, 5, 6]}, "do not fit together"),
        ({"count": 24}, "do not fit together"),
        ({"classes": None}, "do not fit together"),
        ({"shards": [{"images": 23}]}, r"the shard \{'images': 23\} lacks images, sha256, source"),
        ({"shards": [{"images": -1, "sha256": "", "source": "", "enlarged": 0, "skipped": []}]}, "the shard .* lacks"),
    ],
)
def test_a_wrong_index_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=f"index.json is no index of shards: .*{message}.*run `lit-gans prepare` ag"):
        data(folder).setup()
    path.write_bytes(b"{")
    with pytest.raises(ValueError, match="index.json is no index of shards: it is no JSON"):
        data(folder).setup()


def test_labels_beyond_the_classes_are_refused(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": ["x", "y"]}))
    with pytest.raises(ValueError, match="labels.npy does not hold 23 labels from 0 to 1"):
        data(folder).setup()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"held_out": -1}, "held_out is -1; it must be a whole number of 0 or more"),
        ({"held_out_at": "start"}, "held_out_at is 'start'; it must be one of spread, end"),
        ({"train_split": "some"}, "train_split is 'some'; it must be one of train, test, all"),
    ],
)
def test_options_are_checked_at_once(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(Path("unused"), **option)


def test_a_flipped_bit_in_a_shard_is_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    data(folder).dataset()
    read = []
    monkeypatch.setattr(shard_files, "is_whole", lambda *given: read.append(given[0].name) or is_whole(*given))
    data(folder).dataset()
    assert not read  # it knows them
    with (folder / "shard-00002.bin").open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 16]))
    with pytest.raises(ValueError, match="shard-00002.bin is damaged: its SHA-256 .* prepare` again, which mends it"):
        data(folder).dataset()
    assert read == ["shard-00002.bin"]
