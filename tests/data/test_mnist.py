"""idx files: read exactly, refused clearly."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_gans.data import KMNIST, MNIST, FashionMNIST
from lit_gans.data.mnist import read_idx

from .common import real


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_set(folder: Path, *, zipped: bool = False, labels: list[int] | None = None) -> np.ndarray:
    """Six pictures for training and three for the test; returns the former."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    for prefix, count in (("train", 6), ("t10k", 3)):
        files = {"images-idx3": pictures[:count], "labels-idx1": np.array((labels or [5, 0, 4, 1, 9, 2])[:count])}
        for name, array in files.items():
            path = folder / f"{prefix}-{name}-ubyte"
            if zipped:
                Path(f"{path}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                path.write_bytes(idx(array))
    return pictures


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("where", [".", "FashionMNIST/raw"])
def test_local_files_are_found_and_read(tmp_path: Path, zipped: bool, where: str) -> None:
    pictures = write_set(tmp_path / where, zipped=zipped)
    data = FashionMNIST(str(tmp_path), batch_size=2, resolution=28)
    data.prepare_data()
    batch = data.dataset().fetch(torch.tensor([0, 4]))
    assert torch.equal(batch["image"][:, 0], torch.from_numpy(pictures[[0, 4]]).to(torch.uint8))
    assert batch["label"].tolist() == [5, 9]
    assert len(data.dataset("test")) == 3


def test_the_folder_named_after_the_set_comes_first(tmp_path: Path) -> None:
    write_set(tmp_path, labels=[1] * 6)
    write_set(tmp_path / "KMNIST" / "raw", labels=[2] * 6)
    assert KMNIST(str(tmp_path), batch_size=2).dataset().labels.tolist() == [2] * 6
    assert MNIST(str(tmp_path), batch_size=2).dataset().labels.tolist() == [1] * 6


def test_32_pixels_are_a_black_margin_not_a_scaling(tmp_path: Path) -> None:
    pictures = write_set(tmp_path)
    image = MNIST(str(tmp_path), batch_size=2, resolution=32).dataset().fetch(torch.arange(6))["image"][:, 0]
    assert torch.equal(image[:, 2:30, 2:30], torch.from_numpy(pictures).to(torch.uint8))
    image[:, 2:30, 2:30] = 0
    assert not image.any()
    assert MNIST(str(tmp_path), batch_size=2, resolution=64).dataset().fetch(torch.arange(2))["image"].shape[-1] == 64


def test_missing_files_are_named_with_the_way_out(tmp_path: Path) -> None:
    data = MNIST(str(tmp_path), batch_size=2)
    with pytest.raises(FileNotFoundError, match=f"no train-images-idx3-ubyte or .*gz in {tmp_path} or .*MNIST/raw"):
        data.setup()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte .*download=True to fetch them"):
        data.setup()


def test_download_takes_the_published_files_and_says_when_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(url: str, root: Path, *, filename: str, md5: str) -> None:
        asked.append((url, root, md5))
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    with pytest.raises(ConnectionError, match="could not download train-images-idx3-ubyte.gz .*no route.*by hand"):
        MNIST(str(tmp_path), batch_size=2, download=True).prepare_data()
    url, root, md5 = asked[0]
    assert url.endswith("/mnist/train-images-idx3-ubyte.gz") and root == tmp_path / "MNIST" / "raw"
    assert md5 == "f68b3c2dcbeaaa9fbdd348bbdeb94873" and len(asked) == 2

    write_set(tmp_path)
    MNIST(str(tmp_path), batch_size=2, download=True).prepare_data()
    assert len(asked) == 2, "files at hand need no network"


def test_download_fetches_each_missing_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "served", zipped=True)

    def serve(url: str, root: Path, *, filename: str, md5: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / filename).write_bytes((tmp_path / "served" / filename).read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", serve)
    data = KMNIST(str(tmp_path / "root"), batch_size=2, download=True)
    data.prepare_data()
    assert len(data.dataset("train")) == 6 and len(data.dataset("test")) == 3


def damaged(whole: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "cut": (whole[:-1], "holds only 4703: cut or damaged"),
        "long": (whole + b"0", "holds more than 4704"),
        "magic": (b"\1" + whole[1:], "starts with 01000803, expected 00000803"),
        "type": (b"\0\0\x0d\3" + whole[4:], "starts with 00000d03"),
        "dims": (idx(np.zeros((6, 28))), "starts with 00000802, expected 00000803"),
        "empty": (b"", "is no idx file"),
        "head": (whole[:9], "is no idx file"),
        "huge": (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 28), "more than the 4 GiB"),
        "none": (idx(np.zeros((0, 28, 28))), "0 pictures, .*6 labels"),
        "size": (idx(np.zeros((6, 27, 28))), r"pictures \[6, 1, 27, 28\], expected \[N, 1, 28, 28\]"),
        "count": (idx(np.zeros((5, 28, 28))), "5 pictures, .* 6 labels"),
    }  # fmt: skip


@pytest.mark.parametrize("how", list(damaged(b"")))
def test_damaged_files_are_refused_by_name(tmp_path: Path, how: str) -> None:
    pictures = write_set(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    content, message = damaged(idx(pictures))[how]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        MNIST(str(tmp_path), batch_size=2).dataset()
    assert str(path) in str(caught.value)


def test_a_cut_or_false_gz_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    for content in (gzip.compress(idx(np.ones((6, 28, 28))))[:-12], b"not gzip at all"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or cut .gz file"):
            read_idx(path, 3)


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, labels=[0, 1, 2, 3, 4, 10])
    with pytest.raises(ValueError, match="has the label 10, expected 0 to 9"):
        MNIST(str(tmp_path), batch_size=2).dataset()


def test_the_real_files() -> None:
    data = MNIST(str(real("mnist")), batch_size=64, resolution=28)
    assert (len(data.dataset("train")), len(data.dataset("test"))) == (60_000, 10_000)
    batch = data.dataset("train").fetch(torch.arange(60_000))
    assert batch["label"][:5].tolist() == [5, 0, 4, 1, 9]
    assert round(batch["image"].float().mean().item() / 255, 4) == 0.1307, "the published mean"
    assert batch["label"].bincount().tolist()[:3] == [5923, 6742, 5958]
