"""Finding directions: factors of the weights, principal components, and planes between attributes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_gans.adversarial.capabilities import FromLatents, HasLayers, HasStyles, StyleLayer, can, class_labels, require
from lit_gans.base.images import to_uint8
from lit_gans.base.random import derive_seed
from lit_gans.editing.directions import Directions, Space, stamp, without
from lit_gans.editing.layers import check_layers
from lit_gans.metrics.attributes import Judge
from lit_gans.metrics.path_length import SEED_STRIDE
from lit_gans.metrics.separability import plane_between

SAMPLES = 10_000
MOST_BYTES = 2**32  # of features that are held at once
TRAINED_ON = 0.7  # share that a plane is fitted to, as in the official code; the others tell how often it is right

OnStep = Callable[[str, int, int], None]
"""on_step(what, done, total), after every batch."""


# ---- SeFa ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sefa(
    model: HasLayers,
    *,
    layers: Sequence[int] | None = None,
    count: int = 10,
    samples: int = SAMPLES,
    seed: int = 0,
    ema: bool = True,
    batch_size: int = 64,
) -> Directions:
    """The directions of W that change the styles of `layers` most: eigenvectors of A^T A (Shen and Zhou, Eq. 3 to 6).

    A has the weights of the style layers that read these rows of ws, one below the other, each of its rows of length 1,
    as in the official code. samples: of latents whose standard deviations along the directions are taken. Scores are
    the eigenvalues' shares. ValueError for layers that there are not.
    """
    gan = require(model, HasLayers, "SeFa", otherwise="use pca or svm, which need latents alone")
    latents = torch.cat([_rows(ws) for ws, _ in _latents(gan, "w", samples, seed, ema, batch_size)])
    affines = [layer.affine for layer in factorised(list(gan.style_layers(ema=ema).values()), layers)]
    weights = torch.cat([matrix_of(affine, latents.shape[1], device=gan.device) for affine in affines])
    weights = weights / weights.norm(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(weights.T @ weights)
    count = min(count, len(values))
    return _made(
        gan, "w", upright(vectors.T.flip(0)[:count]), latents, (values.flip(0) / values.sum())[:count], ema=ema,
        names=[f"sefa{i}" for i in range(count)], layers=layers,
        method="sefa", score="eigenvalue", samples=samples, seed=seed,
    )  # fmt: skip


def factorised(styles: Sequence[StyleLayer], layers: Sequence[int] | None) -> list[StyleLayer]:
    """The style layers whose weights count, as in the official code: of those of colours the last one alone.

    It is the one whose row of ws no other layer reads. layers: rows of ws, None for all.
    """
    read = {layer.row for layer in styles if not layer.colours}
    rows = {layer.row for layer in styles}
    if wrong := [row for row in layers or () if row not in rows]:
        raise ValueError(f"layer {wrong[0]} does not exist: there are the layers 0 to {max(rows)}")
    wanted = rows if layers is None else layers
    return [layer for layer in styles if layer.row in wanted and not (layer.colours and layer.row in read)]


def matrix_of(module: nn.Module, width: int, *, device: torch.device) -> Tensor:
    """float64 [C, W] on the CPU: what an affine map w [N, W] -> [N, C] multiplies by.

    Of a map of second order, how much it changes from 0 to 1 along each axis.
    """
    nothing, axes = torch.zeros(1, width, device=device), torch.eye(width, device=device)
    return (module(axes) - module(nothing)).T.double().cpu()


# ---- principal components --------------------------------------------------------------------------------------------


def pca(
    model: FromLatents,
    *,
    layers: Sequence[int] | None = None,
    count: int = 10,
    samples: int = SAMPLES,
    seed: int = 0,
    ema: bool = True,
    batch_size: int = 64,
) -> Directions:
    """GANSpace in W: the principal components of w (Harkonen et al., 2020, Sec. 2.2). Scores are shares of variance.

    layers: rows of ws that a move changes; where w varies does not depend on them.
    """
    gan = require(model, HasStyles, "principal components of W", otherwise="name features, whose components are taken")
    latents = torch.cat([_rows(ws) for ws, _ in _latents(gan, "w", samples, seed, ema, batch_size)])
    values, vectors = torch.linalg.eigh(latents.T.cov())
    count = min(count, len(values))
    return _made(
        gan, "w", upright(vectors.T.flip(0)[:count]), latents, (values.flip(0) / values.sum())[:count], ema=ema,
        names=[f"pc{i}" for i in range(count)], layers=layers,
        method="pca", score="variance", samples=samples, seed=seed,
    )  # fmt: skip


@torch.no_grad()
def pca_of_features(
    model: FromLatents,
    features: str | None = None,
    *,
    space: Space | None = None,
    layers: Sequence[int] | None = None,
    count: int = 10,
    samples: int = SAMPLES,
    seed: int = 0,
    ema: bool = True,
    batch_size: int = 64,
    on_step: OnStep | None = None,
) -> Directions:
    """GANSpace in a feature map: its principal components, regressed back to latents (Harkonen et al., Sec. 2.2).

    features: name of the module whose output it is, see `feature_modules`, by default the first. The vector of a
    component is the linear regression of the latents on the samples' coordinates along it. Scores are shares of the
    features' variance. ValueError for features that there are not, or that take more than 4 GiB together.
    """
    space, modules = space_of(model, space), feature_modules(model, ema=ema)
    features = next(iter(modules)) if features is None else features
    check_layers([features], modules)
    module, latents, maps = modules[features], list[Tensor](), list[Tensor]()
    hook = module.register_forward_hook(lambda _, inputs, made: maps.append(_first(made).flatten(1).float().cpu()))
    try:
        for drawn, labels in _latents(model, space, samples, seed, ema, batch_size):
            _drawn(model, drawn, labels, ema=ema)
            latents.append(_rows(drawn))
            if (needed := samples * maps[0][0].numel() * 4) > MOST_BYTES:
                raise ValueError(
                    f"features {features!r} of {samples} samples take {needed / 2**30:.0f} GiB: take fewer samples, or "
                    f"a coarser layer"
                )
            _tell(on_step, "samples", sum(map(len, latents)), samples)
    finally:
        hook.remove()
    x, codes = torch.cat(maps), torch.cat(latents)
    x -= x.mean(0)
    count = min(count, *x.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("components", seed))
        left, sizes, _ = torch.svd_lowrank(x, q=min(count + 10, *x.shape), niter=4)
    vectors = left[:, :count].double().T @ (codes - codes.mean(0))  # least squares: coordinates are uncorrelated
    return _made(
        model, space, upright(vectors), codes, (sizes[:count].square() / x.square().sum()), ema=ema,
        names=[f"pc{i}" for i in range(count)], layers=layers,
        method="pca", score="variance of features", features=features, samples=samples, seed=seed,
    )  # fmt: skip


# ---- planes ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def planes(
    model: FromLatents,
    judge: Judge,
    attributes: Sequence[str],
    *,
    keep: Sequence[str] = (),
    space: Space | None = None,
    layers: Sequence[int] | None = None,
    samples: int = SAMPLES,
    share: float = 0.1,
    seed: int = 0,
    ema: bool = True,
    batch_size: int = 64,
    on_step: OnStep | None = None,
) -> Directions:
    """The normals of planes between samples with an attribute and those without, as InterFaceGAN's.

    attributes: names of the judge's columns. Of each, the `share` of the samples with the largest logits and that with
    the smallest are told apart by a linear support vector machine, which is fitted to 70 % of them; scores are how
    often it is right of the others. The published share is 0.02, of 500,000 samples. keep: attributes that the others
    are not to change, whose normals are taken out of theirs, see `without`; they have no direction themselves.
    ValueError for attributes that there are not, and for fewer than 10 samples on a side.
    """
    if unknown := [name for name in keep if name not in attributes]:
        raise ValueError(f"keep names {unknown[0]!r}, and the attributes are {', '.join(attributes)}")
    side = int(samples * share)
    if not 10 <= side <= samples / 2:
        raise ValueError(f"share {share} of {samples} samples is {side} on a side: give 10 or more, and at most half")
    space = space_of(model, space)
    latents, logits = [], []
    for drawn, labels in _latents(model, space, samples, seed, ema, batch_size):
        latents.append(_rows(drawn))
        logits.append(judge(_drawn(model, drawn, labels, ema=ema)).double().cpu())
        _tell(on_step, "samples", sum(map(len, latents)), samples)
    codes, columns = torch.cat(latents), torch.cat(logits).T
    found = {name: _plane(codes, column, side, name, seed) for name, column in zip(attributes, columns, strict=True)}
    kept = torch.stack([found[name][0] for name in keep]) if keep else codes.new_zeros(0, codes.shape[1])
    asked = [name for name in attributes if name not in keep]
    behind = f" | {', '.join(keep)}" if keep else ""
    return _made(
        model, space, torch.stack([without(found[name][0], kept) for name in asked]), codes,
        torch.tensor([found[name][1] for name in asked]), ema=ema,
        names=[f"{name}{behind}" for name in asked], layers=layers,
        method="svm", score="accuracy", share=share, keep=list(keep), samples=samples, seed=seed,
    )  # fmt: skip


def _plane(codes: Tensor, logits: Tensor, side: int, name: str, seed: int) -> tuple[Tensor, float]:
    """(normal [D] towards the attribute, how often the plane is right of samples that it was not fitted to)."""
    order = logits.argsort(stable=True)
    if logits.max() <= 0 or logits.min() > 0:
        which = "none" if logits.max() <= 0 else "every one"
        warnings.warn(f"{which} of the samples has {name} by the classifier: its direction is a guess", stacklevel=3)
    mixed = torch.randperm(side, generator=torch.Generator().manual_seed(derive_seed("plane", name, seed)))
    fitted, others = mixed[: int(TRAINED_ON * side)], mixed[int(TRAINED_ON * side) :]
    without_it, with_it = codes[order[:side]], codes[order[-side:]]
    labels = torch.arange(2 * len(fitted)) >= len(fitted)
    normal, offset = plane_between(torch.cat([without_it[fitted], with_it[fitted]]), labels)
    right = torch.cat([without_it[others] @ normal + offset <= 0, with_it[others] @ normal + offset > 0])
    return normal, right.double().mean().item()


# ---- latents and features --------------------------------------------------------------------------------------------


def space_of(model: FromLatents, space: Space | None) -> Space:
    """`space`; by default "w" of a model that has styles. ValueError for "w" of one that has none."""
    if space == "w":
        require(model, HasStyles, "space 'w'", otherwise="use space z")
    return space or ("w" if can(model, HasStyles) else "z")


@torch.no_grad()
def _latents(
    model: FromLatents, space: Space, samples: int, seed: int, ema: bool, batch_size: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Latents, ws [n, L, W] or z [n, Z], and the classes of their samples, which are drawn in turn."""
    for index in torch.arange(samples).split(batch_size):
        z, labels = model.seeded_latents(seed * SEED_STRIDE + index), class_labels(model, index)
        yield (z if space == "z" else model.styles(z, labels=labels, ema=ema)), labels


def _rows(latents: Tensor) -> Tensor:
    """ws [N, L, W] or z [N, Z] -> float64 [N, D] on the CPU: of styles the last layer's, as of separability."""
    return (latents[:, -1] if latents.ndim == 3 else latents).double().cpu()


def _drawn(model: FromLatents, latents: Tensor, labels: Tensor | None, *, ema: bool) -> Tensor:
    """uint8 images of ws [N, L, W] or z [N, Z]."""
    if latents.ndim == 3:
        return to_uint8(model.synthesize(latents, ema=ema))
    return to_uint8(model.generate(latents, labels=labels, ema=ema))


def _made(
    model: FromLatents,
    space: Space,
    vectors: Tensor,
    latents: Tensor,
    scores: Tensor,
    *,
    ema: bool,
    names: Sequence[str],
    layers: Sequence[int] | None,
    **settings: Any,
) -> Directions:
    """The directions of float64 vectors [K, D], with what the latents [N, D] are like along them."""
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    variances = (latents @ vectors.T).var(0)
    return Directions(
        space, tuple(names), vectors.float(), variances.sqrt().float(), (variances / latents.var(0).sum()).float(),
        scores.float(), None if layers is None else tuple(layers), {**settings, **stamp(model, ema=ema)},
    )  # fmt: skip


def upright(vectors: Tensor) -> Tensor:
    """Eigenvectors [K, W], whose sign is anything, with the component of largest magnitude positive."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign()


@torch.no_grad()
def feature_modules(model: FromLatents, *, ema: bool = True) -> dict[str, nn.Module]:
    """Modules by name whose output is a feature map, in the order in which they make it: the coarse ones first.

    Of a model that shows its layers those; of any other all that make one map of more than one pixel while it draws.
    """
    if can(model, HasLayers):
        return model.feature_layers(ema=ema)
    modules, made = dict(cast(nn.Module, model).named_modules()), dict[str, list[int]]()

    def keeping(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(found := _first(output), Tensor) and found.ndim == 4:
                made.setdefault(name, []).append(found.shape[2] * found.shape[3])

        return keep

    hooks = [module.register_forward_hook(keeping(name)) for name, module in modules.items()]
    try:
        _drawn(model, *next(_latents(model, "z", 1, 0, ema, 1)), ema=ema)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: modules[name] for name, pixels in made.items() if len(pixels) == 1 and pixels[0] > 1}


def _first(made: Any) -> Tensor:
    """A module's output, or the first of several."""
    return made[0] if isinstance(made, tuple | list) else made


def _tell(on_step: OnStep | None, what: str, done: int, total: int) -> None:
    if on_step is not None:
        on_step(what, done, total)
