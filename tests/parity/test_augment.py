"""Augmentations against the official ones, chosen by what the files say of themselves."""

import pytest
import torch

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
SHARE = {"translation": 0.125, "cutout": 0.2}  # of that class; the paper cuts out half of the side


def switched_on(names: list[str], *, p: float) -> AdaptiveAugment:
    return AdaptiveAugment(p=p, **dict.fromkeys(names, 1.0))


@ADA
def test_every_group_at_every_percentile(golden: Golden) -> None:
    config, outputs = golden.config, golden.outputs
    for group, names in config["groups"].items():
        for percentile in [*config["percentiles"], *config.get("extra", {}).get(group, [])]:
            found = switched_on(names, p=0.0)(golden.inputs["images"], percentile=percentile)
            name = f"{group}/p{percentile:g}"
            assert_close(found, outputs[name], golden.tolerance["forward"], name)


@ADA
@pytest.mark.parametrize("p", [0.0, 1e-12])
def test_rejected_draws(p: float, golden: Golden) -> None:
    """p = 0 skips everything, 1e-12 rejects every draw and resamples: both agree with the official resampling."""
    for group, names in golden.config.get("p0", {}).items():
        with drawing(Draws(0)):
            found = switched_on(names, p=p)(golden.inputs["images"])
        assert p > 0 or torch.equal(found, golden.inputs["images"])
        assert_close(found, golden.outputs[f"{group}/prob0"], golden.tolerance["forward"], group)


@ADA
def test_filters(golden: Golden) -> None:
    augment = AdaptiveAugment()
    assert_close(augment.taps, golden.outputs["Hz_geom"], 1e-6, "Hz_geom")
    assert_close(augment.bank, golden.outputs["Hz_fbank"], 1e-6, "Hz_fbank")


def shares_of(x: torch.Tensor) -> tuple[int, int]:
    """(largest shift, size of the cutout) in pixels."""
    return tuple(int(SHARE[name] * x.shape[2] + 0.5) for name in ("translation", "cutout"))


def all_of(x: torch.Tensor, draws: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every transform alone, and under "all" one after the other."""
    _, size = shares_of(x)
    d = {name: value.flatten() for name, value in draws.items()}
    steps = {
        "brightness": lambda y: shift_brightness(y, d["rand_brightness"] - 0.5),
        "saturation": lambda y: scale_saturation(y, d["rand_saturation"] * 2),
        "contrast": lambda y: scale_contrast(y, d["rand_contrast"] + 0.5),
        "translation": lambda y: translate(y, d["translation_x"], d["translation_y"]),
        "cutout": lambda y: cut_out(y, d["offset_x"], d["offset_y"], size=(size, size)),
    }
    alone = {name: step(x) for name, step in steps.items()}
    for step in steps.values():
        x = step(x)
    return alone | {"all": x}


@DIFFAUG
def test_diffaug_with_stored_draws(golden: Golden) -> None:
    inputs = golden.inputs
    found = all_of(inputs.pop("x"), inputs)
    for name, image in found.items():
        expected = golden.outputs["all_from_draws" if name == "all" else name]
        assert_close(image, expected, golden.tolerance["forward"], name)


@DIFFAUG
def test_diffaug_with_the_official_stream(golden: Golden) -> None:
    """The order in which the official code draws, from torch's generator."""
    x, n = golden.inputs["x"], len(golden.inputs["x"])
    shift, size = shares_of(x)
    generator = torch.Generator().manual_seed(golden.config["torch_seed"])
    draws = {f"rand_{name}": torch.rand(n, generator=generator) for name in ("brightness", "saturation", "contrast")}
    for name in ("translation_x", "translation_y"):
        draws[name] = torch.randint(-shift, shift + 1, (n,), generator=generator)
    for name, side in zip(("offset_x", "offset_y"), x.shape[2:], strict=True):
        draws[name] = torch.randint(0, side + 1 - size % 2, (n,), generator=generator)
    assert_close(all_of(x, draws)["all"], golden.outputs["all"], golden.tolerance["forward"], "all")
