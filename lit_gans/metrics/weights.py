"""Published weights of the networks that features come from: found where they are kept, else downloaded once."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor

from lit_gans.metrics.cache import cache_folder, read_weights
from lit_gans.metrics.ranks import first_on_rank_zero

_DTYPES = {
    "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64, "ByteStorage": torch.uint8, "CharStorage": torch.int8, "ShortStorage": torch.int16,
    "IntStorage": torch.int32, "LongStorage": torch.int64, "BoolStorage": torch.bool,
}  # fmt: skip
_UNREADABLE = (  # what unpickling damaged or foreign bytes ends in
    pickle.UnpicklingError, zipfile.BadZipFile, AttributeError, EOFError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def weights_file(
    url: str,
    *,
    what: str | None = None,
    name: str | None = None,
    sha256_prefix: str | None = None,
    path: str | Path | None = None,
    hint: str = "",
) -> Path:
    """The file that `url` publishes: `path` if given, else the kept one, else downloaded into the cache folder.

    A kept file is `name` (default: the file name in `url`) in the cache folder, or in the folder where torch.hub keeps
    checkpoints. In a process group every process calls it, and process 0 alone downloads. `sha256_prefix` are the first
    hex digits of a downloaded file's SHA-256; a kept file is believed. A failure speaks of `what`'s weights (default:
    of `name`'s) and ends with `hint`.
    FileNotFoundError where `path` is absent, ConnectionError where there is neither a file nor a network.
    """
    if path is not None:
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"no weights at {path}: {url} has them; leave out the path and they are fetched")
        return path
    name = name or Path(urlparse(url).path).name
    return first_on_rank_zero(lambda: _kept_file(name) or _downloaded(url, what or name, name, sha256_prefix, hint))


def _kept_file(name: str) -> Path | None:
    folders = cache_folder(), Path(torch.hub.get_dir()) / "checkpoints"
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _downloaded(url: str, what: str, name: str, sha256_prefix: str | None, hint: str) -> Path:
    """torch.hub writes beside and renames, so that no reader ever sees half of the file."""
    path = cache_folder() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256_prefix, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise ConnectionError(
            f"{what}'s weights are not at {path} and could not be downloaded ({error}): fetch {url} elsewhere and put "
            f"the file there{', ' + hint if hint else ''}"
        ) from error
    return path


def read_published(path: Path) -> dict[str, Tensor]:
    """As `read_weights`, and of a TorchScript archive the tensors by the names they have in it; its code is never run.

    FileNotFoundError where there is none; ValueError where it holds anything but tensors, or is damaged.
    """
    if not _is_torchscript(path):
        return read_weights(path)
    try:
        with zipfile.ZipFile(path) as archive:
            module = _ArchiveReader(archive).load()
        tensors = dict(_tensors_of(module))
    except _UNREADABLE as error:
        raise ValueError(f"{path} is damaged or holds more than tensors, and is not read: {error}") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _is_torchscript(path: Path) -> bool:
    """By the record that torch.jit.save writes and torch.save does not."""
    if path.suffix == ".safetensors" or not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class _Module:
    """Stands for a TorchScript class: unpickling sets its attributes and nothing more."""


class _ArchiveReader(pickle.Unpickler):
    """Reads an archive's data.pkl; of all that a pickle can call it knows tensors, lists and `_Module`."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        name = next((n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")), None)
        if name is None:
            raise pickle.UnpicklingError("it has no data.pkl")
        self.root = name.removesuffix("data.pkl")
        super().__init__(io.BytesIO(archive.read(name)))

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _strided,
            ("collections", "OrderedDict"): OrderedDict,
            **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: tuple) -> Tensor:
        _, dtype, key, *_ = pid
        return torch.frombuffer(bytearray(self.archive.read(f"{self.root}data/{key}")), dtype=dtype)


def _strided(storage: Tensor, offset: int, size: tuple, stride: tuple, *unused: object) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _tensors_of(module: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors_of(value, f"{prefix}{name}.")
