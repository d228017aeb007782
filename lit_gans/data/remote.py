"""Files in object storage or on a web server (s3://, gs://, https://, ...), fetched when needed and kept on a disk."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_gans.base.cache import cache_folder, key_of
from lit_gans.base.files import replacing, user_path

WAITS_S: tuple[float, ...] = (1, 4, 15)  # before a transfer that was broken off is tried again
TOLD_S = 10.0
_MISSING = (FileNotFoundError, PermissionError, IsADirectoryError)  # which no second try mends


def is_remote(path: object) -> bool:
    """Whether it is written as a URL, scheme://...; a drive of Windows is none."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(path)) is not None


def user_place(path: str | Path) -> Path | str:
    """A URL as it is, anything else by `user_path`."""
    return str(path) if is_remote(path) else user_path(path)


def kept_folder(url: str) -> Path:
    """Where what is fetched from there lies: a folder of the cache folder."""
    return cache_folder() / "remote" / key_of(url=url.rstrip("/"))


def fetch(url: str, target: Path, *, check: Callable[[Path], bool] | None = None) -> Path:
    """`target`, fetched from `url` where it is not there: whole or not at all, by one process at a time.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what was fetched does not pass `check`, or nothing is installed that reads such URLs.
        ConnectionError: it cannot be reached, or the transfer broke off at every try.
    """
    from filelock import FileLock

    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not target.is_file():
            with replacing(target) as unfinished:
                _transfer(url, unfinished)
                if check is not None and not check(unfinished):
                    raise ValueError(f"{url} is damaged: it has not the SHA-256 that its index says; upload it again")
    return target


def newest(url: str, name: str) -> Path:
    """The file of that name in a folder, fetched anew, or where it is out of reach as it was before."""
    kept = kept_folder(url) / name
    try:
        with replacing(kept) as unfinished:
            _transfer(f"{url.rstrip('/')}/{name}", unfinished)
    except ConnectionError as error:
        if not kept.is_file():
            raise
        rank_zero_warn(f"{error}. What was fetched from there before is used")
    return kept


def fetched_file(url: str) -> Path:
    """A file of any size, fetched again only where the storage says that it has changed."""
    with _told(url):
        system, path = _opened(url)
    folder = kept_folder(url)
    name = path.rstrip("/").rsplit("/", 1)[-1]
    try:
        with _told(url):
            stamp = key_of(info=str(system.info(path)))  # size, time and checksum, as far as it tells them
    except ConnectionError as error:
        kept = sorted(folder.glob(f"*/{name}"), key=lambda file: file.stat().st_mtime)
        if not kept:
            raise
        rank_zero_warn(f"{error}. What was fetched from there before is used")
        return kept[-1]
    return fetch(url, folder / stamp / name)


def _transfer(url: str, target: Path) -> None:
    """Copies a file here, again and again where it breaks off."""
    for number, wait_s in enumerate((0, *WAITS_S)):
        time.sleep(wait_s)
        try:
            with _told(url):
                system, path = _opened(url)
                system.get_file(path, str(target), callback=_telling(url))
                return
        except ConnectionError:
            if number == len(WAITS_S):
                raise


def _opened(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the path in it). Its own variables hold keys and options: FSSPEC_S3_KEY, ..."""
    import fsspec

    return fsspec.core.url_to_fs(url)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Errors as those of `fetch`."""
    try:
        yield
    except _MISSING as error:
        if isinstance(error.__cause__, OSError):  # so a web server that does not answer is told by fsspec
            raise ConnectionError(f"{url} cannot be reached ({error.__cause__})") from error
        raise FileNotFoundError(f"{url}: no such file can be read there ({type(error).__name__})") from error
    except ImportError as error:
        raise ValueError(f"{url}: {error}: `pip install` the package that it names") from error
    except ValueError as error:  # of a scheme that fsspec does not know
        raise ValueError(f"{url}: {error}") from error
    except Exception as error:  # each storage has its own
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConnectionError(f"{url} cannot be fetched ({why}): is it reachable, and are the keys right?") from error


def _telling(url: str) -> Any:
    """Tells how far a transfer is every 10 s."""
    from fsspec.callbacks import Callback

    class Telling(Callback):
        told = time.monotonic()

        def call(self, *args: Any, **kwargs: Any) -> None:
            if time.monotonic() - self.told > TOLD_S:
                self.told = time.monotonic()
                rank_zero_info(f"fetching {url}: {self.value / 2**20:,.0f} of {(self.size or 0) / 2**20:,.0f} MiB")

    return Telling()
