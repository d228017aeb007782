"""Where picture files lie: a folder or a zip, listed and opened without trusting a name, a size or a link in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_FILE_BYTES = 2**28
LABELS_FILE = "dataset.json"
MAX_CLASSES = 2**20
VALUES_PER_PICTURE = 64  # in dataset.json, whose labels may be vectors too


class Source(ABC):
    """Pictures under names with forward slashes, sorted; `path` is what the user gave."""

    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """The file of that name for reading, at its beginning."""

    @abstractmethod
    def stamp(self, name: str) -> str:
        """A text that changes with the file's content."""

    @abstractmethod
    def has(self, name: str) -> bool: ...

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file, or its first `limit` + 1 bytes. ValueError where it is damaged."""
        try:
            with self.open(name) as file:
                return file.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{name} of {self.path} is damaged ({error}): fetch or pack it again") from error

    def digest(self, names: Sequence[str]) -> str:
        """Hex digits of these names and their stamps."""
        lines = "\n".join(f"{name}\t{self.stamp(name)}" for name in names)
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()

    def read_labels(self) -> dict[str, int] | None:
        """{name: class} of dataset.json as StyleGAN's dataset tool writes it; None where it is absent or null."""
        if not self.has(LABELS_FILE):
            return None
        where = f"{LABELS_FILE} of {self.path}"
        content = self.read(LABELS_FILE, MAX_FILE_BYTES)
        _check_size(where, content, self.names)
        try:
            table = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is no JSON ({error})") from error
        entries = table.get("labels") if isinstance(table, dict) else table
        if isinstance(table, dict) and entries is None:
            return None
        if not isinstance(table, dict) or not isinstance(entries, list) or not all(map(_is_label, entries)):
            raise ValueError(
                f'{where} must read {{"labels": [["name.png", 3], ...]}}, classes whole numbers below {MAX_CLASSES}, '
                f'or {{"labels": null}}'
            )
        labels = {name.replace("\\", "/"): number for name, number in entries}
        _check_complete(where, set(labels), set(self.names), len(entries))
        return labels


def _check_size(where: str, content: bytes, names: Sequence[str]) -> None:
    """Raises ValueError where labels of these pictures cannot have so many values.

    A zip packs brackets to a thousandth, of each of which Python would make a list.
    """
    values, most = sum(map(content.count, (b",", b"[", b"{"))), 1000 + sum(VALUES_PER_PICTURE + len(n) for n in names)
    if values > most or len(content) > 16 * most:
        raise ValueError(
            f"{where} is no JSON of labels: {values} values in {len(content)} bytes are too many for {len(names)} "
            "pictures"
        )


def _is_label(entry: object) -> bool:
    """True for [name, class]."""
    match entry:
        case [str(), int(number)]:
            return not isinstance(number, bool) and 0 <= number < MAX_CLASSES
    return False


def _check_complete(where: str, labelled: set[str], there: set[str], entries: int) -> None:
    if labelled == there and entries == len(there):
        return
    bare, extra = (f"{sorted(names)[0]!r}" if names else "none" for names in (there - labelled, labelled - there))
    raise ValueError(
        f"{where} has {entries} labels for {len(there)} pictures; first picture without a label: {bare}, "
        f"first label without a picture: {extra}; use labels='none' to go without"
    )


def open_source(path: Path) -> Source:
    """A folder or .zip -> its Source. FileNotFoundError where there is neither, or no picture in it."""
    if path.is_dir():
        return Folder(path)
    if path.is_file():
        return Archive(path)
    raise FileNotFoundError(f"{path} is neither a folder nor a file: give the path of a folder of pictures or of a zip")


def _no_pictures(path: Path, links: int = 0) -> FileNotFoundError:
    left = f"; {links} symbolic links lead out of it or to folders and were not followed" if links else ""
    return FileNotFoundError(f"no picture in {path}, looked for {', '.join(ENDINGS)} in it and below{left}")


def _is_picture(name: str) -> bool:
    """Hidden files, such as the `._x.png` of macOS, are none."""
    return name.lower().endswith(ENDINGS) and not name.rsplit("/", 1)[-1].startswith(".")


class Folder(Source):
    """A folder and all below it. Links to folders are not followed, nor are links to files outside of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.links = 0
        self._root = path.resolve()
        self.names = tuple(sorted(self._walk("")))
        if not self.names:
            raise _no_pictures(path, self.links)

    def _walk(self, below: str) -> Iterator[str]:
        with os.scandir(self._root / below) as entries:
            for entry in entries:
                name = f"{below}{entry.name}"
                if entry.is_symlink() and not self._stays_inside(entry):
                    self.links += 1
                elif entry.is_dir(follow_symlinks=False):
                    yield from self._walk(f"{name}/")
                elif _is_picture(name) and entry.is_file():  # a pipe by such a name would be waited for
                    yield name

    def _stays_inside(self, entry: os.DirEntry[str]) -> bool:
        target = Path(entry.path).resolve()
        return target.is_file() and target.is_relative_to(self._root)

    def open(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")

    def has(self, name: str) -> bool:
        path = self._root / name
        return path.is_file() and not path.is_symlink()

    def stamp(self, name: str) -> str:
        """Size and the first and last 16 KiB: all of a small file, enough to tell large ones apart."""
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            ends = file.read(2**14)
            file.seek(max(size - 2**14, 0))
            return f"{size} {hashlib.sha256(ends + file.read(2**14)).hexdigest()}"


class Archive(Source):
    """A zip. Members are read by name and never extracted; each process opens the file for itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._owner = -1
        members = self._open().infolist()
        for member in members:
            _check_member(path, member)
        self._sizes = {m.filename: (m.file_size, m.CRC) for m in members if not m.is_dir()}
        self.names = tuple(sorted(name for name in self._sizes if _is_picture(name)))
        if not self.names:
            raise _no_pictures(path)

    def _open(self) -> zipfile.ZipFile:
        """This process's own handle: a forked one would share, and move, its parent's place in the file."""
        if self._zip is None or self._owner != os.getpid():
            try:
                self._zip, self._owner = zipfile.ZipFile(self.path), os.getpid()
            except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, LookupError) as error:
                raise ValueError(f"{self.path} is no readable zip ({error}): give a folder or a whole zip") from error
        return self._zip

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_zip": None, "_owner": -1}

    def open(self, name: str) -> BinaryIO:
        return self._open().open(name)  # type: ignore[return-value]

    def has(self, name: str) -> bool:
        return name in self._sizes

    def stamp(self, name: str) -> str:
        size, crc = self._sizes[name]
        return f"{size} {crc:08x}"


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    """Raises ValueError for what no archive of pictures holds."""
    name = member.filename
    if not name:
        raise ValueError(f"{path} holds a file without a name, and is damaged: give a folder or a whole zip")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name or ".." in name.split("/"):
        raise ValueError(f"{path} holds the name {name!r}, which leads out of it: refused")
    if member.flag_bits & 1:
        raise ValueError(f"{path} holds {name!r} encrypted: pack it again without a password")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError(f"{path} holds {name!r}, a symbolic link: refused")
    if member.file_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} holds {name!r} of {member.file_size} bytes, more than {MAX_FILE_BYTES}: refused")
