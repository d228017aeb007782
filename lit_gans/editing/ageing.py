"""One person in every class of a generator, as at six ages: Age-cGAN (Antipov et al., 2017), Sec. 2.2 to 3.

https://arxiv.org/abs/1702.01983. The latent is found whose image in the person's OWN class is most like a photograph;
it is kept, and the class is changed. Any generator with classes that draws from latents will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import Encodes, FromLatents, can, require
from lit_gans.base.images import to_uint8
from lit_gans.editing.encoder import Encoder, encoded
from lit_gans.editing.latents import AT_ONCE, candidates_of
from lit_gans.editing.projector import Projection, Step, check_target, render, walk
from lit_gans.editing.text.losses import Identity
from lit_gans.nn.mode import evaluating

Method = Literal["encoder", "pixel", "identity"]
HISTORY = 10  # of L-BFGS


def reconstruct(
    model: GAN,
    image: Tensor,
    *,
    label: int,
    method: Method = "identity",
    identity: Identity | None = None,
    start: Encoder | None = None,
    steps: int = 50,
    candidates: int = 200,
    seed: int = 0,
    ema: bool = True,
    frames: int = 10,
    on_step: Callable[[Step], None] | None = None,
) -> Projection:
    """The z [1, Z] whose image of class `label` is nearest to `image` [C, R, R] in [-1, 1]; the model stays as it is.

    It begins with what an encoder says of the image: `start`, or the model's own; where there is none, with the best of
    `candidates` latents. method "encoder" leaves it there (z0, Sec. 2.2); "pixel" makes the Euclidean distance of
    pixels smaller, "identity" that of `identity`: the identity-preserving optimisation (Eq. 2). L-BFGS follows the
    gradient, each image by itself. The paper's is L-BFGS-B of SciPy: without bounds, which a normal prior has not, the
    method is the same, but torch's line search (strong Wolfe) is another. How many steps the paper takes is not
    published.

    Args:
        label: the class that the person is in now.
        identity: images [N, 3, H, W] in [-1, 1] -> [N, D], see `build_identity`. The paper's is FaceNet.
        steps: of L-BFGS, several images each. seed: of candidates.
        frames, on_step: as for `project`.

    Raises:
        ValueError: a model without latents or classes, another image than its, or a setting that cannot be met.
    """
    require(model, FromLatents, "ageing")
    if model.num_classes < 2:
        raise ValueError(f"this {type(model).__name__} has no classes: ageing needs a generator with groups of ages")
    if method not in get_args(Method):
        raise ValueError(f"method {method!r} is none of {', '.join(get_args(Method))}")
    if method == "identity" and identity is None:
        raise ValueError("method 'identity' needs an identity network: give one, or use 'pixel' or 'encoder'")
    check_target(model, image, label=label, steps=steps, candidates=candidates, frames=frames)
    if start is not None and start.space != "z":
        raise ValueError(f"the encoder gives a code of {start.space}, and ageing needs latents: leave it out")
    known = start is not None or can(model, Encodes)
    if method == "encoder" and not known:
        raise ValueError(
            f"method 'encoder' needs an encoder, and this {type(model).__name__} was trained with none: make one with "
            "`lit-gans encode RUN`, where there are no styles, or use 'pixel' or 'identity'"
        )
    settings = {
        "space": "z", "method": method, "steps": steps if method != "encoder" else 0, "label": label, "seed": seed,
        "ema": ema, "start": "given" if start is not None else "own" if known else "candidates",
        "candidates": 0 if known else candidates, "network": getattr(identity, "name", None),
        "network_fingerprint": getattr(identity, "fingerprint", None),
    }  # fmt: skip
    target = image.detach().float()[None].to(model.device)
    with evaluating(model), torch.enable_grad():
        search = _Search(model, target, label, None if method != "identity" else identity, ema=ema)
        search.start(_begin(model, image, start) if known else search.best_of(candidates, seed))
        settings["start_distance"] = search.best[0]
        if method == "encoder":
            return search.result([], settings, frames=None)
        taken, seen = walk(search.step, search.image, steps=steps, frames=frames, on_step=on_step)
        return search.result(taken, settings, frames=seen)


@torch.no_grad()
def _begin(model: GAN, image: Tensor, start: Encoder | None) -> Tensor:
    """z [1, Z] that an encoder says, the one that is given or the model's own."""
    if start is not None:
        return encoded(start, image)
    return require(model, Encodes, "method 'encoder'").encode(image[None].to(model.device))


class _Search:
    """What is being optimised: one latent, of one class, towards one image."""

    def __init__(self, model: GAN, target: Tensor, label: int, identity: Identity | None, *, ema: bool) -> None:
        self.model, self.target, self.label, self.ema = model, target, label, ema
        self.look = identity or (lambda images: images.flatten(1))  # of pixels the values themselves
        with torch.no_grad():
            self.wanted = self.look(target)

    def start(self, z: Tensor) -> None:
        """Begins there."""
        self.z = z.detach().clone().requires_grad_(True)
        self.optimizer = torch.optim.LBFGS(
            [self.z], max_iter=1, history_size=HISTORY, tolerance_change=0.0, line_search_fn="strong_wolfe"
        )
        with torch.no_grad():
            self.best = self._distance(self.z).item(), self.z.detach().clone()

    @torch.no_grad()
    def best_of(self, count: int, seed: int) -> Tensor:
        """z [1, Z] of the nearest of `count` that are drawn."""
        z, _ = candidates_of(self.model, count, self.label, seed=seed)
        return z[torch.cat([self._distance(some) for some in z.split(AT_ONCE)]).argmin()][None]

    def step(self, _: float) -> tuple[float, float, float]:
        """One step of L-BFGS; (distance before it, 0 as noise stays, the rate of its line search's first try)."""

        def closure() -> Tensor:
            distance = self._distance(self.z)
            if not distance.isfinite().all():
                raise ValueError(f"a distance of {distance.item()} is not finite: use another method, or another start")
            if not distance.requires_grad:
                raise ValueError(
                    f"{type(self.model).__name__}.generate keeps no gradients, which ageing follows: let it not be "
                    "within torch.no_grad()"
                )
            (self.z.grad,) = torch.autograd.grad(distance.sum(), [self.z])
            return distance.sum()

        before = self.optimizer.step(closure)
        with torch.no_grad():
            now = self._distance(self.z).item()
        if now < self.best[0]:  # rounding may lead a step astray where there is nothing more to win
            self.best = now, self.z.detach().clone()
        return before.item(), 0.0, self.optimizer.param_groups[0]["lr"]

    def _drawn(self, z: Tensor) -> Tensor:
        labels = torch.full((len(z),), self.label, device=z.device)
        return render(self.model, z, {}, labels=labels, ema=self.ema)

    def _distance(self, z: Tensor) -> Tensor:
        """z [N, Z] -> [N]: the Euclidean distance to what is wanted (Eq. 2)."""
        return torch.linalg.vector_norm(self.look(self._drawn(z)) - self.wanted, dim=1)

    @torch.no_grad()
    def image(self) -> Tensor:
        """[1, C, R, R] of the nearest until now."""
        return self._drawn(self.best[1]).clamp(-1, 1)

    def result(self, steps: list[Step], settings: dict[str, object], *, frames: Tensor | None) -> Projection:
        distance, z = self.best
        assert math.isfinite(distance)
        image = self.image().cpu()
        seen = to_uint8(image) if frames is None else frames
        return Projection(z.cpu(), {}, image, self.target.cpu(), distance, steps, seen, settings)
