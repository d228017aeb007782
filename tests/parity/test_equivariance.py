"""Moved pictures and the equivariance of a network against recorded values of NVlabs/stylegan3."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_gans.metrics.equivariance import (
    Moved,
    bandlimit_filter,
    decibels,
    pseudo_rotated,
    rotated,
    rotation,
    squared_error,
    translated,
    translated_by_pixels,
)
from lit_gans.official import apply_keys
from lit_gans.papers.stylegan3 import OFFICIAL_KEYS, Generator, StyleGAN3, from_official_config
from tests.parity.golden import Golden, cases

SOURCE = "NVlabs/stylegan3"
NAMES = {"eqt_int": "eq_t", "eqt_frac": "eq_t_frac", "eqr": "eq_r"}


def by_pixels(images: Tensor, x: float, y: float) -> Moved:
    return translated_by_pixels(images, round(x * images.shape[3]), round(y * images.shape[2]))


def recorded(golden: Golden, name: str, moved: Moved) -> dict[str, Tensor]:
    """The images and the mask, of as many channels as the file has it for."""
    mask = golden.outputs[f"{name}_mask"]
    return {name: moved[0], f"{name}_mask": moved[1].to(mask.dtype).expand_as(mask)}


@pytest.mark.parametrize("golden", cases("metrics.equivariance (", SOURCE))
def test_moved_pictures(golden: Golden) -> None:
    given, x = golden.config, golden.inputs["x"]
    found = {}
    turns: dict[str, Callable[..., Moved]] = {"": rotated, "pseudo_": pseudo_rotated}
    for kind, move in {"int": by_pixels, "frac": translated}.items():
        for name, shift in given.pop(kind, {}).items():
            found |= recorded(golden, name, move(x, *shift))
    for name, angle in given.pop("rot", {}).items():
        for prefix, move in turns.items():
            found |= recorded(golden, prefix + name, move(x, angle))
    angle = given.pop("filt", 0.0)
    found |= {
        "filter_rot": bandlimit_filter(rotation(angle), up=4),
        "filter_pseudo": bandlimit_filter(rotation(-angle), up=1),
    }
    assert not given, f"recorded, and called by nothing here: {given}"
    golden.compare(found)


@pytest.mark.parametrize("golden", cases("compute_equivariance_metrics", SOURCE))
def test_metrics(golden: Golden) -> None:
    given = golden.config
    network = Generator(**from_official_config(given["G"]))
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS))
    model = StyleGAN3.from_generator(network.eval())
    reach = {"translate_max": given.get("translate_max", 0.125), "rotate_max": math.pi * given.get("rotate_max", 1)}
    sums = {name: [0.0, 0] for name in NAMES if name in golden.outputs}
    drawn, labels = golden.inputs["rand"].split(5), golden.inputs.get("c")
    with torch.no_grad():
        for k, (z, u) in enumerate(zip(golden.inputs["z"], drawn, strict=True)):
            ws = network.mapping(z, None if labels is None else labels[k])
            for name, total in sums.items():
                error, count = squared_error(model, ws, NAMES[name], u, **reach)
                sums[name] = [total[0] + error, total[1] + count]
    golden.compare({name: torch.tensor(decibels(*total), dtype=torch.float64) for name, total in sums.items()})
