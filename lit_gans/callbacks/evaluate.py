"""Evaluation during training, on the image clock and on all processes."""

import json
from collections.abc import Sequence

from lightning.pytorch import Trainer

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Samples, require
from lit_gans.base.processes import broadcast_state
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.metrics import DEFAULT_METRICS, Evaluation, Extractor, Plan, build_extractor, evaluate_gan
from lit_gans.metrics.evaluator import check_generator
from lit_gans.metrics.reals import RealImages, real_indices
from lit_gans.runs.records import record, record_table


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
        path_samples: paths of each perceptual path length.
        batch_size: images at a time, per process.
        split: of the datamodule, to compare with.
        num_real: how many of its images; None for all.
        at_start: also before the first batch of a new run.
        at_end: also when training ends.
        weights_path: file of the extractor's weights.
        cache_dir: where statistics of the real images are kept; default $LIT_GANS_CACHE, else ~/.cache/lit_gans.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: in `setup`, for a game that samples nothing, or a missing
            datamodule, split or weights.
    """

    def __init__(
        self,
        every_kimg: float = 0.0,
        num_images: int = 1000,
        extractor: str = "inception",
        metrics: Sequence[str] = DEFAULT_METRICS,
        neighbours: int = 5,
        path_samples: int = 10_000,
        batch_size: int = 100,
        split: str = "train",
        num_real: int | None = None,
        at_start: bool = False,
        at_end: bool = True,
        weights_path: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(every_kimg, at_start=at_start, at_end=at_end)
        self.plan = Plan(
            metrics=metrics, num_images=num_images, batch_size=batch_size, split=split, num_real=num_real,
            neighbours=neighbours, path_samples=path_samples,
        )  # fmt: skip
        self.extractor = extractor
        self.weights_path, self.cache_dir = weights_path, cache_dir
        self.latest: dict[str, float] = {}
        self._network: Extractor | None = None

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        if stage != "fit" or self.every_kimg == 0:
            return
        require(pl_module, Samples, "Evaluate", otherwise="set evaluate.every_kimg=0")
        data = trainer.datamodule
        if not isinstance(data, RealImages):
            raise ValueError(
                f"Evaluate compares with the images of the datamodule, but found {type(data).__name__}: "
                f"pass a datamodule of lit_gans.data to fit, or every_kimg=0 to train without evaluation"
            )
        real_indices(len(data.dataset(self.plan.split)), self.plan.num_real)
        check_generator(pl_module, self.plan)
        if self.plan.needs_extractor:
            spatial = "spatial_frechet" in self.plan.metrics
            self._network = build_extractor(self.extractor, weights_path=self.weights_path, data=data, spatial=spatial)

    def act(self, trainer: Trainer, gan: Game) -> None:
        broadcast_state(gan, buffers_only=True)  # all processes sample from one and the same generator
        evaluation = evaluate_gan(
            gan,
            trainer.datamodule,
            extractor=self._network,
            plan=self.plan,
            rank=trainer.global_rank,
            world=trainer.world_size,
            cache_dir=self.cache_dir,
        )
        self.latest = evaluation.values
        record(trainer, evaluation.values, protocol=evaluation.protocol)
        record_table(trainer, "evaluation", ["kimg", "metric", "value", "protocol"], _rows(gan.kimg, evaluation))


def _rows(kimg: float, evaluation: Evaluation) -> list[list[object]]:
    """One row per number, with its own whole protocol."""
    return [[kimg, name, value, json.dumps(evaluation.stamp(name))] for name, value in evaluation.values.items()]
