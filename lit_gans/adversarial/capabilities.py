"""What a model can do, asked for by whoever needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from lit_gans.nn import Draws


@runtime_checkable
class Translator(Protocol):
    """What is asked of a model: images of sides that `stride` divides, in each of its `directions`."""

    directions: tuple[str, ...]

    @property
    def stride(self) -> int: ...

    def translate(self, images: Tensor, *, direction: str = "ab", draws: Draws | None = None) -> Tensor:
        """images float [N, C, H, W] in [-1, 1] -> [N, C', H, W] in [-1, 1], each from its image alone.

        draws: of the noise, where there is any; None gives all images the same. A model of label maps takes grey images
        in which k / 127.5 - 1 is class k, and instance=ids int64 [N, H, W] too.
        """


class Input(NamedTuple):
    """What a model takes: pictures of so many channels, or label maps, whose grey values are classes."""

    channels: int
    labels: bool = False
