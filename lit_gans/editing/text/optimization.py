"""StyleCLIP's first method: one latent is optimised for one text (Patashnik et al., 2021, Sec. 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import HasLayers, HasStyles, require
from lit_gans.editing.layers import channel_styles, synthesize_shifted
from lit_gans.editing.projector import learning_rate_share
from lit_gans.editing.text.image_text import ImageText
from lit_gans.editing.text.losses import Identity, identity_distance, squared_shift, text_distance
from lit_gans.nn.mode import evaluating

OnStep = Callable[[int, int, float], None]
"""on_step(step from 1, steps, mean loss)."""


class Optimized(NamedTuple):
    """What was found of N latents: ws [N, L, W]; shifts of styles by layer [N, C], {} in "w+"; losses [steps]."""

    ws: Tensor
    shifts: dict[str, Tensor]
    losses: Tensor


def optimize_latents(
    model: GAN,
    ws: Tensor,
    text: str,
    *,
    image_text: ImageText,
    identity: Identity | None = None,
    space: Literal["w+", "s"] = "w+",
    steps: int = 300,
    lr: float = 0.1,
    l2_weight: float = 0.008,
    id_weight: float = 0.0,
    ema: bool = True,
    on_step: OnStep | None = None,
) -> Optimized:
    """ws [N, L, W] moved by Adam until their images fit the text; each row for itself, as if it were alone.

    The loss is the text's distance, l2_weight times the SUM of squared shifts, and id_weight times who is seen (0.005
    where the paper uses it). space "s" moves the styles of all layers but those of colours instead of ws. The learning
    rate rises for 5 % of the steps and falls as a cosine for 25 %. Nothing is drawn.
    ValueError for a model without W (or layers), id_weight without an identity network, and numbers that mean nothing.
    """
    require(model, HasStyles, "editing by text")
    if space not in ("w+", "s"):
        raise ValueError(f"space {space!r} is neither 'w+' nor 's'")
    if steps < 1:
        raise ValueError(f"steps is {steps}: give 1 or more")
    if id_weight and identity is None:
        raise ValueError(f"id_weight is {id_weight} and there is no identity network: give one, or id_weight 0")
    ws = ws.detach().to(model.device)
    with evaluating(model), torch.enable_grad():
        target = image_text.embed_texts([text]).detach()
        start: Tensor | dict[str, Tensor] = ws
        leaves, render = _leaves(model, ws, space=space, ema=ema)
        if space == "s":
            start = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        with torch.no_grad():
            before = render(leaves) if identity is not None and id_weight else None
        optimizer, losses = torch.optim.Adam(leaves.values(), lr=lr), []
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * learning_rate_share(step / steps)
            images = render(leaves)
            fit = text_distance(image_text.embed_images(images), target, logit_scale=image_text.logit_scale)
            loss = fit + l2_weight * squared_shift(leaves["ws"] if space == "w+" else leaves, start)
            if before is not None and identity is not None:
                loss = loss + id_weight * identity_distance(identity, images, before)
            for leaf, gradient in zip(leaves.values(), torch.autograd.grad(loss.sum(), leaves.values()), strict=True):
                leaf.grad = gradient
            optimizer.step()
            losses.append(loss.mean().item())
            if on_step is not None:
                on_step(step + 1, steps, losses[-1])
    found = {name: leaf.detach() for name, leaf in leaves.items()}
    return Optimized(found.pop("ws", ws), found, torch.tensor(losses))


def _leaves(
    model: GAN, ws: Tensor, *, space: str, ema: bool
) -> tuple[dict[str, Tensor], Callable[[Mapping[str, Tensor]], Tensor]]:
    """What is moved, by name, and how images are made of it."""
    if space == "w+":
        return {"ws": ws.clone().requires_grad_(True)}, lambda leaves: model.synthesize(leaves["ws"], ema=ema)
    styles = channel_styles(require(model, HasLayers, "space 's'"), ws, ema=ema)
    moved = without_colours(model, ema=ema)
    leaves = {name: torch.zeros_like(styles[name]).requires_grad_(True) for name in moved}
    return leaves, lambda leaves: synthesize_shifted(model, ws, leaves, ema=ema)


def without_colours(model: HasLayers, *, ema: bool = True) -> tuple[str, ...]:
    """The names of the layers of style space but those of colours, which StyleCLIP leaves alone."""
    return tuple(name for name, layer in model.style_layers(ema=ema).items() if not layer.colours)
