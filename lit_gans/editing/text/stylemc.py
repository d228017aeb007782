"""StyleMC (Kocasari et al., 2022), https://arxiv.org/abs/2112.08493: one direction in style space for one text.

As the code of StyleGAN-XL has it, with its numbers; for XL, and for any other styled generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import HasLayers, require
from lit_gans.editing.layers import channel_styles, synthesize_shifted
from lit_gans.editing.state import weights_digest
from lit_gans.editing.text.channels import seeded_styles
from lit_gans.editing.text.image_text import ImageText
from lit_gans.editing.text.losses import spherical_distance
from lit_gans.editing.text.optimization import without_colours
from lit_gans.editing.text.shifts import StyleShift
from lit_gans.nn.mode import evaluating

Distance = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
"""distance(numbers of samples int64 [n], direction by layer [C]) -> [n], differentiable."""


class Search(NamedTuple):
    """direction [C] by layer; `raw`, before channels were thrown out; how often gradients turned; losses [samples]."""

    direction: dict[str, Tensor]
    raw: dict[str, Tensor]
    turns: dict[str, Tensor]
    losses: Tensor


def search_direction(
    distance: Distance,
    sizes: Mapping[str, int],
    *,
    num_samples: int,
    batch_size: int = 8,
    lr: float = 0.05,
    weight_decay: float = 0.25,
    device: torch.device | str = "cpu",
    on_step: Callable[[int, int, float], None] | None = None,
) -> Search:
    """A direction of `sizes` channels by layer, from 0 on by AdamW over the samples, each seen once.

    A step is taken after sample 0 alone, and then after each `batch_size` samples, as in the code; those that are left
    at the end only count as losses. Channels whose gradient turned in more than a quarter as many steps as there are
    samples are thrown out; with the code's batches of 8 that cannot happen. Turns count from sample 4 on.
    """
    direction = {name: torch.zeros(size, device=device, requires_grad=True) for name, size in sizes.items()}
    turns = {name: torch.zeros_like(one, requires_grad=False) for name, one in direction.items()}
    optimizer = torch.optim.AdamW(direction.values(), lr=lr, betas=(0.0, 0.999), weight_decay=weight_decay)
    losses, before = [], None
    for last in [*range(0, num_samples, batch_size), None]:
        first = 0 if not losses else sum(map(len, losses))
        numbers = torch.arange(first, num_samples if last is None else last + 1)
        if not len(numbers):
            continue
        loss = distance(numbers, direction)
        losses.append(loss.detach())
        if last is None:
            continue
        gradients = torch.autograd.grad(loss.sum(), direction.values())
        for one, gradient in zip(direction.values(), gradients, strict=True):
            one.grad = gradient
        optimizer.step()
        if last > 3 and before is not None:
            for count, old, new in zip(turns.values(), before, gradients, strict=True):
                count += old * new < 0
        before = gradients
        if on_step is not None:
            on_step(last + 1, num_samples, loss.mean().item())
    raw = {name: one.detach() for name, one in direction.items()}
    kept = {name: torch.where(turns[name] > num_samples / 4, torch.zeros_like(one), one) for name, one in raw.items()}
    return Search(kept, raw, turns, torch.cat(losses))


def find_direction(
    model: GAN,
    texts: str | Sequence[str],
    *,
    image_text: ImageText,
    layers: Sequence[str] | None = None,
    num_samples: int = 128,
    batch_size: int = 8,
    lr: float = 0.05,
    weight_decay: float = 0.25,
    psi: float = 1.0,
    label: int | None = None,
    seed: int = 0,
    ema: bool = True,
    on_step: Callable[[int, int, float], None] | None = None,
) -> StyleShift:
    """The direction in which images come to fit all `texts`; `synthesize_shifted` adds it, times a strength.

    layers: that move; None takes all but those of colours (XL's code advises against the last three as well).
    ValueError for a model without layers, for layers that it has not, no text, or samples and batches below 1.
    """
    require(model, HasLayers, "StyleMC")
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts or num_samples < 1 or batch_size < 1:
        raise ValueError(f"{len(texts)} texts, {num_samples} samples, batch_size {batch_size}: give 1 or more of each")
    rows = torch.arange(num_samples)
    ws = seeded_styles(model, rows, purpose="StyleMC", psi=psi, label=label, seed=seed, ema=ema)
    sizes = {name: one.shape[1] for name, one in channel_styles(model, ws[:1], ema=ema).items()}
    moved = without_colours(model, ema=ema) if layers is None else tuple(layers)
    if wrong := [name for name in moved if name not in sizes]:
        raise ValueError(f"{type(model).__name__} has no layer {wrong[0]!r}; it has {', '.join(sizes)}")
    targets = image_text.embed_texts(texts).detach()

    def distance(numbers: Tensor, direction: Mapping[str, Tensor]) -> Tensor:
        images = synthesize_shifted(model, ws[numbers.to(ws.device)], direction, ema=ema).clamp(-1, 1)
        return spherical_distance(image_text.embed_images(images), targets)

    with evaluating(model), torch.enable_grad():
        how = {"num_samples": num_samples, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
        sizes = {name: sizes[name] for name in moved}
        found = search_direction(distance, sizes, **how, device=model.device, on_step=on_step)
    settings = {
        "method": "StyleMC", "texts": texts, "image_text": image_text.name, "psi": psi, "label": label, "seed": seed,
        "image_text_fingerprint": image_text.fingerprint, "generator": weights_digest(model, ema=ema), "ema": ema,
    }  # fmt: skip
    return StyleShift(found.direction, settings | how)
