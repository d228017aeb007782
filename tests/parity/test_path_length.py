"""Perceptual path length against numbers of the official code, chosen by what the files say of themselves."""

import pytest
import torch
from torch import Tensor

from lit_gans.adversarial.priors import Normal
from lit_gans.base.interpolation import lerp, slerp
from lit_gans.metrics import path_length as ppl
from tests.parity.golden import Golden, cases


class Recorded:
    """A generator whose images are the recorded features of the first and of the second end of each step."""

    num_classes, prior, device = 0, Normal(), torch.device("cpu")

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.images = torch.cat([first, second])[:, None, None].double()

    def seeded_latents(self, seeds: Tensor) -> Tensor:
        return torch.eye(4)[seeds % 4]

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return self.images


def interpolated(a: Tensor, b: Tensor, t: Tensor, *, epsilon: float) -> dict[str, Tensor]:
    ends = {"t": t, "t_eps": t + epsilon}
    ways = {"slerp": slerp, "lerp": lerp}
    return {f"{way}_{end}": function(a, b, at) for way, function in ways.items() for end, at in ends.items()}


def distances(first: Tensor, second: Tensor, *, epsilon: float) -> Tensor:
    """The features' squared differences, summed and divided by epsilon squared."""
    source, index = Recorded(first, second), torch.arange(len(first))
    return ppl.path_distances(source, lambda a, b: (a - b).square().sum(dim=(1, 2, 3)), index, epsilon=epsilon)


def kept(dist: Tensor) -> dict[str, Tensor]:
    """The mean of what lies between the bounds, gathered in parts."""
    metric = ppl.PathLength()
    for part in dist.split(50):
        metric.update(part)
    low, high = ppl.rejection_bounds(dist)
    return {"percentile_lo": torch.as_tensor(low), "percentile_hi": torch.as_tensor(high), "ppl": metric.compute()}


@pytest.mark.parametrize("golden", cases("perceptual_path_length"))
def test_parts_of_the_path_length(golden: Golden) -> None:
    inputs, epsilon, found = golden.inputs, golden.config.get("epsilon", 1e-4), {}
    if "t" in inputs:
        found |= interpolated(*(inputs[name].double() for name in ("a", "b", "t")), epsilon=epsilon)
    if "img" in inputs:
        found["crop"] = ppl.crop_face(inputs["img"])
    if "lpips0" in inputs:
        found["dist_from_lpips"] = distances(inputs["lpips0"], inputs["lpips1"], epsilon=epsilon)
    if "dist" in inputs:
        found |= kept(inputs["dist"])
    golden.compare(found, tolerance=1e-6)
