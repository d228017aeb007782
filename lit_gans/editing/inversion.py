"""Inversion of one picture, the same for all generators: in W, in W+, or in Z; from an encoder; with tuned weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import FromLatents, HasStyles, can, require
from lit_gans.editing.encoder import Encoder, encoded
from lit_gans.editing.latents import project_latent
from lit_gans.editing.projector import Projection, Step, project
from lit_gans.editing.tuning import TuningStep, tune
from lit_gans.metrics.perceptual import FrozenDistance

Space = Literal["w", "w+", "z"]
STEPS: dict[Space, int] = {"w": 1000, "w+": 1000, "z": 500}


def space_of(model: GAN, space: Space | None) -> Space:
    """The space that is asked for; None is W where there are styles, else Z. ValueError for one that the model has not.

    In Z a picture of any generator is found that draws from latents.
    """
    if space not in ("w", "w+", "z", None):
        raise ValueError(f"space {space!r} is none of w, w+ and z")
    if space is None:
        space = "w" if can(model, HasStyles) else "z"
    if space == "z":
        require(model, FromLatents, "projection in Z")
    else:
        require(model, HasStyles, "projection in W", otherwise="give the space z")
    return space


def invert(
    model: GAN,
    image: Tensor,
    *,
    distance: FrozenDistance,
    space: Space | None = None,
    steps: int | None = None,
    tuning_steps: int = 0,
    starts: int = 4,
    label: int | None = None,
    start: Encoder | None = None,
    seed: int = 0,
    ema: bool = True,
    frames: int = 100,
    on_step: Callable[[Step], None] | None = None,
    on_tuning_step: Callable[[TuningStep], None] | None = None,
) -> Projection:
    """What is nearest to `image` [C, R, R] in [-1, 1]: see `project`, `project_latent` and `tune`.

    Args:
        space: "w", "w+" or "z"; None as `space_of`. steps: None as in `STEPS`.
        tuning_steps: of pivotal tuning after it, 350 as published; 0 for none. starts: in Z.
        label: class of the image. start: an encoder of this model: the search begins with the code that it gives.

    Raises:
        ValueError: a model that has not that space, another image than its, or a setting that cannot be met.
    """
    space = space_of(model, space)
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}: give 1 or more")
    if tuning_steps < 0:
        raise ValueError(f"tuning steps are {tuning_steps}: give 0 for none, or 350 as published")
    if start is not None and (start.space == "z") != (space == "z"):
        raise ValueError(f"the encoder gives a code of {start.space}, and the space is {space}: leave one of them out")
    look = {"distance": distance, "label": label, "seed": seed, "ema": ema, "frames": frames, "on_step": on_step}
    look |= {"steps": steps or STEPS[space], "start": None if start is None else encoded(start, image)}
    if space == "z":
        found = project_latent(model, image, starts=starts, **look)
    else:
        found = project(model, image, space=space, **look)
    if not tuning_steps:
        return found
    return tune(model, found, distance=distance, steps=tuning_steps, seed=seed, on_step=on_tuning_step)
