"""Packing pictures, over processes and resumable: memory-mapped shards, and StyleGAN's zip."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import threading
import time
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lit_gans.base.files import replacing
from lit_gans.base.progress import progress_of
from lit_gans.data.decode import UNREADABLE
from lit_gans.data.pictures import Pictures, Recipe
from lit_gans.data.shard_files import (
    INDEX,
    LABELS_FILE,
    Index,
    Shard,
    is_whole,
    pack_labels,
    read_index,
    replace_file,
    shard_name,
    write_shard,
)

if TYPE_CHECKING:
    import numpy as np

    from lit_gans.data.shard_files import Index, Shard

T = TypeVar("T")

PLAN = "unfinished.json"  # in a folder of shards until its index is written
# A shard is the work of one process at a time: small enough to share out, and never more than 256 or so, since every
# map keeps a file open.
SHARD_BYTES, SHARD_IMAGES, MAX_SHARDS = 2**27, 4096, 256
CHUNK_BYTES = 2**22  # of the pictures that a process sends back at once for a zip
_NAMED = 3


# ---- the work, shared out --------------------------------------------------------------------------------------------


@dataclass
class Job:
    """All that a worker needs to know; sent to each once."""

    pictures: Pictures
    recipe: Recipe
    on_error: str
    settings: dict[str, object]
    count: int
    workers: int
    folder: Path = Path()  # of the shards
    shard_images: int = 1
    finished: Index | None = None  # of an output that an earlier call has finished

    @property
    def picture_bytes(self) -> int:
        return prod(self.recipe.shape)

    def framed(self, span: range, skipped: list[tuple[str, str]]) -> Iterator[tuple[np.ndarray, bool]]:
        """(uint8 [C, R, R], enlarged) of these pictures; those left out go to `skipped` with the reason."""
        for index in span:
            name = self.pictures.names[index]
            try:
                framed = self.recipe.apply(self.pictures.image(index))
            except UNREADABLE as error:
                why = f"{error}" or type(error).__name__
                if self.on_error == "fail":
                    raise ValueError(
                        f"{name} in {self.pictures.path} cannot be used: {why}. Mend or remove it, or use "
                        f"--on_error skip; the same command then goes on"
                    ) from error
                skipped.append((name, why))
                continue
            yield framed

    def spans(self, size: int) -> list[range]:
        return [range(start, min(start + size, self.count)) for start in range(0, self.count, size)]


_worker_job: Job | None = None


def _begin(job: Job) -> None:
    """In a new worker. A parent that is killed would leave its workers waiting for ever, so they watch it.

    Ctrl-C reaches all of them; the parent alone answers it.
    """
    global _worker_job
    _worker_job, parent = job, os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(work: Callable[[Job, range], T], span: range) -> T:
    assert _worker_job is not None
    return work(_worker_job, span)


def _ordered(job: Job, work: Callable[[Job, range], T], spans: list[range]) -> Iterator[T]:
    """work(job, span) for every span, in their order, by the job's processes."""
    if min(job.workers, len(spans)) == 1:
        yield from (work(job, span) for span in spans)
        return
    waiting: deque[Future[T]] = deque()
    pool = ProcessPoolExecutor(min(job.workers, len(spans)), initializer=_begin, initargs=(job,))
    try:
        for span in spans:
            waiting.append(pool.submit(_run, work, span))
            if len(waiting) > 3 * job.workers:  # no more results in memory than that
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OSError(
            "a worker process was ended from outside, perhaps for want of memory: use fewer --workers; "
            "the same command goes on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


# ---- shards ----------------------------------------------------------------------------------------------------------


def write_shards(job: Job, folder: Path) -> Path:
    job.folder, job.finished = folder, _claim(folder, job.settings)
    # The layout follows from the number and size of the pictures alone.
    job.shard_images = max(1, min(SHARD_IMAGES, SHARD_BYTES // job.picture_bytes), ceil(job.count / MAX_SHARDS))
    spans = job.spans(job.shard_images)
    if job.finished is not None and len(job.finished.shards) != len(spans):
        raise _other_pictures(folder)
    _check_space(folder, job.count * job.picture_bytes - sum(p.stat().st_size for p in folder.glob("shard-*.bin")))
    shards = []
    with progress_of("pictures") as progress:
        for span, shard in zip(spans, _ordered(job, make_shard, spans), strict=True):
            shards.append(shard)
            progress(span.stop, job.count)
    skipped = [entry for shard in shards for entry in shard.skipped]
    _report(job, skipped, sum(shard.enlarged for shard in shards))
    labels, checksum = _labels(job, skipped), None
    if labels is not None:
        replace_file(folder / LABELS_FILE, pack_labels(labels))
        checksum = hashlib.sha256(pack_labels(labels)).hexdigest()
    index = Index(job.recipe.shape, job.settings, job.pictures.class_names, checksum, tuple(shards))
    replace_file(folder / INDEX, index.dumps().encode())
    _sweep(folder, len(shards))
    return folder


def _claim(folder: Path, settings: dict[str, object]) -> Index | None:
    """Makes the folder ours; the index of what is finished in it. ValueError where it holds something else."""
    finished, begun = None, {}
    if (folder / INDEX).is_file():
        finished = read_index(folder)
        begun = dict(finished.settings)
    elif (folder / PLAN).is_file():
        begun = dict(json.loads((folder / PLAN).read_bytes()))
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"output {folder} exists and holds something else: give a new or an empty folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / PLAN, json.dumps(settings).encode())
        return None
    if begun != settings:
        differing = [f"{k} {begun.get(k)!r}, now {settings[k]!r}" for k in settings if begun.get(k) != settings[k]]
        raise ValueError(f"output {folder} was made with {'; '.join(differing)}: give another output, or remove it")
    return finished


def _other_pictures(output: Path) -> ValueError:
    return ValueError(f"output {output} was made from other pictures: give another output, or remove it")


def make_shard(job: Job, span: range) -> Shard:
    """The shard of these pictures: the one that is there, if it is whole and theirs, else written anew."""
    number, source = span.start // job.shard_images, job.pictures.digest(span)
    known = _known(job, number)
    if known is not None and job.finished is not None and known.source != source:
        raise _other_pictures(job.folder)
    # One made with "skip" is no answer to "fail".
    wanted = known is not None and known.source == source and not (known.skipped and job.on_error == "fail")
    if known is not None and wanted and is_whole(job.folder / shard_name(number), known, job.recipe.shape):
        return known
    skipped: list[tuple[str, str]] = []
    enlarged = 0

    def pixels() -> Iterator[np.ndarray]:
        nonlocal enlarged
        for picture, grown in job.framed(span, skipped):
            enlarged += grown
            yield picture

    images, checksum = write_shard(job.folder, number, pixels())
    shard = Shard(images, checksum, source, enlarged, tuple(skipped))
    if job.finished is None:
        replace_file(job.folder / _side_name(number), json.dumps(asdict(shard)).encode())
    return shard


def _side_name(number: int) -> str:
    """What is known of a finished shard until the index says it."""
    return f"shard-{number:05d}.json"


def _known(job: Job, number: int) -> Shard | None:
    if job.finished is not None:
        return job.finished.shards[number]
    path = job.folder / _side_name(number)
    try:
        return Shard.parse(json.loads(path.read_bytes())) if path.is_file() else None
    except ValueError:
        return None  # half written: the shard is made again


def _sweep(folder: Path, shards: int) -> None:
    """Removes what a finished folder does not need, and what broken calls have left."""
    kept = {shard_name(number) for number in range(shards)}
    for path in [*folder.glob("shard-*"), *folder.glob(".*.tmp"), folder / PLAN]:
        if path.name not in kept:
            path.unlink(missing_ok=True)


# ---- the zip ---------------------------------------------------------------------------------------------------------


def write_zip(job: Job, path: Path) -> Path:
    spans = job.spans(max(1, CHUNK_BYTES // job.picture_bytes))
    if path.exists():
        if _comment(path) != _zip_comment(job, _ordered(job, _source_digest, spans)):
            raise ValueError(
                f"output {path} exists and is not what this command makes of these pictures: give another output, or "
                f"remove it"
            )
        return path
    # Beside its pixels a stored PNG has a byte a row and its headers; the zip names it twice.
    row_bytes = job.recipe.resolution + job.picture_bytes // 1000
    _check_space(path.parent, job.count * (job.picture_bytes + row_bytes + 500))
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        if not _is_running(left.suffixes[-2][1:]):
            left.unlink()
    with replacing(path) as unfinished:
        _fill_zip(job, spans, unfinished)
    return path


def _is_running(number: str) -> bool:
    """Whether there is a process of that number; of what is no number, and on Windows, nothing is known."""
    if os.name == "nt":  # whose os.kill would end the process, whatever the signal
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True
    return True


def _fill_zip(job: Job, spans: list[range], path: Path) -> None:
    skipped: list[tuple[str, str]] = []
    digests, written, enlarged = [], 0, 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive, progress_of("pictures") as progress:
        for span, part in zip(spans, _ordered(job, _make_pngs, spans), strict=True):
            for png in part.pngs:
                _store(archive, png_name(written), png)
                written += 1
            digests.append(part.source)
            skipped += part.skipped
            enlarged += part.enlarged
            progress(span.stop, job.count)
        _report(job, skipped, enlarged)
        labels = _labels(job, skipped)
        entries = None if labels is None else [[png_name(i), label] for i, label in enumerate(labels)]
        names = job.pictures.class_names
        # Readers of StyleGAN's zips pass over our addition, the names of classes that are not their numbers.
        told = {"class_names": names} if entries and names != tuple(map(str, range(len(names)))) else {}
        _store(archive, "dataset.json", json.dumps({"labels": entries, **told}).encode())
        archive.comment = _zip_comment(job, digests)


def png_name(number: int) -> str:
    """The name by which StyleGAN's zips hold picture `number`."""
    return f"{number:08d}"[:5] + f"/img{number:08d}.png"


def _store(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Without the time of day, so that the same pictures make the same file."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16
    archive.writestr(member, content)


@dataclass
class _Part:
    pngs: list[bytes]
    source: str
    skipped: list[tuple[str, str]]
    enlarged: int


def _make_pngs(job: Job, span: range) -> _Part:
    part = _Part([], job.pictures.digest(span), [], 0)
    for pixels, grown in job.framed(span, part.skipped):
        part.pngs.append(_png(pixels))
        part.enlarged += grown
    return part


def _png(pixels: np.ndarray) -> bytes:
    """uint8 [C, R, R] -> a PNG that is not compressed, hence read fast."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(out, "png", compress_level=0)
    return out.getvalue()


def _source_digest(job: Job, span: range) -> str:
    return job.pictures.digest(span)


def _zip_comment(job: Job, digests: Iterator[str] | list[str]) -> bytes:
    """Says what a zip was made from and how; readers of pictures pass over it."""
    made = json.dumps([job.settings, job.on_error, *digests])
    return f"lit-gans prepare {hashlib.sha256(made.encode()).hexdigest()}".encode()


def _comment(path: Path) -> bytes | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment
    except (zipfile.BadZipFile, IsADirectoryError):
        return None


# ---- what both do ----------------------------------------------------------------------------------------------------


def _labels(job: Job, skipped: list[tuple[str, str]]) -> list[int] | None:
    """Class numbers of the pictures that were written."""
    if job.pictures.labels is None:
        return None
    left_out = {name for name, _ in skipped}
    return [job.pictures.labels[i] for i in range(job.count) if job.pictures.names[i] not in left_out]


def _check_space(where: Path, needed: int) -> None:
    """Raises ValueError if the disk has not so many bytes left."""
    there = next(folder for folder in [where, *where.absolute().parents] if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ValueError(
            f"not enough disk space: {where} needs {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free: make "
            f"room, lower --resolution or take fewer with --max_images"
        )


def _report(job: Job, skipped: list[tuple[str, str]], enlarged: int) -> None:
    """Warns of pictures left out or enlarged. ValueError where none is left."""
    first = "; ".join(f"{name}: {why}" for name, why in skipped[:_NAMED])
    found = f"{len(skipped)} of {job.count} pictures in {job.pictures.path} cannot be used: {first}"
    if len(skipped) == job.count:
        raise ValueError(f"{found}: nothing to write")
    if skipped:
        warnings.warn(f"{found}. They are left out", stacklevel=3)
    if enlarged:
        size = job.recipe.resolution
        warnings.warn(f"{enlarged} of {job.count} pictures are smaller than {size} px and were enlarged", stacklevel=3)
