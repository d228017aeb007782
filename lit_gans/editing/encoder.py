"""A small encoder for one generator: from a picture to the code that inversion begins with.

It is trained on what the generator draws itself, where codes are known (Zhu et al., 2016,
https://arxiv.org/abs/1609.03552, Sec. 3.1): minutes, no data. Photographs lie beyond that: it is a start alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import FromLatents, HasStyles, can, require
from lit_gans.base.random import Draws
from lit_gans.editing.found import read_found, write_found
from lit_gans.editing.projector import render
from lit_gans.editing.state import check_weights, weights_digest
from lit_gans.nn.mode import evaluating

ENCODED_PX, SMALLEST_PX = 64, 4  # larger pictures are averaged down to it; the side where the convolutions end
MOST_CHANNELS = 256
KIND = "an encoder of a generator"
CodeSpace = Literal["w", "z"]
STATISTICS = 2000  # codes of which mean and deviation are taken


class EncoderStep(NamedTuple):
    """One step's figures: number from 0, loss in codes (in deviations), mean squared difference of pixels, rate."""

    step: int
    code: float
    pixels: float  # when it was looked at last
    lr: float


class Encoder(nn.Module):
    """[N, C, R, R] in [-1, 1] -> codes [N, D] of `space`; mean and deviation are of the generator's codes."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, space: CodeSpace, channels: int, resolution: int, width: int, dim: int) -> None:
        super().__init__()
        self.space = space
        side = min(resolution, ENCODED_PX)
        halvings = max(int(math.log2(side / SMALLEST_PX)), 0)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
        for number in range(halvings):
            fan_in, fan_out = (min(width * 2**n, MOST_CHANNELS) for n in (number, number + 1))
            layers += [nn.Conv2d(fan_in, fan_out, 4, 2, 1), nn.GroupNorm(8, fan_out), nn.LeakyReLU(0.2)]
        features = min(width * 2**halvings, MOST_CHANNELS) * (side // 2**halvings) ** 2
        self.side, self.layers, self.out = side, nn.Sequential(*layers), nn.Linear(features, dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] > self.side:
            images = F.interpolate(images, size=self.side, mode="area")
        return self.mean + self.deviation * self.out(self.layers(images).flatten(1))


def train_encoder(
    model: GAN,
    *,
    steps: int = 400,
    batch_size: int = 16,
    lr: float = 1e-3,
    width: int = 32,
    pixel_weight: float = 1.0,
    pixels_every: int = 4,
    seed: int = 0,
    ema: bool = True,
    on_step: Callable[[EncoderStep], None] | None = None,
) -> tuple[Encoder, dict[str, object]]:
    """(an encoder to w, of a generator without styles to z; its settings), trained on the model's own images.

    Each batch is drawn of (seed, images drawn before). The loss is the mean squared difference of codes in deviations,
    plus, in every `pixels_every` steps, `pixel_weight` times that of the pixels of the images of both codes, whose
    gradient goes through the generator and takes most of the time. The learning rate falls as a half cosine.

    Raises:
        ValueError: a model that draws from no latents, or a count below 1.
    """
    require(model, FromLatents, "an encoder")
    counts = {"steps": steps, "batch_size": batch_size, "width": width, "pixels_every": pixels_every}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} of an encoder is {count}: give 1 or more")
    space: CodeSpace = "w" if can(model, HasStyles) else "z"
    settings: dict[str, object] = {
        "space": space, "steps": steps, "batch_size": batch_size, "lr": lr, "width": 8 * -(-width // 8),
        "pixel_weight": pixel_weight, "pixels_every": pixels_every, "seed": seed, "ema": ema,
        "channels": model.channels, "resolution": model.resolution, "model_weights": weights_digest(model, ema=ema),
    }  # fmt: skip
    with evaluating(model), torch.enable_grad():
        codes = drawn(model, space, Draws("encoder", seed, "statistics"), STATISTICS, ema=ema)[0][:, 0]
        encoder = _built(settings, codes.shape[1], seed).to(model.device)
        encoder.mean.copy_(codes.mean(0))
        encoder.deviation.copy_(codes.std(0).clamp_min(1e-6))
        optimizer = torch.optim.Adam(encoder.parameters(), lr=lr)
        for step in range(steps):
            rate = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.param_groups[0]["lr"] = rate
            draws = Draws("encoder", seed, step * batch_size, "batch")
            code, found, real, images = _looked_at(model, encoder, draws, batch_size, ema=ema)
            if step % pixels_every == 0:
                pixels = F.mse_loss(images(found), real)
                told = pixels.item()
            optimizer.zero_grad()
            (code + pixel_weight * pixels if step % pixels_every == 0 else code).backward()
            optimizer.step()
            if on_step is not None:
                on_step(EncoderStep(step, code.item(), told, rate))
    settings |= {"code_loss": code.item(), "pixel_loss": told}
    return encoder.eval().requires_grad_(False), settings


def _built(settings: dict[str, object], dim: int, seed: int) -> Encoder:
    """An encoder of weights that follow from the seed."""
    sizes = {name: int(str(settings[name])) for name in ("channels", "resolution", "width")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(space="w" if settings["space"] == "w" else "z", **sizes, dim=dim)


@torch.no_grad()
def drawn(model: GAN, space: CodeSpace, draws: Draws, count: int, *, ema: bool) -> tuple[Tensor, Tensor | None]:
    """(codes [N, L, W], or of latents [N, 1, Z], their classes or None) of latents of the prior."""
    z = model.prior.draw(draws, count, model.z_dim).to(model.device)
    labels = None
    if model.num_classes:
        labels = (draws.uniform(count) * model.num_classes).long().to(model.device)
    return (model.styles(z, labels=labels, ema=ema) if space == "w" else z[:, None]), labels


def _looked_at(
    model: GAN, encoder: Encoder, draws: Draws, count: int, *, ema: bool
) -> tuple[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """(loss in codes, codes found [N, D], the images they were found in, what draws codes of the same classes)."""
    codes, labels = drawn(model, encoder.space, draws, count, ema=ema)
    layers, in_w = codes.shape[1], encoder.space == "w"

    def images(code: Tensor) -> Tensor:
        given = code[:, None].expand(-1, layers, -1) if in_w else code
        return render(model, given, {}, labels=labels, ema=ema)

    with torch.no_grad():
        real = images(codes[:, 0]).clamp(-1, 1)
    found: Tensor = encoder(real)
    return ((found - codes[:, 0]) / encoder.deviation).square().mean(), found, real, images


def save_encoder(encoder: Encoder, settings: dict[str, object], path: str | Path) -> None:
    """Writes weights and settings as a .safetensors file."""
    write_found(path, KIND, encoder.state_dict(), settings)


def read_encoder(path: str | Path, model: GAN) -> tuple[Encoder, dict[str, object]]:
    """(encoder on the model's device, settings) of a file from `save_encoder`.

    Raises:
        FileNotFoundError: there is none. ValueError: another file, a damaged one, or the encoder of another model.
    """
    state, settings = read_found(path, KIND, way_out="make one with `lit-gans encode RUN`")
    check_weights(settings["model_weights"], model, path, ema=bool(settings["ema"]))
    encoder = _built(settings, len(state["mean"]), 0)
    encoder.load_state_dict(state)
    return encoder.eval().requires_grad_(False).to(model.device), settings


@torch.no_grad()
def encoded(encoder: Encoder, image: Tensor) -> Tensor:
    """image [C, R, R] in [-1, 1] -> its code as inversion takes it for a start: w [1, 1, W], or z [1, Z]."""
    code: Tensor = encoder(image[None].to(encoder.mean))
    return code[:, None] if encoder.space == "w" else code
