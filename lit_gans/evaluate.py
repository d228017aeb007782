"""`lit-gans evaluate`: measures a run, a checkpoint or a folder of images, and says under which protocol."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lit_gans.base.command import parsed, run_verb
from lit_gans.metrics.catalog import CLIP, OFFERS, of

if TYPE_CHECKING:
    from lit_gans.data import ImageData
    from lit_gans.metrics.evaluator import Evaluation


def evaluate(
    target: str | Path,
    other: str | Path | None = None,
    *,
    num_images: int | None = None,
    extractor: str | None = None,
    metrics: Sequence[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    neighbours: int | None = None,
    path_samples: int | None = None,
    equivariance_samples: int | None = None,
    labels: Literal["data", "uniform"] | None = None,
    seed: int = 0,
    psi: float = 1.0,
    truncation: Literal["scaled", "resampled", "hub"] | None = None,
    raw: bool = False,
    split: str | None = None,
    num_real: int | None = None,
    resolution: int | None = None,
    framing: Literal["stretch", "crop", "fit"] | None = None,
    data: "ImageData | None" = None,
    weights_path: str | Path | None = None,
    lpips: Literal["vgg", "alex", "squeeze"] | None = None,
    lpips_weights: str | Path | None = None,
    directions: Sequence[Literal["ab", "ba"]] | None = None,
    segmenter: str | Any | None = None,
    num_segments: int | None = None,
    clip: str = CLIP,
    clip_folder: str | Path | None = None,
    output: str | Path | None = None,
    plots: str | Path | None = None,
    cache_dir: str | Path | None = None,
    trust: str | None = None,
) -> "Evaluation":
    """Measures a run, a checkpoint or a folder of images: the values, with the protocol of each.

    What is left out is as the run was configured, else 50,000 images through Inception; a folder is taken whole. A
    translator's run is measured as its EvaluateTranslation callback would. Processes of a group share the work.

    Args:
        target: run folder, .ckpt file, pretrained folder, or folder (or zip) of images.
        other: folder (or zip) of real images; by default the run's own data.
        num_images: generated images.
        extractor: [random_]inception, digits, mnist, stackedmnist, vgg16, {{torchvision,timm,clip,dinov2}}:<model>.
        metrics: of samples and sets {samples}; of translations {translations}; of two folders, by pictures of the same
            name, {pairs}; of a folder with captions.json, or a .txt beside each picture, {captions}.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        batch_size: images at a time.
        neighbours: k of precision, recall, density and coverage, by default 5.
        path_samples: paths of each perceptual path length, by default 50,000.
        equivariance_samples: of eq_t, eq_t_frac and eq_r each, by default 50,000.
        labels: of samples, by default as often as the data have each; "uniform" draws all classes equally often.
        seed: which samples: image i has seed SEED * 10^9 + i.
        psi: truncation; 1 is none, but of truncation "resampled" and "hub", which cut latents at 1 and at 2 then.
        truncation: of BigGAN, what psi does to latents, as in `lit-gans truncation`; by default as it was built.
        raw: the generator itself, not its average.
        split: of the data, by default train.
        num_real: how many real images, by default all.
        resolution: of folders, in px: all images are brought to it. By default they are measured as stored, whole.
        framing: how a folder's images are brought to a size, by default stretched; beside a run as its own data are.
        data: the reals, or a translator's pictures, in place of other.
        weights_path: file of the extractor's weights, .safetensors or .pth.
        lpips: network of lpips and of path lengths, by default vgg; of a translator as the run, else alex.
        lpips_weights: file of that network's weights.
        directions: of a translator's run, by default all it has.
        segmenter: of a translator's run: what reads photographs, or its import path, as my_networks.fcn8s.
        num_segments: its classes.
        clip: the CLIP of clip_score, by its name at Hugging Face.
        clip_folder: folder with its files.
        output: file to append the result to as a line of JSON, by default <run>/evaluations.jsonl.
        plots: folder for pictures: t-SNE, precision and recall, best and worst samples, nearest reals.
        cache_dir: folder of statistics of real images.
        trust: another package whose classes the run may name.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: what is missing.
    """
    from lit_gans.base.processes import find_device, rank_and_world
    from lit_gans.runs import evaluation as measured
    from lit_gans.runs.folder import check_output

    target = Path(target)
    if not target.exists():
        raise FileNotFoundError(f"{target} does not exist: give a run folder, a .ckpt file or a folder of images")
    given = {
        "num_images": num_images, "extractor": extractor, "metrics": metrics, "batch_size": batch_size, "split": split,
        "num_real": num_real, "neighbours": neighbours, "path_samples": path_samples, "weights_path": weights_path,
        "equivariance_samples": equivariance_samples, "ema": not raw, "lpips": lpips, "lpips_weights": lpips_weights,
        "seed": seed, "psi": psi, "truncation": truncation, "clip_folder": clip_folder, "directions": directions,
        "num_segments": num_segments, "clip": clip, "labels": labels, "segmenter": measured.imported(segmenter),
    }  # fmt: skip
    cache, pictures = (None if path is None else Path(path) for path in (cache_dir, plots))
    where = measured.Where(find_device(device, double=True), cache, pictures, trust)
    output = output or measured.own_file(target)
    check_output(output, plots)
    reals: dict[str, Any] = {"other": other, "data": data, "framing": framing}
    evaluation = measured.evaluate_target(target, given, where, **reals, resolution=resolution)
    if output is not None and rank_and_world()[0] == 0:
        measured.append(Path(output), target, evaluation)
    return evaluation


assert evaluate.__doc__ is not None
evaluate.__doc__ = evaluate.__doc__.format(**{kind: " ".join(of(kind)) for kind in OFFERS})


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    argv, fixed = list(sys.argv[1:] if argv is None else argv), {"data": None, "cache_dir": None}
    processes = parsed(evaluate, argv, show=show, without=fixed).get("processes", 1)  # --help takes no time
    from lit_gans.base.processes import in_processes, process_group

    if processes > 1 and "LOCAL_RANK" not in os.environ:
        return in_processes("lit_gans.evaluate", processes, argv)
    with process_group():
        return run_verb(evaluate, argv, show=show, **fixed)


def show(evaluation: "Evaluation", *, processes: int = 1) -> None:
    """Prints values and protocol, in the first process.

    Args:
        processes: of this machine that share the work, one per GPU.
    """
    from lit_gans.base.processes import rank_and_world
    from lit_gans.runs import evaluation as measured

    if rank_and_world()[0] == 0:
        measured.show(evaluation)


if __name__ == "__main__":
    sys.exit(main())
