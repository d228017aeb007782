"""`lit-gans evaluate`: measures a run, a checkpoint or a folder of images, and says under which protocol."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lit_gans.base.command import parsed, run_verb

if TYPE_CHECKING:
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

    What is left out is as the run was configured, else 50,000 images through Inception; a folder is taken whole. A run
    of a translator is measured as its EvaluateTranslation callback would, in all its directions. In a process group
    all processes call it, and share the work.

    Args:
        target: run folder, .ckpt file, pretrained folder, or folder (or zip) of images.
        other: folder (or zip) of real images; by default the run's own data.
        num_images: generated images.
        extractor: inception, random_inception, digits, mnist, vgg16, torchvision:<model>, timm:<model>, clip:<model>,
            dinov2:<model>.
        metrics: some of fid (or frechet) sfid rfid intra_fid kid is precision recall density coverage class_accuracy
            swd modes ppl_z_full ppl_z_end ppl_w_full ppl_w_end (each also with _crop); for folders also psnr ssim
            ms_ssim lpips pd, of pictures of the same name, and clip_score, of the captions in captions.json or in a
            .txt beside each picture; for translators fid kid precision recall density coverage and, of pairs, psnr
            ssim ms_ssim lpips segmentation.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        batch_size: images at a time.
        neighbours: k of precision, recall, density and coverage, by default 5.
        path_samples: paths of each perceptual path length, by default 50,000.
        seed: which samples: image i has seed SEED * 10^9 + i.
        psi: truncation; 1 is none.
        raw: the generator itself, not its average.
        split: of the data, by default train.
        num_real: how many real images, by default all.
        resolution: of folders: all images are brought to this size in px, by default that of the first.
        data: the reals, or a translator's pictures, in place of other.
        weights_path: file of the extractor's weights, .safetensors or .pth.
        lpips: network of lpips and of path lengths, by default vgg; of a translator as the run, else alex.
        lpips_weights: file of that network's weights.
        directions: of a translator's run, by default all it has.
        segmenter: of a translator's run: a network of yours that reads photographs, for the metrics pixel_accuracy,
            mean_class_accuracy and mean_iou; or the import path of what gives it, as my_networks.fcn8s.
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
    from lit_gans.adversarial.capabilities import Samples, can
    from lit_gans.base.processes import find_device, rank_and_world
    from lit_gans.evaluation.folders import evaluate_folder
    from lit_gans.evaluation.runs import config_of, evaluate_run, evaluate_translator_run, is_run, run_folder
    from lit_gans.evaluation.settings import Networks, Where, settings_of
    from lit_gans.runs.load import load_run

    segmenter = _imported(segmenter) if isinstance(segmenter, str) else segmenter
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


def _append(path: Path, target: Path, evaluation: "Evaluation") -> None:
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
    """The command; the exit status."""
    argv, fixed = list(sys.argv[1:] if argv is None else argv), {"data": None, "cache_dir": None}
    processes = parsed(evaluate, argv, show=show, without=fixed).get("processes", 1)
    if processes > 1 and "LOCAL_RANK" not in os.environ:
        return _in_processes(processes, argv)
    with process_group():
        return run_verb(evaluate, argv, show=show, **fixed)


def _imported(path: str) -> Any:
    """What the function or class at an import path gives, called without arguments."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"segmenter {path!r} cannot be built ({error}): give the import path of a function or class without "
            "arguments, such as my_networks.fcn8s"
        ) from error


def show(evaluation: "Evaluation", *, processes: int = 1) -> None:
    """Prints values and protocol, in the first process.

    Args:
        processes: of this machine that share the work, one per GPU.
    """
    from lit_gans.base.processes import rank_and_world

    if rank_and_world()[0] != 0:
        return
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
