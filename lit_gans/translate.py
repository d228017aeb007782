"""The verb that turns pictures into others: `lit-gans translate runs/cyclegan-horse2zebra photos --output zebras`."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lit_gans.base.command import run_verb
from lit_gans.base.files import user_path
from lit_gans.base.progress import Lines


class Translated(NamedTuple):
    """The written pictures and sheets, and why the pictures in `failed` have none, by name."""

    files: list[Path]
    sheets: list[Path]
    failed: dict[str, str]


def translate(
    run: str | os.PathLike,
    source: str | os.PathLike,
    *,
    direction: Literal["ab", "ba"] = "ab",
    output: str | os.PathLike | None = None,
    tile: int | None = None,
    overlap: int = 64,
    sheet: bool = False,
    instances: str | os.PathLike | None = None,
    device: str = "auto",
    seed: int = 0,
    trust: str | None = None,
    follow_links: bool = False,
    progress: Callable[[float, int], None] | None = None,
) -> Translated:
    """Translates a picture, or all of a folder or zip, into PNG files of the same names and sizes.

    Pictures are turned upright as their EXIF data says; transparency is laid on white. A picture's translation depends
    on its pixels and the seed alone. One that cannot be read or translated is passed over, and told in the result; the
    exit status is then 1.

    Args:
        run: run folder, .ckpt file, or folder of `lit-gans convert`.
        source: a picture, or a folder or zip of pictures.
        direction: "ba" is CycleGAN's way back.
        output: a folder; by default beside the source, as `photos-ab`.
        tile: pictures with a side longer than this, in px, are translated in tiles of this size, and blended linearly
            where they overlap; by default 1024, or as much as the model's stride asks for; 0 takes all whole.
        overlap: of tiles, in px, or more.
        sheet: also pictures of 16 pairs each, input beside output, in the folder `sheets`.
        instances: for a model of label maps (pix2pixHD), the maps of instance ids of up to 16 bits: a folder with files
            of the same names, or a file for a file.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        seed: of the noise of models that have some (pix2pix).
        trust: another package whose classes and losses the checkpoint may name.
        follow_links: also symbolic links that lead out of the folder, or to folders.
        progress: is told (done, total), in pictures, after every tile.

    Raises:
        ValueError, FileNotFoundError: an argument that cannot be met, or nothing there; each says the way out.
    """
    from lit_gans.base.images import save_png
    from lit_gans.base.processes import find_device
    from lit_gans.base.tiles import tile_size
    from lit_gans.data.described import say
    from lit_gans.editing import translation
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_translator

    source = user_path(source)
    pictures = translation.pictures_of(source, follow_links=follow_links)
    folder = translation.folder_beside(source, direction) if output is None else user_path(output)
    check_output(folder)
    targets = translation.targets_of(source, folder, list(pictures), sheet=sheet)
    maps = None if instances is None else translation.instances_of(
        source, Path(instances), list(pictures), follow_links=follow_links
    )
    model = load_translator(run, direction=direction, trust=trust)
    taken = model.takes(direction)
    if maps is not None and not taken.labels:
        raise ValueError(f"{run} translates pictures, which have no instances: leave instances out")
    tile = tile_size(model.stride, tile=tile, overlap=overlap)
    work = {"direction": direction, "tile": tile, "overlap": overlap, "seed": seed, "device": find_device(device)}
    model.to(work["device"])
    say(translation.described(source, tile, follow_links=follow_links))
    files, failed, sheets = [], {}, translation.Sheets(folder / translation.SHEETS) if sheet else None
    for number, (name, target) in enumerate(targets.items()):
        told = None if progress is None else lambda share, number=number: progress(number + share, len(targets))
        try:
            picture = translation.read_picture(pictures[name], taken)
            ids = None if maps is None else translation.read_ids(maps[name])
            made = translation.translate_picture(model, picture, instance=ids, told=told, **work)
        except ValueError as error:
            if os.environ.get("LIT_GANS_TRACEBACK") == "1":
                raise
            failed[name] = str(error)
            continue
        files.append(save_png(made, target))
        if sheets is not None:
            sheets.add(picture, made)
    return Translated(files, [] if sheets is None else sheets.close(), failed)


def show(done: Translated) -> int:
    """Prints where the pictures are, and on standard error those that were passed over."""
    for name, why in done.failed.items():
        print(f"lit-gans translate: {name}: {why}", file=sys.stderr)
    if done.failed:
        of_all = len(done.failed) + len(done.files)
        print(f"lit-gans translate: {len(done.failed)} of {of_all} pictures were passed over", file=sys.stderr)
    if done.files:
        folder = os.path.commonpath([path.parent for path in done.files])
        print(done.files[0] if len(done.files) == 1 else f"{len(done.files)} pictures in {folder}")
    if done.sheets:
        print(f"sheets: {', '.join(map(str, done.sheets))}")
    return int(bool(done.failed))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(translate, argv, show=show, progress=Lines("pictures"))


if __name__ == "__main__":
    sys.exit(main())
