"""What is measured: each kind makes this process's share of the images, and says its part of the protocol."""

from __future__ import annotations

import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.base.images import to_uint8
from lit_gans.metrics.measures import Context, FakeBatch
from lit_gans.metrics.path_length import SEED_STRIDE, check_space
from lit_gans.metrics.plan import Labels, Plan
from lit_gans.metrics.reals import RealImages, Reals
from lit_gans.metrics.sources import Averages, FromLatents, Samples, Transforms, Truncates
from lit_gans.metrics.text import read_captions

_SENSIBLE_REACH = 8.0  # networks without a last tanh overshoot by far less


class Subject(ABC):
    """What an evaluation measures.

    `total` images of all processes together; `what` they are, for the progress; `reals`, the images that sets are
    compared with; `labels` int64 [total], the intended classes; `model`, which makes them, if any does; `shape`
    (C, H, W) where all pictures of pairs have one; `num_labels` of label maps, which are the truth if it is `labelled`;
    `captions` of the pictures; `ending` of the numbers' names, and their `own` part of the protocol.
    """

    total: int
    what = "generated images"
    reals: Reals | None = None
    labels: Tensor | None = None
    model: Any = None
    shape: tuple[int, int, int] | None = None
    num_labels = 0
    labelled = False
    captions: Sequence[str] | None = None
    ending = ""
    own: Mapping[str, object] = {}

    @abstractmethod
    def batches(self, mine: Tensor, batch_size: int) -> Iterator[FakeBatch]:
        """The images numbered `mine`, int64 [n], in that order."""

    def protocol(self, context: Context, shared: dict[str, object]) -> dict[str, object]:
        """What all numbers of the evaluation share: of `shared`, what belongs there, and this subject's own part."""
        return {"generator": "images", "numbers": shared["numbers"], "versions": shared["versions"]}

    def of_number(self, name: str) -> Mapping[str, object]:
        """What the protocol of the number `name` alone has from the subject."""
        return self.own

    def check(self, context: Context) -> None:  # noqa: B027
        """ValueError, before anything is measured, for what is too little."""


class DrawnImages(Subject):
    """Samples of a model against the reals of `data`.

    Sample i has the generator's seed `plan.seed` * 10^9 + i and, on a conditional model, a label that follows from i
    and has the distribution of the real labels, or is each class equally often: see `Plan.labels`.
    """

    def __init__(self, model: Samples, data: RealImages, plan: Plan) -> None:
        assert plan.num_images is not None
        _check_model(model, plan)
        self.model, self.plan, self.total = model, plan, plan.num_images
        self.reals = Reals(data, plan.split, plan.num_real)
        self.labels = intended_labels(
            model.num_classes, data, split=plan.split, num_images=plan.num_images, seed=plan.seed, how=plan.labels
        )

    def batches(self, mine: Tensor, batch_size: int) -> Iterator[FakeBatch]:
        plan = self.plan
        for index in mine.split(batch_size) if len(mine) else ():
            asked = None if self.labels is None else self.labels[index].to(self.model.device)
            seeds = plan.seed * SEED_STRIDE + index
            images = self.model.sample(seeds, labels=asked, psi=plan.psi, ema=plan.ema)
            _check_samples(images, seeds)
            yield FakeBatch(to_uint8(images), index, asked)

    def protocol(self, context: Context, shared: dict[str, object]) -> dict[str, object]:
        made = {"generator": weights_of(self.model, ema=self.plan.ema), "images_seen": int(self.model.images_seen)}
        # A number that says nothing of labels has those of the data.
        drawn = {} if self.labels is None or self.plan.labels == "data" else {"labels": self.plan.labels}
        truncated = {"truncation": self.model.truncation} if isinstance(self.model, Truncates) else {}
        own = {"skipped": context.skipped, **made, **drawn, "psi": self.plan.psi, **truncated, "seed": self.plan.seed}
        return {**shared, **own}


class _Images(Subject):
    """The first `count` images of a set, or all."""

    def __init__(self, fake: RealImages, count: int | None) -> None:
        available = len(fake.dataset("train"))
        self.fake, self.total = fake, available if count is None else count
        if self.total > available:
            raise ValueError(f"num_images is {self.total}, but there are {available} images to evaluate")

    def batches(self, mine: Tensor, batch_size: int) -> Iterator[FakeBatch]:
        done = 0
        for batch in self.fake.batches("train", batch_size, indices=mine):
            index = mine[done : done + len(batch["image"])]
            labels = None if self.labels is None else self.labels[index]
            captions = None if self.captions is None else [self.captions[i] for i in index.tolist()]
            yield FakeBatch(batch["image"], index, labels, captions=captions)
            done += len(index)


class StoredImages(_Images):
    """The first `plan.num_images` images of one set against another; `framing` says in words how files became both."""

    def __init__(self, fake: RealImages, real: RealImages, plan: Plan, *, framing: str | None = None) -> None:
        super().__init__(fake, plan.num_images)
        self.framed = {} if framing is None else {"framing": framing}
        self.reals = Reals(real, plan.split, plan.num_real)
        labels = fake.dataset("train").labels
        if labels is not None and tuple(fake.class_names) == tuple(real.class_names):  # class 3 is class 3 of the other
            self.labels = labels[: self.total]

    def protocol(self, context: Context, shared: dict[str, object]) -> dict[str, object]:
        own = {"generator": "images", "images": self.fake.fingerprint("train"), **self.framed}
        return {**shared, "skipped": context.skipped, **own}


class CaptionedImages(_Images):
    """The first `count` pictures of a folder, or all, with their captions: `images` are those of `folder`."""

    own = {"dataset": None, "split": None}

    def __init__(self, folder: Path, images: RealImages, count: int | None = None) -> None:
        super().__init__(images, count)
        self.captions = read_captions(folder, list(images.dataset("train").names)[: self.total])


def weights_of(model: object, *, ema: bool = True) -> str:
    """ "ema" where averages are asked for and the model keeps some, else "raw": what makes its images."""
    return "ema" if ema and isinstance(model, Averages) and model.averages() else "raw"


def intended_labels(
    num_classes: int, data: RealImages, *, split: str, num_images: int, seed: int, how: Labels = "data"
) -> Tensor | None:
    """int64 [num_images], each label as often as among the reals, in an order drawn from `seed`; None if unconditional.

    All classes equally often if `how` is "uniform", or the reals have no labels. ValueError where they have other
    classes than the model, or are asked for evenly and there are none.
    """
    if num_classes == 0:
        if how == "uniform":
            raise ValueError("labels 'uniform' are of classes, and this model has none: leave them out")
        return None
    labels = data.dataset(split).labels
    if labels is None:
        return torch.arange(num_images) % num_classes
    if data.num_classes != num_classes:
        raise ValueError(
            f"the model has {num_classes} classes and the data {data.num_classes}: evaluate on what it was trained on"
        )
    if how == "uniform":
        return torch.arange(num_images) % num_classes
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return labels[order[torch.arange(num_images) % len(labels)]]


def _check_model(model: Samples, plan: Plan) -> None:
    """ValueError for metrics of a latent space, or of an input that moves, which the model has not."""
    if (names := plan.looking_at("transforms")) and not isinstance(model, Transforms):
        raise ValueError(f"{', '.join(names)} move what an image is made of; a {type(model).__name__} cannot")
    if (names := plan.looking_at("latents")) and not isinstance(model, FromLatents):
        raise ValueError(f"{', '.join(names)} walk from latent to latent; a {type(model).__name__} draws from none")
    if plan.looking_at("styles"):
        check_space(model, "w")


def _check_samples(images: Tensor, seeds: Tensor) -> None:
    """ValueError for what is no image in [-1, 1]: turned into bytes it would give a number that looks like one."""
    if not images.is_floating_point() or images.ndim != 4:
        raise ValueError(
            f"the generator gave {images.dtype} of shape {list(images.shape)}, expected float [N, C, H, W] in [-1, 1]"
        )
    broken = ~images.isfinite().flatten(1).all(dim=1)
    if broken.any():
        raise ValueError(
            f"the generator's image of seed {int(seeds[int(broken.nonzero()[0])])} holds NaN or infinity, and so do "
            f"{int(broken.sum())} of {len(seeds)} in its batch: no number is taken of them; evaluate an earlier "
            f"checkpoint"
        )
    reach = images.abs().amax().item()
    if reach > _SENSIBLE_REACH:
        warnings.warn(
            f"the generator's values reach {reach:.3g}, where images lie in [-1, 1]: what is outside is cut off. Is "
            f"its range [0, 255], or has it diverged?",
            stacklevel=2,
        )


@contextmanager
def undisturbed(module: object, device: torch.device) -> Iterator[None]:
    """Afterwards every random generator and every module's training mode is as it was before."""
    import numpy as np

    modes = [(part, part.training) for part in module.modules()] if isinstance(module, nn.Module) else []
    python, numpy = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for part, training in modes:
            part.training = training
