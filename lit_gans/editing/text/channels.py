"""StyleCLIP's third method: global directions in style space (Patashnik et al., 2021, Sec. 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import HasLayers, class_labels, require
from lit_gans.base.random import derive_seed
from lit_gans.editing.found import read_found, write_found
from lit_gans.editing.layers import channel_styles, synthesize_shifted
from lit_gans.editing.state import weights_digest
from lit_gans.editing.text.image_text import ImageText
from lit_gans.editing.text.optimization import without_colours
from lit_gans.editing.text.shifts import StyleShift
from lit_gans.nn.mode import evaluating

KIND = "effects of channels"

# ---- the method, on numbers ------------------------------------------------------------------------------------------


def channel_effects(embeddings: Tensor) -> Tensor:
    """[C, I, 2, D] -> [C, D] of length 1: where each channel takes the embeddings of I images (Sec. 6.2).

    Of each image, with the channel low (first) and high; lengths do not count, of embeddings or of differences.
    """
    low, high = F.normalize(embeddings, dim=-1).unbind(2)
    return F.normalize(F.normalize(high - low, dim=-1).mean(1), dim=-1)


def relevance(effects: Tensor, text: Tensor, *, threshold: float) -> tuple[Tensor, int]:
    """effects [C, D], text direction [D] -> (how much each channel is to move [C], how many do) (Sec. 6.2).

    Relevances below `threshold`, beta, are 0; the largest of the rest is made 1 or -1.
    ValueError where none is left.
    """
    found = effects @ F.normalize(text, dim=0)
    kept = found.abs() >= threshold
    if not kept.any():
        raise ValueError(
            f"threshold {threshold} leaves no channel: the largest relevance is {found.abs().max().item():.4f}; give "
            f"less"
        )
    found = torch.where(kept, found, torch.zeros_like(found))
    return found / found.abs().max(), int(kept.sum())


def boundary(share: Tensor, std: Mapping[str, Tensor], moved: Sequence[str]) -> dict[str, Tensor]:
    """share [C of all moved layers], std [C] of all layers -> by layer [C], share times std; 0 where nothing moves."""
    parts = dict(zip(moved, share.split([len(std[name]) for name in moved]), strict=True))
    return {name: parts[name] * one if name in parts else torch.zeros_like(one) for name, one in std.items()}


def moved_styles(styles: Mapping[str, Tensor], direction: Mapping[str, Tensor], strength: Tensor) -> dict[str, Tensor]:
    """styles [N, C] by layer, a direction [C], alpha [A] -> styles [N, A, C]."""
    return {name: one[:, None] + strength[:, None] * direction[name] for name, one in styles.items()}


def text_direction(image_text: ImageText, target: str, neutral: str, templates: Sequence[str] | None = None) -> Tensor:
    """[D] of length 1: from one thing to another, each the mean of the embeddings of all templates (Sec. 6.1).

    templates: sentences with a {}; None: those of the model. ValueError where the two are the same to it.
    """
    templates = image_text.templates if templates is None else tuple(templates)
    if not templates or any("{}" not in template for template in templates):
        raise ValueError(f"templates {list(templates)[:3]}: give one or more sentences with a {{}} for the thing")
    means = [
        F.normalize(image_text.embed_texts([t.replace("{}", thing) for t in templates]).mean(0), dim=0)
        for thing in (target, neutral)
    ]
    away = means[0] - means[1]
    if away.norm() < 1e-6:
        raise ValueError(f"{target!r} and {neutral!r} are the same to {image_text.name}: use words that it knows")
    return F.normalize(away, dim=0)


# ---- on a generator --------------------------------------------------------------------------------------------------


class ChannelEffects(NamedTuple):
    """What each channel of a generator does to an image-text model's embeddings.

    effects [C, D] of all channels of the layers `moved`; std [C] of the styles of all layers, by name; settings: plain
    values that say how they were found.
    """

    effects: Tensor
    std: dict[str, Tensor]
    moved: tuple[str, ...]
    settings: dict[str, Any]

    def shift(
        self,
        target: str,
        neutral: str,
        *,
        image_text: ImageText,
        threshold: float,
        templates: Sequence[str] | None = None,
    ) -> StyleShift:
        """From `neutral` ("a face") to `target` ("a smiling face"); times alpha it is added to channel styles.

        threshold: beta, of relevances from 0 to 1: the larger, the fewer channels move. The paper tries 0.08 to 0.3
        with CLIP. `settings["channels"]` tells how many move. ValueError where none does, and for another model than
        the effects are of.
        """
        if image_text.fingerprint != self.settings["image_text_fingerprint"]:
            raise ValueError(
                f"these effects are of {self.settings['image_text']} ({self.settings['image_text_fingerprint']}), and "
                f"{image_text.name} ({image_text.fingerprint}) was given: find its own"
            )
        away = text_direction(image_text, target, neutral, templates)
        share, count = relevance(self.effects, away.to(self.effects), threshold=threshold)
        found = {"target": target, "neutral": neutral, "threshold": threshold, "channels": count}
        return StyleShift(boundary(share, self.std, self.moved), self.settings | found | {"method": "StyleCLIP global"})

    def save(self, path: str | Path) -> None:
        """Writes a .safetensors file, which `read_effects` reads."""
        std = {f"std.{name}": one for name, one in self.std.items()}
        layers = {"layers": list(self.std), "moved": self.moved}
        write_found(path, KIND, {"effects": self.effects, **std}, self.settings | layers)


def read_effects(path: str | Path) -> ChannelEffects:
    """What `ChannelEffects.save` wrote. FileNotFoundError; ValueError for another file, or a damaged one."""
    tensors, said = read_found(path, KIND, way_out="find them with find_channel_effects")
    std = {name: tensors[f"std.{name}"] for name in said.pop("layers")}
    return ChannelEffects(tensors["effects"], std, tuple(said.pop("moved")), said)


@torch.no_grad()
def style_statistics(
    model: GAN,
    *,
    num_samples: int = 100_000,
    psi: float = 0.7,
    label: int | None = None,
    seed: int = 0,
    ema: bool = True,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(mean [C], standard deviation [C]) of the styles of each layer."""
    sums: dict[str, list[Tensor]] = {}
    for rows in torch.arange(num_samples).split(1000):
        ws = seeded_styles(model, rows, purpose="statistics", psi=psi, label=label, seed=seed, ema=ema)
        for name, one in channel_styles(model, ws, ema=ema).items():
            found = torch.stack([one.double().sum(0), one.double().square().sum(0)])
            sums[name] = [a + b for a, b in zip(sums[name], found, strict=True)] if name in sums else list(found)
    mean = {name: total / num_samples for name, (total, _) in sums.items()}
    std = {name: (square / num_samples - mean[name].square()).clamp(min=0).sqrt() for name, (_, square) in sums.items()}
    return {name: one.float() for name, one in mean.items()}, {name: one.float() for name, one in std.items()}


@torch.no_grad()
def find_channel_effects(
    model: GAN,
    *,
    image_text: ImageText,
    layers: Sequence[str] | None = None,
    num_images: int = 100,
    num_samples: int = 100_000,
    reach: float = 5.0,
    psi: float = 0.7,
    label: int | None = None,
    seed: int = 0,
    ema: bool = True,
    batch_size: int = 64,
    on_step: Callable[[int, int], None] | None = None,
) -> ChannelEffects:
    """The effect of every channel, each set to its mean less and plus `reach` deviations in `num_images` images.

    It is found once for a generator and an image-text model, and serves any text: 2 * num_images pictures for each
    channel. layers: of which; None takes all but those of colours (the code leaves out those above 128 px, too).
    ValueError for a model without layers, and layers that it has not. on_step(channels done, channels).
    """
    require(model, HasLayers, "global directions")
    if num_images < 1 or num_samples < 2:
        raise ValueError(f"num_images {num_images} and num_samples {num_samples}: give 1 and 2 or more")
    how = {"psi": psi, "label": label, "seed": seed, "ema": ema}
    mean, std = style_statistics(model, num_samples=num_samples, **how)
    moved = without_colours(model, ema=ema) if layers is None else tuple(layers)
    if wrong := [name for name in moved if name not in mean]:
        raise ValueError(f"{type(model).__name__} has no layer {wrong[0]!r}; it has {', '.join(mean)}")
    ws = seeded_styles(model, torch.arange(num_images), purpose="effects", **how)
    effects, done, total = [], 0, sum(len(mean[name]) for name in moved)
    with evaluating(model):
        own = channel_styles(model, ws, ema=ema)
        for name in moved:
            for channels in torch.arange(len(mean[name])).split(max(1, batch_size // (2 * num_images))):
                effects.append(channel_effects(_swung(
                    model, image_text, ws, own[name], name, channels, mean=mean[name], by=reach * std[name], ema=ema,
                    batch_size=batch_size,
                )))  # fmt: skip
                done += len(channels)
                if on_step is not None:
                    on_step(done, total)
    settings = {
        "image_text": image_text.name, "image_text_fingerprint": image_text.fingerprint, "num_images": num_images,
        "num_samples": num_samples, "reach": reach, "generator": weights_digest(model, ema=ema), **how,
    }  # fmt: skip
    return ChannelEffects(torch.cat(effects), std, moved, settings)


def _swung(
    model: GAN,
    image_text: ImageText,
    ws: Tensor,
    own: Tensor,
    name: str,
    channels: Tensor,
    *,
    mean: Tensor,
    by: Tensor,
    ema: bool,
    batch_size: int,
) -> Tensor:
    """[channels, I, 2, D]: embeddings with each channel at its mean less and plus `by`."""
    count, images = len(channels), len(ws)
    swing = torch.stack([-by, by], 1)[channels]  # [c, 2]
    value = (mean[channels, None] + swing)[:, None] - own.T[channels][:, :, None]  # [c, I, 2]
    shift = own.new_zeros(count, images, 2, own.shape[1])
    shift.scatter_(3, channels.to(own.device)[:, None, None, None].expand(-1, images, 2, 1), value[..., None])
    shift, each = shift.flatten(0, 2), ws[None, :, None].expand(count, -1, 2, -1, -1).flatten(0, 2)
    made = [
        image_text.embed_images(synthesize_shifted(model, each[rows], {name: shift[rows]}, ema=ema).clamp(-1, 1))
        for rows in _slices(len(each), batch_size)
    ]
    return torch.cat(made).unflatten(0, (count, images, 2))


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, start + size)


@torch.no_grad()
def seeded_styles(
    model: GAN, rows: Tensor, *, purpose: str, psi: float, label: int | None, seed: int, ema: bool
) -> Tensor:
    """ws [N, L, W] of numbered samples of a purpose; label: the class of all, by default all by turns."""
    seeds = [derive_seed(purpose, seed, row) for row in rows.tolist()]
    labels = class_labels(model, rows, None if label is None else torch.full((len(rows),), label))
    return model.styles(model.seeded_latents(seeds), labels=labels, psi=psi, ema=ema)
