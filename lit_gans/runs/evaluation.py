"""What `lit-gans evaluate` measures: runs of models that sample or translate, and folders of images."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from lit_gans.adversarial.capabilities import Captioned, Samples, Translates, can, require
from lit_gans.base.processes import rank_and_world
from lit_gans.base.progress import progress_bars
from lit_gans.data import ImageData, Images
from lit_gans.data.described import say
from lit_gans.data.images import describe_source
from lit_gans.data.sources import open_source
from lit_gans.metrics.catalog import of
from lit_gans.metrics.evaluator import Evaluation, evaluate, together
from lit_gans.metrics.folders import PairedFiles
from lit_gans.metrics.plan import Plan
from lit_gans.metrics.settings import Settings, TranslationSettings, configured
from lit_gans.metrics.subjects import CaptionedImages, StoredImages, Subject
from lit_gans.runs.folder import is_pretrained, run_config
from lit_gans.runs.load import build_data, load_run


@dataclass(frozen=True)
class Where:
    """What does not change a number: the device, where statistics are kept, where pictures go."""

    device: torch.device
    cache_dir: Path | None
    plots: Path | None
    trust: str | None = None  # another package whose classes a run may name

    def measure(self, subjects: list[tuple[Subject, Plan]], settings: Settings, data: ImageData | None) -> Evaluation:
        """`evaluate` of each by its plan, by all processes together, with pictures of those that have reals `data`."""
        rank, world = rank_and_world()
        found, written = [], list[Path]()
        with progress_bars() as progress:
            for subject, plan in subjects:
                pictures = self.plots is not None and subject.reals is not None
                judges = settings.judges(plan, data, pictures=pictures)
                show = (lambda seen, plan=plan: written.extend(self._draw(seen, data, plan))) if pictures else None
                found.append(evaluate(
                    subject, plan=plan, judges=judges, device=self.device, rank=rank, world=world,
                    cache_dir=self.cache_dir, progress=progress, show=show,
                ))  # fmt: skip
        if written:
            print(f"pictures: {', '.join(str(path) for path in written)}", file=sys.stderr)
        return together(found)

    def _draw(self, seen: Any, data: ImageData, plan: Plan) -> list[Path]:
        from lit_gans.metrics.pictures import draw_pictures  # which takes matplotlib's time to start

        assert self.plots is not None
        return draw_pictures(seen, data, self.plots, split=plan.split)


# ---- runs ------------------------------------------------------------------------------------------------------------


def is_run(path: Path) -> bool:
    """True for a .ckpt file, and for a folder with a config or checkpoints, or of a pretrained model."""
    return (
        path.suffix == ".ckpt"
        or is_pretrained(path)
        or (path / "config.yaml").is_file()
        or (path / "checkpoints").is_dir()
    )


def run_folder(target: Path) -> Path:
    """A checkpoint lies in <run>/checkpoints, or anywhere, then beside it."""
    if target.is_dir():
        return target
    return target.parent.parent if target.parent.name == "checkpoints" else target.parent


def evaluate_run(
    target: Path,
    given: dict[str, Any],
    where: Where,
    *,
    other: str | Path | None = None,
    data: ImageData | None = None,
) -> Evaluation:
    """What the model of a run samples, against `data`, else the images in `other`, else the run's own data; or what it
    makes of the pictures of `data`, else of the run's own.

    `given`: of `Settings` or `TranslationSettings`, where not None; the rest is as in the run's config.
    ValueError or FileNotFoundError for metrics, data or weights that cannot be had.
    """
    model, config = load_run(target, trust=where.trust), _config_of(target)
    settings: Settings
    if can(model, Samples):
        refuse_translators(target, given)
        settings, way_out = settings_of(config, given), "give a folder of real images as second argument"
        if of_folders := [name for name in settings.metrics or () if name in (*of("pairs"), *of("captions"))]:
            raise ValueError(f"{', '.join(of_folders)}: for folders of images, not for a run; see `lit-gans sample`")
    else:
        require(model, Translates, "lit-gans evaluate")
        of_samples = {"other": other, "plots": where.plots, "raw": not given["ema"], "seed": given["seed"]}
        refuse({**of_samples, "psi": given["psi"] != 1}, f"{target} holds a translator, which has no")
        section = (config or {}).get("evaluate_translation") or {}
        settings, way_out = configured(TranslationSettings, section, given), "from Python, pass data="
    if data is None and other is not None:
        data = image_folder(Path(other), model.resolution, channels=model.channels)
    data = _own_data(target, config, way_out, where) if data is None else data
    data.prepare_data()
    if can(model, Captioned):  # samples are of the captions of `data`, or of the run's own data where it has none
        own = data.gives == "pictures with captions"
        model.take_captions(data if own else _own_data(target, config, "evaluate a run folder", where))
    plan = settings.plan(model, data)
    say(data.describe(plan.split))
    subjects = settings.subjects(model.to(where.device), data, plan)
    return where.measure([(subject, plan) for subject in subjects], settings, data)


def settings_of(config: dict[str, Any] | None, given: dict[str, Any]) -> Settings:
    """`given`, completed from the config's `evaluate` section, if evaluation was on there."""
    section = (config or {}).get("evaluate") or {}
    return configured(Settings, section if section.get("every_kimg") else {}, given)


def refuse_translators(target: Path, given: dict[str, Any]) -> None:
    """ValueError for settings of translators alone."""
    of_translators = {name: given.get(name) for name in ("directions", "num_segments", "segmenter")}
    refuse(of_translators, f"{target} is no run of a translator, which alone has")


def refuse(arguments: dict[str, Any], why: str) -> None:
    """ValueError where one of the arguments is given."""
    if useless := [name for name, value in arguments.items() if value]:
        raise ValueError(f"{why} {', '.join(useless)}: leave it out")


def _config_of(target: Path) -> dict[str, Any] | None:
    """The run's config, or None where there is none beside a lone checkpoint."""
    try:
        return run_config(target)
    except FileNotFoundError:
        return None


def _own_data(target: Path, config: dict[str, Any] | None, way_out: str, where: Where) -> ImageData:
    if config is None:
        raise FileNotFoundError(
            f"no config.yaml in {run_folder(target)}, so the data {target} was trained on is unknown: {way_out}"
        )
    return build_data(config, trust=where.trust)


# ---- folders ---------------------------------------------------------------------------------------------------------


def evaluate_folder(
    target: Path,
    given: dict[str, Any],
    where: Where,
    *,
    other: str | Path | None = None,
    data: ImageData | None = None,
    resolution: int | None = None,
) -> Evaluation:
    """The images in `target` against `data` or the folder `other`, picture by picture, or against their captions.

    `resolution` in px, to which both are brought. ValueError or FileNotFoundError for folders that do not fit.
    """
    refuse_translators(target, given)
    settings = replace(settings_of(None, given), num_images=given.get("num_images"))  # all, unless less is asked for
    metrics = settings.metrics or ()
    asked = {kind: [name for name in metrics if name in of(kind)] for kind in ("pairs", "captions")}
    of_sets = [name for name in metrics if name not in (*asked["pairs"], *asked["captions"])]
    if data is None and other is None and (of_sets or asked["pairs"]):
        raise ValueError(
            f"{target} is neither a run nor a checkpoint, so it is taken as images: "
            f"give a second folder of images to compare with"
        )
    if asked["pairs"] and other is None:
        names = ", ".join(asked["pairs"])
        raise ValueError(f"{names} compare pictures of the same name: give the folder of the others")
    plans = {kind: settings.plan_of(kind, names) for kind, names in {"images": of_sets, **asked}.items() if names}
    subjects: list[tuple[Subject, Plan]] = []
    if "images" in plans:
        data = _reals(target, Path(other), resolution) if data is None else data
        fake = image_folder(target, data.resolution, channels=data.channels)
        data.prepare_data()
        say(fake.describe())
        say(data.describe(plans["images"].split))
        subjects.append((StoredImages(fake, data, plans["images"]), plans["images"]))
    if "pairs" in plans:
        pair = open_source(target), open_source(Path(other))
        for source in pair:
            say(describe_source(source))
        subjects.append((PairedFiles(*pair), plans["pairs"]))
    if "captions" in plans:
        images = image_folder(target, image_px(target), channels=3)
        say(images.describe())
        subjects.append((CaptionedImages(target, images, settings.num_images), plans["captions"]))
    return where.measure(subjects, settings, data)


def _reals(target: Path, other: Path, resolution: int | None) -> ImageData:
    fake_px, real_px = image_px(target), image_px(other)
    if resolution is None and fake_px != real_px:
        raise ValueError(
            f"images in {target} are {fake_px} px wide and in {other} {real_px} px: "
            f"give --resolution, to which both are brought"
        )
    return image_folder(other, resolution or real_px, channels=3)


def image_folder(path: Path, resolution: int, *, channels: int) -> ImageData:
    return Images(str(path), batch_size=1, resolution=resolution, channels=channels)


def image_px(path: Path) -> int:
    """The shorter side of the first image, in px. FileNotFoundError where there is no folder, or no image in it."""
    from PIL import Image

    source = open_source(path)
    with source.open(source.names[0]) as file, Image.open(file) as image:
        return min(image.size)


# ---- the command -----------------------------------------------------------------------------------------------------


def append(path: Path, target: Path, evaluation: Evaluation) -> None:
    """One line of JSON, written at once, so that several writers do not mix theirs."""
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


def imported(path: str) -> Any:
    """What the function or class at an import path gives, called without arguments."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"segmenter {path!r} cannot be built ({error}): give the import path of a function or class without "
            "arguments, such as my_networks.fcn8s"
        ) from error


def show(evaluation: Evaluation) -> None:
    """Prints values and protocol."""
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
