"""The studio's folder: what browsers send and what is made for them, and no other file of the machine."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from lit_gans.base.files import replacing

NAME = re.compile(r"([a-z]{1,20})-[0-9a-f]{16}\.(png|gif|mp4|safetensors)")
SCRIPT = "edit.yaml"
MAX_UPLOAD_BYTES, MAX_FOLDER_BYTES = 20 * 2**20, 2 * 2**30
MAX_ENTRIES, MAX_UNPACKED_BYTES = 20, 200 * 2**20


class Files:
    """Files by names that say what is in them, such as photo-0123456789abcdef.png: of equal names are equal files.

    It stands in for the folder of an edit script, whose steps ask it for `files / name`: see `path`. granted: further
    files, which whoever runs the studio has named, by exactly these names.
    """

    def __init__(self, folder: Path, *, granted: Collection[str] = (), max_bytes: int = MAX_FOLDER_BYTES) -> None:
        self.folder, self.granted, self.max_bytes = folder, frozenset(granted), max_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def __truediv__(self, name: str) -> Path:
        return self.path(name)

    def path(self, name: str) -> Path:
        """The file of this name. ValueError for one that the studio did not give, be it a path or a link."""
        if isinstance(name, str) and name in self.granted:
            return Path(name)
        path = self.folder / name if isinstance(name, str) and NAME.fullmatch(name) else None
        if path is None or path.is_symlink() or not path.is_file():
            raise ValueError(
                f"{str(name)[:100]!r} is no file of the studio: it reads what was uploaded or made here alone"
            )
        return path

    def keep(self, data: bytes, kind: str, suffix: str) -> str:
        """The name under which it lies there from now on. ValueError where the folder is full."""
        name = f"{kind}-{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
        assert NAME.fullmatch(name), name
        if not (self.folder / name).is_file():
            held = sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
            if held + len(data) > self.max_bytes:
                raise ValueError(
                    f"the studio's folder holds {held / 2**20:,.0f} MB of at most {self.max_bytes / 2**20:,.0f}: "
                    f"whoever runs the studio can empty {self.folder.name}"
                )
            with replacing(self.folder / name) as unfinished:
                unfinished.write_bytes(data)
        return name

    def adopt(self, path: Path, kind: str) -> str:
        """`keep` of a file that was written elsewhere, which is gone then."""
        name = self.keep(path.read_bytes(), kind, path.suffix)
        path.unlink()
        return name

    # ---- scripts with their files ------------------------------------------------------------------------------------

    def pack(self, text: str, said: object) -> tuple[bytes, str]:
        """(bytes, name) of a script to take away: a .yaml file, or where it names files a .zip with all of them."""
        names = sorted({one for one in strings(said) if NAME.fullmatch(one)})
        if not names:
            return text.encode(), SCRIPT
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(SCRIPT, text)
            for name in names:
                archive.write(self.path(name), name)
        return buffer.getvalue(), "edit.zip"

    def unpack(self, data: bytes) -> str:
        """The text of the script in a file that `pack` wrote; its files are kept. ValueError for any other file."""
        if not data.startswith(b"PK"):
            return decoded(data)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                entries = {entry.filename: entry for entry in archive.infolist()}
                check_entries(entries)
                text = decoded(archive.read(SCRIPT))
                for name in entries:
                    if (match := NAME.fullmatch(name)) and name in text:
                        kept = self.keep(archive.read(name), match[1], f".{match[2]}")
                        text = text.replace(name, kept)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
            raise ValueError(f"this zip cannot be read: {error}") from error
        return text


def check_entries(entries: Mapping[str, zipfile.ZipInfo]) -> None:
    """ValueError for a zip that `Files.pack` did not write, before anything in it is read."""
    wrong = [name for name in entries if name != SCRIPT and not NAME.fullmatch(name)]
    if SCRIPT not in entries or wrong or len(entries) > MAX_ENTRIES:
        found = wrong[0] if wrong else f"{len(entries)} files"
        raise ValueError(f"this zip is none of the studio's, with {SCRIPT} and its files: it has {found[:100]!r}")
    size = sum(entry.file_size for entry in entries.values())
    if size > MAX_UNPACKED_BYTES:
        raise ValueError(f"this zip unpacks to {size:,} bytes, and {MAX_UNPACKED_BYTES:,} are the most")


def decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("this is neither a script as text nor a zip of the studio") from error


def strings(said: object) -> Iterator[str]:
    """All texts in plain values."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, Mapping):
        for one in said.values():
            yield from strings(one)
    elif isinstance(said, list | tuple):
        for one in said:
            yield from strings(one)
