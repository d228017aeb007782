"""The verb that draws: `python -m lit_gans.sample runs/dcgan-digits --seeds 0-63 --output out`."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from lit_gans.adversarial import GAN

Format = Literal["gif", "mp4"]
SEED_LIMIT = 2**63
FILM_PX = 256  # a film of one image is enlarged to it; cells of grids to 64


def sample(
    run: str | os.PathLike,
    *,
    output: str | os.PathLike,
    seeds: str | Sequence[int] = "0-63",
    classes: str | Sequence[int] | None = None,
    psi: float = 1.0,
    raw: bool = False,
    grid: bool = False,
    interpolate: int | None = None,
    frames: int = 60,
    format: Format | None = None,
    fps: int = 25,
    device: str = "auto",
    batch_size: int = 64,
    trust: str | None = None,
) -> list[Path]:
    """Draws images from a run folder or .ckpt file; the files written.

    Without `grid` or `interpolate`, one PNG per image: `seed0007.png`, or `seed0007_class3.png` on a conditional
    model, for every seed and every class; without `classes`, each seed's class is its remainder.

    Args:
        output: a folder; for a grid or film also the file itself (.png, .gif, .mp4).
        seeds: numbers, or text as "0-63,100"; an image follows from its seed (and class) alone.
        classes: numbers, or text as "3,5"; in a grid a row each, by default all (20 evenly chosen of more).
        psi: scales the latent; below 1, more typical and less varied images.
        raw: the generator as trained, not its average.
        grid: one picture of all images. With `interpolate`, a film of cells: one per class and group of seeds.
        interpolate: a looping film through the first so many seeds; `grid` takes a group for each column.
        frames: of the whole film. format: "gif", or "mp4" with the extra `video`; by default the output's suffix.
        device: "auto" is the accelerator where there is one. trust: see `lit_gans.run.load_run`.

    Raises:
        ValueError, FileNotFoundError: an argument that cannot be met, or no run there; each says the way out.
    """
    from lit_gans.run import load_run

    seeds = _numbers(seeds, "seeds")
    classes = None if classes is None else _numbers(classes, "classes")
    _check_counts(seeds, interpolate, frames=frames, fps=fps, batch_size=batch_size)
    output = Path(output)
    film = interpolate is not None
    target = _target(output, format, film=film, grid=grid)
    gan = load_run(run, trust=trust)
    _check_classes(gan, classes)
    gan = gan.to(_device(device))
    draw = {"psi": psi, "ema": not raw, "batch_size": batch_size}
    if film:
        z, labels, columns = _film(gan, seeds, classes, count=interpolate, frames=frames, grid=grid)
        return [_save_film(_generate(gan, z, labels, **draw), target, frames=frames, columns=columns, fps=fps)]
    if grid:
        return [_save_grid(gan, seeds, classes, target, draw)]
    return _save_singles(gan, seeds, classes, target, draw)


# ---- arguments -------------------------------------------------------------------------------------------------------


def parse_numbers(text: str, what: str = "seeds") -> list[int]:
    """ "0-3,7" -> [0, 1, 2, 3, 7].

    Raises:
        ValueError: not of that form, or a range that runs backwards.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{what} {text!r}: {part.strip()!r} is not a number or range; write as 0-63,100")
        if dash and int(last) < int(first):
            raise ValueError(f"{what} {text!r}: the range {part.strip()!r} runs backwards; write {last}-{first}")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _numbers(given: str | Sequence[int], what: str) -> list[int]:
    numbers = parse_numbers(given, what) if isinstance(given, str) else list(given)
    if not numbers:
        raise ValueError(f"{what} is empty: give one or more, as 0-63,100")
    wrong = [n for n in numbers if not 0 <= n < SEED_LIMIT]
    if wrong:
        raise ValueError(f"{what}: {wrong[0]} is not a number from 0 to 2^63 - 1")
    return list(dict.fromkeys(numbers))


def _check_counts(seeds: list[int], interpolate: int | None, **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more")
    if interpolate is not None and not 2 <= interpolate <= len(seeds):
        raise ValueError(f"interpolate is {interpolate}: a film needs 2 seeds or more, and {len(seeds)} are given")


def _check_classes(gan: "GAN", classes: list[int] | None) -> None:
    if classes is None:
        return
    if gan.num_classes == 0:
        raise ValueError(f"classes {classes} were asked for, but this {type(gan).__name__} is unconditional: leave out")
    wrong = [c for c in classes if c >= gan.num_classes]
    if wrong:
        raise ValueError(f"class {wrong[0]} does not exist: this model has the classes 0 to {gan.num_classes - 1}")


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


def _target(output: Path, format: Format | None, *, film: bool, grid: bool) -> Path:
    """The folder of single images, or the file of a grid or film."""
    suffixes = (".gif", ".mp4") if film else (".png",) if grid else ()
    if output.suffix in (".png", ".gif", ".mp4") and not output.is_dir():
        if output.suffix not in suffixes:
            what = "a film" if film else "a grid" if grid else "single images"
            fits = f" or a file {' or '.join(suffixes)}" if suffixes else ""
            raise ValueError(f"output {output} does not fit {what}: give a folder{fits}")
        if format is not None and film and output.suffix != f".{format}":
            raise ValueError(f"output {output} and format {format!r} contradict each other: leave one out")
        return output
    return output / (f"interpolation.{format or 'gif'}" if film else "grid.png") if film or grid else output


# ---- drawing ---------------------------------------------------------------------------------------------------------


def _save_singles(gan: "GAN", seeds: list[int], classes: list[int] | None, folder: Path, draw: dict) -> list[Path]:
    from lit_gans.images import save_png

    pairs = [(s, None) for s in seeds] if gan.num_classes == 0 else [
        (s, c) for s in seeds for c in (classes or [s % gan.num_classes])
    ]  # fmt: skip
    size, paths = draw["batch_size"], []
    for part in (pairs[i : i + size] for i in range(0, len(pairs), size)):
        for (seed, c), image in zip(part, _images(gan, part, draw), strict=True):
            name = f"seed{seed:04d}.png" if c is None else f"seed{seed:04d}_class{c}.png"
            paths.append(save_png(image, folder / name))
    return paths


def _images(gan: "GAN", pairs: list[tuple[int, int | None]], draw: dict) -> "Tensor":
    """uint8 [N, C, H, W] of pairs (seed, class or None)."""
    import torch

    seeds = torch.tensor([seed for seed, _ in pairs])
    labels = torch.tensor([c for _, c in pairs]) if gan.num_classes else None
    return _generate(gan, gan.seeded_latents(seeds), labels, **draw)


def _generate(gan: "GAN", z: "Tensor", labels: "Tensor | None", *, psi: float, ema: bool, batch_size: int) -> "Tensor":
    """z [N, Z] -> uint8 [N, C, H, W] on the CPU."""
    import torch

    from lit_gans.images import to_uint8

    parts = []
    for start in range(0, len(z), batch_size):
        part = slice(start, start + batch_size)
        chosen = None if labels is None else labels[part].to(z.device)
        parts.append(to_uint8(gan.generate(z[part], labels=chosen, psi=psi, ema=ema)).cpu())
    return torch.cat(parts)


def _save_grid(gan: "GAN", seeds: list[int], classes: list[int] | None, path: Path, draw: dict) -> Path:
    from lit_gans.callbacks.image_grid import readable_grid
    from lit_gans.images import save_png

    rows = _rows(gan, classes)
    columns = math.ceil(math.sqrt(len(seeds))) if rows == [None] else len(seeds)
    return save_png(readable_grid(_images(gan, [(s, c) for c in rows for s in seeds], draw), columns), path)


def _rows(gan: "GAN", classes: list[int] | None) -> list[int] | list[None]:
    """The class of each row of a grid; [None] on an unconditional model."""
    from lit_gans.callbacks.image_grid import MAX_CLASSES, spread

    if gan.num_classes == 0:
        return [None]
    return classes or spread(gan.num_classes, MAX_CLASSES).tolist()


# ---- films -----------------------------------------------------------------------------------------------------------


def _film(
    gan: "GAN", seeds: list[int], classes: list[int] | None, *, count: int, frames: int, grid: bool
) -> tuple["Tensor", "Tensor | None", int]:
    """(z [frames * cells, Z], labels [frames * cells] or None, columns): all cells of a frame, then the next."""
    import torch

    groups = [seeds[i : i + count] for i in range(0, len(seeds) - count + 1, count)]
    if not grid:
        groups, rows = groups[:1], [(classes or [seeds[0] % gan.num_classes])[0] if gan.num_classes else None]
    else:
        rows = _rows(gan, classes)
    paths = torch.stack([loop(gan.seeded_latents(group), frames, spherical=gan.prior == "normal") for group in groups])
    z = paths.repeat(len(rows), 1, 1).transpose(0, 1)  # [frames, rows * groups, Z]
    labels = None
    if gan.num_classes:
        labels = torch.tensor(rows).repeat_interleave(len(groups)).repeat(frames)
    columns = len(groups) if gan.num_classes else math.ceil(math.sqrt(len(groups)))
    return z.flatten(0, 1), labels, columns


def loop(z: "Tensor", frames: int, *, spherical: bool) -> "Tensor":
    """z [K, Z] -> [frames, Z]: evenly through all K and back to the first, which follows the last frame.

    Spherical for a normal prior, whose samples lie near a sphere; linear for a uniform one, whose cube is convex.
    """
    import torch

    place = torch.arange(frames, dtype=torch.float64) * len(z) / frames
    index = place.long()
    t = (place - index).to(z.dtype)[:, None].to(z.device)
    start, end = z[index], z[(index + 1) % len(z)]
    return slerp(start, end, t) if spherical else torch.lerp(start, end, t)


def slerp(start: "Tensor", end: "Tensor", t: "Tensor") -> "Tensor":
    """start, end [N, Z], t [N, 1] in [0, 1] -> [N, Z] along the great circle (Shoemake, 1985); linear if parallel."""
    import torch

    cosine = torch.nn.functional.cosine_similarity(start, end, dim=1).clamp(-1, 1)[:, None]
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    along = (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / sine
    return torch.where(sine > 1e-4, along, torch.lerp(start, end, t))


def _save_film(images: "Tensor", path: Path, *, frames: int, columns: int, fps: int) -> Path:
    """uint8 [frames * cells, C, H, W] -> an animated GIF or an MP4 file."""
    from lit_gans.callbacks.image_grid import readable_grid
    from lit_gans.images import grid, to_pil

    cells = images.unflatten(0, (frames, -1))
    single = cells.shape[1] == 1
    pictures = [
        to_pil(grid(some, 1, min_cell_px=FILM_PX) if single else readable_grid(some, columns)) for some in cells
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    (_write_gif if path.suffix == ".gif" else _write_mp4)(pictures, unfinished, fps)
    os.replace(unfinished, path)
    return path


def _write_gif(pictures: list, path: Path, fps: int) -> None:
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)


def _write_mp4(pictures: list, path: Path, fps: int) -> None:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ValueError(
            "MP4 needs imageio-ffmpeg, the extra 'video': pip install 'lit-gans[video]'; or --format gif"
        ) from error
    # The codec halves colour resolution, so sides must be even.
    writer = imageio_ffmpeg.write_frames(str(path), pictures[0].size, fps=fps, quality=8, macro_block_size=2)
    writer.send(None)
    for picture in pictures:
        writer.send(picture.convert("RGB").tobytes())
    writer.close()


# ---- the command -----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """The command; the exit status."""
    arguments = vars(_parser().parse_args(argv))
    try:
        paths = sample(**arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("LIT_GANS_TRACEBACK") == "1":
            raise
        print(f"lit-gans sample: {error}", file=sys.stderr)
        return 1
    print(paths[0] if len(paths) == 1 else f"{len(paths)} images in {paths[0].parent}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lit-gans sample", description="Images from a run or checkpoint, as files, grids or films."
    )
    add = parser.add_argument
    add("run", help="run folder or .ckpt file")
    add("--output", required=True, help="folder; for a grid or film also a .png, .gif or .mp4 file")
    add("--seeds", default="0-63", help="as 0-63,100 (default: %(default)s)")
    add("--classes", help="as 3,5; default: seed modulo the number of classes, in a grid all")
    add("--psi", type=float, default=1.0, help="below 1: more typical, less varied (default: %(default)s)")
    add("--raw", action="store_true", help="the generator as trained, not its average")
    add("--grid", action="store_true", help="one picture; a row per class on a conditional model")
    add("--interpolate", type=int, metavar="K", help="a looping film through K of the seeds")
    add("--frames", type=int, default=60, help="of the whole film (default: %(default)s)")
    add("--format", choices=["gif", "mp4"], help="of the film (default: gif, or the output's suffix)")
    add("--fps", type=int, default=25, help="frames per second (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    add("--batch_size", type=int, default=64, help="images drawn at a time (default: %(default)s)")
    add("--trust", help="another package whose classes and losses the checkpoint may name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
