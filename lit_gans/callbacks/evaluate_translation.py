"""Evaluation of translators during training, on the image clock and on all processes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lightning.pytorch import Trainer
from torch import nn

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Translates
from lit_gans.base.processes import broadcast_state
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.data import TranslationData
from lit_gans.data.unpaired import UnpairedData
from lit_gans.metrics import Evaluation, build_extractor, build_lpips
from lit_gans.metrics.reals import real_indices
from lit_gans.metrics.segmentation import IGNORED
from lit_gans.metrics.translation import (
    DEFAULT_OF_PAIRS,
    DEFAULT_OF_SETS,
    OF_PAIRS,
    OF_SETS,
    Judges,
    TranslationPlan,
    check_judges,
    check_pairs,
    chosen_indices,
    evaluate_translator,
    samples_of,
)
from lit_gans.runs.records import record, record_table


class EvaluateTranslation(EveryKimg):
    """Measures a translator on pictures that training does not see, every `every_kimg`.

    In pairs: PSNR, SSIM and LPIPS of each translation and its partner, and what a segmenter reads in it. Of both kinds
    of data: FID and KID of all translations and all pictures of the other domain. Values go to `metrics.jsonl` with
    their protocol, to the loggers and to `latest`. Training is not disturbed, and nothing needs to be saved, as in
    `Evaluate`.

    Args:
        every_kimg: 0 switches the callback off.
        metrics: some of `lit_gans.metrics.translation.TRANSLATION_METRICS`; None for psnr, ssim and lpips in pairs,
            segmentation with a segmenter, and frechet and kid.
        directions: None for all of the translator's; numbers of "ba" have names that end in _ba.
        split: None for "test", or what the data have in its place.
        num_images: translated pictures per direction; None for all.
        real_split, num_real: the reals of the metrics of sets; None for `split`, and all of it.
        extractor: as for `lit_gans.metrics.build_extractor`; only Inception's distance is called fid.
        lpips: the network "vgg", "alex" or "squeeze".
        segmenter: uint8 [N, C, H, W] -> scores [N, K, h, w] or classes int64 [N, H, W], such as an FCN; of pictures of
            domain b. The truth are the data's label maps, else what it reads in the partners.
        num_segments: its classes; `ignored` is the true label that is not judged.
        batch_size: images at a time, per process.
        neighbours: k of precision, recall, density and coverage.
        at_start: also before the first batch of a new run.
        at_end: also when training ends.
        weights_path, lpips_weights: files of the extractor's and of LPIPS's weights.
        cache_dir: where statistics of the reals are kept; default $LIT_GANS_CACHE, else ~/.cache/lit_gans.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: in `setup`, for a game that translates nothing, and data, splits
            or weights that are missing or do not fit the metrics.
    """

    def __init__(
        self,
        every_kimg: float = 0.0,
        metrics: Sequence[str] | None = None,
        directions: Sequence[str] | None = None,
        split: str | None = None,
        num_images: int | None = None,
        real_split: str | None = None,
        num_real: int | None = None,
        extractor: str = "inception",
        lpips: str = "alex",
        segmenter: nn.Module | None = None,
        num_segments: int = 0,
        ignored: int | None = IGNORED,
        batch_size: int = 16,
        neighbours: int = 5,
        at_start: bool = False,
        at_end: bool = True,
        weights_path: str | None = None,
        lpips_weights: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(every_kimg, at_start=at_start, at_end=at_end)
        self.metrics, self.directions, self.split = metrics, directions, split
        self.settings = {
            "num_images": num_images, "real_split": real_split, "num_real": num_real, "batch_size": batch_size,
            "neighbours": neighbours, "num_segments": num_segments, "ignored": ignored,
        }  # fmt: skip
        self.extractor, self.lpips, self.segmenter = extractor, lpips, segmenter
        self.weights_path, self.lpips_weights, self.cache_dir = weights_path, lpips_weights, cache_dir
        self.latest: dict[str, float] = {}
        self.plan: TranslationPlan | None = None
        self._judges = Judges()

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        if stage != "fit" or self.every_kimg == 0:
            return
        self.plan, self._judges = self.prepare(pl_module, trainer.datamodule)

    def prepare(self, translator: Game, data: object) -> tuple[TranslationPlan, Judges]:
        """What is measured, and by which networks; ValueError and its like as in `setup`."""
        if not isinstance(translator, Translates):
            raise ValueError(
                f"EvaluateTranslation measures translations, and {type(translator).__name__} makes none: use Evaluate"
            )
        if not isinstance(data, TranslationData):
            raise ValueError(
                f"EvaluateTranslation takes pictures from the datamodule, but found {type(data).__name__}: pass one "
                f"for translators, such as lit_gans.data.Paired or Unpaired, or every_kimg=0"
            )
        plan = self._plan(translator, data)
        judges = self._built(plan, data)
        check_judges(plan, judges)
        self._check_data(plan, data, judges)
        return plan, judges

    def _plan(self, translator: Translates, data: TranslationData) -> TranslationPlan:
        directions = translator.directions if self.directions is None else self.directions
        if wrong := [direction for direction in directions if direction not in translator.directions]:
            raise ValueError(f"directions has {wrong[0]!r}, and this translator has {', '.join(translator.directions)}")
        metrics = self.metrics
        if metrics is None:
            of_pairs = (*DEFAULT_OF_PAIRS, *(["segmentation"] if self.segmenter is not None else []))
            metrics = (*([] if isinstance(data, UnpairedData) else of_pairs), *DEFAULT_OF_SETS)
        split = self.split or data.preview_split
        return TranslationPlan(metrics=metrics, directions=directions, split=split, **self.settings)

    def _built(self, plan: TranslationPlan, data: TranslationData) -> Judges:
        extractor = lpips = None
        if plan.of(OF_SETS):
            extractor = build_extractor(self.extractor, weights_path=self.weights_path, data=data)
        if plan.of(["lpips"]):
            lpips = build_lpips(self.lpips, weights_path=self.lpips_weights)
        return Judges(extractor, lpips, self.segmenter)

    def _check_data(self, plan: TranslationPlan, data: TranslationData, judges: Judges) -> None:
        """Before the first batch: the pictures are there, in pairs where a metric asks for them, and large enough."""
        of_pairs = plan.of(OF_PAIRS)
        if of_pairs and isinstance(data, UnpairedData):
            raise ValueError(f"{', '.join(of_pairs)} compare pairs, and {type(data).__name__} has none: leave them out")
        for direction in plan.directions:
            samples = samples_of(data, direction, plan)
            least = [("translated", len(chosen_indices(len(samples), plan)))]
            if plan.of(OF_SETS):
                reals = data.domain(direction[1]).dataset(plan.real_split or plan.split)
                least.append(("real", len(real_indices(len(reals), plan.num_real))))
            if plan.of(OF_SETS) and (few := [name for name, count in least if count < 2]):
                raise ValueError(
                    f"{', '.join(plan.of(OF_SETS))} need 2 {few[0]} pictures or more in direction {direction!r}, and "
                    f"there is 1: take another split, or leave them out"
                )
        if of_pairs:
            check_pairs(plan, judges, channels=data.b_channels, size=data.size, num_labels=data.num_labels)

    def act(self, trainer: Trainer, game: Game) -> None:
        broadcast_state(game, buffers_only=True)  # all processes translate with one and the same generator
        evaluation = evaluate_translator(
            game,
            trainer.datamodule,
            plan=self.plan,
            judges=self._judges,
            generator="ema" if game.averages() else "raw",
            rank=trainer.global_rank,
            world=trainer.world_size,
            cache_dir=self.cache_dir,
        )
        self.latest = evaluation.values
        record(trainer, evaluation.values, protocol=evaluation.protocol)
        record_table(trainer, "evaluation", ["kimg", "metric", "value", "protocol"], _rows(game.kimg, evaluation))


def _rows(kimg: float, evaluation: Evaluation) -> list[list[object]]:
    """One row per number, with its own whole protocol."""
    return [[kimg, name, value, json.dumps(evaluation.stamp(name))] for name, value in evaluation.values.items()]
