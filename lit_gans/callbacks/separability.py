"""Linear separability of Z and W during training, by attribute classifiers of the user's."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch import nn

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import FromLatents, HasStyles, can, require
from lit_gans.base.processes import broadcast_state
from lit_gans.callbacks.clock import EveryKimg
from lit_gans.metrics.separability import NUM_SAMPLES, measure_separability
from lit_gans.metrics.subjects import undisturbed
from lit_gans.runs.records import record


class Separability(EveryKimg):
    """How well planes in Z, and in W where there is one, tell attributes apart (Karras et al., 2019, Sec. 4.2).

    The scores go to `metrics.jsonl` as separability_z and separability_w, 1 at best, and to the loggers; every process
    makes its share of the samples. Perceptual path lengths are metrics of `Evaluate` (ppl_z_full, ppl_w_end, ...).

    Args:
        every_kimg: 0 switches the callback off.
        classifiers: each uint8 images [N, C, H, W] -> logits [N], positive where an image has the attribute. In a
            config: a list of class_path and init_args.
        num_samples: over all processes, of which each attribute keeps the more confident half; 200,000 in the paper.
        batch_size: images at a time, per process.
        psi: truncation; 1 in the paper.

    Raises:
        ValueError: in `setup`, without classifiers, or for a game that samples nothing.
    """

    def __init__(
        self,
        every_kimg: float = 0.0,
        classifiers: list[nn.Module] | None = None,
        num_samples: int = NUM_SAMPLES,
        batch_size: int = 32,
        psi: float = 1.0,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_kimg, at_end=at_end)
        self.classifiers, self.num_samples, self.batch_size, self.psi = classifiers, num_samples, batch_size, psi

    def setup(self, trainer: Trainer, pl_module: Game, stage: str) -> None:
        if stage != "fit" or self.every_kimg == 0:
            return
        require(pl_module, FromLatents, "Separability", otherwise="set separability.every_kimg=0")
        if not self.classifiers:
            raise ValueError(
                "separability.classifiers is empty: give one classifier or more of images' attributes, or set "
                "separability.every_kimg=0"
            )

    def act(self, trainer: Trainer, game: Game) -> None:
        broadcast_state(game, buffers_only=True)
        named = {str(i): classifier.to(game.device).eval() for i, classifier in enumerate(self.classifiers)}
        how = {"num_samples": self.num_samples, "batch_size": self.batch_size, "psi": self.psi}
        how |= {"rank": trainer.global_rank, "world": trainer.world_size}
        scores = {}
        with undisturbed(game, game.device):
            for space in ("z", "w") if can(game, HasStyles) else ("z",):
                score, _ = measure_separability(game, named, space=space, **how)
                scores[f"separability_{space}"] = float(score)
        kinds = [type(classifier).__name__ for classifier in self.classifiers]
        record(trainer, scores, protocol={"classifiers": kinds, "num_samples": self.num_samples, "psi": self.psi})
