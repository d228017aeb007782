"""The verb that finds a picture in a generator: `lit-gans project runs/stylegan2-faces portrait.jpg --output found`."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from torch import Tensor

    from lit_gans.adversarial import GAN
    from lit_gans.editing import Projection, Step
    from lit_gans.metrics.perceptual import FrozenDistance

FRAMES, FPS = 100, 25  # of the film of the way
WAYPOINTS = 10  # images of the way in progress.png


def project(
    run: str | os.PathLike,
    image: str | os.PathLike,
    *,
    output: str | os.PathLike | None = None,
    space: Literal["w", "w+"] = "w",
    steps: int = 1000,
    label: int | None = None,
    lpips: str = "vgg",
    lpips_weights: str | os.PathLike | None = None,
    distance: FrozenDistance | None = None,
    seed: int = 0,
    raw: bool = False,
    format: Literal["gif", "mp4"] = "gif",
    device: str = "auto",
    trust: str | None = None,
) -> Path:
    """The folder with what a run's or .ckpt file's style-based generator makes of a picture file.

    w.safetensors (styles, noise maps, how they were found: see `lit_gans.editing.read_projection`), projected.png,
    target.png, side_by_side.png, progress.png (the target and ten images of the way), progress.gif or .mp4, and
    log.jsonl with the distance at each step. The picture's largest middle square is scaled to the model's resolution.

    Args:
        output: the folder; by default `<name of the picture>-projected`.
        space: "w", one style for all layers, or "w+", one for each: nearer to the picture, and further from what the
            model itself would draw.
        label: class of a conditional model whose mean style is the start; by default that of all classes.
        lpips: "vgg", "alex" or "squeeze", with torchvision's weights from the file `lpips_weights`, else the cache or
            a download. `distance` takes another network instead.
        raw: the generator as trained, not its average. format: of the film; "mp4" needs the extra `video`.
        device: "auto" is the accelerator where there is one. trust: see `lit_gans.runs.load.load_run`.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: no run, picture or weights, or a setting that cannot be met.
    """
    from lit_gans import editing
    from lit_gans.adversarial.capabilities import HasStyles, require
    from lit_gans.base.images import from_uint8
    from lit_gans.base.processes import find_device
    from lit_gans.base.video import mp4_encoder
    from lit_gans.metrics.perceptual import build_lpips
    from lit_gans.runs.load import load_gan

    image = Path(image)
    folder = Path(output) if output is not None else Path(f"{image.stem}-projected")
    if folder.is_file():
        raise ValueError(f"output {folder} is a file: give a folder")
    if format not in ("gif", "mp4"):
        raise ValueError(f"format {format!r} is neither 'gif' nor 'mp4'")
    if format == "mp4":
        mp4_encoder()  # before the work, not after it
    gan = load_gan(run, trust=trust)
    require(gan, HasStyles, "projection")
    pixels, said = read_picture(image, resolution=gan.resolution, channels=gan.channels)
    gan = gan.to(find_device(device))
    distance = (distance or build_lpips(lpips, weights_path=lpips_weights)).to(gan.device)
    print(f"lit-gans project: {said}", file=sys.stderr)
    choices = {"space": space, "steps": steps, "label": label, "seed": seed, "ema": not raw, "frames": FRAMES}
    report = _Reporter(folder / "log.jsonl", steps, sys.stderr)
    found = editing.project(gan, from_uint8(pixels), distance=distance, **choices, on_step=report)
    found.save(folder / "w.safetensors", **_stamp(gan, image, ema=not raw))
    save_pictures(found, folder, format=format)
    return folder


def read_picture(path: Path, *, resolution: int, channels: int) -> tuple[Tensor, str]:
    """(uint8 [C, R, R], what was done to it) of a picture file's largest middle square.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it cannot be read as a picture.
    """
    import torch

    from lit_gans.data.decode import MAX_PIXELS, UNREADABLE, Framing, open_picture

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a picture file")
    try:
        with path.open("rb") as file:
            width, height = open_picture(file, MAX_PIXELS).size
            pixels = Framing(resolution, channels).decode(file)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    side = min(width, height)
    done = [f"cropped to the middle {side}"] * (width != height) + [f"scaled to {resolution}"] * (side != resolution)
    said = f"{path.name} is {width} x {height} px{', ' if done else ''}{' and '.join(done)}"
    return torch.from_numpy(pixels.copy()), said


def save_pictures(found: Projection, folder: Path, *, format: Literal["gif", "mp4"] = "gif") -> None:
    """Writes the five pictures and the film of a projection."""
    import torch

    from lit_gans.base.grids import readable_grid
    from lit_gans.base.images import save_png, to_uint8
    from lit_gans.base.video import save_film
    from lit_gans.editing.projector import compared

    image, target, small = to_uint8(found.image), to_uint8(found.target), to_uint8(compared(found.target))
    save_png(image[0], folder / "projected.png")
    save_png(target[0], folder / "target.png")
    save_png(readable_grid(torch.cat([target, image]), 2), folder / "side_by_side.png")
    count = min(WAYPOINTS, len(found.frames))
    way = torch.tensor([(i + 1) * len(found.frames) // count - 1 for i in range(count)])
    save_png(readable_grid(torch.cat([small, found.frames[way]]), count + 1), folder / "progress.png")
    pairs = torch.stack([small.expand_as(found.frames), found.frames], 1).flatten(0, 1)
    save_film(pairs, folder / f"progress.{format}", frames=len(found.frames), columns=2, fps=FPS)


def _stamp(gan: GAN, image: Path, *, ema: bool) -> dict[str, object]:
    """What the styles belong to."""
    from lit_gans.base.cache import digest

    player = gan.generator_ema if ema and gan.generator_ema is not None else gan.generator
    return {
        "model": f"{type(gan).__module__}.{type(gan).__qualname__}",
        "weights": digest(player.state_dict())[:16],
        "images_seen": gan.images_seen,
        "image": image.name,
        "image_sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
    }


# ---- progress --------------------------------------------------------------------------------------------------------


class _Reporter:
    """Writes each step as a line of JSON; tells how far it is every second in a terminal, else every 30 s."""

    def __init__(self, path: Path, steps: int, screen: TextIO) -> None:
        self.path, self.steps, self.screen = path, steps, screen
        self.started = self.told = time.monotonic()
        self.interval_s, self.end = (1.0, "\r") if screen.isatty() else (30.0, "\n")

    def __call__(self, step: Step) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)  # not before: wrong settings leave no folder behind
        with self.path.open("a" if step.step else "w") as file:
            file.write(json.dumps(step._asdict()) + "\n")
        now, last = time.monotonic(), step.step + 1 == self.steps
        if last or now - self.told >= self.interval_s:
            self.told = now
            print(self.line(step, now), end="\n" if last else self.end, file=self.screen, flush=True)

    def line(self, step: Step, now: float) -> str:
        """ "120/1000  12%  distance 0.3142  0:00:25 < 0:03:03"."""
        from lit_gans.base.progress import clock

        done, elapsed = step.step + 1, now - self.started
        left = clock(elapsed / done * (self.steps - done))
        share = f"{done}/{self.steps} {done / self.steps:4.0%}"
        return f"{share}  distance {step.distance:.4f}  {clock(elapsed)} < {left}"


# ---- the command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    arguments = vars(_parser().parse_args(argv))
    try:
        folder = project(**arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("LIT_GANS_TRACEBACK") == "1":
            raise
        print(f"lit-gans project: {error}", file=sys.stderr)
        return 2
    print(folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lit-gans project", description="The styles and noise whose image is nearest to a picture."
    )
    add = parser.add_argument
    add("run", help="run folder or .ckpt file of a style-based generator")
    add("image", help="picture file; its largest middle square is scaled to the model's resolution")
    add("--output", metavar="FOLDER", help="default: <name of the picture>-projected")
    add("--space", default="w", choices=["w", "w+"], help="one style for all layers, or one for each (default: w)")
    add("--steps", type=int, default=1000, help="(default: %(default)s)")
    add("--label", type=int, help="class to start from on a conditional model (default: the mean of all)")
    add("--lpips", default="vgg", choices=["vgg", "alex", "squeeze"], help="network that compares (default: vgg)")
    add("--lpips-weights", metavar="FILE", help="file of that network's weights")
    add("--seed", type=int, default=0, help="of all that is random (default: %(default)s)")
    add("--raw", action="store_true", help="the generator as trained, not its average")
    add("--format", default="gif", choices=["gif", "mp4"], help="of the film (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    add("--trust", help="another package whose classes and losses the checkpoint may name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
