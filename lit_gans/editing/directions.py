"""Directions of a latent space along which images change in one way: found, named, kept, and moved along.

SeFa (Shen and Zhou, 2021), https://arxiv.org/abs/2007.06600; GANSpace (Harkonen et al., 2020),
https://arxiv.org/abs/2004.02546; planes between attributes, InterFaceGAN (Shen et al., 2020),
https://arxiv.org/abs/1907.10786.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import HasStyles, class_labels, require
from lit_gans.editing.found import read_found, write_found
from lit_gans.editing.state import weights_digest

Space = Literal["z", "w"]
KIND = "directions"


@dataclass(frozen=True)
class Direction:
    """vector [W], or [L, W] with a part for each layer; deviation: the latents' standard deviation along it.

    layers: numbers of the rows of ws that are moved, None for all; in space "z" there are none.
    """

    name: str
    space: Space
    vector: Tensor
    deviation: float
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Directions:
    """K directions of one model; all tensors on the CPU.

    vectors [K, W] (or [K, L, W]), each of length 1; deviations [K]: standard deviations of the latents along them;
    explained [K]: shares of the latents' variance that lie along them; scores [K]: what the method judges by, which
    `settings["score"]` names; layers as of `Direction`; settings: plain values that say how and for which model.
    """

    space: Space
    names: tuple[str, ...]
    vectors: Tensor
    deviations: Tensor
    explained: Tensor
    scores: Tensor
    layers: tuple[int, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Direction]:
        return (self[name] for name in self.names)

    def __getitem__(self, name: str) -> Direction:
        """ValueError for a name that there is not."""
        if name not in self.names:
            raise ValueError(f"there is no direction {name!r}; there are {', '.join(self.names)}")
        number = self.names.index(name)
        return Direction(name, self.space, self.vectors[number], self.deviations[number].item(), self.layers)

    def only(self, names: Sequence[str]) -> Directions:
        """Those of these names, in this order."""
        rows = [self.names.index(self[name].name) for name in names]
        kept = {part: getattr(self, part)[rows] for part in _TENSORS}
        return replace(self, names=tuple(names), **kept)

    def save(self, path: str | Path) -> None:
        """Writes a .safetensors file, which `read_directions` reads."""
        said = {**self.settings, "space": self.space, "names": self.names, "layers": self.layers}
        tensors = {part: getattr(self, part) for part in _TENSORS}
        write_found(path, KIND, tensors, said)


_TENSORS = ("vectors", "deviations", "explained", "scores")


def read_directions(path: str | Path) -> Directions:
    """What `Directions.save` wrote.

    Raises:
        FileNotFoundError: there is no file. ValueError: another file, or a damaged one.
    """
    tensors, settings = read_found(path, KIND, way_out="give a file of `lit-gans directions --method`")
    space, names, layers = (settings.pop(name) for name in ("space", "names", "layers"))
    layers = None if layers is None else tuple(layers)
    return Directions(space, tuple(names), layers=layers, settings=settings, **tensors)


# ---- moving ----------------------------------------------------------------------------------------------------------


def move(
    latents: Tensor, direction: Direction, by: float | Tensor, *, layers: Sequence[int] | None = None
) -> Tensor:
    """ws [N, L, W], or in space "z" z [N, Z] -> the same, moved by so many standard deviations; differentiable.

    by: one number, or [N]; layers: rows of ws that are moved, by default those of the direction. ValueError for latents
    of another shape.
    """
    rows = direction.layers if layers is None else tuple(layers)
    count = latents.shape[1] if latents.ndim == 3 else 0
    fits = latents.ndim == (3 if direction.space == "w" else 2) and latents.shape[-1] == direction.vector.shape[-1]
    if not fits or (direction.vector.ndim == 2 and len(direction.vector) != count):
        raise ValueError(
            f"latents {list(latents.shape)} do not fit direction {direction.name!r}, which is {direction.space} of "
            f"{list(direction.vector.shape)}: another model"
        )
    if wrong := [row for row in rows or () if not 0 <= row < count]:
        raise ValueError(f"layer {wrong[0]} does not exist: there are the layers 0 to {count - 1}")
    far = torch.as_tensor(by, dtype=latents.dtype, device=latents.device) * direction.deviation
    step = far.reshape(-1, *[1] * (latents.ndim - 1)) * direction.vector.to(latents)
    if rows is None or direction.space == "z":
        return latents + step
    chosen = torch.zeros(count, 1, dtype=latents.dtype, device=latents.device)
    chosen[list(rows)] = 1
    return latents + step * chosen


def without(vector: Tensor, others: Tensor) -> Tensor:
    """vector [W] less all that lies along the others [K, W], again of length 1: conditional manipulation.

    What the others stand for then stays as it is, in so far as they are right (Shen et al., 2020, Sec. 2.3); their code
    takes two others at most. ValueError where nothing is left.
    """
    if not len(others):
        return vector / vector.norm()
    basis = torch.linalg.qr(others.T)[0]
    left = vector - basis @ (basis.T @ vector)
    if left.norm() < 1e-3 * vector.norm():
        raise ValueError("nothing is left of a direction without those that are to be kept: keep fewer")
    return left / left.norm()


# ---- of which model --------------------------------------------------------------------------------------------------


def stamp(model: GAN, *, ema: bool = True) -> dict[str, object]:
    """What directions belong to: the class of the model, a digest of its generator's weights, and its age."""
    return {
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "weights": weights_digest(model, ema=ema),
        "images_seen": model.images_seen,
    }


def check_model(directions: Directions, model: GAN, *, ema: bool = True, other_model: bool = False) -> None:
    """ValueError where they were found on other weights; with `other_model`, where they do not fit by their shape."""
    here, said = stamp(model, ema=ema), directions.settings
    if directions.space == "w":
        styled, labels = require(model, HasStyles, "a direction of W"), class_labels(model, [0])
        shape = [*styled.styles(model.seeded_latents([0]), labels=labels, ema=ema).shape[1:]]
    else:
        shape = [model.seeded_latents([0]).shape[1]]
    if [*directions.vectors.shape[1:]] not in (shape, shape[-1:]):
        raise ValueError(
            f"the directions are {directions.space} of {list(directions.vectors.shape[1:])}, and this model's is of "
            f"{shape}: find them on this model"
        )
    if not other_model and said.get("weights") != here["weights"]:
        raise ValueError(
            f"the directions are of {_told(said)}, and this model is {_told(here)}: find them on this one; or, where "
            f"both are of one training, try them with other_model"
        )


def _told(stamp: dict[str, Any]) -> str:
    kimg = f" at {stamp['images_seen'] / 1000:g} kimg" if isinstance(stamp.get("images_seen"), int) else ""
    return f"{str(stamp.get('model')).rpartition('.')[2]}{kimg} (weights {stamp.get('weights')})"
