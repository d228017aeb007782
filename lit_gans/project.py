"""The verb that finds a picture in a generator: `lit-gans project runs/stylegan2-faces portrait.jpg --output found`."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lit_gans.base.command import run_verb

if TYPE_CHECKING:
    from lit_gans.metrics.perceptual import FrozenDistance

FRAMES = 100  # of the film of the way


def project(
    run: str | os.PathLike,
    image: str | os.PathLike,
    *,
    output: str | os.PathLike | None = None,
    space: Literal["w", "w+", "z"] | None = None,
    steps: int | None = None,
    tune: int = 0,
    starts: int = 4,
    start: str | None = None,
    label: int | None = None,
    lpips: Literal["vgg", "alex", "squeeze", "pixels"] = "vgg",
    plain: bool = False,
    lpips_weights: str | os.PathLike | None = None,
    distance: "FrozenDistance | None" = None,
    seed: int = 0,
    raw: bool = False,
    format: Literal["gif", "mp4"] = "gif",
    device: str = "auto",
    trust: str | None = None,
) -> Path:
    """What a generator draws nearest to a picture, or to each of a folder, as files of a folder.

    w.safetensors (styles, noise maps, how they were found: see `lit_gans.editing.read_projection`) or, where there are
    no styles, z.safetensors; projected.png, target.png, side_by_side.png, progress.png (the target and ten images of
    the way), progress.gif or .mp4, log.jsonl with the distance at each step, with `tune` weights.safetensors, and
    edit.yaml, with which `lit-gans edit` begins. Of a folder each picture has a folder of these, beside table.csv and
    sheet.png. A picture's largest middle square is scaled to the model's resolution.

    Args:
        run: run folder or .ckpt file of a generator.
        image: picture file, or a folder of them.
        output: the folder; by default `<name of the picture>-projected`.
        space: "w", one style for all layers; "w+", one for each: nearer to the picture, and further from what the model
            itself would draw; "z", a latent, of any generator. By default w, and z where there are no styles.
        steps: of the optimisation; by default 1000, in z 500.
        tune: steps of pivotal tuning, which moves weights of a copy of the generator until the picture is there: 350 as
            published, 0 for none.
        starts: latents that are followed side by side in z.
        start: encoder:FILE begins with what an encoder says of the picture: see `lit-gans encode`.
        label: class of a conditional model: in w that whose mean style is the start, by default the mean of all
            classes; a model with a mean style for each class, such as StyleGANXL, needs it. In z all are tried.
        lpips: network that compares, with torchvision's weights from the file lpips_weights, else the cache or a
            download; "pixels" is none.
        plain: the network's features without the heads of LPIPS, which were made for torchvision's weights.
        lpips_weights: file of that network's weights.
        distance: another network instead.
        seed: of all that is random.
        raw: the generator as trained, not its average.
        format: of the film; "mp4" needs the extra `video`.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        trust: another package whose classes and losses the checkpoint may name.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: no run, picture or weights, or a setting that cannot be met.
    """
    from lit_gans.adversarial.capabilities import FromLatents, require
    from lit_gans.base.images import from_uint8
    from lit_gans.base.processes import find_device
    from lit_gans.base.video import mp4_encoder
    from lit_gans.editing import projection_files as files
    from lit_gans.editing.inversion import STEPS, invert, space_of
    from lit_gans.metrics.perceptual import build_distance
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_run

    image = Path(image)
    folder = Path(output) if output is not None else Path(f"{image.stem}-projected")
    check_output(folder)
    if folder.is_file():
        raise ValueError(f"output {folder} is a file: give a folder")
    if format not in ("gif", "mp4"):
        raise ValueError(f"format {format!r} is neither 'gif' nor 'mp4'")
    if format == "mp4":
        mp4_encoder()  # before the work, not after it
    gan = require(load_run(run, trust=trust), FromLatents, "projection")
    space = space_of(gan, space)
    read = {
        name: (path, *files.read_picture(path, resolution=gan.resolution, channels=gan.channels))
        for name, path in files.pictures_at(image).items()
    }
    gan = gan.to(find_device(device))
    distance = (distance or build_distance(lpips, plain=plain, weights_path=lpips_weights)).to(gan.device)
    choices = {"space": space, "steps": steps, "tuning_steps": tune, "starts": starts, "label": label, "seed": seed}
    choices |= {"start": files.read_start(start, gan), "distance": distance, "ema": not raw, "frames": FRAMES}
    rows, shown = [], []
    for name, (path, pixels, said) in read.items():
        own, began = folder / name, time.monotonic()
        print(f"lit-gans project: {said}", file=sys.stderr)
        found = invert(
            gan,
            from_uint8(pixels),
            **choices,
            on_step=files.reporter(own / "log.jsonl", steps or STEPS[space]),
            on_tuning_step=files.reporter(own / "tuning.jsonl", tune, what="of tuning"),
        )
        rows.append(files.Row.of(name, found, time.monotonic() - began))
        shown.append(files.stages(found))
        files.save_found(found, gan, path, own, run=Path(run), ema=not raw, format=format)
    if image.is_dir():
        files.save_all(rows, shown, folder)
        print(files.told(rows, distance.name), file=sys.stderr)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(project, argv, distance=None)


if __name__ == "__main__":
    sys.exit(main())
