"""What can be measured: models as metrics ask for them, by what they do and not by what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lit_gans.base.random import Draws


@runtime_checkable
class Samples(Protocol):
    """Draws images from seeds, and classes where it has some: a GAN, an autoencoder, a diffusion model."""

    resolution: int
    channels: int
    num_classes: int
    images_seen: int

    @property
    def device(self) -> torch.device: ...

    def sample(
        self, seeds: Sequence[int] | Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True
    ) -> Tensor:
        """Images [N, C, R, R] in [-1, 1]; image i depends on seeds[i] and labels[i] alone.

        labels None: seed modulo the number of classes. psi: truncation, which a model may be without and then takes 1
        alone. ema: with averaged weights, where there are some.
        """


@runtime_checkable
class Averages(Protocol):
    """Keeps averages of networks, which the EMA callback moves."""

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """(average, live) pairs of one and the same architecture; [] for none."""


@runtime_checkable
class Truncates(Protocol):
    """Has several ways to truncate its latents by psi; `truncation` is the one that is in force, of `truncations`."""

    truncation: str
    truncations: tuple[str, ...]


class Latent(Protocol):
    """A distribution of latents: whether its samples lie near a sphere, which walks between them should follow."""

    spherical: bool


@runtime_checkable
class FromLatents(Protocol):
    """Draws images of latents, so that one can walk from one to another.

    `generate` must be a function of its arguments, row by row: fixed noise maps and no statistics of the batch. Both
    ends of a step are rendered in one batch, but as different rows: fresh noise per row would be taken for path length.
    """

    num_classes: int

    @property
    def prior(self) -> Latent: ...

    @property
    def device(self) -> torch.device: ...

    def seeded_latents(self, seeds: Sequence[int] | Tensor) -> Tensor:
        """z [N, z_dim]; row i depends on seeds[i] alone."""

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> images [N, C, R, R] in [-1, 1]; differentiable, for `editing`."""


@runtime_checkable
class HasStyles(FromLatents, Protocol):
    """A style-based generator: W between latents and images, under the same conditions."""

    def styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> ws [N, L, W], truncated by psi; differentiable."""

    def synthesize(self, ws: Tensor, *, ema: bool = True) -> Tensor:
        """ws [N, L, W] -> images [N, C, R, R], not clamped; differentiable."""


class StyleLayer(NamedTuple):
    """A layer that a style modulates.

    affine: the linear map, or one of second order, of w [N, W] to the layer's channel styles [N, C]; row: which of ws
    it takes; colours: it makes colours of features.
    """

    affine: nn.Module
    row: int
    colours: bool = False


@runtime_checkable
class HasLayers(HasStyles, Protocol):
    """A style-based generator whose layers can be looked at and changed one by one."""

    def style_layers(self, *, ema: bool = True) -> dict[str, StyleLayer]:
        """By name, in the order of synthesis, the layers that styles modulate: what is called style space, or S."""

    def feature_layers(self, *, ema: bool = True) -> dict[str, nn.Module]:
        """By name, in the order of synthesis, modules whose output (or its first part) is a map [N, C, H, W]."""


@runtime_checkable
class HasMargins(HasLayers, Protocol):
    """Feature maps reach beyond the image."""

    def feature_margins(self, *, ema: bool = True) -> dict[str, int]:
        """By the names of `feature_layers`, how many pixels of the map are on each side of the image."""


@runtime_checkable
class Transforms(HasStyles, Protocol):
    """A style-based generator whose input can be moved and turned, and the image with it."""

    def synthesize_transformed(self, ws: Tensor, transform: Tensor, *, ema: bool = True) -> Tensor:
        """As `synthesize`, with its input seen through `transform` [3, 3].

        It leads from places in the picture, which is 1 wide and 1 high, with its middle at 0 and y down, to places in
        what the picture is made of: the inverse of what happens to the picture.
        """


class Input(NamedTuple):
    """What a translator takes: pictures of so many channels, or label maps, whose grey values are so many classes."""

    channels: int
    labels: int = 0


@runtime_checkable
class Translates(Protocol):
    """Makes images of images of sides that `stride` divides, in each of its `directions`."""

    directions: tuple[str, ...]
    images_seen: int
    device: torch.device

    @property
    def stride(self) -> int: ...

    def takes(self, direction: str) -> Input:
        """What is translated in this direction, one of `directions`."""

    def translate(self, images: Tensor, *, direction: str = "ab", draws: Draws | None = None) -> Tensor:
        """images float [N, C, H, W] in [-1, 1] -> [N, C', H, W] in [-1, 1], each from its image alone.

        draws: of the noise, where there is any; None gives all images the same. A model of label maps takes grey images
        in which k / 127.5 - 1 is class k, and instance=ids int64 [N, H, W] too.
        """


@runtime_checkable
class Captioned(FromLatents, Protocol):
    """Draws what captions say. A model that could, but was trained without captions, does not: see `reads_captions`."""

    reads_captions: bool

    def take_captions(self, data: Any) -> None:
        """From now on, what is sampled without a caption has one of `data`."""

    def read(self, captions: Sequence[str]) -> Any:
        """N captions as a user types them -> what the networks know of them, on the model's device.

        `generate` draws it when it is given as `features`, and so does `styles` of a model that has styles too.
        """

    def seeded_noise(self, seeds: Sequence[int] | Tensor) -> Tensor:
        """[N, ...]: what an image is made of beside latent and caption, as `generate` takes it for `noise`."""

    def spread_captions(self, count: int) -> list[str]:
        """Captions of the data that were taken, evenly chosen."""
