"""The verb that draws a truncation curve: `lit-gans truncation runs/biggan-cifar32 --metrics is fid`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lit_gans.base.command import parsed, run_verb

if TYPE_CHECKING:
    from lit_gans.runs.truncation import Curve


def truncation(
    run: str | Path,
    other: str | Path | None = None,
    *,
    psis: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0),
    truncation: Literal["scaled", "resampled", "hub"] | None = None,
    metrics: Sequence[str] | None = None,
    drawn: Sequence[str] | None = None,
    num_images: int | None = None,
    extractor: str | None = None,
    weights_path: str | Path | None = None,
    neighbours: int | None = None,
    labels: Literal["data", "uniform"] | None = None,
    seed: int = 0,
    raw: bool = False,
    split: str | None = None,
    num_real: int | None = None,
    framing: Literal["stretch", "crop", "fit"] | None = None,
    output: str | Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    trust: str | None = None,
) -> "Curve":
    """A model's numbers at several truncations: a table, and a picture with a curve of each and of one over the other.

    What is left out is as the run was configured, else as `lit-gans evaluate` has it. Each point is kept as soon as it
    is measured: broken off, or with more psis, the command measures those that are not there yet.

    Args:
        run: run folder, .ckpt file, or folder of `lit-gans convert`, of any model that samples.
        other: folder (or zip) of real images; by default the run's own data.
        psis: truncations.
        truncation: of BigGAN, what psi does to latents: "scaled" multiplies them, "resampled" draws numbers beyond it
            again (the paper's, down from 2), "hub" multiplies N(0, 1) within 2 (the released modules'). By default as
            the model was built. Of models with styles psi scales w.
        metrics: of samples, see `lit-gans evaluate`.
        drawn: numbers in the picture, by default the first two, as is fid.
        num_images: generated images at each psi.
        extractor: see `lit-gans evaluate`.
        weights_path: file of the extractor's weights.
        neighbours: k of precision, recall, density and coverage.
        labels: "uniform" draws all classes equally often.
        seed: which samples: the same at each psi.
        raw: the generator itself, not its average.
        split: of the data.
        num_real: how many real images.
        framing: how a folder's images are brought to the model's size.
        output: folder of the table, the picture and the points, by default <run>/truncation.
        batch_size: images at a time.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        trust: another package whose classes the run may name.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: what is missing.
    """
    from lit_gans.base.processes import find_device
    from lit_gans.runs.evaluation import Where
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.truncation import truncation_curve

    run = Path(run)
    if not run.exists():
        raise FileNotFoundError(f"{run} does not exist: give a run folder or a .ckpt file")
    given = {
        "truncation": truncation, "metrics": metrics, "num_images": num_images, "extractor": extractor,
        "weights_path": weights_path, "neighbours": neighbours, "labels": labels, "seed": seed, "ema": not raw,
        "split": split, "num_real": num_real, "batch_size": batch_size,
    }  # fmt: skip
    where = Where(find_device(device, double=True), None, None, trust)
    check_output(output)
    folder = None if output is None else Path(output)
    kept = {"folder": folder, "drawn": drawn or (), "other": other, "framing": framing}
    return truncation_curve(run, psis, given, where, **kept)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    processes = parsed(truncation, argv, show=show).get("processes", 1)
    from lit_gans.base.processes import in_processes, process_group

    if processes > 1 and "LOCAL_RANK" not in os.environ:
        return in_processes("lit_gans.truncation", processes, argv)
    with process_group():
        return run_verb(truncation, argv, show=show)


def show(curve: "Curve", *, processes: int = 1) -> None:
    """Prints the table and where the files are, in the first process.

    Args:
        processes: of this machine that share the work, one per GPU.
    """
    from lit_gans.base.processes import rank_and_world

    if rank_and_world()[0] == 0:
        print(curve.table(), *curve.files, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
