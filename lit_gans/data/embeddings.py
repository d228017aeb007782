"""Embeddings of captions: those published as pickles, which are read without running them, and those made once here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_gans.base.cache import cache_folder, key_of, read_tensors, write_tensors
from lit_gans.base.files import check_regular
from lit_gans.base.machine import HostilePickle
from lit_gans.base.pickles import loads
from lit_gans.base.processes import first_on_rank_zero
from lit_gans.data.captions import Letters, Vocabulary
from lit_gans.nn.sentences import TextMaker, build_text_maker

if TYPE_CHECKING:
    from lit_gans.data.captions import Captions

EMBEDDINGS, NAMES, CLASSES = "char-CNN-RNN-embeddings.pickle", "filenames.pickle", "class_info.pickle"
MAX_BYTES = 4 * 2**30
_VERSION = 1  # of the kept files' content
_BATCH = 256


def read_values(path: Path) -> Any:
    """What a pickle of plain values and arrays of numbers holds, arrays as tensors; nothing in it is ever called.

    FileNotFoundError where there is none; ValueError where it holds anything else.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: StackGAN publishes {EMBEDDINGS}, {NAMES} and {CLASSES} by split")
    check_regular(path, "give the published file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes, more than the {MAX_BYTES} that are read")
    try:
        return loads(path.read_bytes())
    except HostilePickle as error:
        raise ValueError(f"{path} is not read, and nothing in it was run: {error}; fetch the published file") from error


def read_names(path: Path) -> list[str]:
    """The names of the pictures, without their endings, in the order of a split: its `filenames.pickle`."""
    names = read_values(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{path} holds {_kind(names)}, expected a list of names such as '001.Black_footed_Albatross/...'"
        )
    return names


def read_classes(path: Path, count: int) -> list[int]:
    """The class numbers of the `count` pictures of a split: its `class_info.pickle`."""
    classes = read_values(path)
    classes = classes.tolist() if isinstance(classes, Tensor) and classes.ndim == 1 else classes
    if not isinstance(classes, list) or not all(type(number) is int for number in classes):
        raise ValueError(f"{path} holds {_kind(classes)}, expected a list of class numbers")
    if len(classes) != count:
        raise ValueError(f"{path} has {len(classes)} class numbers for {count} pictures: take both from one release")
    return classes


def read_vocabulary(path: Path) -> Vocabulary:
    """The words of AttnGAN's `captions.pickle`, [train captions, test captions, {number: word}, {word: number}].

    Its numbers are those of the released DAMSM encoders; it has no "<unk>".
    """
    values = read_values(path)
    words = values[2] if isinstance(values, list) and len(values) == 4 else None
    if not isinstance(words, dict) or set(words) != set(range(len(words))):
        raise ValueError(f"{path} holds {_kind(values)}, expected four parts, of which the third is {{number: word}}")
    return Vocabulary(tuple(words[number] for number in range(len(words))), "ascii")


def vocabulary_of(given: Sequence[str] | str, letters: Letters | None) -> Vocabulary:
    """That of words, or of the path of a JSON file of them or of AttnGAN's `captions.pickle`.

    letters: None is the rule that it was built by, as far as its words tell.
    """
    if not isinstance(given, str):
        return Vocabulary(tuple(given), letters)
    path = Path(given)
    found = read_vocabulary(path) if path.suffix == ".pickle" else Vocabulary.read(path)
    return found if letters is None else replace(found, letters=letters)


def published_embeddings(folder: Path, split: str, captions: Captions) -> Tensor:
    """float32 [all captions, E] from `folder`/<split>/, in the order of `captions`; pictures are matched by name.

    ValueError where the files do not fit each other or lack a picture or a caption.
    """
    place = folder / split
    names = read_names(place / NAMES)
    stacked = _stacked(read_values(place / EMBEDDINGS), place / EMBEDDINGS)
    if len(stacked) != len(names):
        raise ValueError(
            f"{place / EMBEDDINGS} has embeddings of {len(stacked)} pictures, {place / NAMES} names of "
            f"{len(names)}: take both from one release"
        )
    if (place / CLASSES).is_file():
        read_classes(place / CLASSES, len(names))
    rows = {name: row for row, name in enumerate(names)}
    stems = [name.rsplit(".", 1)[0] for name in captions.names]
    missing = [stem for stem in stems if stem not in rows]
    if missing:
        raise ValueError(f"{place / NAMES} lacks {len(missing)} of {len(stems)} pictures, such as {missing[0]!r}")
    each = stacked.shape[1]
    wrong = [i for i, count in enumerate(captions.counts.tolist()) if count != each]
    if wrong:
        raise ValueError(
            f"{place / EMBEDDINGS} has {each} embeddings per picture, and {captions.names[wrong[0]]} has "
            f"{captions.counts[wrong[0]]} captions: take the captions that the embeddings were made from"
        )
    return stacked[torch.tensor([rows[stem] for stem in stems])].flatten(0, 1)


def _stacked(values: Any, path: Path) -> Tensor:
    """float32 [pictures, captions, E] of an array, or of a list with an array [captions, E] per picture."""
    if isinstance(values, list) and values and all(isinstance(each, Tensor) for each in values):
        shapes = {tuple(each.shape) for each in values}
        if len(shapes) > 1:
            a, b = sorted(shapes)[:2]
            raise ValueError(
                f"{path} has arrays of shape {list(a)} and of {list(b)}, expected one shape for all pictures"
            )
        values = torch.stack(values)
    if not isinstance(values, Tensor) or values.ndim != 3 or not values.is_floating_point():
        raise ValueError(f"{path} holds {_kind(values)}, expected an array [captions, E] of each picture")
    return values.float()


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"an array {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    inside = f" of {type(value[0]).__name__}" if isinstance(value, list) and value else ""
    return f"a {type(value).__name__}{inside}"


def cached_embeddings(encoder: TextMaker, captions: Sequence[str], *, folder: Path | None = None) -> Tensor:
    """float32 [N, E] of N captions, on the CPU; made once, then kept under the fingerprints of encoder and captions.

    `folder` is where they are kept, by default "embeddings" in the cache folder. In a process group every process calls
    it: process 0 makes them while the others wait.
    """
    content = hashlib.sha256(json.dumps(list(captions)).encode()).hexdigest()
    key = key_of(version=_VERSION, encoder=encoder.fingerprint, captions=content)
    path = (cache_folder() / "embeddings" if folder is None else folder) / f"{key}.safetensors"

    def made() -> Tensor:
        kept = read_tensors(path)
        if kept is not None:
            return kept[0]["embeddings"]
        parts = [captions[first : first + _BATCH] for first in range(0, len(captions), _BATCH)]
        vectors = torch.cat([encoder.texts(part).float().cpu() for part in parts])
        write_tensors(path, {"embeddings": vectors}, {"encoder": encoder.fingerprint})
        return vectors

    return first_on_rank_zero(made)


def made_embeddings(name: str, captions: Sequence[str], *, folder: Path | None = None) -> Tensor:
    """float32 [N, E] of N captions by what this name means: clip:<owner>/<name>, or sentences:<folder>."""
    return cached_embeddings(build_text_maker(name), captions, folder=folder)
