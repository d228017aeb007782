"""Augmentations against the official ones, chosen by what the files say of themselves."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gans.augment import AdaptiveAugment
from lit_gans.augment.diffaug import (
    cut_out,
    scale_contrast,
    scale_saturation,
    shift_brightness,
    translate,
)
from lit_gans.nn import Draws, drawing
from tests.parity.golden import Golden, assert_close, cases

ADA = pytest.mark.parametrize("golden", cases("augment.AugmentPipe"))
DIFFAUG = pytest.mark.parametrize("golden", cases("diffaug.DiffAugment"))
# What the configuration says of the record and its images; the rest are arguments.
RECORDED = ("groups", "percentiles", "extra", "p0", "n", "res", "channels", "imgseed")


def strengths(config: dict[str, Any], group: str) -> dict[str, Any]:
    """Arguments besides the transforms: each by its own name, or several together, for all groups or by group."""
    found: dict[str, Any] = {}
    for name in config.keys() - {*RECORDED}:
        value = config[name]
        if not isinstance(value, dict):
            found[name] = value
        else:
            found |= value.get(group, {}) if all(isinstance(v, dict) for v in value.values()) else value
    return found


def built(config: dict[str, Any], group: str, *, p: float = 0.0) -> AdaptiveAugment:
    """The group's transforms, with multiplier 1 where they are a list of names."""
    transforms = (config["groups"] | config.get("p0", {}))[group]
    arguments = dict.fromkeys(transforms, 1.0) if isinstance(transforms, list) else transforms
    assert "noise" not in arguments, "noise: the official code draws it from torch's stream, which ours does not"
    return AdaptiveAugment(p=p, **arguments | strengths(config, group))


@ADA
def test_every_group_at_every_percentile(golden: Golden) -> None:
    """p = 0 skips everything, 1e-12 rejects every draw and resamples: both agree with the official resampling."""
    images, plain = golden.inputs["images"], AdaptiveAugment()
    found = {"Hz_geom": plain.taps, "Hz_fbank": plain.bank}
    for name, expected in golden.outputs.items():
        if match := re.fullmatch(r"(.+)/p([\d.e-]+)", name):
            found[name] = built(golden.config, match[1])(images, percentile=float(match[2]))
        elif match := re.fullmatch(r"(.+)/prob0", name):
            assert torch.equal(built(golden.config, match[1])(images), images)
            assert_close(images, expected, golden.tolerance["forward"], name)
            with drawing(Draws(0)):
                found[name] = built(golden.config, match[1], p=1e-12)(images)
    golden.compare(found)


# ---- differentiable augmentation -------------------------------------------------------------------------------------


def pixels(share: float, x: Tensor) -> tuple[int, int]:
    """Of both sides; the shares of that class are 0.125 and 0.2, where the paper cuts out half of the side."""
    return tuple(int(share * side + 0.5) for side in x.shape[2:])


def steps(x: Tensor, d: dict[str, Tensor]) -> dict[str, Callable[[Tensor], Tensor]]:
    size = pixels(0.2, x)
    return {
        "brightness": lambda y: shift_brightness(y, d["rand_brightness"] - 0.5),
        "saturation": lambda y: scale_saturation(y, d["rand_saturation"] * 2),
        "contrast": lambda y: scale_contrast(y, d["rand_contrast"] + 0.5),
        "translation": lambda y: translate(y, d["translation_x"], d["translation_y"]),
        "cutout": lambda y: cut_out(y, d["offset_x"], d["offset_y"], size=size),
    }


def policy(golden: Golden) -> list[str]:
    """The transforms in their order."""
    parts = golden.config.get("policy", "color,translation,cutout")
    return parts.replace("color", "brightness,saturation,contrast").split(",")


def official_draws(golden: Golden, x: Tensor) -> dict[str, Tensor]:
    """The stream of torch's generator in the order in which the official code draws."""
    generator, draws = torch.Generator().manual_seed(golden.config["torch_seed"]), {}
    for transform in policy(golden):
        if transform in ("translation", "cutout"):
            shares = pixels(0.125 if transform == "translation" else 0.2, x)
            for name, share, side in zip("xy", shares, x.shape[2:], strict=True):
                key, lowest, end = f"offset_{name}", 0, side + 1 - share % 2
                if transform == "translation":
                    key, lowest, end = f"translation_{name}", -share, share + 1
                draws[key] = torch.randint(lowest, end, (len(x),), generator=generator)
        else:
            draws[f"rand_{transform}"] = torch.rand(len(x), generator=generator)
    return draws


@DIFFAUG
def test_diffaug_with_stored_draws_and_with_the_official_stream(golden: Golden) -> None:
    inputs = golden.inputs
    x, stored = inputs.pop("x"), {name: t.flatten() for name, t in inputs.items()}
    found = {name: steps(x, stored)[name](x) for name in policy(golden)}
    found |= {"all_from_draws": x, "all": x}
    for name in policy(golden):
        found["all_from_draws"] = steps(x, stored)[name](found["all_from_draws"])
        found["all"] = steps(x, official_draws(golden, x))[name](found["all"])
    golden.compare(found)
