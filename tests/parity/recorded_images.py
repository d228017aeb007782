"""Large images as golden files record them: pooled, cropped, or small and enlarged before use."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from tests.parity.golden import Golden, under


def whole_name(name: str) -> str:
    """`img` of `img`, `img_pool4`, `img_crop24`, `att0_pool`."""
    return re.sub(r"_(pool|crop)\d*$", "", name)


def reduced(x: Tensor, name: str, side: int) -> Tensor:
    """To `side` pixels: `..._pool<q>`, `..._pool`: means of squares; `..._crop<c>` or any other name: the centre."""
    if x.shape[-1] == side:
        return x
    if re.search(r"_pool\d*$", name):
        return avg_pool2d(x, x.shape[-1] // side)
    edge = (x.shape[-1] - side) // 2
    return x[..., edge : edge + side, edge : edge + side]


def enlarged_to(x: Tensor, side: int) -> Tensor:
    """Nearest neighbours."""
    return x if x.shape[-1] == side else interpolate(x, size=side)


def as_recorded(whole: Mapping[str, Tensor], golden: Golden, prefix: str) -> dict[str, Tensor]:
    """What the file has of `whole`, by its names and in its forms: `train/img_pool4` of `img`, with prefix `train/`."""
    found = {}
    for name, expected in under(golden.outputs, prefix).items():
        if (x := whole.get(whole_name(name))) is not None:
            found[prefix + name] = reduced(x, name, expected.shape[-1]) if expected.dim() == 4 else x
    return found


def weighted_terms(whole: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
    """All (output * in/w_<output>) in one row, weights `w_<output>_<side>` enlarged: their sum is out/scalar."""
    terms = []
    for name, weight in under(inputs, "w_").items():
        enlarged = re.fullmatch(r"(.+)_\d+", name)
        x = whole[whole_name(enlarged[1] if enlarged else name)]
        weight = enlarged_to(weight, x.shape[-1]) if enlarged else weight
        terms.append((reduced(x, name, weight.shape[-1]) if x.dim() == 4 else x) * weight)
    return torch.cat([t.flatten() for t in terms])
