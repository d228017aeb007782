"""The verb that draws: `python -m lit_gans.sample runs/dcgan-digits --seeds 0-63 --output out`."""

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from lit_gans.adversarial import GAN
    from lit_gans.metrics.sources import HasStyles

Format = Literal["gif", "mp4"]
Form = Literal["singles", "grid", "film", "sentences", "attention", "mixing", "truncation", "noise"]
SEED_LIMIT = 2**63
WHAT = {
    "singles": "single images",
    "grid": "a grid",
    "film": "a film",
    "sentences": "a sheet from caption to caption",
    "attention": "a sheet of attention",
    "mixing": "a table of mixed styles",
    "truncation": "a table of psi",
    "noise": "a table of noise",
}
FILES = {
    "grid": "grid.png",
    "sentences": "sentences.png",
    "attention": "attention.png",
    "mixing": "mixing.png",
    "truncation": "truncation.png",
    "noise": "noise.png",
}


def sample(
    run: str | os.PathLike,
    *,
    output: str | os.PathLike,
    seeds: str | Sequence[int] = "0-63",
    classes: str | Sequence[int] | None = None,
    text: Sequence[str] | None = None,
    captions: str | os.PathLike | None = None,
    psi: float | Sequence[float] = 1.0,
    raw: bool = False,
    grid: bool = False,
    interpolate: int | None = None,
    attention: bool = False,
    space: Literal["z", "w"] = "z",
    mix: Sequence[str | Sequence[int]] | None = None,
    mix_layers: str | Sequence[int] | None = None,
    noise: bool = False,
    frames: int = 60,
    format: Format | None = None,
    fps: int = 25,
    device: str = "auto",
    batch_size: int = 64,
    trust: str | None = None,
) -> list[Path]:
    """Draws images from a run folder or .ckpt file; the files written.

    Without any of `grid`, `interpolate`, `mix` and several psi, one PNG per image: `seed0007.png`, or
    `seed0007_class3.png` on a conditional model, for every seed and every class; without `classes`, each seed's class
    is its remainder.

    Args:
        output: a folder; for a picture of many images or a film also the file itself (.png, .gif, .mp4).
        seeds: numbers, or text as "0-63,100"; an image follows from its seed (and class) alone.
        classes: numbers, or text as "3,5"; in a grid a row each, by default all (20 evenly chosen of more).
        text: what to draw: one caption or more, for a text-to-image model. Every seed is drawn for each, in a grid with
            a row per caption, whose text stands above it. captions: a file of them, one on each line. Without either,
            such a model draws some held-out captions of its own data.
        psi: scales the latent, or w of a style-based generator; below 1, more typical and less varied images. Several:
            one picture, a row per psi and a column per seed.
        raw: the generator as trained, not its average.
        grid: one picture of all images. With `interpolate`, a film of cells: one per class and group of seeds.
        interpolate: a looping film through the first so many seeds; `grid` takes a group for each column. `space` "w"
            walks straight from style to style. With captions: one picture of so many steps from each caption to the
            next, a row per seed, whose latent stays the same.
        attention: of AttnGAN: each image, and the same where each of its most attended words is drawn.
        mix: seeds of rows and seeds of columns, for a table in which the layers `mix_layers` have the column's style
            and all others the row's; the unmixed images are on the margins. `seeds` are not used. The layers are
            numbers such as "0-3", or "coarse" (4 and 8 px, the default), "middle" (16 and 32 px), "fine" (from 64 px).
        noise: a table of the seeds without noise, with the constant noise, and with noise drawn anew.
        frames: of the whole film. format: "gif", or "mp4" with the extra `video`; by default the output's suffix.
        device: "auto" is the accelerator where there is one. trust: see `lit_gans.runs.load.load_run`.

    Raises:
        ValueError, FileNotFoundError: an argument that cannot be met, or no run there; each says the way out.
    """
    from lit_gans.base.processes import find_device
    from lit_gans.base.video import save_film
    from lit_gans.editing.captions import captions_to_draw, save_attention, save_captioned, save_sentences
    from lit_gans.editing.styles import noise_table, style_mixing, truncation_sweep
    from lit_gans.runs.load import load_gan

    seeds = _numbers(seeds, "seeds")
    classes = None if classes is None else _numbers(classes, "classes")
    psis = [psi] if isinstance(psi, int | float) else list(psi)
    between = interpolate is not None and (text is not None or captions is not None)
    _check_counts(seeds, interpolate, between=between, frames=frames, fps=fps, batch_size=batch_size)
    form = _form(psis, interpolate, mix, grid=grid, noise=noise, attention=attention, between=between)
    layers, mix = _mixed(mix, mix_layers)
    if space == "w" and form != "film":
        raise ValueError("space 'w' is where a film walks: give interpolate too")
    target = _target(Path(output), format, form)
    gan = load_gan(run, trust=trust)
    _check_classes(gan, classes)
    gan = gan.to(find_device(device))
    draw = {"psi": psis[0], "ema": not raw, "batch_size": batch_size}
    asked = captions_to_draw(gan, run, text, captions, trust=trust)
    if form == "attention":
        return [save_attention(gan, seeds, asked, target, **draw)]
    if asked:
        if form == "sentences":
            return [save_sentences(gan, seeds, asked, target, steps=interpolate, **draw)]
        if form not in ("singles", "grid"):
            raise ValueError(
                f"captions go with single images, a grid or a sheet, not with {WHAT[form]}: leave one out"
                + (", or give the captions between which to interpolate" if form == "film" else "")
            )
        return save_captioned(gan, seeds, asked, target, grid=form == "grid", **draw)
    if form == "film":
        walk = {"count": interpolate, "frames": frames, "grid": grid, "space": space}
        images, columns = _film(gan, seeds, classes, **walk, draw=draw)
        return [save_film(images, target, frames=frames, columns=columns, fps=fps)]
    if form == "truncation":
        images = truncation_sweep(gan, seeds, label=_one_class(classes), **{**draw, "psi": psis})
        return [_save_table(images, target)]
    if form == "mixing":
        return [_save_table(style_mixing(gan, *mix, layers=layers, label=_one_class(classes), **draw), target)]
    if form == "noise":
        return [_save_table(noise_table(gan, seeds, label=_one_class(classes), **draw), target)]
    if form == "grid":
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


def _check_counts(seeds: list[int], interpolate: int | None, *, between: bool, **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more")
    if between and interpolate < 2:
        raise ValueError(f"interpolate is {interpolate}: from caption to caption there are 2 steps or more")
    if interpolate is not None and not between and not 2 <= interpolate <= len(seeds):
        raise ValueError(f"interpolate is {interpolate}: a film needs 2 seeds or more, and {len(seeds)} are given")


def _form(
    psis: list[float],
    interpolate: int | None,
    mix: Sequence | None,
    *,
    grid: bool,
    noise: bool,
    attention: bool,
    between: bool,
) -> Form:
    walk = "sentences" if between else "film"
    asked = {"truncation": len(psis) > 1, walk: interpolate is not None, "mixing": mix is not None}
    asked |= {"noise": noise, "attention": attention}
    forms = [form for form, wanted in asked.items() if wanted]
    if not psis:
        raise ValueError("psi is empty: give one or more, as 0.5 0.7 1")
    if len(forms) > 1:
        raise ValueError(f"{' and '.join(WHAT[form] for form in forms)} were asked for: give one of them at a time")
    return forms[0] if forms else "grid" if grid else "singles"


def _mixed(
    mix: Sequence | None, layers: str | Sequence[int] | None
) -> tuple[str | list[int], tuple[list[int], list[int]]]:
    """(layers, or the name of a group, (seeds of rows, seeds of columns)), all empty without `mix`."""
    if mix is None:
        if layers is not None:
            raise ValueError("mix_layers says which styles are mixed: give the seeds of rows and columns as mix too")
        return [], ([], [])
    if len(mix) != 2:
        raise ValueError(f"mix has {len(mix)} parts: give the seeds of the rows and those of the columns, as 0-4 10-14")
    rows, columns = (_numbers(part, "mix") for part in mix)
    from lit_gans.editing.styles import GROUPS

    layers = "coarse" if layers is None else layers
    return layers if layers in GROUPS else _numbers(layers, "mix_layers"), (rows, columns)


def _one_class(classes: list[int] | None) -> int | None:
    if classes is not None and len(classes) > 1:
        raise ValueError(f"classes {classes}: all images of this table have one class, so give one")
    return None if classes is None else classes[0]


def _check_classes(gan: "GAN", classes: list[int] | None) -> None:
    if classes is None:
        return
    if gan.num_classes == 0:
        raise ValueError(f"classes {classes} were asked for, but this {type(gan).__name__} is unconditional: leave out")
    wrong = [c for c in classes if c >= gan.num_classes]
    if wrong:
        raise ValueError(f"class {wrong[0]} does not exist: this model has the classes 0 to {gan.num_classes - 1}")


def _target(output: Path, format: Format | None, form: Form) -> Path:
    """The folder of single images, or the file of a picture or film."""
    suffixes = () if form == "singles" else (".gif", ".mp4") if form == "film" else (".png",)
    if output.suffix in (".png", ".gif", ".mp4") and not output.is_dir():
        if output.suffix not in suffixes:
            fits = f" or a file {' or '.join(suffixes)}" if suffixes else ""
            raise ValueError(f"output {output} does not fit {WHAT[form]}: give a folder{fits}")
        if format is not None and form == "film" and output.suffix != f".{format}":
            raise ValueError(f"output {output} and format {format!r} contradict each other: leave one out")
        return output
    return output if form == "singles" else output / FILES.get(form, f"interpolation.{format or 'gif'}")


# ---- drawing ---------------------------------------------------------------------------------------------------------


def _save_singles(gan: "GAN", seeds: list[int], classes: list[int] | None, folder: Path, draw: dict) -> list[Path]:
    from lit_gans.base.images import save_png

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

    from lit_gans.adversarial.preview import draw as draw_seeds

    seeds = torch.tensor([seed for seed, _ in pairs])
    labels = torch.tensor([c for _, c in pairs]) if gan.num_classes else None
    return draw_seeds(gan, seeds, labels=labels, **draw)


def _save_grid(gan: "GAN", seeds: list[int], classes: list[int] | None, path: Path, draw: dict) -> Path:
    from lit_gans.base.grids import readable_grid
    from lit_gans.base.images import save_png

    rows = _rows(gan, classes)
    columns = math.ceil(math.sqrt(len(seeds))) if rows == [None] else len(seeds)
    return save_png(readable_grid(_images(gan, [(s, c) for c in rows for s in seeds], draw), columns), path)


def _rows(gan: "GAN", classes: list[int] | None) -> list[int] | list[None]:
    """The class of each row of a grid; [None] on an unconditional model."""
    from lit_gans.base.grids import MAX_CLASSES, spread

    if gan.num_classes == 0:
        return [None]
    return classes or spread(gan.num_classes, MAX_CLASSES).tolist()


def _save_table(images: "Tensor", path: Path) -> Path:
    """uint8 [rows, columns, C, H, W] as one picture."""
    from lit_gans.base.grids import readable_grid
    from lit_gans.base.images import save_png

    return save_png(readable_grid(images.flatten(0, 1), images.shape[1]), path)


# ---- films -----------------------------------------------------------------------------------------------------------


def _film(
    gan: "GAN",
    seeds: list[int],
    classes: list[int] | None,
    *,
    count: int,
    frames: int,
    grid: bool,
    space: Literal["z", "w"],
    draw: dict,
) -> tuple["Tensor", int]:
    """(uint8 [frames * cells, C, H, W], columns): all cells of a frame, then the next."""
    import torch

    from lit_gans.editing.styles import draw_latents, draw_styles
    from lit_gans.metrics.path_length import check_space

    check_space(gan, space)
    groups = [seeds[i : i + count] for i in range(0, len(seeds) - count + 1, count)]
    if not grid:
        groups, rows = groups[:1], [(classes or [seeds[0] % gan.num_classes])[0] if gan.num_classes else None]
    else:
        rows = _rows(gan, classes)
    columns = len(groups) if gan.num_classes else math.ceil(math.sqrt(len(groups)))
    if space == "w":
        look = {"psi": draw["psi"], "ema": draw["ema"]}
        cells = [style_loop(gan, group, frames=frames, label=row, **look) for row in rows for group in groups]
        ws = torch.stack(cells, 1).flatten(0, 1)
        return draw_styles(gan, ws, ema=draw["ema"], batch_size=draw["batch_size"]), columns
    paths = torch.stack([loop(gan.seeded_latents(group), frames, spherical=gan.prior.spherical) for group in groups])
    z = paths.repeat(len(rows), 1, 1).transpose(0, 1)  # [frames, rows * groups, Z]
    labels = torch.tensor(rows).repeat_interleave(len(groups)).repeat(frames) if gan.num_classes else None
    return draw_latents(gan, z.flatten(0, 1), labels=labels, **draw), columns


def style_loop(
    gan: "HasStyles",
    seeds: Sequence[int],
    *,
    frames: int,
    label: int | None = None,
    psi: float = 1.0,
    ema: bool = True,
) -> "Tensor":
    """ws [frames, L, W]: straight through the styles of all seeds and back to the first, as `loop` does.

    W need not follow any density, so that straight lines are the natural ones (Karras et al., 2019, Sec. 4.1).
    """
    from lit_gans.editing.styles import styles_of

    ws = styles_of(gan, seeds, label=label, psi=psi, ema=ema)
    return loop(ws.flatten(1), frames, spherical=False).unflatten(1, ws.shape[1:])


def loop(z: "Tensor", frames: int, *, spherical: bool) -> "Tensor":
    """z [K, Z] -> [frames, Z]: evenly through all K and back to the first, which follows the last frame.

    Spherical for a normal prior, whose samples lie near a sphere; linear for a uniform one, whose cube is convex.
    """
    import torch

    from lit_gans.base.interpolation import arc

    place = torch.arange(frames, dtype=torch.float64) * len(z) / frames
    index = place.long()
    t = (place - index).to(z.dtype)[:, None].to(z.device)
    start, end = z[index], z[(index + 1) % len(z)]
    return arc(start, end, t) if spherical else torch.lerp(start, end, t)


# ---- the command -----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """The command; the exit status."""
    arguments = vars(_parser().parse_args(_each(sys.argv[1:] if argv is None else argv, "--psi")))
    arguments["psi"] = arguments["psi"] or 1.0
    try:
        paths = sample(**arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("LIT_GANS_TRACEBACK") == "1":
            raise
        print(f"lit-gans sample: {error}", file=sys.stderr)
        return 2
    print(paths[0] if len(paths) == 1 else f"{len(paths)} images in {paths[0].parent}")
    return 0


def _each(argv: list[str], option: str) -> list[str]:
    """["--psi", "0.5", "1", "run"] -> ["--psi", "0.5", "--psi", "1", "run"]: nargs would take the run for a psi."""
    words: list[str] = []
    for word in argv:
        further = len(words) > 1 and words[-2] == option and re.fullmatch(r"-?\d*\.?\d+", word)
        words += [option, word] if further else [word]
    return words


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lit-gans sample", description="Images from a run or checkpoint, as files, grids or films."
    )
    add = parser.add_argument
    add("run", help="run folder or .ckpt file")
    add("--output", required=True, help="folder; for one picture or film also a .png, .gif or .mp4 file")
    add("--seeds", default="0-63", help="as 0-63,100 (default: %(default)s)")
    add("--classes", help="as 3,5; default: seed modulo the number of classes, in a grid all")
    add("--text", action="append", help="a caption to draw, for a text-to-image model; give it again for more")
    add("--captions", metavar="FILE", help="captions to draw, one on each line")
    add("--psi", type=float, action="append", help="below 1: more typical, less varied (default: 1); several, as "
        "0.5 0.7 1: one picture with a row for each")  # fmt: skip
    add("--raw", action="store_true", help="the generator as trained, not its average")
    add("--grid", action="store_true", help="one picture; a row per class on a conditional model")
    add("--interpolate", type=int, metavar="K", help="a looping film through K of the seeds; with captions, K steps "
        "from each to the next, in one picture")  # fmt: skip
    add("--attention", action="store_true", help="of AttnGAN: each image, and where its most attended words are drawn")
    add("--space", default="z", choices=["z", "w"], help="where the film walks (default: %(default)s)")
    add("--mix", nargs=2, metavar=("ROWS", "COLUMNS"), help="seeds of a table of mixed styles, as 0-4 10-14")
    add("--mix-layers", help="which of them are the column's: numbers such as 0-3, or coarse (4 and 8 px), middle (16 "
        "and 32 px) or fine (from 64 px) (default: coarse)")  # fmt: skip
    add("--noise", action="store_true", help="a table of the seeds without noise, with it, and with it drawn anew")
    add("--frames", type=int, default=60, help="of the whole film (default: %(default)s)")
    add("--format", choices=["gif", "mp4"], help="of the film (default: gif, or the output's suffix)")
    add("--fps", type=int, default=25, help="frames per second (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    add("--batch_size", type=int, default=64, help="images drawn at a time (default: %(default)s)")
    add("--trust", help="another package whose classes and losses the checkpoint may name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
