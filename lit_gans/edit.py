"""The verb that replays edits: `lit-gans edit smile.yaml --output smile.png`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lit_gans.base.command import run_verb


def edit(
    script: str | os.PathLike,
    *,
    output: str | os.PathLike,
    model: str | os.PathLike | None = None,
    seeds: str | Sequence[int] | None = None,
    sheet: bool = False,
    frames: int = 60,
    fps: int = 25,
    device: str = "auto",
    trust: str | None = None,
) -> Path:
    """What an edit script makes of a picture: the picture, a sheet of its steps, or a film; the file written.

    A script says which model, which picture, and what is done to it, step by step with all numbers; on the CPU the
    same script gives the same picture, bit for bit. docs/howto/edit.md tells the steps.

    Args:
        script: the .yaml file.
        output: a .png file; a .gif or .mp4 file for a film from the start through all steps.
        model: another model than the script names.
        seeds: do the same to the pictures of these seeds instead, as 0-7: a row each.
        sheet: the start and the picture after each step beside each other, not the last alone.
        frames: of a film.
        fps: frames per second.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        trust: another package whose classes and losses the model may name.

    Raises:
        ValueError, FileNotFoundError: what is wrong in the script, or cannot be done with this model.
    """
    import torch

    from lit_gans.base.grids import columns_of, readable_grid
    from lit_gans.base.images import save_png
    from lit_gans.base.numbers import numbers_of
    from lit_gans.base.processes import find_device
    from lit_gans.base.video import mp4_encoder, save_film
    from lit_gans.editing.script import film_states, read_script
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_run

    output = Path(output)
    check_output(output)
    if output.suffix not in (".png", ".gif", ".mp4"):
        raise ValueError(f"output {output}: give a .png file, or .gif or .mp4 for a film")
    if output.suffix == ".mp4":
        mp4_encoder()  # before the work, not after it
    if min(frames, fps) < 1:
        raise ValueError(f"{frames} frames at {fps} a second: give 1 or more of both")
    if sheet and output.suffix != ".png":
        raise ValueError(f"output {output} is a film, and a sheet is a picture: give a .png file")
    said = read_script(script)
    scripts = [said] if seeds is None else [said.from_seed(seed) for seed in numbers_of(seeds, "seeds")]
    gan = load_run(model if model is not None else said.files / said.model, trust=trust).to(find_device(device))
    ways = [one.states(gan) for one in scripts]
    if output.suffix != ".png":
        cells = [[state.picture() for state in film_states(states, frames)] for states in ways]
        images = torch.stack([one for frame in zip(*cells, strict=True) for one in frame])
        return save_film(images, output, frames=frames, columns=columns_of(len(ways)), fps=fps)
    shown = [states if sheet else states[-1:] for states in ways]
    images = torch.stack([state.picture() for states in shown for state in states])
    if len(images) == 1:
        return save_png(images[0], output)
    return save_png(readable_grid(images, len(shown[0]) if sheet else columns_of(len(images))), output)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(edit, argv)


if __name__ == "__main__":
    sys.exit(main())
