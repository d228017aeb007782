"""The verb that finds a picture in a generator: `lit-gans project runs/stylegan2-faces portrait.jpg --output found`."""

import os
import sys
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
    space: Literal["w", "w+"] = "w",
    steps: int = 1000,
    label: int | None = None,
    lpips: Literal["vgg", "alex", "squeeze"] = "vgg",
    lpips_weights: str | os.PathLike | None = None,
    distance: "FrozenDistance | None" = None,
    seed: int = 0,
    raw: bool = False,
    format: Literal["gif", "mp4"] = "gif",
    device: str = "auto",
    trust: str | None = None,
) -> Path:
    """The styles and noise maps whose image is nearest to a picture, as files of a folder.

    w.safetensors (styles, noise maps, how they were found: see `lit_gans.editing.read_projection`), projected.png,
    target.png, side_by_side.png, progress.png (the target and ten images of the way), progress.gif or .mp4, and
    log.jsonl with the distance at each step. The picture's largest middle square is scaled to the model's resolution.

    Args:
        run: run folder or .ckpt file of a style-based generator.
        image: picture file.
        output: the folder; by default `<name of the picture>-projected`.
        space: "w", one style for all layers, or "w+", one for each: nearer to the picture, and further from what the
            model itself would draw.
        steps: of the optimisation.
        label: class of a conditional model whose mean style is the start; by default that of all classes. A model with
            a mean style for each class, such as StyleGANXL, needs it.
        lpips: network that compares, with torchvision's weights from the file lpips_weights, else the cache or a
            download.
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
    from lit_gans import editing
    from lit_gans.adversarial.capabilities import HasStyles, require
    from lit_gans.base.images import from_uint8
    from lit_gans.base.processes import find_device
    from lit_gans.base.progress import Lines
    from lit_gans.base.video import mp4_encoder
    from lit_gans.editing import projection_files as files
    from lit_gans.metrics.perceptual import build_lpips
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
    gan = require(load_run(run, trust=trust), HasStyles, "projection")
    pixels, said = files.read_picture(image, resolution=gan.resolution, channels=gan.channels)
    gan = gan.to(find_device(device))
    distance = (distance or build_lpips(lpips, weights_path=lpips_weights)).to(gan.device)
    print(f"lit-gans project: {said}", file=sys.stderr)
    choices = {"space": space, "steps": steps, "label": label, "seed": seed, "ema": not raw, "frames": FRAMES}
    report = files.reporter(folder / "log.jsonl", steps, Lines())
    found = editing.project(gan, from_uint8(pixels), distance=distance, **choices, on_step=report)
    found.save(folder / "w.safetensors", **files.stamp(gan, image, ema=not raw))
    files.save_pictures(found, folder, format=format)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(project, argv, distance=None)


if __name__ == "__main__":
    sys.exit(main())
