"""Projection: the styles and noise maps whose image is nearest to a given one.

StyleGAN2 (Karras et al., 2020), https://arxiv.org/abs/1912.04958, Section 5 and Appendix D, with the settings of the
official code. W+ has a style of its own for each layer (Abdal et al., 2019), https://arxiv.org/abs/1904.03189.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import CentredByClass, FromLatents, HasStyles, can, require
from lit_gans.base.checkpoints import under
from lit_gans.base.images import to_uint8
from lit_gans.base.precision import with_double
from lit_gans.base.random import Draws
from lit_gans.data.described import listed_classes
from lit_gans.editing.found import read_found, write_found
from lit_gans.editing.layers import drawn_with
from lit_gans.metrics.paired import psnr
from lit_gans.metrics.perceptual import FrozenDistance
from lit_gans.nn.mode import evaluating

Space = Literal["w", "w+"]
KIND = "a projection"
COMPARED_PX = 256  # larger images are averaged down to it before they are compared
SMALLEST_NOISE_PX = 8  # the pyramid of a noise map ends there
RAMP_UP, RAMP_DOWN, NOISE_RAMP = 0.05, 0.25, 0.75  # shares of all steps
NOISE_BUFFER = "noise_const"  # what papers call a layer's constant noise map


class Step(NamedTuple):
    """One step's figures: number from 0, perceptual distance, penalty of the noise maps (unweighted), learning rate."""

    step: int
    distance: float
    noise_penalty: float
    lr: float


@dataclass(frozen=True)
class Projection:
    """What was found for one image; all tensors on the CPU.

    code: styles ws [1, L, W], or a latent z [1, Z]; noise: each map by its name in the model; image and target
    [1, C, R, R] in [-1, 1]; distance: between these two; steps: of the optimisation; frames uint8 [F, C, r, r]: the
    image on its way, evenly over the steps, of at most 256 px; settings: plain values that say how it was made.
    weights: tuned ones by their names in the model, and pivot: what was found before them; see `tune`.
    """

    code: Tensor
    noise: dict[str, Tensor]
    image: Tensor
    target: Tensor
    distance: float
    steps: list[Step]
    frames: Tensor
    settings: dict[str, object]
    weights: dict[str, Tensor] = field(default_factory=dict)
    pivot: Projection | None = None

    @property
    def ws(self) -> Tensor:
        """The code, called as it is in W."""
        return self.code

    @property
    def psnr_db(self) -> float:
        """Of the image and the target as files have them."""
        return psnr(to_uint8(self.image), to_uint8(self.target)).item()

    def save(self, path: str | Path, **stamp: object) -> None:
        """Writes code, noise maps and settings as a .safetensors file; `stamp`: further plain values.

        Tuned weights are a file of their own: see `save_weights`.
        """
        figures = {"distance": self.distance, "psnr_db": self.psnr_db}
        noise = {f"noise.{name}": noise for name, noise in self.noise.items()}
        code = {"ws" if self.code.ndim == 3 else "z": self.code}
        write_found(path, KIND, code | noise, {**self.settings, **stamp, **figures})


def read_projection(path: str | Path) -> tuple[Tensor, dict[str, Tensor], dict[str, object]]:
    """(ws [1, L, W] or z [1, Z], noise maps by name, settings) of a file from `Projection.save`; `render` takes them.

    Raises:
        FileNotFoundError: there is none. ValueError: another file, or a damaged one.
    """
    way_out = "give the w.safetensors of a projection"
    tensors, settings = read_found(path, KIND, way_out=way_out, unmarked=True)  # as projections once were
    code = next((tensors[name] for name in ("ws", "z") if name in tensors), None)
    if code is None:
        raise ValueError(f"{path} holds neither ws nor z: {way_out}")
    return code, under(tensors, "noise."), settings


# ---- the model, with other noise and weights ------------------------------------------------------------------------


def render(
    model: GAN,
    code: Tensor,
    noise: Mapping[str, Tensor],
    *,
    labels: Tensor | None = None,
    weights: Mapping[str, Tensor] | None = None,
    ema: bool = True,
) -> Tensor:
    """ws [N, L, W] or z [N, Z] -> images [N, C, R, R], not clamped where there are styles; differentiable.

    noise: maps in place of the model's, by names as those of `noise_maps`; maps that it has not stay the model's.
    labels [N]: classes of z. weights: in place of the model's, by their names in it. The model is not changed.
    ValueError for a name or shape that the model has not.
    """
    require(model, HasStyles if code.ndim == 3 else FromLatents, "rendering styles")
    code = code.to(model.device)

    def draw(gan: GAN) -> Tensor:
        if code.ndim == 2 and not can(gan, HasStyles):
            return gan.generate(code, labels=labels, ema=ema)
        ws = code if code.ndim == 3 else gan.styles(code, labels=labels, ema=ema)
        return gan.synthesize(ws, ema=ema)

    return drawn_with(model, {**noise, **(weights or {})}, draw)


def player_of(model: GAN, *, ema: bool = True) -> str:
    """The name in the model of the averaged generator, or of the one that is trained."""
    return "generator_ema" if ema and model.generator_ema is not None else "generator"


def noise_maps(model: GAN, *, ema: bool = True) -> dict[str, Tensor]:
    """The constant noise maps of the averaged generator, or of the one that is trained, by their names in the model."""
    player = player_of(model, ema=ema)
    return {
        name: buffer
        for name, buffer in model.named_buffers(remove_duplicate=False)  # of a released one both players are one
        if name.startswith(f"{player}.") and name.rpartition(".")[2] == NOISE_BUFFER
    }


@torch.no_grad()
def style_statistics(
    model: GAN, *, num_samples: int = 10_000, label: int | None = None, seed: int = 0, ema: bool = True
) -> tuple[Tensor, float]:
    """(mean w [W], root of the mean squared distance from it) of latents drawn from `seed`.

    label: the class of all; by default classes are drawn evenly.
    """
    draws, found = Draws("projector", seed, "styles"), []
    z = model.prior.draw(draws, num_samples, model.z_dim)
    labels = None
    if model.num_classes:
        even = (draws.uniform(num_samples) * model.num_classes).long()
        labels = (even if label is None else torch.full_like(even, label)).to(model.device)
    for start in range(0, num_samples, 1000):
        part = slice(start, start + 1000)
        chosen = None if labels is None else labels[part]
        w = model.styles(z[part].to(model.device), labels=chosen, ema=ema)[:, 0]
        found.append(w.to(with_double(w.device)).double())
    w = torch.cat(found)
    mean = w.mean(0)
    return mean.float().to(model.device), (w - mean).square().sum(1).mean().sqrt().item()


# ---- the method ------------------------------------------------------------------------------------------------------


def noise_penalty(maps: Iterable[Tensor]) -> Tensor:
    """Sum over maps [..., H, H], their pyramids and both directions of the squared correlation of neighbours.

    It keeps the picture out of the noise. The paper doubles after each averaging, so that the variance stays 1; the
    official code does not. We follow the code. A map below 8 px has a pyramid of one.
    """
    terms = [(level * level.roll(1, dim)).mean().square() for one in maps for level in pyramid(one) for dim in (-2, -1)]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def pyramid(noise: Tensor) -> Iterator[Tensor]:
    """[..., H, H] -> [1, 1, H, H] and its averages over squares, halved until 8 px."""
    level = noise.reshape(1, 1, *noise.shape[-2:])
    yield level
    while level.shape[-1] > SMALLEST_NOISE_PX:
        level = F.avg_pool2d(level, 2)
        yield level


@torch.no_grad()
def normalize_noise(maps: Iterable[Tensor]) -> None:
    """Sets each map to mean 0 and mean square 1, in place, so that it cannot but be noise."""
    for one in maps:
        one.sub_(one.mean())
        one.mul_(one.square().mean().rsqrt())


def learning_rate_share(t: float, *, ramp_up: float = RAMP_UP, ramp_down: float = RAMP_DOWN) -> float:
    """Of the largest learning rate, at share t of all steps: up linearly for 5 %, down as a cosine for 25 %."""
    down = min(1.0, (1 - t) / ramp_down)
    return (0.5 - 0.5 * math.cos(down * math.pi)) * min(1.0, t / ramp_up)


def exploration(t: float, *, ramp: float = NOISE_RAMP) -> float:
    """Of the initial noise on w, at share t of all steps: falls as a square and is gone after 75 %."""
    return max(0.0, 1 - t / ramp) ** 2


def walk(
    move: Callable[[float], tuple[float, float, float]],
    image: Callable[[], Tensor],
    *,
    steps: int,
    frames: int,
    on_step: Callable[[Step], None] | None,
) -> tuple[list[Step], Tensor]:
    """(figures of the steps, images of the way uint8 [F, C, r, r]); move(t), t in [0, 1), makes a step and tells it."""
    taken: list[Step] = []
    pictures: list[Tensor] = []
    for step in range(steps):
        taken.append(Step(step, *move(step / steps)))
        if (step + 1) * min(frames, steps) // steps > len(pictures):
            pictures.append(to_uint8(compared(image())).cpu())
        if on_step is not None:
            on_step(taken[-1])
    return taken, torch.cat(pictures)


def project(
    model: GAN,
    image: Tensor,
    *,
    distance: FrozenDistance,
    space: Space = "w",
    steps: int = 1000,
    lr: float = 0.1,
    initial_noise: float = 0.05,
    noise_weight: float = 1e5,
    num_samples: int = 10_000,
    label: int | None = None,
    start: Tensor | None = None,
    seed: int = 0,
    ema: bool = True,
    frames: int = 100,
    on_step: Callable[[Step], None] | None = None,
) -> Projection:
    """The projection of `image` [C, R, R] in [-1, 1] onto a style-based generator; its weights and buffers stay.

    From the mean w on, Adam moves w (or with `space` "w+" the w of each layer) and the noise maps, towards a smaller
    `distance`, such as `build_lpips("vgg")` on the model's device. All follows from `seed`; on a GPU up to the
    order of its additions.

    Args:
        initial_noise: of the noise that w is explored with, as a share of the spread of w.
        noise_weight: of `noise_penalty`. num_samples: from which the mean and the spread of w are taken.
        label: class whose w the start is the mean of; by default all classes, except of a model `CentredByClass`.
        start: w [1, 1, W] to begin with in place of the mean, such as an encoder's; then nothing is explored.
        frames: how many images of the way are kept, at most one per step.
        on_step: is told of each step when it is done.

    Raises:
        ValueError: a model without W, another image than the model's, or a setting that cannot be met.
    """
    require(model, HasStyles, "projection")
    if space not in ("w", "w+"):
        raise ValueError(f"space {space!r} is neither 'w' nor 'w+'")
    check_target(model, image, label=label, steps=steps, num_samples=num_samples, frames=frames)
    if label is None and start is None and model.num_classes and can(model, CentredByClass):
        raise ValueError(
            f"{type(model).__name__} has a mean style for each of its {model.num_classes} classes and none for all: "
            f"give label, the picture's class ({listed_classes(model.class_names) or 'its number'})"
        )
    initial_noise = initial_noise if start is None else 0.0
    settings = {
        "space": space, "steps": steps, "lr": lr, "initial_noise": initial_noise, "noise_weight": noise_weight,
        "num_samples": num_samples, "label": label, "seed": seed, "ema": ema, "network": distance.name,
        "network_fingerprint": distance.fingerprint, "start": "mean" if start is None else "given",
    }  # fmt: skip
    target = image.detach().float()[None].to(model.device)
    with evaluating(model), torch.enable_grad():
        search = _Search(model, target, distance, space=space, noise_weight=noise_weight, seed=seed, ema=ema)
        spread = search.start(num_samples, label, start)

        def move(t: float) -> tuple[float, float, float]:
            return search.step(lr * learning_rate_share(t), initial_noise * spread * exploration(t))

        return search.result(*walk(move, search.image, steps=steps, frames=frames, on_step=on_step), settings)


class _Search:
    """What is being optimised: one w or a w per layer, and the noise maps."""

    def __init__(
        self,
        model: GAN,
        target: Tensor,
        distance: FrozenDistance,
        *,
        space: Space,
        noise_weight: float,
        seed: int,
        ema: bool,
    ) -> None:
        self.model, self.target, self.distance, self.ema = model, target, distance, ema
        self.space, self.noise_weight, self.seed = space, noise_weight, seed
        self.draws = Draws("projector", seed, "noise")  # on the CPU, for the same numbers on every device
        with torch.no_grad():
            self.wanted = distance.features(compared(target))

    def start(self, num_samples: int, label: int | None, given: Tensor | None) -> float:
        """Sets w to its mean, or as given, and noise maps to noise; the spread of w."""
        model = self.model
        mean, spread = style_statistics(model, num_samples=num_samples, label=label, seed=self.seed, ema=self.ema)
        probe = model.seeded_latents([0])
        labels = torch.zeros(1, dtype=torch.int64, device=model.device) if model.num_classes else None
        self.num_ws = model.styles(probe, labels=labels, ema=self.ema).shape[1]
        layers = self.num_ws if self.space == "w+" else 1
        first = mean[None, None] if given is None else given.detach().to(mean)
        self.w = first.repeat(1, layers, 1).requires_grad_(True)
        own = noise_maps(model, ema=self.ema)
        self.noise = {name: self.draws.normal(*one.shape).to(one).requires_grad_(True) for name, one in own.items()}
        self.leaves = [self.w, *self.noise.values()]
        self.optimizer = torch.optim.Adam(self.leaves, lr=0.0, betas=(0.9, 0.999))
        return spread

    def step(self, lr: float, strength: float) -> tuple[float, float, float]:
        """Moves everything once; (distance and penalty before it, learning rate)."""
        w = self.w + strength * self.draws.normal(*self.w.shape).to(self.w)
        distance = self._distance(render(self.model, self._ws(w), self.noise, ema=self.ema))
        penalty = noise_penalty(self.noise.values()).to(distance)
        gradients = torch.autograd.grad(distance + self.noise_weight * penalty, self.leaves)
        for leaf, gradient in zip(self.leaves, gradients, strict=True):
            leaf.grad = gradient
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        normalize_noise(self.noise.values())
        figures = torch.stack([distance, penalty]).tolist()
        if not math.isfinite(sum(figures)):
            raise ValueError(f"distance {figures[0]} and noise penalty {figures[1]} are not finite: lower lr")
        return *figures, lr

    def _ws(self, w: Tensor) -> Tensor:
        return w.expand(-1, self.num_ws, -1)

    def _distance(self, image: Tensor) -> Tensor:
        return self.distance.between(self.distance.features(compared(image)), self.wanted).sum()

    @torch.no_grad()
    def image(self) -> Tensor:
        """[1, C, R, R] of w without exploration."""
        return render(self.model, self._ws(self.w), self.noise, ema=self.ema).clamp(-1, 1)

    def result(self, steps: list[Step], frames: Tensor, settings: dict[str, object]) -> Projection:
        image = self.image()
        with torch.no_grad():
            distance = self._distance(image).item()
        ws = self._ws(self.w).detach().cpu().contiguous()
        noise = {name: one.detach().cpu() for name, one in self.noise.items()}
        return Projection(ws, noise, image.cpu(), self.target.cpu(), distance, steps, frames, settings)


def compared(images: Tensor) -> Tensor:
    """[N, C, R, R] as distances see them: averaged down to 256 px where they are larger."""
    return F.interpolate(images, size=COMPARED_PX, mode="area") if images.shape[-1] > COMPARED_PX else images


def check_target(model: GAN, image: Tensor, *, label: int | None, **counts: int) -> None:
    """ValueError for an image that is none of the model's, a class that it has not, and a count below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}: give 1 or more")
    if label is not None and not 0 <= label < model.num_classes:
        has = f"the classes 0 to {model.num_classes - 1}" if model.num_classes else "no classes: leave the label out"
        raise ValueError(f"label {label} does not exist: this model has {has}")
    shape = [model.channels, model.resolution, model.resolution]
    if not image.is_floating_point() or list(image.shape) != shape:
        raise ValueError(f"image {image.dtype} {list(image.shape)}, expected float {shape} in [-1, 1]")
    low, high = image.aminmax()
    if not (low >= -1 and high <= 1):
        raise ValueError(
            f"image values from {low:.3g} to {high:.3g}, expected [-1, 1]: see lit_gans.base.images.from_uint8"
        )
