"""`lit-gans evaluate`: measures a run, a checkpoint or a folder of images, and says under which protocol."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_gans.metrics.catalog import CLIP, of

if TYPE_CHECKING:
    import torch

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
    seed: int = 0,
    psi: float = 1.0,
    raw: bool = False,
    split: str | None = None,
    num_real: int | None = None,
    resolution: int | None = None,
    data: ImageData | None = None,
    weights_path: str | Path | None = None,
    lpips: str | None = None,
    lpips_weights: str | Path | None = None,
    directions: Sequence[str] | None = None,
    segmenter: torch.nn.Module | None = None,
    num_segments: int | None = None,
    clip: str = CLIP,
    clip_folder: str | Path | None = None,
    output: str | Path | None = None,
    plots: str | Path | None = None,
    cache_dir: str | Path | None = None,
    trust: str | None = None,
) -> Evaluation:
    """The values of `target` (a run folder, .ckpt file, pretrained folder, or folder or zip of images), with protocol.

    The reals are `data`, else the images in folder or zip `other`, else a run's own data. What is left at None is as in
    the run's Evaluate callback, else 50,000 images through Inception. `raw` takes a run's generator itself and not its
    average. For folders: `resolution` in px (default: the size of the first image), and all images are used; metrics of
    pairs ("psnr", "ssim", "ms_ssim", "lpips", "pd") compare pictures of the same name, and "clip_score" reads the
    captions in `target` (captions.json, or a .txt beside each picture).
    A run of a translator is measured as its EvaluateTranslation callback would, in all its `directions`, with a
    `segmenter` of `num_segments` classes also by what that reads in the translations; `data` are then its pictures.
    Pictures of the evaluation are written to the folder `plots`. One JSON line is appended to `output`, for a run by
    default to its `evaluations.jsonl`. In a process group all processes call it, and share the work.
    trust: see `lit_gans.runs.load.load_run`. ValueError, FileNotFoundError or ConnectionError say what is missing.
    """
    from lit_gans.base.processes import find_device, rank_and_world
    from lit_gans.runs import evaluation as measured

    target = Path(target)
    if not target.exists():
        raise FileNotFoundError(f"{target} does not exist: give a run folder, a .ckpt file or a folder of images")
    given = {
        "num_images": num_images, "extractor": extractor, "metrics": metrics, "batch_size": batch_size,
        "split": split, "num_real": num_real, "neighbours": neighbours, "path_samples": path_samples,
        "weights_path": weights_path, "seed": seed, "psi": psi, "ema": not raw, "lpips": lpips,
        "lpips_weights": lpips_weights, "clip": clip, "clip_folder": clip_folder, "directions": directions,
        "segmenter": segmenter, "num_segments": num_segments,
    }  # fmt: skip
    cache, pictures = (None if path is None else Path(path) for path in (cache_dir, plots))
    where = measured.Where(find_device(device, double=True), cache, pictures, trust)
    if measured.is_run(target):
        evaluation = measured.evaluate_run(target, given, where, other=other, data=data)
        output = output or measured.run_folder(target) / "evaluations.jsonl"
    else:
        evaluation = measured.evaluate_folder(target, given, where, other=other, data=data, resolution=resolution)
    if output is not None and rank_and_world()[0] == 0:
        measured.append(Path(output), target, evaluation)
    return evaluation


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 with a message on standard error for what the user can mend."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = vars(_parser().parse_args(argv))  # before torch is imported: --help takes no time
    from lit_gans.base.processes import in_processes, process_group, rank_and_world
    from lit_gans.runs import evaluation as measured

    processes = arguments.pop("processes")
    if processes > 1 and "LOCAL_RANK" not in os.environ:
        return in_processes("lit_gans.evaluate", processes, argv)
    try:
        with warnings.catch_warnings(), process_group():
            warnings.showwarning = lambda message, *where: print(f"lit-gans evaluate: {message}", file=sys.stderr)
            arguments["segmenter"] = measured.imported(arguments["segmenter"])
            evaluation = evaluate(**arguments)
            if rank_and_world()[0] == 0:
                measured.show(evaluation)
    except (ValueError, OSError) as error:
        print(f"lit-gans evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-gans evaluate",
        description="Measure a run, a checkpoint or a folder of images. What is left out is as the run was configured.",
    )
    add = parser.add_argument
    add("target", help="run folder, .ckpt file, or folder (or zip) of images")
    add("other", nargs="?", help="folder (or zip) of real images; default: the run's own data")
    add("--num-images", type=int, help="generated images (default: as the run, else 50000; a folder: all)")
    add("--extractor", help="inception, random_inception, digits, mnist, vgg16, torchvision:<model>, timm:<model>, "
        "clip:<model>, dinov2:<model> (default: as the run, else inception)")  # fmt: skip
    known = "; ".join(f"of {kind}: {' '.join(of(kind))}" for kind in ("samples", "translations", "pairs", "captions"))
    add("--metrics", nargs="+", metavar="METRIC", help=f"some of those {known}")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--processes", type=int, default=1, help="processes of this machine that share the work, one per GPU")
    add("--batch-size", type=int, help="images at a time")
    add("--neighbours", type=int, help="k of precision, recall, density and coverage (default: 5)")
    add("--path-samples", type=int, help="paths of each perceptual path length (default: 50000)")
    add("--seed", type=int, default=0, help="which samples: image i has seed SEED * 10^9 + i (default: 0)")
    add("--psi", type=float, default=1.0, help="truncation (default: 1, none)")
    add("--raw", action="store_true", help="the generator itself, not its average")
    add("--split", help="of the data (default: train)")
    add("--num-real", type=int, help="how many real images (default: all)")
    add("--resolution", type=int, help="folders only: bring all images to this size in px")
    add("--weights", dest="weights_path", help="file of the extractor's weights, .safetensors or .pth")
    add("--lpips", choices=["vgg", "alex", "squeeze"], help="network of lpips and of path lengths (default: vgg; of a "
        "translator as the run, else alex)")  # fmt: skip
    add("--lpips-weights", help="file of that network's weights")
    add("--directions", nargs="+", choices=["ab", "ba"], help="of a translator's run (default: all it has)")
    add("--segmenter", metavar="MODULE.NAME", help="of a translator's run: what gives a network of yours that reads "
        "photographs, as metrics pixel_accuracy, mean_class_accuracy and mean_iou")  # fmt: skip
    add("--num-segments", type=int, help="its classes")
    add("--clip", default=CLIP, help=f"the CLIP of clip_score, by its name at Hugging Face (default: {CLIP})")
    add("--clip-folder", help="folder with its files")
    add("--output", help="file to append the result to as a line of JSON (default: <run>/evaluations.jsonl)")
    add("--trust", help="another package whose classes the run may name")
    add("--plots", metavar="FOLDER", help="write t-SNE, precision and recall, best and worst samples, nearest reals")
    return parser


if __name__ == "__main__":
    sys.exit(main())
