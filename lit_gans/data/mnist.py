"""MNIST and the two sets published in its format, read from idx files by a reader of our own."""

from __future__ import annotations

import gzip
import math
import urllib.error
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.data.base import ImageData
from lit_gans.data.sets import ImageSet, TensorSet

_PREFIX = {"train": "train", "test": "t10k"}


def idx_files(split: str) -> tuple[str, str]:
    """The published names of a split's images and labels, without the ending .gz that either may have."""
    return f"{_PREFIX[split]}-images-idx3-ubyte", f"{_PREFIX[split]}-labels-idx1-ubyte"


def read_idx(path: Path, dims: int) -> Tensor:
    """An idx file of bytes, plain or .gz -> uint8 tensor of `dims` dimensions.

    Format: two zero bytes, type 0x08 (unsigned byte), number of dimensions, each size as big-endian uint32, the data.
    ValueError names the file where it holds anything else, or more or less data than it declares.
    """
    opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    try:
        with opened as file:
            head = file.read(4 + 4 * dims)
            if head[:4] != bytes((0, 0, 8, dims)) or len(head) < 4 + 4 * dims:
                raise ValueError(
                    f"{path} is no idx file of bytes in {dims} dimensions: "
                    f"it starts with {head[:4].hex()}, expected 000008{dims:02x}"
                )
            sizes = [int.from_bytes(head[at : at + 4], "big") for at in range(4, len(head), 4)]
            count = math.prod(sizes)
            if count > 2**32:
                raise ValueError(f"{path} declares {sizes} bytes of data, more than the 4 GiB that are read")
            data = file.read(count + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged or cut .gz file ({error}): fetch it again") from error
    if len(data) != count:
        held = f"more than {count}" if len(data) > count else f"only {len(data)}"
        raise ValueError(f"{path} declares {sizes}, {count} bytes, and holds {held}: cut or damaged, fetch it again")
    return torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)).reshape(sizes)


class MNIST(ImageData):
    """28x28 grey digits in 10 classes (LeCun and Cortes, 1998): 60,000 for split "train", 10,000 for "test".

    At resolution 32 the pictures get a margin of two black pixels; at any other but 28 they are scaled bicubically.
    The four idx files, plain or .gz, may lie in `root` or, as torchvision puts them, in `root`/MNIST/raw;
    `download` fetches those that are missing into the latter.
    """

    channels = 1
    class_names = tuple("0123456789")
    torchvision_name: ClassVar[str] = "MNIST"

    def __init__(self, root: str = "data", *, resolution: int = 32, download: bool = False, **options: Any) -> None:
        super().__init__(resolution=resolution, **options)
        self.root, self.download = Path(root), download

    def prepare_data(self) -> None:
        """Fetches what is missing, if asked to. Raises ConnectionError where that fails."""
        if self.download:
            for split in self.splits:
                for name in idx_files(split):
                    if self._find(name) is None:
                        self._fetch(f"{name}.gz")

    def load(self, split: str) -> ImageSet:
        """Raises FileNotFoundError or ValueError, with the file's name."""
        images_path, labels_path = (self._needed(name) for name in idx_files(split))
        pixels, labels = read_idx(images_path, 3)[:, None], read_idx(labels_path, 1).long()
        if len(pixels) != len(labels):
            raise ValueError(f"{images_path} holds {len(pixels)} pictures, {labels_path} {len(labels)} labels")
        if tuple(pixels.shape[2:]) != (28, 28) or len(pixels) == 0:
            raise ValueError(f"{images_path} holds pictures {list(pixels.shape)}, expected [N, 1, 28, 28] with N > 0")
        if int(labels.max()) >= self.num_classes:
            raise ValueError(f"{labels_path} has the label {int(labels.max())}, expected 0 to {self.num_classes - 1}")
        pixels = F.pad(pixels, (2, 2, 2, 2)) if self.resolution == 32 else pixels
        return TensorSet(pixels, labels, resolution=self.resolution)

    @property
    def _raw(self) -> Path:
        return self.root / self.torchvision_name / "raw"

    def _find(self, name: str) -> Path | None:
        """torchvision's folder first: its path says which of the three sets it holds, the files' names do not."""
        candidates = [folder / file for folder in (self._raw, self.root) for file in (name, f"{name}.gz")]
        return next((path for path in candidates if path.is_file()), None)

    def _needed(self, name: str) -> Path:
        found = self._find(name)
        if found is None:
            wanted = ", ".join(file for split in self.splits for file in idx_files(split))
            raise FileNotFoundError(
                f"no {name} or {name}.gz in {self.root} or {self._raw}: {type(self).__name__} needs {wanted} "
                f"(each plain or .gz); set root to their folder, or download=True to fetch them"
            )
        return found

    def _fetch(self, file: str) -> None:
        """One published .gz, checked against its MD5, from the first mirror that answers."""
        from torchvision import datasets
        from torchvision.datasets.utils import download_url

        published = getattr(datasets, self.torchvision_name)
        md5, failures = dict(published.resources)[file], []
        for mirror in published.mirrors:
            try:
                return download_url(f"{mirror}{file}", self._raw, filename=file, md5=md5)
            except (urllib.error.URLError, OSError, RuntimeError) as error:
                failures.append(f"{mirror}: {error}")
        raise ConnectionError(
            f"could not download {file} ({'; '.join(failures)}): put it into {self._raw} by hand, or try again on line"
        )


class FashionMNIST(MNIST):
    """28x28 grey pictures of clothes in 10 classes (Xiao, Rasul and Vollgraf, 2017); files as for MNIST."""

    class_names = (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    torchvision_name = "FashionMNIST"


class KMNIST(MNIST):
    """28x28 grey cursive hiragana in 10 classes (Clanuwat et al., 2018); files as for MNIST."""

    class_names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    torchvision_name = "KMNIST"
