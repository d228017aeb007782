"""The verb that finds directions: `lit-gans directions runs/stylegan2-faces --method pca --output pca.safetensors`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lit_gans.base.command import run_verb


def directions(
    run: str | os.PathLike,
    *,
    method: Literal["sefa", "pca", "svm"] | None = None,
    direction: str | None = None,
    output: str | os.PathLike | None = None,
    names: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    attributes: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    extractor: str = "torchvision:squeezenet1_1",
    extractor_weights: str | os.PathLike | None = None,
    layers: str | Sequence[int] | None = None,
    features: str | None = None,
    space: Literal["z", "w"] | None = None,
    count: int = 10,
    samples: int = 10_000,
    share: float = 0.1,
    seed: int = 0,
    seeds: str | Sequence[int] = "0-3",
    by: float | Sequence[float] = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0),
    psi: float = 1.0,
    other_model: bool = False,
    raw: bool = False,
    device: str = "auto",
    batch_size: int = 64,
    trust: str | None = None,
) -> list[Path]:
    """Directions of latent space along which images change in one way: found and kept, or looked at; files written.

    With method a file of directions and a sheet of the first ones beside it; with direction a sheet of what is in such
    a file. A sheet has a row for each seed, whose image is moved along the direction from left to right.

    Args:
        run: run folder, .ckpt file, or folder of `lit-gans convert`.
        method: "sefa" factors the weights of a style-based generator; "pca" takes principal components, of W, or of
            features where there is no W or features are named; "svm" finds planes between images with an attribute
            and those without.
        direction: file of directions, or FILE:NAME for one of them.
        output: with method the .safetensors file, by default <method>.safetensors; else the picture.
        names: attributes whose directions svm finds; of a file without attributes, the directions to show.
        keep: attributes that they are not to change.
        attributes: table of pictures and their attributes, in the form of CelebA's list_attr_celeba.txt or as CSV, on
            which classifiers are trained, once. With direction, the share of images with the attributes `names` (all
            seeds count) is told for each step.
        images: folder of these pictures; by default the run's own data.
        extractor: network whose features the classifiers see, as of `lit-gans evaluate`.
        extractor_weights: file of its weights.
        layers: rows of styles that are factored and moved, as 0-3, or coarse, middle, fine; by default all.
        features: of pca: name of the module of whose output components are taken.
        space: where planes lie; by default w where there is one.
        count: how many directions sefa and pca find.
        samples: drawn to find them.
        share: of the samples, on each side of a plane.
        seed: of all that is random.
        seeds: of the images that are shown, as 0-3,7.
        by: standard deviations of the latents, a column each.
        psi: truncation of the images that are shown.
        other_model: takes directions that were found on other weights, where their shape fits.
        raw: the generator as trained, not its average.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        batch_size: images drawn at a time.
        trust: another package whose classes and losses the checkpoint may name.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: an argument that cannot be met; each says the way out.
    """
    from lit_gans.adversarial.capabilities import FromLatents, HasStyles, can, require
    from lit_gans.base.processes import find_device
    from lit_gans.base.progress import Lines
    from lit_gans.data.attributes import read_attributes
    from lit_gans.editing import direction_sheets as sheets
    from lit_gans.editing import finding
    from lit_gans.editing.directions import check_model, read_directions
    from lit_gans.editing.sampling import numbers_of
    from lit_gans.metrics.attributes import train_attributes
    from lit_gans.metrics.building import build_extractor
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_run

    sheets.check_choices(method, direction, attributes=attributes, names=names, keep=keep, images=images)
    file, one = sheets.file_and_name(direction or str(output or f"{method}{sheets.SUFFIX}"))
    picture = Path(output) if direction and output else file.with_suffix(".png")
    if method and file.suffix != sheets.SUFFIX or picture.suffix != ".png":
        raise ValueError(f"output {output} is no {'.png' if direction else sheets.SUFFIX} file: name one")
    check_output(*([file] if method else []), picture)
    seeds, by = numbers_of(seeds, "seeds"), [by] if isinstance(by, int | float) else list(by)
    gan = require(load_run(run, trust=trust), FromLatents, "a direction").to(find_device(device))
    draw = {"ema": not raw, "batch_size": batch_size}
    lines, judge = Lines(), None

    def tell(what: str, done: int, total: int) -> None:
        lines(done, total, what)

    if attributes is not None:
        table = read_attributes(attributes)
        seeing = build_extractor(extractor, weights_path=extractor_weights).to(gan.device)
        pictures = sheets.pictures_of(run, images, gan, trust=trust)
        judge = train_attributes(table, pictures, seeing, device=gan.device, progress=tell).to(gan.device)
        judge = judge.only(list(dict.fromkeys([*(names or judge.names), *(keep or ())])))
    if method is None:
        found = read_directions(file)
        check_model(found, gan, ema=not raw, other_model=other_model)
        shown = [one] if one is not None else names if attributes is None else None
        found = found if shown is None else found.only(shown)
    else:
        chosen = {"layers": sheets.layers_of(layers, gan), "samples": samples, "seed": seed, **draw}
        if method == "sefa":
            found = finding.sefa(gan, count=count, **chosen)
        elif method == "svm":
            chosen |= {"keep": keep or (), "space": space, "share": share, "on_step": tell}
            found = finding.planes(gan, judge, judge.names, **chosen)
        elif features is None and can(gan, HasStyles):
            found = finding.pca(gan, count=count, **chosen)
        else:
            chosen |= {"space": space, "count": count, "on_step": tell}
            found = finding.pca_of_features(gan, features, **chosen)
        found.save(file)
    print(sheets.table(found), file=sys.stderr)
    if judge is not None and method is None:
        rates = sheets.rates_along(gan, found, judge, seeds, by, psi=psi, **draw)
        print(sheets.table_of_rates(found, judge.names, by, rates), file=sys.stderr)
    sheets.save_sheet(gan, found, seeds, by, picture, psi=psi, **draw)
    return [*([file] if method else []), picture]


def show(paths: Sequence[Path]) -> None:
    """Prints where the files are."""
    print("\n".join(str(path) for path in paths))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(directions, argv, show=show)


if __name__ == "__main__":
    sys.exit(main())
