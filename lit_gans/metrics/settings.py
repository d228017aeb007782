"""What is measured and by which networks, in the plain values that configs and commands have."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_gans.base.processes import rank_and_world
from lit_gans.data import TranslationData
from lit_gans.data.unpaired import UnpairedData
from lit_gans.metrics import building, perceptual
from lit_gans.metrics.catalog import CATALOG, CLIP, defaults
from lit_gans.metrics.extractors import Extractor
from lit_gans.metrics.measures import Judges
from lit_gans.metrics.plan import DEFAULT_METRICS, Labels, Plan, TranslationPlan
from lit_gans.metrics.reals import RealImages
from lit_gans.metrics.segmentation import IGNORED
from lit_gans.metrics.sources import Translates
from lit_gans.metrics.subjects import DrawnImages, Subject
from lit_gans.metrics.translation import TranslatedImages
from lit_gans.nn import clip as clips

if TYPE_CHECKING:
    from torch import nn

@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of samples and of images.

    Args:
        extractor, weights_path: as for `build_extractor`; only Inception's distance is called fid.
        fallback: the extractor that takes its place where its weights cannot be had, such as "random_inception", which
            needs none; None for an error.
        lpips, lpips_weights: the network "vgg", "alex" or "squeeze" of paths and pairs.
        clip, clip_folder: as for `build_clip`. segmenter: see `segmentation.Segmenter`.
        others: as for `Plan`.
    """

    metrics: Sequence[str] | None = DEFAULT_METRICS
    num_images: int | None = 50_000
    batch_size: int = 64
    split: str | None = "train"
    num_real: int | None = None
    neighbours: int = 5
    path_samples: int = 50_000
    equivariance_samples: int = 50_000
    labels: Labels = "data"
    seed: int = 0
    psi: float = 1.0
    ema: bool = True
    extractor: str = "inception"
    weights_path: str | Path | None = None
    fallback: str | None = None
    lpips: str = "vgg"
    lpips_weights: str | Path | None = None
    clip: str = CLIP
    clip_folder: str | Path | None = None
    segmenter: nn.Module | None = None

    def plan(self, model: Any, data: object) -> Plan:
        """What is measured of the model. ValueError for settings that it or the data cannot meet."""
        if not isinstance(data, RealImages):
            raise ValueError(
                f"Evaluate compares with the images of the datamodule, but found {type(data).__name__}: "
                f"pass a datamodule of lit_gans.data to fit, or every_kimg=0 to train without evaluation"
            )
        return self.plan_of("samples", self.metrics)

    def plan_of(self, kind: str, metrics: Sequence[str] | None) -> Plan:
        return Plan(**{**self._of(Plan), "kind": kind, "metrics": metrics})

    def subjects(self, model: Any, data: Any, plan: Any) -> Sequence[Subject]:
        """What `evaluate` takes."""
        return [DrawnImages(model, data, plan)]

    def judges(self, plan: Plan, data: RealImages | None, *, pictures: bool = False) -> Judges:
        """The networks that the plan's metrics, or pictures of the evaluation, look through: no others are built.

        Where the extractor's weights cannot be had, its `fallback` takes its place, with a warning.

        ValueError, FileNotFoundError or ConnectionError for those that there are not.
        """
        extractor = lpips = pd = clip = None
        if plan.needs_extractor or pictures:
            extractor = self._extractor(data, spatial=bool(plan.looking_at("spatial")))
        if plan.looking_at("lpips"):
            lpips = perceptual.build_lpips(self.lpips, weights_path=self.lpips_weights)
        if plan.looking_at("pd"):
            pd = perceptual.build_perceptual_distance(weights_path=self.lpips_weights)
        if plan.looking_at("clip"):
            clip = clips.build_clip(self.clip, folder=self.clip_folder)
        return Judges(extractor, lpips, self.segmenter, pd, clip)

    def _extractor(self, data: RealImages | None, *, spatial: bool) -> Extractor:
        build = partial(building.build_extractor, data=data, spatial=spatial)
        try:
            return build(self.extractor, weights_path=self.weights_path)
        except (FileNotFoundError, ConnectionError) as error:
            if self.fallback is None:
                raise
            if rank_and_world()[0] == 0:
                warnings.warn(
                    f"{error}. Nothing is measured with {self.extractor!r}, so that there is no published number (FID, "
                    f"IS) to compare with; {self.fallback!r} takes its place, whose numbers have its name and compare "
                    "with each other alone",
                    stacklevel=2,
                )
        return build(self.fallback)

    def _of(self, kind: type[Plan]) -> dict[str, Any]:
        """Those of the settings that a plan has."""
        names = {each.name for each in fields(self)} & {each.name for each in fields(kind)}
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class TranslationSettings(Settings):
    """Of translators; as for `TranslationPlan`, and None for what follows from the model and its data.

    Args:
        metrics: None for psnr, ssim and lpips in pairs, segmentation with a segmenter, and frechet and kid.
        directions: None for all of the translator's.
        split: None for "test", or what the data have in its place.
    """

    metrics: Sequence[str] | None = None
    num_images: int | None = None
    batch_size: int = 16
    split: str | None = None
    lpips: str = "alex"
    directions: Sequence[str] | None = None
    real_split: str | None = None
    num_segments: int = 0
    ignored: int | None = IGNORED

    def plan(self, model: Translates, data: object) -> TranslationPlan:
        if not isinstance(data, TranslationData):
            raise ValueError(
                f"EvaluateTranslation takes pictures from the datamodule, but found {type(data).__name__}: pass one "
                f"for translators, such as lit_gans.data.Paired or Unpaired, or every_kimg=0"
            )
        directions = model.directions if self.directions is None else self.directions
        if wrong := [direction for direction in directions if direction not in model.directions]:
            raise ValueError(f"directions has {wrong[0]!r}, and this translator has {', '.join(model.directions)}")
        chosen = {"directions": directions, "split": self.split or data.preview_split}
        chosen |= {"metrics": self._default(data) if self.metrics is None else self.metrics}
        return TranslationPlan(**{**self._of(TranslationPlan), **chosen})

    def _default(self, data: TranslationData) -> list[str]:
        absent = {"pairs"} if isinstance(data, UnpairedData) else set()
        absent |= {"segmenter"} if self.segmenter is None else set()
        return [name for name in defaults("translations") if not CATALOG[name].needs & absent]

    def subjects(self, model: Translates, data: TranslationData, plan: TranslationPlan) -> Sequence[Subject]:
        return [TranslatedImages(model, data, plan, direction) for direction in plan.directions]


def configured(kind: type[Settings], section: dict[str, Any], given: dict[str, Any]) -> Settings:
    """`given`, where not None, completed from a section of a config; what the settings have not is passed over."""
    known = {each.name for each in fields(kind)} - {"segmenter"}  # which in a config is a class of the user's
    found = {name: value for name, value in section.items() if name in known}
    given = {name: value for name, value in given.items() if value is not None and name in {*known, "segmenter"}}
    if given.get("extractor", found.get("extractor")) != found.get("extractor"):
        found.pop("weights_path", None)  # the configured weights are another network's
    if "extractor" in given:
        found.pop("fallback", None)  # who names a network wants no other
    return kind(**{**found, **given})
