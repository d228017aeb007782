"""Evaluation during training, on the image clock and on all processes."""

import json
from collections.abc import Sequence

from lightning.pytorch import Trainer

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Samples, require
from lit_gans.base.processes import broadcast_state
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.metrics.evaluator import check, evaluate
from lit_gans.metrics.measures import Judges
from lit_gans.metrics.plan import DEFAULT_METRICS, Labels, Plan
from lit_gans.metrics.settings import Settings
from lit_gans.runs.records import record, record_protocols, record_table


class Evaluate(EveryKimg):
    """Measures the generator (its average, where there is one) against the datamodule's images every `every_kimg`.

    Every process makes its share of the samples. Values go to `metrics.jsonl` with their protocol, to the loggers and
    to `latest`. Training is not disturbed: no random generator and no mode is changed, and what is due follows from
    the image clock, so nothing needs to be saved. A step that is killed between its end and its evaluation loses that
    evaluation.

    Args:
        every_kimg: 0 switches the callback off.
        num_images: generated images per evaluation, over all processes.
        extractor: as for `lit_gans.metrics.build_extractor`; only Inception's distance is called fid.
        metrics: some of `lit_gans.metrics.METRICS`; "separability" is a callback of its own, which needs classifiers.
        neighbours: k of precision, recall, density and coverage.
        path_samples: paths of each perceptual path length. equivariance_samples: of eq_t, eq_t_frac and eq_r each.
        labels: of samples, as often as the "data" have each class, or all equally often: "uniform".
        batch_size: images at a time, per process.
        split: of the datamodule, to compare with.
        num_real: how many of its images; None for all.
        at_start: also before the first batch of a new run.
        at_end: also when training ends.
        weights_path: file of the extractor's weights.
        fallback: the extractor that takes its place where its weights cannot be had, such as "random_inception", which
            needs none; that is decided and said in `setup`. None for an error.
        cache_dir: where statistics of the real images are kept; default $LIT_GANS_CACHE, else ~/.cache/lit_gans.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: in `setup`, for a model that samples nothing, or a missing
            datamodule, split or weights.
    """

    measures: type = Samples  # what the model must be able to do
    section = "evaluate"

    def __init__(
        self,
        every_kimg: float = 0.0,
        num_images: int = 1000,
        extractor: str = "inception",
        metrics: Sequence[str] = DEFAULT_METRICS,
        neighbours: int = 5,
        path_samples: int = 10_000,
        equivariance_samples: int = 10_000,
        labels: Labels = "data",
        batch_size: int = 100,
        split: str = "train",
        num_real: int | None = None,
        at_start: bool = False,
        at_end: bool = True,
        weights_path: str | None = None,
        cache_dir: str | None = None,
        fallback: str | None = None,
    ) -> None:
        settings = Settings(
            metrics=metrics, num_images=num_images, batch_size=batch_size, split=split, num_real=num_real,
            neighbours=neighbours, path_samples=path_samples, equivariance_samples=equivariance_samples,
            extractor=extractor, weights_path=weights_path, fallback=fallback, labels=labels,
        )  # fmt: skip
        self._start(every_kimg, settings, at_start=at_start, at_end=at_end, cache_dir=cache_dir)

    def _start(
        self, every_kimg: float, settings: Settings, *, at_start: bool, at_end: bool, cache_dir: str | None
    ) -> None:
        super().__init__(every_kimg, at_start=at_start, at_end=at_end)
        self.settings, self.cache_dir = settings, cache_dir
        self.latest: dict[str, float] = {}
        self.plan: Plan | None = None
        self.judges = Judges()

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        if stage != "fit" or self.every_kimg == 0:
            return
        model = require(pl_module, self.measures, type(self).__name__, otherwise=f"set {self.section}.every_kimg=0")
        data = trainer.datamodule
        self.plan = self.settings.plan(model, data)
        subjects = self.settings.subjects(model, data, self.plan)
        self.judges = self.settings.judges(self.plan, data)
        check(subjects, plan=self.plan, judges=self.judges)

    def act(self, trainer: Trainer, game: Game) -> None:
        broadcast_state(game, buffers_only=True)  # all processes make images with one and the same generator
        evaluation = evaluate(
            self.settings.subjects(game, trainer.datamodule, self.plan),
            plan=self.plan,
            judges=self.judges,
            device=game.device,
            rank=trainer.global_rank,
            world=trainer.world_size,
            cache_dir=self.cache_dir,
        )
        self.latest = evaluation.values
        record(trainer, evaluation.values, protocol=evaluation.protocol)
        rows = [[game.kimg, name, value, json.dumps(evaluation.stamp(name))] for name, value in self.latest.items()]
        record_table(trainer, "evaluation", ["kimg", "metric", "value", "protocol"], rows)
        record_protocols(trainer, {name: evaluation.stamp(name) for name in self.latest})
