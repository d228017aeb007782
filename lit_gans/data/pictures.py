"""Pictures from anywhere, framed and scaled: what `lit-gans prepare` packs."""

from __future__ import annotations

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lit_gans.base.images import to_pil
from lit_gans.data import CIFAR10, KMNIST, MNIST, FashionMNIST
from lit_gans.data.cifar import ARCHIVE, BATCHES, BINARY, FOLDER
from lit_gans.data.decode import MAX_PIXELS, Header, open_picture, to_mode
from lit_gans.data.described import Description
from lit_gans.data.images import describe_source
from lit_gans.data.labels import labels_of
from lit_gans.data.mnist import idx_files
from lit_gans.data.sources import open_source

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


# ---- one picture -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How every picture becomes uint8 [C, R, R]."""

    resolution: int
    channels: int
    crop: str
    resize_filter: str

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.resolution, self.resolution

    def apply(self, image: Image) -> tuple[np.ndarray, bool]:
        """(uint8 [C, R, R], whether it had to be enlarged). ValueError where it is not square and must be."""
        import numpy as np
        from PIL import Image

        image = to_mode(image, "L" if self.channels == 1 else "RGB")
        size = (self.resolution, self._height())
        image = _middle(image, *self._frame(*image.size))
        enlarged = image.width < size[0] or image.height < size[1]
        if image.size != size:
            image = image.resize(size, Image.Resampling[self.resize_filter.upper()])
        pixels = np.zeros((self.resolution, self.resolution, self.channels), np.uint8)
        top = (self.resolution - size[1]) // 2
        pixels[top : top + size[1]] = np.asarray(image).reshape(size[1], size[0], self.channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), enlarged

    def enlarges(self, header: Header) -> bool:
        """Whether what is cut out of such a picture has fewer pixels than it is brought to."""
        width, height = (min(header[:2]),) * 2 if self.crop == "none" else self._frame(*header[:2])
        return width < self.resolution or height < self._height()

    def __str__(self) -> str:
        cut = {"center": "the largest square of the middle", "center-wide": "the largest 4:3 of the middle, black bars"}
        return f"{cut.get(self.crop, 'square pictures')}, scaled to {self.resolution} x {self.resolution}"

    def _height(self) -> int:
        return max(1, self.resolution * 3 // 4) if self.crop == "center-wide" else self.resolution

    def _frame(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of what is cut from the middle.

        StyleGAN's tool counts rows of the unscaled picture by the height of the scaled one, keeps all columns, and so
        squeezes every picture but those of the final size. We cut 4:3 and squeeze none.
        """
        if self.crop == "none":
            if width != height:
                raise ValueError(f"is {width} x {height}, not square: use --crop center or center-wide")
            return width, height
        wide, high = self.resolution, self._height()
        return max(1, min(width, height * wide // high)), max(1, min(height, width * high // wide))


def _middle(image: Image, width: int, height: int) -> Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


# ---- where pictures come from ----------------------------------------------------------------------------------------


class Pictures(ABC):
    """Named pictures in a fixed order; `labels` are class numbers, or None."""

    path: Path
    names: Sequence[str]
    labels: Sequence[int] | None = None
    class_names: tuple[str, ...] = ()
    channels: int = 3

    @abstractmethod
    def image(self, index: int) -> Image:
        """One of `lit_gans.data.decode.UNREADABLE` where it is damaged."""

    @abstractmethod
    def stamp(self, index: int) -> str:
        """A text that changes with the picture."""

    def describe(self, recipe: Recipe) -> Description:
        """What was understood of them."""
        counts = Counter(self.labels or ())
        return Description(
            what=str(self.path), used=f"{len(self.names):,} pictures", classes=self.class_names,
            counts=tuple(counts[number] for number in range(len(self.class_names))), framing=str(recipe),
        )  # fmt: skip

    def digest(self, span: range) -> str:
        """16 hex digits of names, pictures and labels."""
        lines = [f"{self.names[i]}\t{self.stamp(i)}\t{self.labels[i] if self.labels else ''}" for i in span]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def open_pictures(
    path: Path, *, resolution: int, labels: str = "auto", split: str = "train", follow_links: bool = False
) -> Pictures:
    """The pictures at a path, by what lies there. ValueError or FileNotFoundError says what was looked for."""
    found: Pictures | None = _published(path, resolution, split)
    if found is None and split != "train":
        raise ValueError(f"split {split!r} was asked for, but {path} is not CIFAR-10 or MNIST: give the folder of it")
    if found is None and (path / "data.mdb").is_file():
        found = LmdbPictures(path)
    if found is None:
        return FilePictures(path, labels, follow_links=follow_links)
    if labels in ("folders", "json"):
        raise ValueError(f"labels {labels!r} was asked for, but {path} is neither a folder of pictures nor a zip")
    if labels == "none":
        found.labels, found.class_names = None, ()
    return found


class FilePictures(Pictures):
    """Those of a folder or a zip."""

    def __init__(self, path: Path, labels: str, *, follow_links: bool = False) -> None:
        self.path, self.source = path, open_source(path, follow_links=follow_links)
        self.names = self.source.names
        self.found = labels_of(self.source, labels)
        if self.found is not None:
            self.labels, self.class_names = self.found.numbers(self.names).tolist(), self.found.classes

    def describe(self, recipe: Recipe) -> Description:
        own = describe_source(self.source, to=recipe.resolution, enlarges=recipe.enlarges)
        basic = super().describe(recipe)
        layout = own.layout if self.found is None else f"labels of {self.found.origin}"
        return replace(own, layout=layout, classes=basic.classes, counts=basic.counts, framing=basic.framing)

    def image(self, index: int) -> Image:
        with self.source.open(self.names[index]) as file:
            return _decoded(file)

    def stamp(self, index: int) -> str:
        try:
            return self.source.stamp(self.names[index])
        except OSError as error:  # decoding will name the picture, or leave it out
            return f"unreadable {error.errno}"


def _decoded(file: BinaryIO) -> Image:
    image = open_picture(file, MAX_PIXELS)
    image.load()
    return image


class LmdbPictures(Pictures):
    """Those of an lmdb folder as LSUN publishes them: each value is a picture file, in the order of the keys."""

    def __init__(self, path: Path) -> None:
        self.path, self._environment, self._owner = path, None, -1
        with self._open() as environment, environment.begin() as read:
            self._keys = [bytes(key) for key in read.cursor().iternext(keys=True, values=False)]
        self._owner = -1  # closed again: lmdb forbids to take an open one through a fork
        if not self._keys:
            raise FileNotFoundError(f"no picture in {path}: its lmdb is empty")
        self.names = [key.decode("utf-8", "surrogateescape") for key in self._keys]

    def _open(self) -> Any:
        """This process's own environment."""
        lmdb = _lmdb(self.path)
        if self._owner != os.getpid():
            try:
                self._environment = lmdb.open(str(self.path), readonly=True, lock=False, readahead=False)
            except lmdb.Error as error:
                raise ValueError(f"{self.path} is no readable lmdb ({error}): fetch it again") from error
            self._owner = os.getpid()
        return self._environment

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_environment": None, "_owner": -1}

    def _value(self, index: int) -> bytes:
        lmdb = _lmdb(self.path)
        try:
            with self._open().begin() as read:
                return bytes(read.get(self._keys[index]))
        except lmdb.Error as error:
            raise ValueError(f"the lmdb is damaged ({error})") from error

    def image(self, index: int) -> Image:
        return _decoded(io.BytesIO(self._value(index)))

    def stamp(self, index: int) -> str:
        try:
            return hashlib.sha256(self._value(index)).hexdigest()
        except ValueError:  # as for a file
            return "unreadable"


def _lmdb(path: Path) -> Any:
    """The package. ValueError where it is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise ValueError(
            f"{path} is an lmdb, which needs the package lmdb, the extra 'lmdb': pip install 'lit-gans[lmdb]'"
        ) from error
    return lmdb


class ArrayPictures(Pictures):
    """Those of a published set that one of our data modules has read into memory: uint8 [N, C, H, W] with labels."""

    def __init__(self, path: Path, data: Any, split: str) -> None:
        images = data.dataset(split)
        self.path, self.channels, self.class_names = path, data.channels, data.class_names
        self.pixels, self.labels = images.pixels, images.labels.tolist()
        self.names = [f"{split}/{i:05d}" for i in range(len(images))]

    def image(self, index: int) -> Image:
        return to_pil(self.pixels[index])

    def stamp(self, index: int) -> str:
        return hashlib.sha256(self.pixels[index].numpy().tobytes()).hexdigest()


def _published(path: Path, resolution: int, split: str) -> ArrayPictures | None:
    """CIFAR-10 or a set in MNIST's format, where their files lie at the path."""
    root = path.parent if path.name == ARCHIVE and path.is_file() else path
    batch = BATCHES[split][0]
    if _any_file(root, ("", FOLDER, BINARY), (batch, f"{batch}.bin", ARCHIVE)):
        return ArrayPictures(path, CIFAR10(str(root), batch_size=1), split)
    images = idx_files(split)[0]
    for kind in (MNIST, FashionMNIST, KMNIST):
        if _any_file(root, ("", f"{kind.torchvision_name}/raw"), (images, f"{images}.gz")):
            # At 32 px the data module adds the usual two black pixels; other sizes are scaled from the published 28.
            data = kind(str(root), batch_size=1, resolution=32 if resolution == 32 else 28)
            return ArrayPictures(path, data, split)
    return None


def _any_file(root: Path, folders: Sequence[str], names: Sequence[str]) -> bool:
    return any((root / folder / name).is_file() for folder in folders for name in names)
