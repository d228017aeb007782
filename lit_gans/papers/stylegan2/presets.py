"""Settings that follow from the resolution, the devices and the data; configs name them under `preset`."""

from __future__ import annotations

from typing import Any

from lit_gans.adversarial.preset import Facts

MODEL, DATA = "model.init_args.", "data.init_args."
# What the weights of a parent fit.
NETWORKS = ("resolution", "z_dim", "w_dim", "num_layers", "channel_base", "channel_max", "generator_architecture")
NETWORKS += ("discriminator_architecture", "num_half_res", "half_dtype", "conv_clamp", "mbstd_channels")


def auto(facts: Facts) -> dict[str, Any]:
    """The configuration "auto" of ADA's code (Karras et al., 2020b), which is meant as a start on new data.

    Networks and resolution are a parent's, if there is one.
    """
    most = min(facts.devices * min(4096 // facts.resolution, 32), 64)  # for a GPU's memory
    return _settings(facts.resolution, max(most, facts.devices), facts.devices) | _of_parent(facts)


def photos(facts: Facts) -> dict[str, Any]:
    """Any folder of photographs: "auto" of up to 256 pixels on GPUs, and on a CPU what it can do overnight.

    That is 64 pixels, a batch of 16 and narrow networks; where most pictures are smaller, it is the power of two below.
    Networks and resolution are a parent's, if there is one.
    What is measured is as much as the device can draw in some minutes.
    """
    resolution = min(_power_below(facts.side_px or 256), 256 if facts.cuda else 64)
    if facts.cuda:
        found = auto(facts) | {f"{MODEL}total_kimg": 5000, "checkpoint.every_kimg": 200}
        found |= {"evaluate.every_kimg": 200, "evaluate.num_images": 10_000, "image_grid.every_kimg": 40}
    else:
        batch = -(-16 // facts.devices) * facts.devices  # a multiple of the processes
        found = _settings(facts.resolution, batch, facts.devices)
        small = {"z_dim": 128, "w_dim": 128, "channel_base": 1024, "channel_max": 128, "total_kimg": 200}
        found |= {f"{MODEL}{name}": value for name, value in small.items()}
        found |= {"evaluate.every_kimg": 50, "evaluate.num_images": 500, "image_grid.every_kimg": 4}
        found |= {"checkpoint.every_kimg": 20}
    # What would be enlarged more than four times is no photograph of use.
    return {f"{MODEL}resolution": resolution, **found, f"{DATA}min_px": facts.resolution // 4, **_of_parent(facts)}


def _of_parent(facts: Facts) -> dict[str, Any]:
    return {f"{MODEL}{name}": facts.parent[name] for name in NETWORKS if name in facts.parent}


def _power_below(side_px: int) -> int:
    """The largest power of two up to it, from 8 on."""
    return max(1 << side_px.bit_length() - 1, 8)


def _settings(resolution: int, batch: int, devices: int) -> dict[str, Any]:
    model = {
        "mbstd_group_size": min(batch // devices, 4),
        "channel_base": 32768 if resolution >= 512 else 16384,
        "lr": 0.002 if resolution >= 1024 else 0.0025,
        "r1_gamma": 0.0002 * resolution**2 / batch,  # a heuristic of the authors
    }
    found = {f"{MODEL}{name}": value for name, value in model.items()}
    return {f"{DATA}resolution": resolution, f"{DATA}batch_size": batch, **found, "ema.half_life_kimg": batch * 10 / 32}
