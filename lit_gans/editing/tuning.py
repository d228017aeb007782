"""Pivotal tuning: a generator's weights, moved a little so that it draws one picture where its latents come near it.

Roich et al. (2021), https://arxiv.org/abs/2106.05744. What was found first, the pivot, stays; only weights move, and a
regulariser keeps the images of other codes what they were.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import HasStyles, can
from lit_gans.base.random import derive_seed
from lit_gans.editing.found import read_found, write_found
from lit_gans.editing.projector import Projection, compared, player_of, render
from lit_gans.editing.state import check_weights, weights_digest
from lit_gans.metrics.perceptual import FrozenDistance
from lit_gans.nn.mode import evaluating

KIND = "tuned weights"
BALL_RADIUS, BALL_PSI = 30.0, 0.5  # of the codes around the pivot: the paper's alpha, and the truncation of the code


class TuningStep(NamedTuple):
    """One step's figures: number from 0, perceptual distance, mean squared difference of pixels, locality's loss."""

    step: int
    distance: float
    pixels: float
    locality: float


def tune(
    model: GAN,
    found: Projection,
    *,
    distance: FrozenDistance,
    steps: int = 350,
    lr: float = 3e-4,
    stop_at: float = 0.03,
    distance_weight: float = 1.0,
    pixel_weight: float = 1.0,
    locality: float = 0.1,
    every: int = 1,
    radius: float = BALL_RADIUS,
    seed: int = 0,
    on_step: Callable[[TuningStep], None] | None = None,
) -> Projection:
    """`found`, its image nearer to its target, with `weights`: those of a copy of the generator; the model stays.

    Adam moves all weights that the image depends on, of a style-based generator those of its synthesis network, until
    `distance` is `stop_at` or the steps are done. Code and noise maps stay. All follows from `seed`.

    Args:
        stop_at: a distance, as LPIPS has it: of another `distance` it is another point.
        distance_weight, pixel_weight: of the distance and of the mean squared difference of pixels.
        locality: weight of both between the images of a code at `radius` from the pivot, with tuned weights and with
            the model's, in every `every` steps; 0 for none, which takes half the time.
        on_step: is told of each step when it is done.

    Raises:
        ValueError: a setting that cannot be met.
    """
    for name, count in {"steps": steps, "every": every}.items():
        if count < 1:
            raise ValueError(f"{name} of tuning is {count}: give 1 or more")
    settings = {
        "tuning_steps": steps, "tuning_lr": lr, "stop_at": stop_at, "distance_weight": distance_weight,
        "tuning_pixel_weight": pixel_weight, "locality": locality, "locality_every": every, "radius": radius,
        "tuning_seed": seed,
    }  # fmt: skip
    with evaluating(model), torch.enable_grad():
        tuning = _Tuning(model, found, distance)
        optimizer = torch.optim.Adam(tuning.weights.values(), lr=lr)
        taken = 0
        for step in range(steps):
            apart, squares = tuning.losses()
            if apart.item() <= stop_at:
                break
            around = apart.new_zeros(())
            if locality and step % every == 0:
                around = tuning.locality(derive_seed("tuning", seed, step), radius)
            loss = distance_weight * apart + pixel_weight * squares + locality * around
            if not loss.isfinite():
                raise ValueError(f"a loss of {loss.item()} is not finite: lower the learning rate of tuning, {lr}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            taken += 1
            if on_step is not None:
                on_step(TuningStep(step, apart.item(), squares.item(), around.item()))
    tuning.weights = {name: one.detach() for name, one in tuning.weights.items()}  # and so the image is as read ones'
    with evaluating(model), torch.no_grad():
        image = tuning.image().clamp(-1, 1)
        apart = tuning.apart(image, tuning.target).item()
    weights = {name: one.cpu() for name, one in tuning.weights.items()}
    settings = {**found.settings, **settings, "tuning_taken": taken}
    return replace(found, image=image.cpu(), distance=apart, settings=settings, weights=weights, pivot=found)


class _Tuning:
    """The weights that are being tuned, and what is asked of them."""

    def __init__(self, model: GAN, found: Projection, distance: FrozenDistance) -> None:
        self.model, self.distance, self.ema = model, distance, bool(found.settings["ema"])
        self.code, self.target = found.code.to(model.device), found.target.to(model.device)
        self.noise = {name: one.to(model.device) for name, one in found.noise.items()}
        self.silent = {name: torch.zeros_like(one) for name, one in self.noise.items()}
        label = found.settings["label"]
        self.labels = torch.tensor([label], device=model.device) if isinstance(label, int) else None
        self.weights = self._used()

    def _used(self) -> dict[str, Tensor]:
        """Copies of the generator's weights that the image depends on."""
        player = f"{player_of(self.model, ema=self.ema)}."
        parameters = self.model.named_parameters(remove_duplicate=False)
        own = {name: p.detach().clone().requires_grad_(True) for name, p in parameters if name.startswith(player)}
        image = render(self.model, self.code, self.noise, labels=self.labels, weights=own, ema=self.ema)
        found = torch.autograd.grad(image.sum(), list(own.values()), allow_unused=True)
        return {name: p for (name, p), gradient in zip(own.items(), found, strict=True) if gradient is not None}

    def image(self) -> Tensor:
        return render(self.model, self.code, self.noise, labels=self.labels, weights=self.weights, ema=self.ema)

    def losses(self) -> tuple[Tensor, Tensor]:
        """Distance, and mean squared difference of pixels, of the image and the target."""
        image = self.image()
        return self.apart(image, self.target), F.mse_loss(image, self.target)

    def apart(self, image: Tensor, target: Tensor) -> Tensor:
        return self.distance(compared(image), compared(target)).mean()

    def locality(self, seed: int, radius: float) -> Tensor:
        """Both differences of the images of one code around the pivot, with tuned weights and the model's own.

        In W its styles are truncated, and there is no noise, as in the authors' code; in Z it lies under the prior.
        """
        with torch.no_grad():
            code = self._around(seed, radius)
            before = render(self.model, code, self.silent, labels=self.labels, ema=self.ema)
        after = render(self.model, code, self.silent, labels=self.labels, weights=self.weights, ema=self.ema)
        return self.apart(after, before) + F.mse_loss(after, before)

    def _around(self, seed: int, radius: float) -> Tensor:
        z = self.model.seeded_latents([seed])
        if self.code.ndim == 2:
            return self.model.prior.nearest(morphed(z, self.code, radius=radius))
        assert can(self.model, HasStyles)
        labels = self.labels
        if labels is None and self.model.num_classes:
            labels = torch.tensor([seed % self.model.num_classes], device=z.device)
        drawn = self.model.styles(z, labels=labels, psi=BALL_PSI, ema=self.ema)
        return morphed(drawn, self.code, radius=radius)


def morphed(drawn: Tensor, pivot: Tensor, *, radius: float = BALL_RADIUS) -> Tensor:
    """The code at `radius` from the pivot towards another: the distance is one number over all layers (Eq. 4)."""
    way = drawn - pivot
    return pivot + radius * way / way.norm()


# ---- files -----------------------------------------------------------------------------------------------------------


def save_weights(found: Projection, model: GAN, path: str | Path) -> None:
    """Writes the tuned weights of `tune` as a .safetensors file: all of them, whole, in single precision.

    Differences would be no smaller, and added again would not give the same bits.
    """
    said = {**found.settings, "model_weights": weights_digest(model, ema=bool(found.settings["ema"]))}
    write_found(path, KIND, found.weights, said)


def read_weights_of(path: str | Path, model: GAN) -> tuple[dict[str, Tensor], dict[str, object]]:
    """(tuned weights by their names in the model, settings) of a file from `save_weights`.

    Raises:
        FileNotFoundError: there is none. ValueError: another file, a damaged one, or one of another model.
    """
    weights, settings = read_found(path, KIND, way_out="give the weights.safetensors of a tuned projection")
    check_weights(settings["model_weights"], model, path, ema=bool(settings["ema"]))
    return weights, settings


def tuned_model(model: GAN, weights: Mapping[str, Tensor]) -> GAN:
    """A copy of the model with tuned weights in place of its own. ValueError for a name or shape that it has not."""
    tuned = copy.deepcopy(model)
    own = dict(tuned.named_parameters(remove_duplicate=False))
    wrong = [name for name, one in weights.items() if name not in own or own[name].shape != one.shape]
    if wrong:
        raise ValueError(f"{type(model).__name__} has no weight {wrong[0]}: another model")
    with torch.no_grad():
        for name, one in weights.items():
            own[name].copy_(one)
    return tuned
