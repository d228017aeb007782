"""The verb that draws: `python -m lit_gans.sample runs/dcgan-digits --seeds 0-63 --output out`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lit_gans.base.command import run_verb


def sample(
    run: str | os.PathLike,
    *,
    output: str | os.PathLike,
    seeds: str | Sequence[int] = "0-63",
    classes: str | Sequence[int | str] | None = None,
    text: str | Sequence[str] | None = None,
    captions: str | os.PathLike | None = None,
    psi: float | Sequence[float] = 1.0,
    truncation: Literal["scaled", "resampled", "hub"] | None = None,
    raw: bool = False,
    grid: bool = False,
    interpolate: int | None = None,
    attention: bool = False,
    space: Literal["z", "w"] = "z",
    mix: tuple[str | Sequence[int], str | Sequence[int]] | None = None,
    mix_layers: str | Sequence[int] | None = None,
    noise: bool = False,
    transform: Literal["translate", "rotate"] | None = None,
    sticking: bool = False,
    frames: int = 60,
    format: Literal["gif", "mp4"] | None = None,
    fps: int = 25,
    device: str = "auto",
    batch_size: int = 64,
    trust: str | None = None,
) -> list[Path]:
    """Images from a run or checkpoint, as single files, grids, tables or films; the files written.

    Without any of grid, interpolate, mix and several psi, one PNG per image: `seed0007.png`, or
    `seed0007_class3.png` on a conditional model.

    Args:
        run: run folder, .ckpt file, or folder of `lit-gans convert`.
        output: a folder; for a picture of many images or a film also the file itself (.png, .gif, .mp4).
        seeds: as 0-63,100; an image follows from its seed (and class) alone.
        classes: numbers or names, as 3,5 or cat,dog; by default a seed's is its remainder, in a grid all, 20 at most.
        text: a caption, for a text-to-image model; given again for more. Each is drawn of all seeds, in a grid a row.
        captions: a file of them, a line each. Without either, such a model draws held-out captions of its own data.
        psi: scales the latent, or w of a style-based generator; below 1, more typical and less varied images. Several,
            as 0.5 0.7 1: one picture, a row per psi, a column per seed; of several classes or captions a row of each.
        truncation: of BigGAN, what psi does, as in `lit-gans truncation`; "resampled" and "hub" cut at psi 1 too.
        raw: the generator as trained, not its average.
        grid: one picture of all images. With interpolate, a film of cells: one per class and group of seeds.
        interpolate: a looping film through the first so many seeds; with grid, a group for each column. With captions:
            one picture of so many steps from each caption to the next, a row per seed, whose latent stays the same.
        attention: of AttnGAN: each image, and the same where each of its most attended words is drawn.
        space: where the film walks; "w" is straight from style to style.
        mix: seeds of rows and seeds of columns, as 0-4 10-14, for a table in which the layers mix_layers have the
            column's style and all others the row's; the unmixed images are on the margins. The seeds are not used.
        mix_layers: numbers such as 0-3, or "coarse" (4 and 8 px, the default), "middle" (16, 32 px), "fine" (larger).
        noise: a table of the seeds without noise, with the constant noise, and with noise drawn anew.
        transform: a film in which the image (with grid, each) moves on a circle, or turns, with the input.
        sticking: a sheet of what sticks to the pixels: an image per seed, its neighbours' mean, and streaks on a walk.
        frames: of the whole film or walk.
        format: of the film, by default the output's suffix, else gif; mp4 needs the extra `video`.
        fps: frames per second.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        batch_size: images drawn at a time.
        trust: another package whose classes and losses the checkpoint may name.

    Raises:
        ValueError, FileNotFoundError: an argument that cannot be met, or no run there; each says the way out.
    """
    from lit_gans.adversarial.capabilities import Named, Samples, can, require, truncate_by
    from lit_gans.base.images import save_png
    from lit_gans.base.processes import find_device
    from lit_gans.base.video import save_film
    from lit_gans.editing import sampling
    from lit_gans.editing.captions import captions_to_draw, save_attention, save_captioned, save_sentences
    from lit_gans.editing.films import film, moving_film
    from lit_gans.editing.styles import noise_table, sticking_sheet, style_mixing, truncation_sweep
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_run

    check_output(output)
    seeds = sampling.numbers_of(seeds, "seeds")
    psis = [psi] if isinstance(psi, int | float) else list(psi)
    walks, said = interpolate is not None, text is not None or captions is not None
    sampling.check_counts(seeds, interpolate, between=walks and said, frames=frames, fps=fps, batch_size=batch_size)
    form = sampling.form_of(
        psis, grid=grid, film=walks and not said, sentences=walks and said, mixing=mix is not None, noise=noise,
        attention=attention, moving=transform is not None, sticking=sticking,
    )  # fmt: skip
    layers, mix = sampling.mixed(mix, mix_layers)
    if space == "w" and form != "film":
        raise ValueError("space 'w' is where a film walks: give interpolate too")
    target = sampling.target_of(Path(output), format, form)
    model = require(load_run(run, trust=trust), Samples, "sampling", otherwise="see lit-gans translate")
    require(model, sampling.FORMS[form].needs, sampling.FORMS[form].what)
    truncate_by(model, truncation)
    names = model.class_names if can(model, Named) else ()
    classes = sampling.classes_of(classes, names)
    sampling.check_classes(model, classes)
    if told := sampling.told_classes(classes, names):
        print(told, file=sys.stderr)
    model = model.to(find_device(device))
    draw = {"psi": psis[0], "ema": not raw, "batch_size": batch_size}
    asked = captions_to_draw(model, run, text, captions, trust=trust)
    if form == "attention":
        return [save_attention(model, seeds, asked, target, **draw)]
    if form == "sentences":
        return [save_sentences(model, seeds, asked, target, steps=interpolate, **draw)]
    if asked:
        sampling.check_captioned(form)
        return save_captioned(model, seeds, asked, target, grid=form == "grid", **{**draw, "psi": psis})
    if form in sampling.FILMS:
        how = {"move": transform} if form == "moving" else {"count": interpolate, "space": space}
        how |= {"frames": frames, "grid": grid, **draw}
        images, columns = (moving_film if form == "moving" else film)(model, seeds, classes, **how)
        return [save_film(images, target, frames=frames, columns=columns, fps=fps)]
    if form == "grid":
        return [sampling.save_grid(model, seeds, classes, target, **draw)]
    if form == "singles":
        return sampling.save_singles(model, seeds, classes, target, **draw)
    draw["label"] = sampling.label_of(classes, several=form == "truncation")
    if form == "sticking":
        return [save_png(sticking_sheet(model, seeds, steps=frames, **draw), target)]
    if form == "mixing":
        images = style_mixing(model, *mix, layers=layers, **draw)
    elif form == "noise":
        images = noise_table(model, seeds, **draw)
    else:
        images = truncation_sweep(model, seeds, **{**draw, "psi": psis})
    return [sampling.save_table(images, target)]


def show(paths: Sequence[Path]) -> None:
    """Prints where the images are."""
    print(paths[0] if len(paths) == 1 else f"{len(paths)} images in {paths[0].parent}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(sample, argv, show=show)


if __name__ == "__main__":
    sys.exit(main())
