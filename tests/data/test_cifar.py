"""CIFAR-10: three published forms read alike, and nothing in them is run."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_gans.data import CIFAR10
from lit_gans.data import cifar as module
from lit_gans.data.cifar import read_pickled

NAMES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def content(seed: int, count: int = 3) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), np.uint8), rng.integers(0, 10, count).tolist()


def pickled(pixels: object, labels: object, protocol: int = 2) -> bytes:
    names = [f"{i}.png" for i in range(3)]
    return pickle.dumps({b"data": pixels, b"labels": labels, b"batch_label": b"x", b"filenames": names}, protocol)


def write(root: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The six batches of three pictures each."""
    root.mkdir(exist_ok=True)
    if form == "bin":
        (root / "cifar-10-batches-bin").mkdir()
        for seed, name in enumerate(NAMES):
            pixels, labels = content(seed)
            rows = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
            (root / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(rows.tobytes())
        return root
    files = {f"cifar-10-batches-py/{name}": pickled(*content(seed)) for seed, name in enumerate(NAMES)}
    if form == "py":
        (root / "cifar-10-batches-py").mkdir()
        for name, data in files.items():
            (root / name).write_bytes(data)
        return root
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    from hashlib import md5

    monkeypatch.setattr(module, "ARCHIVE_MD5", md5((root / "cifar-10-python.tar.gz").read_bytes()).hexdigest())
    return root


@pytest.mark.parametrize("form", ["py", "bin", "tar"])
def test_all_forms_are_read_alike(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CIFAR10(str(write(tmp_path, form, monkeypatch)), batch_size=2)
    batch = data.dataset().fetch(torch.arange(15))
    assert torch.equal(batch["image"][3:6].reshape(3, -1), torch.from_numpy(content(1)[0]))
    assert batch["label"][12:].tolist() == content(4)[1]
    assert data.dataset("test").labels.tolist() == content(5)[1]
    assert (data.num_classes, data.class_names[9]) == (10, "truck")


@pytest.mark.parametrize("form", ["py", "bin"])
def test_root_may_be_the_folder_itself(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, form, monkeypatch) / f"cifar-10-batches-{form}"
    assert len(CIFAR10(str(root), batch_size=2).dataset()) == 15


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_every_protocol_that_such_batches_were_written_in(protocol: int) -> None:
    pixels, labels = read_pickled(pickled(*content(7), protocol), "here")
    assert torch.equal(pixels.flatten(1), torch.from_numpy(content(7)[0])) and labels.tolist() == content(7)[1]


def test_a_batch_written_by_python_2() -> None:
    """As published: byte strings for keys, and for the array's content."""
    batch = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87"
        b"Rq\x05(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00" + bytes(range(256)) * 12 + b"tbU\x06labelsq\x08]q\x09K\x06au."
    )
    pixels, labels = read_pickled(batch, "here")
    assert pixels.flatten()[:300].tolist() == [i % 256 for i in range(300)] and labels.tolist() == [6]


class Attack:
    """Unpickles to a call."""

    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_without_effect(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    for attack in (Attack(os.system, f"touch {mark}"), Attack(eval, f"open({str(mark)!r}, 'w')")):
        path = tmp_path / "data_batch_1"
        path.write_bytes(pickled(content(0)[0], attack, protocol))
        with pytest.raises(ValueError, match=r"data_batch_1 .*asks for \S+\.(system|eval),.*refused"):
            CIFAR10(str(tmp_path), batch_size=2).setup()
        assert not mark.exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (pickled(np.zeros((3, 3072), object), [0] * 3), "an array has the type 'O8'"),
        (pickled(Attack(np.ndarray, (10**12,)), [0] * 3), "calls a str"),
        (pickled(Attack(np._core.multiarray._reconstruct, np.ndarray, (10**12,), b"b"), [0]), r"no 'data' of uint8"),
        (pickled(Attack(__import__("codecs").encode, "x", "zip"), [0]), "asks for the encoding 'zip'|asks for _codecs"),
        (pickled(np.zeros((3, 9), np.uint8), [0] * 3), r"no 'data' of uint8 \[N, 3072\]"),
        (pickled(content(0)[0], [0, 1]), "no 'labels' from 0 to 9 for each of 3 pictures"),
        (pickled(content(0)[0], [0, 1, 10]), "no 'labels'"),
        (pickled(content(0)[0], None), "no 'labels'"),
        (pickle.dumps([1]), "no 'data'"),
        (pickled(*content(0))[:-40], "truncated|exhausted|no batch"),
        (b"", "no batch"),
        (b"\x80\x02garbage", "no batch"),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_refused(bad: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_pickled(bad, "some/file")
    assert "some/file is no batch of CIFAR-10" in str(caught.value)


def test_binary_files_of_the_wrong_size_or_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "test_batch.bin"
    messages = {b"": "has 0 bytes", bytes(3072): "3072 bytes, no multiple", b"\x0b" + bytes(3072): "label 11"}
    for bad, message in messages.items():
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=message):
            CIFAR10(str(tmp_path), batch_size=2).dataset("test")


def test_another_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="has the MD5 6c7ba9c5a141421e1c03cb9807c97c74, .* c58f30108f"):
        CIFAR10(str(tmp_path), batch_size=2).setup()


def test_missing_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no CIFAR-10 in .*cifar-10-batches-py.*download=True to fetch"):
        CIFAR10(str(tmp_path), batch_size=2).setup()
    root = write(tmp_path, "py", monkeypatch)
    (root / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_4 is missing beside the other batches"):
        CIFAR10(str(root), batch_size=2).setup()
    with (root / "cifar-10-batches-py" / "data_batch_4").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(ValueError, match="data_batch_4 has 134217728 bytes"):
        CIFAR10(str(root), batch_size=2).setup()


def test_download_without_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, root: Path, *, filename: str, md5: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    data = CIFAR10(str(tmp_path), batch_size=2, download=True)
    with pytest.raises(ConnectionError, match="could not download https://.*cifar-10-python.tar.gz .no route.*by hand"):
        data.prepare_data()
    write(tmp_path, "py", monkeypatch)
    data.prepare_data()
