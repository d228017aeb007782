"""Inversion in Z: the latent whose image is nearest to a given one, for any generator that draws from latents.

The best of many images that are drawn begin, and each of these latents follows the gradient under its prior: where that
is near a sphere, it stays there (Menon et al., 2020, https://arxiv.org/abs/2003.03808), else within its bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import FromLatents, require
from lit_gans.base.random import derive_seed
from lit_gans.editing.projector import Projection, Step, check_target, compared, learning_rate_share, render, walk
from lit_gans.metrics.perceptual import FrozenDistance
from lit_gans.nn.mode import evaluating

AT_ONCE = 50  # candidates that are drawn together


def project_latent(
    model: GAN,
    image: Tensor,
    *,
    distance: FrozenDistance,
    steps: int = 500,
    lr: float = 0.05,
    starts: int = 4,
    candidates: int = 200,
    pixel_weight: float = 1.0,
    label: int | None = None,
    start: Tensor | None = None,
    seed: int = 0,
    ema: bool = True,
    frames: int = 100,
    on_step: Callable[[Step], None] | None = None,
) -> Projection:
    """The z [1, Z] whose image is nearest to `image` [C, R, R] in [-1, 1]; the model stays as it is.

    Of `candidates` latents those `starts` begin that are nearest by `distance` plus `pixel_weight` times the mean
    squared difference of pixels, which Adam then makes smaller; the best of them at the end is taken, with its class
    in the settings. All follows from `seed`; noise maps are the model's.

    Args:
        label: class of the image; by default candidates of all classes, evenly, compete.
        start: z [1, Z], such as an encoder's, that is a candidate too (of every class), and begins in any case.
        frames, on_step: as for `project`; what they show and tell is the best at that step.

    Raises:
        ValueError: a model that draws from no latents, another image than its, or a setting that cannot be met.
    """
    require(model, FromLatents, "inversion")
    counts = {"steps": steps, "starts": starts, "candidates": candidates, "frames": frames}
    check_target(model, image, label=label, **counts)
    settings = {
        "space": "z", **counts, "lr": lr, "pixel_weight": pixel_weight, "seed": seed, "ema": ema,
        "network": distance.name, "network_fingerprint": distance.fingerprint,
        "start": "candidates" if start is None else "given",
    }  # fmt: skip
    target = image.detach().float()[None].to(model.device)
    with evaluating(model), torch.enable_grad():
        search = _Search(model, target, distance, pixel_weight=pixel_weight, ema=ema)
        search.start(*candidates_of(model, candidates, label, seed=seed), start, starts)

        def move(t: float) -> tuple[float, float, float]:
            return search.step(lr * learning_rate_share(t))

        return search.result(*walk(move, search.image, steps=steps, frames=frames, on_step=on_step), settings)


def candidates_of(model: GAN, count: int, label: int | None, *, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """(z [N, Z], classes int64 [N] or None): of one class, or evenly of all, of each one at least."""
    count = max(count, model.num_classes) if label is None else count
    z = model.seeded_latents([derive_seed("inversion", seed, number) for number in range(count)])
    if not model.num_classes:
        return z, None
    labels = torch.arange(count) % model.num_classes if label is None else torch.full((count,), label)
    return z, labels.to(z.device)


class _Search:
    """What is being optimised: several latents side by side, each with its class."""

    def __init__(
        self, model: GAN, target: Tensor, distance: FrozenDistance, *, pixel_weight: float, ema: bool
    ) -> None:
        self.model, self.target, self.distance, self.ema = model, target, distance, ema
        self.pixel_weight = pixel_weight
        with torch.no_grad():
            self.wanted = distance.features(compared(target))

    @torch.no_grad()
    def start(self, z: Tensor, labels: Tensor | None, given: Tensor | None, starts: int) -> None:
        """Begins with the nearest of candidates, and with the one that is given."""
        chosen = self._nearest(z, labels)[:starts]
        z, labels = z[chosen], None if labels is None else labels[chosen]
        if given is not None:
            classes = None if labels is None else labels.unique()  # those that looked most like it
            own = self.model.prior.nearest(given.to(z)).repeat(1 if classes is None else len(classes), 1)
            best = self._nearest(own, classes)[:1]
            z = torch.cat([own[best], z])[:starts]
            labels = None if labels is None or classes is None else torch.cat([classes[best], labels])[:starts]
        self.z, self.labels = z.clone().requires_grad_(True), labels
        self.optimizer = torch.optim.Adam([self.z], lr=0.0, betas=(0.9, 0.999))

    def _nearest(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The numbers of the rows, the nearest first."""
        parts = [None] * len(z) if labels is None else labels.split(AT_ONCE)
        losses = [self._losses(some, of)[0] for some, of in zip(z.split(AT_ONCE), parts, strict=False)]
        return torch.cat(losses).argsort(stable=True)

    def _losses(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """z [N, Z] -> what is made small, and its distance alone, [N] each."""
        images = render(self.model, z, {}, labels=labels, ema=self.ema)
        wanted = [features.expand(len(z), -1, -1, -1) for features in self.wanted]
        distances = self.distance.between(self.distance.features(compared(images)), wanted)
        squares = F.mse_loss(images, self.target.expand_as(images), reduction="none").mean((1, 2, 3))
        return distances + self.pixel_weight * squares, distances

    def step(self, lr: float) -> tuple[float, float, float]:
        """Moves every latent once; (distance of the best before it, 0 as noise stays, learning rate)."""
        losses, distances = self._losses(self.z, self.labels)
        if not losses.isfinite().all():
            raise ValueError(f"a distance of {losses.max().item()} is not finite: lower lr")
        if not losses.requires_grad:
            raise ValueError(
                f"{type(self.model).__name__}.generate keeps no gradients, which inversion follows: let it not be "
                "within torch.no_grad()"
            )
        (self.z.grad,) = torch.autograd.grad(losses.sum(), [self.z])
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        with torch.no_grad():
            self.z.copy_(self.model.prior.nearest(self.z))
        return distances[losses.argmin()].item(), 0.0, lr

    @torch.no_grad()
    def best(self) -> tuple[Tensor, Tensor | None, float]:
        """(z [1, Z], its class [1], its distance) of the nearest now."""
        losses, distances = self._losses(self.z, self.labels)
        row = losses.argmin()[None]
        labels = None if self.labels is None else self.labels[row]
        return self.z.detach()[row], labels, distances[row].item()

    @torch.no_grad()
    def image(self) -> Tensor:
        """[1, C, R, R] of the nearest now."""
        z, labels, _ = self.best()
        return render(self.model, z, {}, labels=labels, ema=self.ema).clamp(-1, 1)

    def result(self, steps: list[Step], frames: Tensor, settings: dict[str, object]) -> Projection:
        z, labels, distance = self.best()
        assert math.isfinite(distance)
        settings = {**settings, "label": None if labels is None else int(labels[0])}
        return Projection(z.cpu(), {}, self.image().cpu(), self.target.cpu(), distance, steps, frames, settings)
