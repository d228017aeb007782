"""Pictures that show what a latent space is like: truncation sweeps and tables of mixed styles.

StyleGAN (Karras et al., 2019), https://arxiv.org/abs/1812.04948, Figures 3 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from lit_gans.adversarial.capabilities import class_labels, require
from lit_gans.adversarial.preview import draw
from lit_gans.base.grids import joined
from lit_gans.base.images import to_uint8
from lit_gans.base.interpolation import arc, lerp
from lit_gans.base.numbers import numbers_of
from lit_gans.base.random import Draws, derive_seed, drawing
from lit_gans.editing.projector import noise_maps
from lit_gans.metrics.sources import FromLatents, HasStyles, Samples, Transforms

# Two layers at each size (Karras et al., 2019, Sec. 3.1): pose and shape; hair, eyes; colours. No model has over 32.
GROUPS = {"coarse": range(4), "middle": range(4, 8), "fine": range(8, 32)}


def styles_of(
    gan: HasStyles, seeds: Sequence[int], *, label: int | None = None, psi: float = 1.0, ema: bool = True
) -> Tensor:
    """ws [N, L, W] of seeds; label: of all, by default each seed's class is its remainder."""
    with torch.no_grad():
        return gan.styles(gan.seeded_latents(seeds), labels=_labels(gan, seeds, label), psi=psi, ema=ema)


def truncation_sweep(
    model: Samples,
    seeds: Sequence[int],
    *,
    psi: Sequence[float],
    label: int | Sequence[int] | None = None,
    ema: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """uint8 [psis, seeds, C, H, W]: the same seeds for each psi (Fig. 8); label as for `styles_of`.

    Of several labels [labels, psis * seeds, C, H, W]: a row for each, in it the seeds of one psi after the other's.
    Any model that takes a psi has such a sweep: where there is no W, psi scales z.
    """
    if isinstance(label, Sequence):
        look = {"psi": psi, "ema": ema, "batch_size": batch_size}
        return torch.stack([truncation_sweep(model, seeds, label=one, **look).flatten(0, 1) for one in label])
    seeds, labels = torch.as_tensor(seeds), _labels(model, seeds, label)
    rows = [draw(model, seeds, labels=labels, psi=one, ema=ema, batch_size=batch_size) for one in psi]
    return torch.stack(rows)


def style_mixing(
    gan: HasStyles,
    rows: Sequence[int],
    columns: Sequence[int],
    *,
    layers: Sequence[int] | str,
    label: int | None = None,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """uint8 [1 + rows, 1 + columns, C, H, W] of two lists of seeds (Fig. 3); label as for `styles_of`.

    The first row and the first column show the seeds' own images, the corner is black. Inside, the styles of `layers`
    are the column's, all others the row's; "coarse", "middle" and "fine" are those at 4 and 8, at 16 and 32, and from
    64 pixels on. ValueError for a model without W, and for layers that it has not.
    """
    require(gan, HasStyles, "style mixing")
    a, b = (styles_of(gan, seeds, label=label, psi=psi, ema=ema) for seeds in (rows, columns))
    chosen = chosen_layers(layers, a.shape[1])
    mixed = a[:, None].repeat(1, len(b), 1, 1)
    mixed[:, :, chosen] = b[:, chosen]
    images = draw_styles(gan, torch.cat([a, b, mixed.flatten(0, 1)]), ema=ema, batch_size=batch_size)
    table = images.new_zeros(1 + len(a), 1 + len(b), *images.shape[1:])
    table[1:, 0], table[0, 1:] = images[: len(a)], images[len(a) : len(a) + len(b)]
    table[1:, 1:] = images[len(a) + len(b) :].unflatten(0, (len(a), len(b)))
    return table


def chosen_layers(layers: Sequence[int] | str, count: int) -> list[int]:
    """Those of a list or a text such as "0-3,7", or of a group; ValueError for one that is not among `count`."""
    if isinstance(layers, str) and layers in GROUPS:
        chosen = [layer for layer in GROUPS[layers] if layer < count] or list(GROUPS[layers])
    else:
        chosen = numbers_of(layers, "layers")
    wrong = [layer for layer in chosen if not 0 <= layer < count]
    if wrong:
        raise ValueError(f"layer {wrong[0]} does not exist: this model has the layers 0 to {count - 1}")
    return chosen


NOISES = ("none", "const", "random")


def noise_table(
    gan: HasStyles,
    seeds: Sequence[int],
    *,
    label: int | None = None,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """uint8 [3, seeds, C, H, W]: the same seeds without noise, with the constant maps, and with noise drawn anew.

    What differs between the rows is what the noise decides (Fig. 4 and 5); label as for `styles_of`. ValueError for a
    model without W, or without noise.
    """
    require(gan, HasStyles, "a table of noise")
    if not noise_maps(gan):
        raise ValueError(f"a table of noise needs layers with noise, and a {type(gan).__name__} has none")
    ws = styles_of(gan, seeds, label=label, psi=psi, ema=ema)
    rows = []
    for noise in NOISES:
        with drawing(Draws(0, "noise table", device=ws.device)):
            render = partial(gan.synthesize, ema=ema, noise=noise)
            rows.append(_in_parts(lambda part, render=render: render(ws[part]), len(ws), batch_size))
    return torch.stack(rows)


def draw_latents(
    gan: FromLatents,
    z: Tensor,
    *,
    labels: Tensor | None = None,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """z [N, Z] (and labels [N]) -> uint8 [N, C, H, W] on the CPU, `batch_size` at a time."""
    labels = None if labels is None else labels.to(z.device)

    def render(part: slice) -> Tensor:
        return gan.generate(z[part], labels=None if labels is None else labels[part], psi=psi, ema=ema)

    return _in_parts(render, len(z), batch_size)


def draw_styles(
    gan: HasStyles, ws: Tensor, *, transform: Tensor | None = None, ema: bool = True, batch_size: int = 64
) -> Tensor:
    """ws [N, L, W] -> uint8 [N, C, H, W] on the CPU, `batch_size` at a time; transform [3, 3] as for `Transforms`."""
    if transform is None:
        render = partial(gan.synthesize, ema=ema)
    else:
        moves = require(gan, Transforms, "a transform")
        render = partial(moves.synthesize_transformed, transform=transform, ema=ema)
    return _in_parts(lambda part: render(ws[part]), len(ws), batch_size)


def sticking_sheet(
    gan: FromLatents,
    seeds: Sequence[int],
    *,
    label: int | None = None,
    steps: int = 60,
    neighbours: int = 64,
    reach: float = 0.2,
    psi: float = 1.0,
    ema: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """Texture that sticks to the pixels (Karras et al., 2021, Fig. 1): one uint8 image [C, H', W'], a row per seed.

    The seed's image; the mean of `neighbours` images whose latents lie `reach` of the way to others, where what moves
    with the image is blurred and what sticks stays sharp; and the middle columns [C, H, steps] of the images on a way
    to another latent, beside each other, where what sticks makes streaks. label as for `styles_of`.
    """
    require(gan, FromLatents, "a sheet of texture sticking")
    blend = arc if gan.prior.spherical else lerp
    rows = []
    for seed in seeds:
        own = gan.seeded_latents([seed])
        end, *_ = others = gan.seeded_latents([derive_seed("sticking", seed, i) for i in range(1 + neighbours)])
        t = torch.linspace(0, 1, steps, device=own.device, dtype=own.dtype)[:, None]
        walk = blend(own.expand(steps, -1), end.expand(steps, -1), t)
        near = blend(own.expand(neighbours, -1), others[1:], torch.full_like(others[1:, :1], reach))
        labels = _labels(gan, [seed], label)
        labels = None if labels is None else labels.expand(steps + neighbours)
        images = draw_latents(gan, torch.cat([walk, near]), labels=labels, psi=psi, ema=ema, batch_size=batch_size)
        columns = images[:steps, :, :, images.shape[-1] // 2].permute(1, 2, 0)
        rows.append([images[0], images[steps:].double().mean(0).round().to(torch.uint8), columns])
    return joined(rows)


def _in_parts(render: Callable[[slice], Tensor], count: int, batch_size: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([to_uint8(render(slice(i, i + batch_size))).cpu() for i in range(0, count, batch_size)])


def _labels(gan: Samples | FromLatents, seeds: Sequence[int], label: int | None) -> Tensor | None:
    return class_labels(gan, seeds, None if label is None else torch.full((len(seeds),), label))
