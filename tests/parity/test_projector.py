"""Projection and pivotal tuning against recorded statements of the official loops."""

import pytest
import torch
from torch import Tensor

from lit_gans.editing.projector import exploration, learning_rate_share, noise_penalty, normalize_noise
from lit_gans.editing.tuning import morphed
from tests.parity.golden import Golden, cases


def schedules(config: dict[str, float]) -> dict[str, Tensor]:
    """Learning rates and strengths of the noise on w, of each step."""
    times = [step / config["num_steps"] for step in range(int(config["num_steps"]))]
    ramps = {"ramp_up": config["lr_rampup_length"], "ramp_down": config["lr_rampdown_length"]}
    rates = [config["initial_learning_rate"] * learning_rate_share(t, **ramps) for t in times]
    strength = config["w_std"] * config["initial_noise_factor"]
    noises = [strength * exploration(t, ramp=config["noise_ramp_length"]) for t in times]
    return {"lr": torch.tensor(rates), "w_noise_scale": torch.tensor(noises)}


@pytest.mark.parametrize("golden", cases("w_projector.project"))
def test_projection_and_tuning(golden: Golden) -> None:
    inputs, found = golden.leaves, schedules(golden.config)
    if "noise" in inputs:
        found["noise_reg"] = noise_penalty([inputs["noise"]])
        found |= golden.gradients(found["noise_reg"], {"noise": inputs["noise"]})
        found["noise_normalised"] = inputs["noise"].detach().clone()
        normalize_noise([found["noise_normalised"]])
    if "w_new" in inputs:
        alpha = golden.config.get("regulizer_alpha", golden.config.get("alpha"))
        radius = {} if alpha is None else {"radius": alpha}
        found["morphed_w"] = morphed(inputs["w_new"], inputs["w_pivot"], **radius)
    golden.compare(found)
