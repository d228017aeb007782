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
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_FILE_BYTES = 2**28
LABELS_FILE = "dataset.json"
MAX_CLASSES = 2**20
_FOLLOW = "the option follow_links takes them too"
# What systems leave beside pictures, as all whose names begin with a dot: .ipynb_checkpoints, .DS_Store, ._x.png.
LITTER = ("@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini")
VALUES_PER_PICTURE = 64  # in dataset.json, whose labels may be vectors too


class Source(ABC):
    """Pictures under names with forward slashes, sorted; `path` is what the user gave.

    `left` counts files that are no pictures, by their endings; `hidden` hidden files and folders, which hold no data;
    `links` those that were not followed; `tables` are the names of files dataset.json.
    """

    names: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path, self.links = path, 0
        self.left: Counter[str] = Counter()
        self.hidden: Counter[str] = Counter()
        self.tables: list[str] = []

    def told_left(self, *, known: Sequence[str] = ()) -> list[str]:
        """The counts of what is left out by ending, in words, the most first; but for `known` endings."""
        ranked = sorted(self.left.items(), key=lambda item: (-item[1], item[0]))
        return [f"{count} {ending}" for ending, count in ranked if ending not in known]

    def told_links(self) -> list[str]:
        """The links that were not followed, in words."""
        return [f"{self.links} symbolic links lead out of it or to folders and were not followed: {_FOLLOW}"] * (
            self.links > 0
        )

    def _pictures(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those that are pictures, sorted; the others are counted. FileNotFoundError where there is none."""
        pictures = []
        for name in names:
            if name.lower().endswith(ENDINGS):
                pictures.append(name)
            elif name.rsplit("/", 1)[-1] == LABELS_FILE:
                self.tables.append(name)
            else:
                self.left[Path(name).suffix.lower() or "no ending"] += 1
        if not pictures:
            raise _no_pictures(self)
        return tuple(sorted(pictures))

    @property
    def wrapping(self) -> tuple[str, ...]:
        """The folders, each in the one before, in which all pictures lie: ("",), or ("", "mine/", "mine/cats/")."""
        common = os.path.commonprefix([name[: name.rfind("/") + 1] for name in self.names])
        return ("", *(common[: slash.end()] for slash in re.finditer("/", common)))

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

    def read_labels(self) -> tuple[dict[str, int], tuple[str, ...]] | None:
        """({name: class}, names of the classes or ()) of dataset.json as StyleGAN's dataset tool writes it.

        None where it is absent or null. It lies above all pictures, with names from its own folder on. `class_names`
        are our addition to its format.
        """
        above = next((folder for folder in self.wrapping if f"{folder}{LABELS_FILE}" in self.tables), None)
        if above is None:
            self._check_none_astray()
            return None
        where = f"{above}{LABELS_FILE} of {self.path}"
        content = self.read(f"{above}{LABELS_FILE}", MAX_FILE_BYTES)
        _check_size(where, content, self.names)
        try:
            table = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is no JSON ({error})") from error
        entries = table.get("labels") if isinstance(table, dict) else table
        if isinstance(table, dict) and entries is None:
            return None
        if not isinstance(table, dict) or not isinstance(entries, list) or not all(map(_is_label, entries)):
            wrong = next((e for e in entries if not _is_label(e)), None) if isinstance(entries, list) else None
            raise ValueError(
                f'{where} must read {{"labels": [["name.png", 3], ...]}}, classes whole numbers below {MAX_CLASSES}, '
                f'or {{"labels": null}}{_of_another_kind(wrong)}'
            )
        labels = {above + name.replace("\\", "/"): number for name, number in entries}
        _check_complete(where, set(labels), set(self.names), len(entries))
        return labels, _class_names(where, table.get("class_names"), highest=max(labels.values()))

    def _check_none_astray(self) -> None:
        if self.tables:
            raise ValueError(
                f"{self.tables[0]} of {self.path} lies beside some of the pictures, not above all of them: move it to "
                "where all its pictures are, give that folder as path, or go without it by labels='folders' or 'none'"
            )


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


def _of_another_kind(entry: object) -> str:
    """What is wrong with an entry of dataset.json, in words."""
    match entry:
        case None:
            return ""
        case [str(name), list() | dict() | float()]:
            return (
                f"; {name} has {str(entry[1])[:60]}. One class per picture is what is supported: several labels "  # type: ignore[index]
                "(multi-label, one-hot) and continuous ones are not; choose one class each, or use labels='none'"
            )
    return f"; found {str(entry)[:80]}"


def _class_names(where: str, names: object, *, highest: int) -> tuple[str, ...]:
    if names is None:
        return ()
    if not isinstance(names, list) or len(set(map(str, names))) != len(names) or len(names) <= highest:
        raise ValueError(f"{where}: class_names must be a list of different names, one for each class up to {highest}")
    return tuple(map(str, names))


def _check_complete(where: str, labelled: set[str], there: set[str], entries: int) -> None:
    if labelled == there and entries == len(there):
        return
    bare, extra = (f"{sorted(names)[0]!r}" if names else "none" for names in (there - labelled, labelled - there))
    raise ValueError(
        f"{where} has {entries} labels for {len(there)} pictures; first picture without a label: {bare}, "
        f"first label without a picture: {extra}; use labels='none' to go without"
    )


def open_source(path: Path, *, follow_links: bool = False) -> Source:
    """A folder or .zip -> its Source. FileNotFoundError where there is neither, or no picture in it."""
    if path.is_dir():
        return Folder(path, follow_links=follow_links)
    if path.is_file():
        return Archive(path)
    raise FileNotFoundError(f"{path} is neither a folder nor a file: give the path of a folder of pictures or of a zip")


def _no_pictures(source: Source) -> FileNotFoundError:
    counts = source.told_left()[:8]
    left = f"; there are {', '.join(counts)}" if counts else ""
    if source.hidden:
        left += f"; hidden and not looked into: {', '.join(sorted(source.hidden)[:8])}"
    left += "".join(f"; {links}" for links in source.told_links())
    return FileNotFoundError(f"no picture in {source.path}, looked for {', '.join(ENDINGS)} in it and below{left}")


def is_hidden(part: str) -> bool:
    """Whether a file or folder of this name holds no data."""
    return part.startswith(".") or part.lower() in LITTER


class Folder(Source):
    """A folder and all below it.

    Links to folders, and links to files outside of it, are followed with `follow_links` alone; never round in circles.
    """

    def __init__(self, path: Path, *, follow_links: bool = False) -> None:
        super().__init__(path)
        self.follow_links, self._root = follow_links, path.resolve()
        self.names = self._pictures(self._walk("", (self._root,)))

    def _walk(self, below: str, through: tuple[Path, ...]) -> Iterator[str]:
        """The names of all files; `through` are the real folders that lead there."""
        with os.scandir(self._root / below) as entries:
            for entry in entries:
                name = f"{below}{entry.name}"
                if is_hidden(entry.name):
                    self.hidden[entry.name] += 1
                elif entry.is_symlink() and not self._is_followed(entry, through):
                    self.links += 1
                elif entry.is_dir():
                    yield from self._walk(f"{name}/", (*through, Path(entry.path).resolve()))
                elif entry.is_file():
                    yield name

    def told_links(self) -> list[str]:
        if not self.follow_links:
            return super().told_links()
        return [f"{self.links} symbolic links lead nowhere or round in a circle"] * (self.links > 0)

    def _is_followed(self, link: os.DirEntry[str], through: tuple[Path, ...]) -> bool:
        target = Path(os.path.realpath(link.path))
        if self.follow_links:
            return target.is_file() or (target.is_dir() and target not in through)
        return target.is_file() and target.is_relative_to(self._root)

    def open(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")

    def has(self, name: str) -> bool:
        path = self._root / name
        return path.is_file() and (self.follow_links or not path.is_symlink())

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
        super().__init__(path)
        self._zip: zipfile.ZipFile | None = None
        self._owner = -1
        self._members: dict[str, tuple[str, int, int]] = {}  # name: (name in the zip, bytes, CRC)
        for member in self._open().infolist():
            name = member.filename.replace("\\", "/")  # of old tools of Windows
            _check_member(path, name, member)
            if self._members.get(name, (member.filename,))[0] != member.filename:
                raise ValueError(f"{path} holds {name!r} twice, with / and with \\: remove one")
            if not name.endswith("/"):
                self._members[name] = (member.filename, member.file_size, member.CRC)
        self.names = self._pictures(filter(self._is_shown, self._members))

    def _is_shown(self, name: str) -> bool:
        hidden = next((part for part in name.split("/") if is_hidden(part)), None)
        if hidden is not None:
            self.hidden[hidden] += 1
        return hidden is None

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
        return self._open().open(self._members[name][0])  # type: ignore[return-value]

    def has(self, name: str) -> bool:
        return name in self._members

    def stamp(self, name: str) -> str:
        _, size, crc = self._members[name]
        return f"{size} {crc:08x}"


def _check_member(path: Path, name: str, member: zipfile.ZipInfo) -> None:
    """Raises ValueError for what no archive of pictures holds."""
    if not name:
        raise ValueError(f"{path} holds a file without a name, and is damaged: give a folder or a whole zip")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise ValueError(f"{path} holds the name {name!r}, which leads out of it: refused")
    if member.flag_bits & 1:
        raise ValueError(f"{path} holds {name!r} encrypted: pack it again without a password")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError(f"{path} holds {name!r}, a symbolic link: refused")
    if member.file_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} holds {name!r} of {member.file_size} bytes, more than {MAX_FILE_BYTES}: refused")
