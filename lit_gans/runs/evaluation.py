"""What `lit-gans evaluate` measures: runs of models that sample or translate, and folders of images."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from lit_gans.adversarial.capabilities import Captioned, Samples, Translates, can, require, truncate_by
from lit_gans.base.processes import rank_and_world
from lit_gans.base.progress import progress_bars
from lit_gans.data import ImageData, Images
from lit_gans.data.described import say
from lit_gans.data.images import describe_source
from lit_gans.data.sources import open_source
from lit_gans.metrics.catalog import of
from lit_gans.metrics.evaluator import Evaluation, evaluate, together
from lit_gans.metrics.folders import PairedFiles, WholeImages, in_px, labels_for, sizes_of
from lit_gans.metrics.plan import Plan
from lit_gans.metrics.settings import Settings, TranslationSettings, configured
from lit_gans.metrics.subjects import CaptionedImages, StoredImages, Subject
from lit_gans.runs.folder import is_pretrained, run_config
from lit_gans.runs.load import build_data, load_run
from lit_gans.runs.records import append_line


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


def own_file(target: Path) -> Path | None:
    """Where the numbers of a run are kept; None of a folder of images."""
    return run_folder(target) / "evaluations.jsonl" if is_run(target) else None


def evaluate_target(
    target: Path, given: dict[str, Any], where: Where, *, resolution: int | None, **reals: Any
) -> Evaluation:
    """`evaluate_run` or `evaluate_folder`, by what `target` is; `resolution` is of folders alone."""
    if not is_run(target):
        return evaluate_folder(target, given, where, resolution=resolution, **reals)
    refuse({"resolution": resolution}, f"{target} is a run, whose images have its own size; it has no")
    return evaluate_run(target, given, where, **reals)


def evaluate_run(
    target: Path,
    given: dict[str, Any],
    where: Where,
    *,
    other: str | Path | None = None,
    data: ImageData | None = None,
    framing: str | None = None,
    model: Any = None,
) -> Evaluation:
    """What the model of a run samples, against `data`, else the images in `other`, else the run's own data; or what it
    makes of the pictures of `data`, else of the run's own.

    `given`: of `Settings` or `TranslationSettings`, where not None; the rest is as in the run's config. "truncation"
    is by which of its ways the model truncates. `framing`: of the images in `other`, see `Images.resize`; by default as
    the run's own data, where those are pictures too. `model`: the run's, where it is loaded.
    ValueError or FileNotFoundError for metrics, data or weights that cannot be had.
    """
    model, config = load_run(target, trust=where.trust) if model is None else model, config_of(target)
    settings: Settings
    if can(model, Samples):
        truncate_by(model, given.get("truncation"))
        refuse_translators(target, given)
        settings, way_out = settings_of(config, given), "give a folder of real images as second argument"
        if of_folders := [name for name in settings.metrics or () if name in (*of("pairs"), *of("captions"))]:
            raise ValueError(f"{', '.join(of_folders)}: for folders of images, not for a run; see `lit-gans sample`")
    else:
        require(model, Translates, "lit-gans evaluate")
        of_samples = {"other": other, "plots": where.plots, "raw": not given["ema"], "psi": given["psi"] != 1}
        of_samples |= {"seed": given["seed"], "labels": given["labels"], "truncation": given.get("truncation")}
        refuse(of_samples, f"{target} holds a translator, which has no")
        section = (config or {}).get("evaluate_translation") or {}
        settings, way_out = configured(TranslationSettings, section, given), "from Python, pass data="
    data = reals_of(target, model, where, other=other, data=data, framing=framing, way_out=way_out)
    if can(model, Captioned):  # samples are of the captions of `data`, or of the run's own data where it has none
        own = data.gives == "pictures with captions"
        model.take_captions(data if own else _own_data(target, config, "evaluate a run folder", where))
    plan = settings.plan(model, data)
    say(data.describe(plan.split))
    subjects = settings.subjects(model.to(where.device), data, plan)
    found = where.measure([(subject, plan) for subject in subjects], settings, data)
    return replace(found, protocol={**found.protocol, "framing": in_words(data)}) if other is not None else found


def reals_of(
    target: Path,
    model: Any,
    where: Where,
    *,
    other: str | Path | None = None,
    data: ImageData | None = None,
    framing: str | None = None,
    way_out: str = "give a folder of real images",
) -> ImageData:
    """`data`, else the images in `other` at the model's size, else the run's own; prepared. See `evaluate_run`."""
    config = config_of(target)
    if data is None and other is not None:
        framed = _framed_as_own(config, Path(other), model.resolution, framing)
        data = image_folder(Path(other), model.resolution, channels=model.channels, **framed)
    elif framing is not None:
        raise ValueError(f"framing {framing!r} is of a folder of real images: name one, or leave it out")
    data = _own_data(target, config, way_out, where) if data is None else data
    data.prepare_data()
    return data


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


def config_of(target: Path) -> dict[str, Any] | None:
    """The run's config, or None where there is none beside a lone checkpoint."""
    try:
        return run_config(target)
    except FileNotFoundError:
        return None


def _framed_as_own(config: dict[str, Any] | None, other: Path, resolution: int, framing: str | None) -> dict[str, Any]:
    """`Images`' options: as training framed its pictures; where it says nothing of that, they must have its size."""
    own = ((config or {}).get("data") or {}).get("init_args", {})
    if framing is not None:
        return {"resize": framing}
    if "crop_px" in own and "resize" in own:
        return {name: own[name] for name in ("resize", "crop_px")}
    wrong = [size for size in sizes_of(open_source(other)) if size != (resolution, resolution)]
    if wrong:
        raise ValueError(
            f"images in {other} are of {in_px(wrong[0])}, those of the run of {resolution}, and its config does not "
            "say how pictures are framed: give --framing stretch, crop or fit"
        )
    return {"resize": "none"}


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
    framing: str | None = None,
) -> Evaluation:
    """The images in `target` against `data` or the folder `other`, picture by picture, or against their captions.

    `resolution` in px, to which both are brought by `framing`: see `Images.resize`. ValueError or FileNotFoundError for
    folders that do not fit.
    """
    refuse_translators(target, given)
    refuse({"truncation": given.get("truncation")}, f"{target} is taken as images, which have no")
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
        fake, data = _image_folders(target, other, data, resolution=resolution, framing=framing)
        data.prepare_data()
        plan, (ours, theirs) = plans["images"], (in_words(each) for each in (fake, data))
        if isinstance(fake, WholeImages) and where.plots is not None:
            raise ValueError(f"plots need images of one square size; there are {ours}: give --resolution for all")
        framing = ours if ours == theirs else f"{ours}; reals {theirs}"
        subjects.append((StoredImages(fake, data, plan, framing=framing), plan))
        say(fake.describe())
        say(data.describe(plan.split))
    if "pairs" in plans:
        pair = open_source(target), open_source(Path(other))
        for source in pair:
            say(describe_source(source))
        subjects.append((PairedFiles(*pair), plans["pairs"]))
    if "captions" in plans:
        whole = WholeImages(target)
        say(whole.describe())
        subjects.append((CaptionedImages(target, whole, settings.num_images), plans["captions"]))
    return where.measure(subjects, settings, data)


def _image_folders(
    target: Path, other: str | Path | None, data: ImageData | None, *, resolution: int | None, framing: str | None
) -> tuple[ImageData, ImageData]:
    """(fakes, reals). As they are stored, unless they are to be brought to one size."""
    if data is not None:
        fake = image_folder(target, data.resolution, channels=data.channels, resize=framing or "stretch")
        return fake, data
    folders = [target, Path(other)]
    if resolution is not None:
        fake, real = (image_folder(f, resolution, channels=3, resize=framing or "stretch") for f in folders)
        return fake, real
    if framing is not None:
        raise ValueError(f"framing {framing!r} goes with the size that images are brought to: give --resolution too")
    sizes = [sizes_of(open_source(folder)) for folder in folders]
    fake_size, real_size = (next(iter(each)) for each in sizes)
    if len(sizes[0]) == len(sizes[1]) == 1 and fake_size != real_size:
        raise ValueError(
            f"images in {target} are {in_px(fake_size)} and in {other} {in_px(real_size)}: "
            f"give --resolution, to which both are brought"
        )
    if len(sizes[0]) == len(sizes[1]) == 1 and fake_size[0] == fake_size[1]:
        fake, real = (image_folder(folder, fake_size[0], channels=3, resize="none") for folder in folders)
        return fake, real
    return WholeImages(target), WholeImages(folders[1])


def image_folder(path: Path, resolution: int, *, channels: int, resize: str, crop_px: int | None = None) -> Images:
    """All of each picture where `resize` is "stretch", as published evaluators have it; else see `Framing`."""
    return Images(
        str(path), batch_size=1, resolution=resolution, channels=channels, resize=resize, crop_px=crop_px,
        labels=labels_for(path),
    )  # fmt: skip


def in_words(data: ImageData) -> str:
    """How pictures became what is measured."""
    if isinstance(data, WholeImages):
        return f"as stored, whole: {data.sizes}"
    how = data.transform()
    first = f"{how['crop_px']} px in the middle, then " if how.get("crop_px") else ""
    return f"{first}{how.get('resize') or type(data).__name__} at {data.resolution} x {data.resolution} px"


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
    append_line(path, line)


def imported(path: Any) -> Any:
    """What the function or class at an import path gives, called without arguments; what is no path is itself."""
    if not isinstance(path, str):
        return path
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
