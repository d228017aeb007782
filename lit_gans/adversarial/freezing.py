"""Freeze-D: a discriminator's layers nearest to the image stay as they are (Mo et al., 2020), for fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class FromImageOn(Protocol):
    """A discriminator whose parts are not defined in the order in which an image passes them."""

    def from_image_on(self) -> Iterable[nn.Module]:
        """Its parts in that order; of those side by side, the one that sees the image first."""


def layers_from_image(discriminator: nn.Module) -> list[nn.Module]:
    """Its layers with weights, the nearest to the image first: convolutions, linear layers, norms, one by one.

    Of StyleGAN2's they are counted as ADA's `freezed` does: from_rgb, conv0, conv1 and skip of each block.
    """
    parts = discriminator.from_image_on() if isinstance(discriminator, FromImageOn) else [discriminator]
    layers = (layer for part in parts for layer in part.modules())
    return [layer for layer in layers if any(True for _ in layer.parameters(recurse=False))]


def freeze(discriminators: Sequence[nn.Module], layers: int) -> None:
    """The first `layers` of each take no gradients from now on, of a shallower one all but its last.

    Statistics of norms are kept as ever.

    Raises:
        ValueError: there are no discriminators, or none has more layers.
    """
    if not discriminators:
        raise ValueError(f"freeze_discriminator_layers is {layers}, and there is no discriminator: set it to 0")
    found = [layers_from_image(discriminator) for discriminator in discriminators]
    if layers >= (most := max(map(len, found))):
        raise ValueError(
            f"freeze_discriminator_layers is {layers}, and a discriminator has {most} layers, of which the last must "
            f"learn: give less than {most}"
        )
    for each in found:
        for layer in each[: min(layers, len(each) - 1)]:
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(False)
