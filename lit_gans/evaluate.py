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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from lit_gans.adversarial import GAN, Game
    from lit_gans.data import ImageData
    from lit_gans.metrics import Evaluation, Extractor, Plan

CLIP = "openai/clip-vit-base-patch16"


@dataclass(frozen=True)
class Settings:
    """What a run's Evaluate callback was configured with, or else these values."""

    num_images: int = 50_000
    extractor: str = "inception"
    metrics: Sequence[str] | None = None
    batch_size: int = 64
    split: str = "train"
    num_real: int | None = None
    neighbours: int = 5
    path_samples: int = 50_000
    weights_path: str | None = None


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
    ValueError, FileNotFoundError or ConnectionError say what is missing.
    """
    from lit_gans.adversarial import GAN
    from lit_gans.run import find_device, load_run

    target = Path(target)
    if not target.exists():
        raise FileNotFoundError(f"{target} does not exist: give a run folder, a .ckpt file or a folder of images")
    given = {
        "num_images": num_images, "extractor": extractor, "metrics": metrics, "batch_size": batch_size,
        "split": split, "num_real": num_real, "neighbours": neighbours, "path_samples": path_samples,
        "weights_path": weights_path,
    }  # fmt: skip
    config = _config(target) if is_run(target) else None
    settings = _settings(config, {name: value for name, value in given.items() if value is not None})
    networks = Networks(lpips or "vgg", lpips_weights, clip, clip_folder)
    where = Where(
        find_device(device, double=True),
        None if cache_dir is None else Path(cache_dir),
        None if plots is None else Path(plots),
    )
    if is_run(target):
        game = load_run(target)
        output = output or _run_folder(target) / "evaluations.jsonl"
        if isinstance(game, GAN):
            samples = {"seed": seed, "psi": psi, "ema": not raw}
            evaluation = _evaluate_run(target, game, other, config, settings, samples, networks, where, data=data)
        else:
            only_gans = {
                "other": other,
                "plots": plots,
                "raw": raw,
                "seed": seed,
                "psi": psi != 1,
                "resolution": resolution,
            }
            if useless := [name for name, value in only_gans.items() if value]:
                raise ValueError(
                    f"{target} holds a translator, of which {', '.join(useless)} say nothing: leave it out"
                )
            given |= {"lpips": lpips, "lpips_weights": lpips_weights, "directions": directions}
            given |= {"num_segments": num_segments, "segmenter": segmenter}
            evaluation = _evaluate_translator(target, game, config, given, where, data=data)
    else:  # a folder is taken whole unless less is asked for
        evaluation = _evaluate_folder(
            target, other, settings, networks, where, data=data, num_images=num_images, resolution=resolution
        )
    if output is not None and _rank()[0] == 0:
        _append(Path(output), target, evaluation)
    return evaluation


@dataclass(frozen=True)
class Networks:
    """Which networks judge pairs, paths and captions; built only where a metric asks for them."""

    lpips: str
    lpips_weights: str | Path | None
    clip: str
    clip_folder: str | Path | None

    def similarity(self) -> Any:
        from lit_gans.metrics.perceptual import build_lpips

        return build_lpips(self.lpips, weights_path=self.lpips_weights)


@dataclass(frozen=True)
class Where:
    """What does not change a number: the device, where statistics are kept, where pictures go."""

    device: torch.device
    cache_dir: Path | None
    plots: Path | None

    def show(self, data: ImageData, split: str, written: list[Path]) -> Callable[[Any], None] | None:
        """What draws the pictures, and adds their paths to `written`."""
        if self.plots is None:
            return None
        from lit_gans.metrics.pictures import draw_pictures

        return lambda seen: written.extend(draw_pictures(seen, data, self.plots, split=split))


def is_run(path: Path) -> bool:
    """True for a .ckpt file, and for a folder with a config or checkpoints, or of a pretrained model."""
    from lit_gans.run import is_pretrained

    return (
        path.suffix == ".ckpt"
        or is_pretrained(path)
        or (path / "config.yaml").is_file()
        or (path / "checkpoints").is_dir()
    )


def _run_folder(target: Path) -> Path:
    """A checkpoint lies in <run>/checkpoints, or anywhere, then beside it."""
    if target.is_dir():
        return target
    return target.parent.parent if target.parent.name == "checkpoints" else target.parent


def _config(target: Path) -> dict[str, Any] | None:
    """The run's config, or None where there is none beside a lone checkpoint."""
    from lit_gans.run import run_config

    try:
        return run_config(target)
    except FileNotFoundError:
        return None


def _settings(config: dict[str, Any] | None, given: dict[str, Any]) -> Settings:
    """`given`, completed from the config's `evaluate` section, if evaluation was on there."""
    section = (config or {}).get("evaluate") or {}
    found = {name: value for name, value in section.items() if name in Settings.__dataclass_fields__}
    if not section.get("every_kimg"):
        found = {}
    if given.get("extractor", found.get("extractor")) != found.get("extractor"):
        found.pop("weights_path", None)  # the configured weights are another network's
    return Settings(**{**found, **given})


def _plan(settings: Settings, *, metrics: Sequence[str], num_images: int, **samples: Any) -> Plan:
    from lit_gans.metrics import Plan

    return Plan(
        metrics=metrics, num_images=num_images, batch_size=settings.batch_size, split=settings.split,
        num_real=settings.num_real, neighbours=settings.neighbours, path_samples=settings.path_samples, **samples,
    )  # fmt: skip


def _extractor(settings: Settings, plan: Plan, data: ImageData, where: Where) -> Extractor | None:
    """None where neither a metric nor a picture looks through one: its weights need not be there then."""
    from lit_gans.metrics import build_extractor

    if not plan.needs_extractor and where.plots is None:
        return None
    spatial = "spatial_frechet" in plan.metrics
    return build_extractor(settings.extractor, weights_path=settings.weights_path, data=data, spatial=spatial)


# ---- a run -----------------------------------------------------------------------------------------------------------


def _evaluate_run(
    target: Path,
    gan: GAN,
    other: str | Path | None,
    config: dict[str, Any] | None,
    settings: Settings,
    samples: dict[str, Any],
    networks: Networks,
    where: Where,
    *,
    data: ImageData | None,
) -> Evaluation:
    from lit_gans.metrics import DEFAULT_METRICS, evaluate_gan
    from lit_gans.metrics.plan import PATHS

    metrics = settings.metrics or DEFAULT_METRICS
    if of_folders := [name for name in metrics if name in _of_folders()]:
        raise ValueError(f"{', '.join(of_folders)}: for folders of images, not for a run; see `lit-gans sample`")
    plan = _plan(settings, metrics=metrics, num_images=settings.num_images, **samples)
    data = _reals_of_run(target, other, config, gan) if data is None else data
    data.prepare_data()
    network = _extractor(settings, plan, data, where)
    distance = networks.similarity().to(where.device) if set(metrics) & set(PATHS) else None
    gan.to(where.device)
    rank, world = _rank()
    written: list[Path] = []
    with _progress() as progress:
        evaluation = evaluate_gan(
            gan, data, extractor=network, plan=plan, distance=distance, rank=rank, world=world,
            cache_dir=where.cache_dir, progress=progress, show=where.show(data, plan.split, written),
        )  # fmt: skip
    _tell(written)
    return evaluation


def _reals_of_run(target: Path, other: str | Path | None, config: dict[str, Any] | None, gan: GAN) -> ImageData:
    if other is not None:
        return _image_folder(Path(other), gan.resolution, channels=gan.channels)
    return _own_data(target, config, "give a folder of real images as second argument")


def _own_data(target: Path, config: dict[str, Any] | None, way_out: str) -> ImageData:
    from lit_gans.run import build_data

    if config is None:
        raise FileNotFoundError(
            f"no config.yaml in {_run_folder(target)}, so the data {target} was trained on is unknown: {way_out}"
        )
    return build_data(config)


def _evaluate_translator(
    target: Path,
    game: Game,
    config: dict[str, Any] | None,
    given: dict[str, Any],
    where: Where,
    *,
    data: ImageData | None,
) -> Evaluation:
    """`given`, where not None, completed from the config's `evaluate_translation` section."""
    import inspect

    from lit_gans.callbacks import EvaluateTranslation
    from lit_gans.metrics.translation import evaluate_translator

    data = _own_data(target, config, "from Python, pass data=") if data is None else data
    data.prepare_data()
    section = (config or {}).get("evaluate_translation") or {}
    section = {name: value for name, value in section.items() if name != "segmenter"}  # of a class of the user's
    known = set(inspect.signature(EvaluateTranslation).parameters)
    wanted = {**section, **{name: value for name, value in given.items() if value is not None and name in known}}
    plan, judges = EvaluateTranslation(**wanted).prepare(game, data)
    game.to(where.device)
    rank, world = _rank()
    with _progress() as progress:
        return evaluate_translator(
            game, data, plan=plan, judges=judges, generator="ema" if game.averages() else "raw", rank=rank, world=world,
            cache_dir=where.cache_dir, progress=progress,
        )  # fmt: skip


# ---- folders of images -----------------------------------------------------------------------------------------------


def _of_folders() -> tuple[str, ...]:
    from lit_gans.metrics.paired import PAIR_METRICS

    return (*PAIR_METRICS, "clip_score")


def _evaluate_folder(
    target: Path,
    other: str | Path | None,
    settings: Settings,
    networks: Networks,
    where: Where,
    *,
    data: ImageData | None,
    num_images: int | None,
    resolution: int | None,
) -> Evaluation:
    from lit_gans.metrics import DEFAULT_METRICS, Evaluation
    from lit_gans.metrics.evaluator import versions
    from lit_gans.metrics.paired import PAIR_METRICS

    metrics = settings.metrics or DEFAULT_METRICS
    of_sets = [name for name in metrics if name not in _of_folders()]
    of_pairs = [name for name in metrics if name in PAIR_METRICS]
    if data is None and other is None and (of_sets or of_pairs):
        raise ValueError(
            f"{target} is neither a run nor a checkpoint, so it is taken as images: "
            f"give a second folder of images to compare with"
        )
    if of_pairs and other is None:
        raise ValueError(f"{', '.join(of_pairs)} compare pictures of the same name: give the folder of the others")
    evaluation = Evaluation({}, {"generator": "images", "numbers": {}, "versions": versions()})
    if of_sets:
        evaluation = _sets(
            target, other, settings, where, of_sets, data=data, num_images=num_images, resolution=resolution
        )
    if of_pairs:
        _add_pairs(evaluation, target, Path(other), of_pairs, settings, networks, where)
    if "clip_score" in metrics:
        _add_clip_score(evaluation, target, settings, networks, where, num_images=num_images)
    return evaluation


def _sets(
    target: Path,
    other: str | Path | None,
    settings: Settings,
    where: Where,
    metrics: Sequence[str],
    *,
    data: ImageData | None,
    num_images: int | None,
    resolution: int | None,
) -> Evaluation:
    from lit_gans.metrics import evaluate_images

    if data is None:
        fake_px, real_px = image_px(target), image_px(Path(other))
        if resolution is None and fake_px != real_px:
            raise ValueError(
                f"images in {target} are {fake_px} px wide and in {other} {real_px} px: "
                f"give --resolution, to which both are brought"
            )
        data = _image_folder(Path(other), resolution or real_px, channels=3)
    fake = _image_folder(target, data.resolution, channels=data.channels)
    data.prepare_data()
    count = len(fake.dataset("train")) if num_images is None else num_images
    plan = _plan(settings, metrics=metrics, num_images=count)
    network = _extractor(settings, plan, data, where)
    rank, world = _rank()
    written: list[Path] = []
    with _progress() as progress:
        evaluation = evaluate_images(
            fake, data, extractor=network, plan=plan, device=where.device, rank=rank, world=world,
            cache_dir=where.cache_dir, progress=progress, show=where.show(data, plan.split, written),
        )  # fmt: skip
    _tell(written)
    return evaluation


def _add_pairs(
    evaluation: Evaluation,
    target: Path,
    other: Path,
    metrics: Sequence[str],
    settings: Settings,
    networks: Networks,
    where: Where,
) -> None:
    from lit_gans.data.sources import open_source
    from lit_gans.metrics.measures import NO_EXTRACTOR
    from lit_gans.metrics.paired import evaluate_pairs, pair_measures
    from lit_gans.metrics.perceptual import build_perceptual_distance

    built = {"lpips": networks.similarity().to(where.device)} if "lpips" in metrics else {}
    if "pd" in metrics:
        built["pd"] = build_perceptual_distance(weights_path=networks.lpips_weights).to(where.device)
    rank, world = _rank()
    reals = open_source(other)
    with _progress() as progress:
        values = evaluate_pairs(
            target, reals, metrics=metrics, batch_size=settings.batch_size, rank=rank, world=world,
            device=where.device, progress=progress, **built,
        )  # fmt: skip
    own = {**NO_EXTRACTOR, "n_real": None, "n_fake": None, "resolution": "as stored", "split": None}
    own |= {"pairs": len(reals.names), "dataset": reals.digest(reals.names)[:16]}
    for name, measure in pair_measures(metrics, **built).items():
        evaluation.values[name] = values[name]
        evaluation.protocol["numbers"][name] = {**own, **measure.settings}


def _add_clip_score(
    evaluation: Evaluation,
    target: Path,
    settings: Settings,
    networks: Networks,
    where: Where,
    *,
    num_images: int | None,
) -> None:
    import torch

    from lit_gans.metrics.text import CLIPScore, build_clip, read_captions

    images = _image_folder(target, image_px(target), channels=3)
    names = list(images.dataset("train").names)[:num_images]
    captions = read_captions(target, names)
    metric = CLIPScore(build_clip(networks.clip, folder=networks.clip_folder)).to(where.device)
    rank, world = _rank()
    metric.update(torch.empty(0, 3, 8, 8, dtype=torch.uint8), [])
    mine, done = torch.arange(rank, len(names), world), 0
    for batch in images.batches("train", settings.batch_size, indices=mine):
        chosen = mine[done : done + len(batch["image"])].tolist()
        metric.update(batch["image"], [captions[i] for i in chosen])
        done += len(chosen)
    encoder = metric.encoder
    evaluation.values["clip_score"] = metric.compute().item()
    evaluation.protocol["numbers"]["clip_score"] = {
        "extractor": encoder.name, "extractor_fingerprint": encoder.fingerprint, "resize": encoder.resize,
        "n_real": None, "n_fake": len(names), "dataset": None, "split": None,
    }  # fmt: skip


def _image_folder(path: Path, resolution: int, *, channels: int) -> ImageData:
    from lit_gans.data import Images

    return Images(str(path), batch_size=1, resolution=resolution, channels=channels)


def image_px(path: Path) -> int:
    """The shorter side of the first image, in px. FileNotFoundError where there is no folder, or no image in it."""
    from PIL import Image

    from lit_gans.data.sources import open_source

    source = open_source(path)
    with source.open(source.names[0]) as file, Image.open(file) as image:
        return min(image.size)


# ---- processes, progress, files --------------------------------------------------------------------------------------


def _rank() -> tuple[int, int]:
    """(rank, processes) of the process group, or (0, 1)."""
    import torch.distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


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


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar per kind of work on standard error, where that is a terminal; of the first process alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal or _rank()[0] != 0:
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


def _tell(written: Sequence[Path]) -> None:
    if written:
        print(f"pictures: {', '.join(str(path) for path in written)}", file=sys.stderr)


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
            if _rank()[0] == 0:
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
