"""`lit-gans evaluate`: measures a run, a checkpoint or a folder of images, and says under which protocol."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_gans.data import ImageData
    from lit_gans.metrics import Evaluation


@dataclass(frozen=True)
class Settings:
    """What a run's Evaluate callback was configured with, or else these values."""

    num_images: int = 50_000
    extractor: str = "inception"
    metrics: Sequence[str] | None = None
    batch_size: int = 64
    split: str = "train"
    num_real: int | None = None
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
    seed: int = 0,
    psi: float = 1.0,
    raw: bool = False,
    split: str | None = None,
    num_real: int | None = None,
    resolution: int | None = None,
    data: ImageData | None = None,
    weights_path: str | Path | None = None,
    output: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Evaluation:
    """The values of `target` (a run folder, .ckpt file, or folder or zip of images), with their protocol.

    The reals are `data`, else the images in folder or zip `other`, else a run's own data. What is left at None is as in
    the run's Evaluate callback, else 50,000 images through Inception. `raw` takes a run's generator itself and not its
    average. For folders: `resolution` in px (default: the size of the first image), and all images are used.
    One JSON line is appended to `output`, for a run by default to its `evaluations.jsonl`.
    ValueError, FileNotFoundError or ConnectionError say what is missing.
    """
    target = Path(target)
    if not target.exists():
        raise FileNotFoundError(f"{target} does not exist: give a run folder, a .ckpt file or a folder of images")
    given = {
        "num_images": num_images, "extractor": extractor, "metrics": metrics, "batch_size": batch_size,
        "split": split, "num_real": num_real, "weights_path": weights_path,
    }  # fmt: skip
    config = _config(target) if is_run(target) else None
    settings = _settings(config, {name: value for name, value in given.items() if value is not None})
    folder = None if cache_dir is None else Path(cache_dir)
    if is_run(target):
        evaluation = _evaluate_run(
            target, other, config, settings, data=data, device=device, seed=seed, psi=psi, raw=raw, folder=folder
        )
        output = output or _run_folder(target) / "evaluations.jsonl"
    else:
        count = num_images  # a folder is taken whole unless less is asked for
        evaluation = _evaluate_folder(
            target, other, settings, count, resolution, data=data, device=device, folder=folder
        )
    if output is not None:
        _append(Path(output), target, evaluation)
    return evaluation


def is_run(path: Path) -> bool:
    """True for a .ckpt file and for a folder with a config or checkpoints."""
    return path.suffix == ".ckpt" or (path / "config.yaml").is_file() or (path / "checkpoints").is_dir()


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


def _evaluate_run(
    target: Path,
    other: str | Path | None,
    config: dict[str, Any] | None,
    settings: Settings,
    *,
    data: ImageData | None,
    device: str,
    seed: int,
    psi: float,
    raw: bool,
    folder: Path | None,
) -> Evaluation:
    from lit_gans.metrics import METRICS, build_extractor, evaluate_gan
    from lit_gans.run import build_data, load_run

    gan = load_run(target)
    if data is None and other is not None:
        data = _image_folder(Path(other), gan.resolution, channels=gan.channels)
    if data is None and config is None:
        raise FileNotFoundError(
            f"no config.yaml in {_run_folder(target)}, so the data {target} was trained on is unknown: "
            f"give a folder of real images as second argument"
        )
    if data is None:
        data = build_data(config)
    data.prepare_data()
    network = build_extractor(settings.extractor, weights_path=settings.weights_path, data=data)
    gan.to(_device(device))
    with _progress() as progress:
        return evaluate_gan(
            gan, data, extractor=network, num_images=settings.num_images, metrics=settings.metrics or METRICS,
            batch_size=settings.batch_size, split=settings.split, num_real=settings.num_real, seed=seed, psi=psi,
            ema=not raw, cache_dir=folder, progress=progress,
        )  # fmt: skip


def _evaluate_folder(
    target: Path,
    other: str | Path | None,
    settings: Settings,
    num_images: int | None,
    resolution: int | None,
    *,
    data: ImageData | None,
    device: str,
    folder: Path | None,
) -> Evaluation:
    from lit_gans.metrics import METRICS, build_extractor, evaluate_images

    if data is None and other is None:
        raise ValueError(
            f"{target} is neither a run nor a checkpoint, so it is taken as images: "
            f"give a second folder of images to compare with"
        )
    if data is None:
        fake_px, real_px = image_px(target), image_px(Path(other))
        if resolution is None and fake_px != real_px:
            raise ValueError(
                f"images in {target} are {fake_px} px wide and in {other} {real_px} px: "
                f"give --resolution, to which both are brought"
            )
        resolution = resolution or real_px
        data = _image_folder(Path(other), resolution, channels=3)
    fake = _image_folder(target, data.resolution, channels=data.channels)
    data.prepare_data()
    network = build_extractor(settings.extractor, weights_path=settings.weights_path, data=data)
    with _progress() as progress:
        return evaluate_images(
            fake, data, extractor=network, num_images=num_images, metrics=settings.metrics or METRICS,
            batch_size=settings.batch_size, split=settings.split, num_real=settings.num_real, device=_device(device),
            cache_dir=folder, progress=progress,
        )  # fmt: skip


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


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar per kind of work on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


def _append(path: Path, target: Path, evaluation: Evaluation) -> None:
    """One line, written at once, so that several writers do not mix theirs."""
    line = {
        "target": str(target),
        "time_s": round(time.time(), 3),
        **evaluation.values,
        "protocol": evaluation.protocol,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 with a message on standard error for what the user can mend."""
    arguments = vars(_parser().parse_args(argv))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where: print(f"lit-gans evaluate: {message}", file=sys.stderr)
            evaluation = evaluate(**arguments)
    except (ValueError, OSError) as error:
        print(f"lit-gans evaluate: {error}", file=sys.stderr)
        return 2
    _show(evaluation)
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
    add("--extractor", help="inception, digits, mnist, torchvision:<model> (default: as the run, else inception)")
    add("--metrics", nargs="+", help="some of frechet kid is precision recall class_accuracy")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--batch-size", type=int, help="images at a time")
    add("--seed", type=int, default=0, help="which samples: image i has seed SEED * 10^9 + i (default: 0)")
    add("--psi", type=float, default=1.0, help="truncation (default: 1, none)")
    add("--raw", action="store_true", help="the generator itself, not its average")
    add("--split", help="of the data (default: train)")
    add("--num-real", type=int, help="how many real images (default: all)")
    add("--resolution", type=int, help="folders only: bring all images to this size in px")
    add("--weights", dest="weights_path", help="file of the extractor's weights, .safetensors or .pth")
    add("--output", help="file to append the result to as a line of JSON (default: <run>/evaluations.jsonl)")
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
    return [(f"{name} {key}", str(v)) for key, v in value.items()] if isinstance(value, dict) else [(name, str(value))]


if __name__ == "__main__":
    sys.exit(main())
