"""Evaluation of runs: of GANs by what they sample, of translators by what they make of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_gans.base.processes import rank_and_world
from lit_gans.base.progress import progress_bars
from lit_gans.evaluation.folders import image_folder, metrics_of_folders
from lit_gans.evaluation.settings import Networks, Settings, Where, extractor_of, plan_of, tell_pictures

if TYPE_CHECKING:
    from lit_gans.adversarial import GAN, Game
    from lit_gans.data import ImageData
    from lit_gans.metrics import Evaluation


def is_run(path: Path) -> bool:
    """True for a .ckpt file, and for a folder with a config or checkpoints, or of a pretrained model."""
    from lit_gans.runs.folder import is_pretrained

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


def config_of(target: Path) -> dict[str, Any] | None:
    """The run's config, or None where there is none beside a lone checkpoint."""
    from lit_gans.runs.folder import run_config

    try:
        return run_config(target)
    except FileNotFoundError:
        return None


def evaluate_run(
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
    """What a GAN samples, against `data`, else the images in `other`, else the run's own data.

    `samples`: seed, psi and ema. ValueError or FileNotFoundError for metrics, data or weights that cannot be had.
    """
    from lit_gans.metrics import DEFAULT_METRICS, evaluate_gan
    from lit_gans.metrics.plan import PATHS

    metrics = settings.metrics or DEFAULT_METRICS
    if of_folders := [name for name in metrics if name in metrics_of_folders()]:
        raise ValueError(f"{', '.join(of_folders)}: for folders of images, not for a run; see `lit-gans sample`")
    plan = plan_of(settings, metrics=metrics, num_images=settings.num_images, **samples)
    data = _reals_of_run(target, other, config, gan, where.trust) if data is None else data
    data.prepare_data()
    give_captions(gan, data, target, config, trust=where.trust)
    network = extractor_of(settings, plan, data, where)
    distance = networks.similarity().to(where.device) if set(metrics) & set(PATHS) else None
    gan.to(where.device)
    rank, world = rank_and_world()
    written: list[Path] = []
    with progress_bars() as progress:
        evaluation = evaluate_gan(
            gan, data, extractor=network, plan=plan, distance=distance, rank=rank, world=world,
            cache_dir=where.cache_dir, progress=progress, show=where.show(data, plan.split, written),
        )  # fmt: skip
    tell_pictures(written)
    return evaluation


def give_captions(
    gan: GAN, data: ImageData, target: Path, config: dict[str, Any] | None, *, trust: str | None = None
) -> None:
    """Samples of a text-to-image model are of the captions of `data`, or of the run's own data where it has none."""
    from lit_gans.adversarial.capabilities import Captioned, can

    if can(gan, Captioned):
        own = (
            data
            if data.gives == "pictures with captions"
            else _own_data(target, config, "evaluate a run folder", trust)
        )
        gan.take_captions(own)


def _reals_of_run(
    target: Path, other: str | Path | None, config: dict[str, Any] | None, gan: GAN, trust: str | None
) -> ImageData:
    if other is not None:
        return image_folder(Path(other), gan.resolution, channels=gan.channels)
    return _own_data(target, config, "give a folder of real images as second argument", trust)


def _own_data(target: Path, config: dict[str, Any] | None, way_out: str, trust: str | None) -> ImageData:
    from lit_gans.runs.load import build_data

    if config is None:
        raise FileNotFoundError(
            f"no config.yaml in {run_folder(target)}, so the data {target} was trained on is unknown: {way_out}"
        )
    return build_data(config, trust=trust)


def evaluate_translator_run(
    target: Path,
    game: Game,
    config: dict[str, Any] | None,
    given: dict[str, Any],
    where: Where,
    *,
    data: ImageData | None,
) -> Evaluation:
    """What a translator makes of `data`, else of the run's own pictures that training did not see.

    `given`: arguments of EvaluateTranslation, where not None; completed from the config's `evaluate_translation`
    section. ValueError or FileNotFoundError for metrics, data or weights that cannot be had.
    """
    import inspect

    from lit_gans.callbacks import EvaluateTranslation
    from lit_gans.metrics.translation import evaluate_translator

    data = _own_data(target, config, "from Python, pass data=", where.trust) if data is None else data
    data.prepare_data()
    section = (config or {}).get("evaluate_translation") or {}
    section = {name: value for name, value in section.items() if name != "segmenter"}  # of a class of the user's
    known = set(inspect.signature(EvaluateTranslation).parameters)
    wanted = {**section, **{name: value for name, value in given.items() if value is not None and name in known}}
    plan, judges = EvaluateTranslation(**wanted).prepare(game, data)
    game.to(where.device)
    rank, world = rank_and_world()
    with progress_bars() as progress:
        return evaluate_translator(
            game, data, plan=plan, judges=judges, generator="ema" if game.averages() else "raw", rank=rank, world=world,
            cache_dir=where.cache_dir, progress=progress,
        )  # fmt: skip
