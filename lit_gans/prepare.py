"""`lit-gans prepare`: pictures from anywhere, framed and scaled once, into StyleGAN's zip or memory-mapped shards."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from lit_gans.base.command import run_verb
from lit_gans.base.files import user_path

Crop = Literal["center", "none", "center-wide"]
Filter = Literal["lanczos", "box", "bicubic"]
Format = Literal["zip", "shards"]
Labels = Literal["auto", "none", "folders", "json"]
Split = Literal["train", "test"]
OnError = Literal["fail", "skip"]


def prepare(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    resolution: int,
    crop: Crop = "center",
    resize_filter: Filter = "lanczos",
    format: Format | None = None,
    channels: Literal[1, 3] | None = None,
    labels: Labels = "auto",
    split: Split = "train",
    max_images: int | None = None,
    workers: int | None = None,
    on_error: OnError = "fail",
    follow_links: bool = False,
) -> Path:
    """Brings all pictures of a source to resolution x resolution and packs them; the path of what it wrote.

    The order is that of the sorted names, and the same bytes are written whatever the number of workers. After a
    break the same call goes on: whole shards are verified and kept; a zip, which is written beside and then renamed, is
    begun again. Called once more on a finished output, it verifies and mends the shards, and leaves the zip.

    Args:
        source: a folder and all below it, a zip, a folder of LSUN's lmdb, CIFAR-10 or MNIST as published.
        output: a .zip, or the folder of the shards.
        resolution: side of the pictures in px.
        crop: "center" cuts the largest square from the middle; "center-wide" the largest 4:3, with black bars above and
            below, as LSUN Car is trained on; "none" wants square pictures.
        format: by default "zip" where output ends in .zip, else "shards".
        channels: 3 or 1 (luma); by default 1 for MNIST, 3 for all others.
        labels: where classes come from, see `lit_gans.data.Images`; CIFAR-10 and MNIST have theirs.
        split: of CIFAR-10 or MNIST.
        max_images: only so many, the first.
        workers: processes, by default one a core.
        on_error: "fail" at a picture that cannot be read, naming it, or "skip" it, with a warning at the end.
        follow_links: also symbolic links that lead out of the folder, or to folders.

    Raises:
        ValueError, OSError: an argument, a picture or an output that is not as it must be; each says the way out.
    """
    from lit_gans.data.described import say
    from lit_gans.data.packing import Job, write_shards, write_zip
    from lit_gans.data.pictures import Recipe, open_pictures

    output, source = user_path(output), user_path(source)
    format = _format(output, format)
    _check(resolution=resolution, channels=channels, max_images=max_images, workers=workers)
    for name, value, kind in (
        ("crop", crop, Crop), ("resize_filter", resize_filter, Filter), ("on_error", on_error, OnError),
        ("labels", labels, Labels), ("split", split, Split),
    ):  # fmt: skip
        _check_choice(name, value, kind)
    pictures = open_pictures(source, resolution=resolution, labels=labels, split=split, follow_links=follow_links)
    recipe = Recipe(resolution, channels or pictures.channels, crop, resize_filter)
    settings = {**asdict(recipe), "labels": labels, "split": split, "max_images": max_images}
    say(pictures.describe(recipe))
    count = min(len(pictures.names), max_images or len(pictures.names))
    job = Job(pictures, recipe, on_error, settings, count, workers or os.cpu_count() or 1)
    try:
        return (write_zip if format == "zip" else write_shards)(job, output)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("the same command goes on") from stop


def _format(output: Path, format: str | None) -> str:
    found = format or ("zip" if output.suffix == ".zip" else "shards")
    _check_choice("format", found, Format)
    if (found == "zip") != (output.suffix == ".zip"):
        raise ValueError(f"output {output} does not fit the format {found!r}: a zip ends in .zip, shards are a folder")
    return found


def _check_choice(name: str, value: str, kind: Any) -> None:
    if value not in get_args(kind):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(get_args(kind))}")


def _check(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} is {value!r}; it must be a whole number of 1 or more")
    if numbers["channels"] not in (None, 1, 3):
        raise ValueError(f"channels is {numbers['channels']}; it must be 1 or 3")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
