"""The layers of a styled generator looked at and changed: style space S (Wu et al., 2021) and feature maps.

https://arxiv.org/abs/2011.12799. Whatever a paper's forward pass does, it goes through hooks at the layers that
`HasLayers` names. And a model drawn from with other tensors than its own. All functions are differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import HasLayers, require

Hook = Callable[[nn.Module, Any, Any], Any]


def channel_styles(model: HasLayers, ws: Tensor, *, ema: bool = True) -> dict[str, Tensor]:
    """ws [N, L, W] -> the channel styles [N, C] of each layer by its name, in the order of synthesis."""
    layers = require(model, HasLayers, "style space").style_layers(ema=ema)
    return {name: layer.affine(ws[:, layer.row]) for name, layer in layers.items()}


def synthesize_shifted(
    model: HasLayers, ws: Tensor, shifts: Mapping[str, Tensor], *, ema: bool = True
) -> Tensor:
    """ws [N, L, W] -> images [N, C, R, R], not clamped, with the channel styles of the named layers moved.

    shifts: by a layer's name what is added to its channel styles, [C] or [N, C]. ValueError for a layer or a width that
    the model has not.
    """
    layers = require(model, HasLayers, "style space").style_layers(ema=ema)
    check_layers(shifts, layers)
    with ExitStack() as hooks:
        for name, shift in shifts.items():
            hooks.enter_context(_hooked(layers[name].affine, _adding(name, shift)))
        return model.synthesize(ws, ema=ema)


def synthesize_features(
    model: HasLayers,
    ws: Tensor,
    names: Sequence[str],
    *,
    ema: bool = True,
    draw: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """ws [N, L, W] -> (images [N, C, R, R], not clamped, the feature maps [N, C', H, W] of the named layers).

    draw: how the model makes images of ws, where it is not by its own weights and noise maps alone.
    """
    layers = require(model, HasLayers, "feature maps").feature_layers(ema=ema)
    check_layers(names, layers)
    found = dict[str, Tensor]()
    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(_hooked(layers[name], _keeping(found, name)))
        images = model.synthesize(ws, ema=ema) if draw is None else draw(ws)
    return images, {name: found[name] for name in names}


def drawn_with(model: GAN, changed: Mapping[str, Tensor], draw: Callable[[GAN], Tensor]) -> Tensor:
    """What `draw` makes of the model with tensors in place of its own; the model is not changed.

    changed: parameters and buffers, such as noise maps, by their names in the model. ValueError for a name or a shape
    that it has not.
    """
    own = dict(model.named_buffers(remove_duplicate=False)) | dict(model.named_parameters(remove_duplicate=False))
    for name, one in changed.items():
        if name not in own or own[name].shape != one.shape:
            has = f"{list(own[name].shape)}" if name in own else "none"
            raise ValueError(
                f"{name} is given as {list(one.shape)}, and this {type(model).__name__} has {has}: it belongs to "
                "another model"
            )
    maps = {f"model.{name}": one.to(own[name]) for name, one in changed.items()}
    return functional_call(_Drawing(model, draw), maps, ())


class _Drawing(nn.Module):
    """A model's drawing as a forward pass, which is what parameters and buffers can be exchanged for."""

    def __init__(self, model: GAN, draw: Callable[[GAN], Tensor]) -> None:
        super().__init__()
        self.model, self.draw = model, draw

    def forward(self) -> Tensor:
        return self.draw(self.model)


def check_layers(names: Mapping[str, Any] | Sequence[str], layers: Mapping[str, object]) -> None:
    """ValueError for a name that is not among the layers."""
    wrong = [name for name in names if name not in layers]
    if wrong:
        raise ValueError(f"layer {wrong[0]!r} does not exist: this model has {', '.join(layers)}")


@contextmanager
def _hooked(module: nn.Module, hook: Hook) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _adding(name: str, shift: Tensor) -> Hook:
    def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        count, width = output.shape
        if shift.shape not in ((width,), (1, width), (count, width)):
            raise ValueError(f"shift of layer {name} has shape {list(shift.shape)}: it has {width} channels")
        return output + shift.to(output)

    return add


def _keeping(found: dict[str, Tensor], name: str) -> Hook:
    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found[name] = output[0] if isinstance(output, tuple) else output

    return keep
