"""Evaluation of folders of images: against another folder, picture by picture, against captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_gans.base.processes import rank_and_world
from lit_gans.base.progress import progress_bars
from lit_gans.evaluation.settings import Networks, Settings, Where, extractor_of, plan_of, tell_pictures

if TYPE_CHECKING:
    from lit_gans.data import ImageData
    from lit_gans.metrics import Evaluation


def metrics_of_folders() -> tuple[str, ...]:
    from lit_gans.metrics.paired import PAIR_METRICS

    return (*PAIR_METRICS, "clip_score")


def evaluate_folder(
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
    """The images in `target` against `data` or the folder `other`, picture by picture, or against their captions.

    `resolution` in px, to which both are brought. ValueError or FileNotFoundError for folders that do not fit.
    """
    from lit_gans.metrics import DEFAULT_METRICS, Evaluation
    from lit_gans.metrics.evaluator import versions
    from lit_gans.metrics.paired import PAIR_METRICS

    metrics = settings.metrics or DEFAULT_METRICS
    of_sets = [name for name in metrics if name not in metrics_of_folders()]
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
        data = image_folder(Path(other), resolution or real_px, channels=3)
    fake = image_folder(target, data.resolution, channels=data.channels)
    data.prepare_data()
    count = len(fake.dataset("train")) if num_images is None else num_images
    plan = plan_of(settings, metrics=metrics, num_images=count)
    network = extractor_of(settings, plan, data, where)
    rank, world = rank_and_world()
    written: list[Path] = []
    with progress_bars() as progress:
        evaluation = evaluate_images(
            fake, data, extractor=network, plan=plan, device=where.device, rank=rank, world=world,
            cache_dir=where.cache_dir, progress=progress, show=where.show(data, plan.split, written),
        )  # fmt: skip
    tell_pictures(written)
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
    rank, world = rank_and_world()
    reals = open_source(other)
    with progress_bars() as progress:
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

    from lit_gans.metrics.text import CLIPScore, read_captions
    from lit_gans.nn.clip import build_clip

    images = image_folder(target, image_px(target), channels=3)
    names = list(images.dataset("train").names)[:num_images]
    captions = read_captions(target, names)
    metric = CLIPScore(build_clip(networks.clip, folder=networks.clip_folder)).to(where.device)
    rank, world = rank_and_world()
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


def image_folder(path: Path, resolution: int, *, channels: int) -> ImageData:
    from lit_gans.data import Images

    return Images(str(path), batch_size=1, resolution=resolution, channels=channels)


def image_px(path: Path) -> int:
    """The shorter side of the first image, in px. FileNotFoundError where there is no folder, or no image in it."""
    from PIL import Image

    from lit_gans.data.sources import open_source

    source = open_source(path)
    with source.open(source.names[0]) as file, Image.open(file) as image:
        return min(image.size)
