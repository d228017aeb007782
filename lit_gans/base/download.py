"""Published files: found where they are kept, else downloaded once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch

from lit_gans.base.cache import cache_folder
from lit_gans.base.processes import first_on_rank_zero

PATIENCE_S = 20  # with a server that does not answer, or no longer


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
        with _patience():
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256_prefix, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise ConnectionError(
            f"{what}'s weights are not at {path} and could not be downloaded ({error}): fetch {url} elsewhere and put "
            f"the file there{', ' + hint if hint else ''}"
        ) from error
    return path


@contextmanager
def _patience() -> Iterator[None]:
    """Inside, sockets give up after `PATIENCE_S`: of themselves they wait for minutes where a firewall is silent."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or PATIENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
