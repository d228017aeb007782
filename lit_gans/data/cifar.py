"""CIFAR-10 from its published files, without running the pickles they are."""

from __future__ import annotations

import tarfile
import urllib.error
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gans.base.files import check_regular
from lit_gans.base.machine import HostilePickle
from lit_gans.base.pickles import loads
from lit_gans.data.base import ImageData
from lit_gans.data.sets import ImageSet, TensorSet

ARCHIVE, FOLDER, BINARY = "cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-10-batches-bin"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
BATCHES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
_MAX_BYTES = 2**26


def read_pickled(content: bytes, where: str) -> tuple[Tensor, Tensor]:
    """A python-version batch -> pixels uint8 [N, 3, 32, 32], labels int64 [N]. ValueError where it is anything else."""
    try:
        batch = loads(content)
    except HostilePickle as error:
        raise ValueError(f"{where} is no batch of CIFAR-10: {error}") from error
    data, labels = (batch.get(key.encode(), batch.get(key)) if isinstance(batch, dict) else None
                    for key in ("data", "labels"))  # fmt: skip
    if not isinstance(data, Tensor) or data.dtype != torch.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise ValueError(f"{where} is no batch of CIFAR-10: no 'data' of uint8 [N, 3072] in it")
    whole = isinstance(labels, list) and all(type(number) is int and 0 <= number <= 9 for number in labels)
    if not whole or len(labels) != len(data):
        raise ValueError(f"{where} is no batch of CIFAR-10: no 'labels' from 0 to 9 for each of {len(data)} pictures")
    return data.view(-1, 3, 32, 32), torch.tensor(labels, dtype=torch.int64)


def read_binary(content: bytes, where: str) -> tuple[Tensor, Tensor]:
    """A binary-version batch, 3073 bytes a picture -> pixels uint8 [N, 3, 32, 32], labels int64 [N]."""
    if not content or len(content) % 3073:
        raise ValueError(f"{where} has {len(content)} bytes, no multiple of the 3073 of a picture: fetch it again")
    rows = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, 3073)
    labels = rows[:, 0].long()
    if int(labels.max()) > 9:
        raise ValueError(f"{where} has the label {int(labels.max())}, expected 0 to 9")
    return rows[:, 1:].contiguous().view(-1, 3, 32, 32), labels


class CIFAR10(ImageData):
    """32x32 photographs in 10 classes (Krizhevsky, 2009): 50,000 for split "train", 10,000 for "test".

    `root` holds, in this order of preference, cifar-10-batches-py, cifar-10-batches-bin, cifar-10-python.tar.gz (read
    without unpacking, if its MD5 is the published one), or is one of the two folders. `download` fetches the last.
    """

    channels = 3
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root: str = "data", *, resolution: int = 32, download: bool = False, **options: Any) -> None:
        super().__init__(resolution=resolution, **options)
        self.root, self.download = Path(root), download

    def prepare_data(self) -> None:
        """Fetches the archive if asked to and if nothing is there. Raises ConnectionError where that fails."""
        if not self.download or self._reader("train") is not None:
            return
        from torchvision.datasets import CIFAR10 as published
        from torchvision.datasets.utils import download_url

        try:
            download_url(published.url, self.root, filename=ARCHIVE, md5=ARCHIVE_MD5)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise ConnectionError(
                f"could not download {published.url} ({error}): put it into {self.root} by hand, or try again on line"
            ) from error

    def load(self, split: str) -> ImageSet:
        """Raises FileNotFoundError or ValueError, with the file's name."""
        reader = self._reader(split)
        if reader is None:
            raise FileNotFoundError(
                f"no CIFAR-10 in {self.root}: looked for {FOLDER}, {BINARY} and {ARCHIVE} in it, and for "
                f"{BATCHES[split][0]}[.bin]; set root to their folder, or download=True to fetch the archive"
            )
        pixels, labels = zip(*reader(), strict=True)
        return TensorSet(torch.cat(pixels), torch.cat(labels), resolution=self.resolution)

    def _reader(self, split: str) -> Callable[[], list[tuple[Tensor, Tensor]]] | None:
        """What reads the split's batches, from the first form of the data set that is there."""
        names = BATCHES[split]
        for folder in (self.root / FOLDER, self.root):
            if (folder / names[0]).is_file():
                return lambda: [read_pickled(_content(folder / name), str(folder / name)) for name in names]
        for folder in (self.root / BINARY, self.root):
            if (folder / f"{names[0]}.bin").is_file():
                paths = [folder / f"{name}.bin" for name in names]
                return lambda: [read_binary(_content(path), str(path)) for path in paths]
        if (self.root / ARCHIVE).is_file():
            return lambda: _read_archive(self.root / ARCHIVE, names)
        return None


def _content(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing beside the other batches: fetch the data set again")
    check_regular(path, "fetch the data set again")
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, a batch of CIFAR-10 31 million: fetch it again")
    return path.read_bytes()


def _read_archive(path: Path, names: tuple[str, ...]) -> list[tuple[Tensor, Tensor]]:
    """Batches out of the published archive; nothing is unpacked. ValueError where the file is any other."""
    with path.open("rb") as file:
        found = md5(usedforsecurity=False)
        while chunk := file.read(2**20):
            found.update(chunk)
    if found.hexdigest() != ARCHIVE_MD5:
        raise ValueError(f"{path} has the MD5 {found.hexdigest()}, the published archive {ARCHIVE_MD5}: fetch it again")
    batches = []
    with tarfile.open(path) as archive:
        for name in names:
            member = archive.extractfile(f"{FOLDER}/{name}")
            assert member is not None
            batches.append(read_pickled(member.read(_MAX_BYTES), f"{name} in {path}"))
    return batches
