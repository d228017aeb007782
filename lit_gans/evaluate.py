"""`lit-gans evaluate`: measures a run, a checkpoint or a folder of images, and says under which protocol."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_gans.base.processes import rank_and_world
from lit_gans.evaluation.folders import evaluate_folder
from lit_gans.evaluation.runs import config_of, evaluate_run, evaluate_translator_run, is_run, run_folder
from lit_gans.evaluation.settings import Networks, Where, settings_of

if TYPE_CHECKING:
    import torch

    from lit_gans.data import ImageData
    from lit_gans.metrics import Evaluation

CLIP = "openai/clip-vit-base-patch16"


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
    from lit_gans.adversarial.capabilities import Samples, can
    from lit_gans.base.processes import find_device
    from lit_gans.runs.load import load_run

    target = Path(target)
    if not target.exists():
        raise FileNotFoundError(f"{target} does not exist: give a run folder, a .ckpt file or a folder of images")
    given = {
        "num_images": num_images, "extractor": extractor, "metrics": metrics, "batch_size": batch_size,
        "split": split, "num_real": num_real, "neighbours": neighbours, "path_samples": path_samples,
        "weights_path": weights_path,
    }  # fmt: skip
    config = config_of(target) if is_run(target) else None
    settings = settings_of(config, {name: value for name, value in given.items() if value is not None})
    networks = Networks(lpips or "vgg", lpips_weights, clip, clip_folder)
    where = Where(
        find_device(device, double=True),
        None if cache_dir is None else Path(cache_dir),
        None if plots is None else Path(plots),
        trust,
    )
    game = load_run(target, trust=trust) if is_run(target) else None
    of_translators = {"directions": directions, "num_segments": num_segments, "segmenter": segmenter}
    if game is None or can(game, Samples):
        _refuse(of_translators, f"{target} is no run of a translator, which alone has")
    if game is not None:
        output = output or run_folder(target) / "evaluations.jsonl"
        if can(game, Samples):
            samples = {"seed": seed, "psi": psi, "ema": not raw}
            evaluation = evaluate_run(target, game, other, config, settings, samples, networks, where, data=data)
        else:
            of_gans = {"other": other, "plots": plots, "raw": raw, "seed": seed, "psi": psi != 1}
            _refuse(of_gans, f"{target} holds a translator, which has no")
            given |= {"lpips": lpips, "lpips_weights": lpips_weights, **of_translators}
            evaluation = evaluate_translator_run(target, game, config, given, where, data=data)
    else:  # a folder is taken whole unless less is asked for
        evaluation = evaluate_folder(
            target, other, settings, networks, where, data=data, num_images=num_images, resolution=resolution
        )
    if output is not None and rank_and_world()[0] == 0:
        _append(Path(output), target, evaluation)
    return evaluation


def _refuse(arguments: dict[str, Any], why: str) -> None:
    if useless := [name for name, value in arguments.items() if value]:
        raise ValueError(f"{why} {', '.join(useless)}: leave it out")


# ---- processes and files ---------------------------------------------------------------------------------------------


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the group that torchrun, or `--processes`, has started this process in; nothing where there is none."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def _in_processes(count: int, argv: Sequence[str]) -> int:
    """The same command in `count` processes of this machine; the exit status."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    return subprocess.run([*launch, "-m", "lit_gans.evaluate", *argv], env=environment).returncode


def _append(path: Path, target: Path, evaluation: Evaluation) -> None:
    """One line, written at once, so that several writers do not mix theirs."""
    line = {
        "target": str(target),
        "time_s": round(time.time(), 3),
        **{name: value if math.isfinite(value) else str(value) for name, value in evaluation.values.items()},
        "protocol": evaluation.protocol,
    }  # JSON has no infinity, which the PSNR of equal pictures is
    if isinstance(evaluation.protocol.get("images_seen"), int):
        line = {"kimg": evaluation.protocol["images_seen"] / 1000, **line}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


# ---- the command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 with a message on standard error for what the user can mend."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = vars(_parser().parse_args(argv))
    processes = arguments.pop("processes")
    if processes > 1 and "LOCAL_RANK" not in os.environ:
        return _in_processes(processes, argv)
    try:
        with warnings.catch_warnings(), process_group():
            warnings.showwarning = lambda message, *where: print(f"lit-gans evaluate: {message}", file=sys.stderr)
            arguments["segmenter"] = _imported(arguments["segmenter"])
            evaluation = evaluate(**arguments)
            if rank_and_world()[0] == 0:
                _show(evaluation)
    except (ValueError, OSError) as error:
        print(f"lit-gans evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def _imported(path: str | None) -> Any:
    """What the function or class at an import path gives, called without arguments; None for None."""
    if path is None:
        return None
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"segmenter {path!r} cannot be built ({error}): give the import path of a function or class without "
            "arguments, such as my_networks.fcn8s"
        ) from error


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
    add("--metrics", nargs="+", metavar="METRIC", help="some of fid (or frechet) sfid rfid intra_fid kid is precision "
        "recall density coverage class_accuracy swd modes ppl_z_full ppl_z_end ppl_w_full ppl_w_end (each also with "
        "_crop); for folders also psnr ssim ms_ssim lpips pd clip_score; for translators fid kid precision recall "
        "density coverage and, of pairs, psnr ssim ms_ssim lpips segmentation")  # fmt: skip
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


def _show(evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    values = Table("metric", "value", title="evaluation")
    for name, value in evaluation.values.items():
        values.add_row(name, f"{value:.6g}")
    protocol = Table("protocol", "", show_lines=False)
    for name, value in evaluation.protocol.items():
        for key, text in _lines(name, value):
            protocol.add_row(key, text)
    console = Console()
    console.print(values)
    console.print(protocol)


def _lines(name: str, value: object) -> list[tuple[str, str]]:
    """One row, or a row per entry."""
    if name == "numbers" and isinstance(value, dict):
        return [(f"{number}: {key}", str(v)) for number, own in value.items() for key, v in own.items()]
    return [(f"{name} {key}", str(v)) for key, v in value.items()] if isinstance(value, dict) else [(name, str(value))]


if __name__ == "__main__":
    sys.exit(main())
