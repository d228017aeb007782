"""Perceptual path length against numbers of the official code, chosen by what the files say of themselves."""

import pytest
import torch
from torch import Tensor

from lit_gans.adversarial.priors import Normal
from lit_gans.base.interpolation import lerp, slerp
from lit_gans.metrics import path_length as ppl

from .test_metrics import FOLDER, cases

recorded = pytest.mark.parametrize(("tensors", "config"), cases("perceptual_path_length"))


def close(found: Tensor, tensors: dict[str, Tensor], name: str) -> bool:
    return torch.allclose(found, tensors[f"out/{name}"], rtol=1e-6, atol=1e-9)


@recorded
def test_interpolation(tensors: dict[str, Tensor], config: dict) -> None:
    assert tensors, f"no golden file in {FOLDER}"
    a, b, t = (tensors[f"in/{name}"].double() for name in ("a", "b", "t"))
    for suffix, at in (("t", t), ("t_eps", t + config["epsilon"])):
        assert close(slerp(a, b, at), tensors, f"slerp_{suffix}")
        assert close(lerp(a, b, at), tensors, f"lerp_{suffix}")


@recorded
def test_crop(tensors: dict[str, Tensor], config: dict) -> None:
    assert tensors, f"no golden file in {FOLDER}"
    assert torch.equal(ppl.crop_face(tensors["in/img"]), tensors["out/crop"])


class Recorded:
    """A generator whose images are the recorded features of the first and of the second end of each step."""

    num_classes, prior, device = 0, Normal(), torch.device("cpu")

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.images = torch.cat([first, second])[:, None, None].double()

    def seeded_latents(self, seeds: Tensor) -> Tensor:
        return torch.eye(4)[seeds % 4]

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return self.images


@recorded
def test_distances(tensors: dict[str, Tensor], config: dict) -> None:
    """The features' squared differences, summed and divided by epsilon squared."""
    assert tensors, f"no golden file in {FOLDER}"
    features = tensors["in/lpips0"], tensors["in/lpips1"]
    index = torch.arange(len(features[0]))
    found = ppl.path_distances(
        Recorded(*features), lambda a, b: (a - b).square().sum(dim=(1, 2, 3)), index, epsilon=config["epsilon"]
    )
    assert close(found, tensors, "dist_from_lpips")


@recorded
def test_rejection_and_mean(tensors: dict[str, Tensor], config: dict) -> None:
    assert tensors, f"no golden file in {FOLDER}"
    low, high = ppl.rejection_bounds(tensors["in/dist"])
    assert low == tensors["out/percentile_lo"] and high == tensors["out/percentile_hi"]
    metric = ppl.PathLength()
    for part in tensors["in/dist"].split(50):
        metric.update(part)
    assert close(metric.compute(), tensors, "ppl")
