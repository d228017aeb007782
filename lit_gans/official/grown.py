"""What PGGAN, StyleGAN and MSG-GAN were built from, by the names and shapes of their weights.

PGGAN and StyleGAN as genforce/genforce has them, a PyTorch port of the official TensorFlow networks with their weights;
MSG-GAN as akanimax/BMSG-GAN has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]
Config = dict[str, Any]

# The networks of one file of the port, by the names in it.
IN_ONE_FILE = {"generator": "G", "discriminator": "D", "generator_smooth": "G_ema"}
PORT = ("PGGANGenerator", "PGGANDiscriminator", "StyleGANGenerator", "StyleGANDiscriminator")


def numbered(state: State, pattern: str) -> dict[int, Tensor]:
    """The tensors whose whole names fit the pattern, by the number that is its group."""
    found = ((re.fullmatch(pattern, name), tensor) for name, tensor in state.items())
    return dict(sorted((int(match[1]), tensor) for match, tensor in found if match))


def pggan_generator(state: State) -> tuple[str, Config]:
    layers, colours = numbered(state, r"layer(\d+)\.weight"), numbered(state, r"output(\d+)\.weight")
    config = {"resolution": 2 * 2 ** len(colours), "z_space_dim": layers[0].shape[1]}
    config |= {"image_channels": colours[0].shape[0], "fused_scale": _fused(layers, colours)}
    return "PGGANGenerator", {**config, **_maps(_widths(colours))}


def _fused(layers: dict[int, Tensor], colours: dict[int, Tensor]) -> bool:
    """A fused layer's weight is transposed. Where all are square nothing tells, and the port has them unfused."""
    for stage, (before, after) in enumerate(zip(_widths(colours), _widths(colours)[1:], strict=False), start=1):
        if before != after:
            return tuple(layers[2 * stage].shape[:2]) == (before, after)
    return False


def _widths(colours: dict[int, Tensor]) -> list[int]:
    """Feature maps at 4, 8, ... pixels, by the 1x1 convolutions to colours."""
    return [weight.shape[1] for weight in colours.values()]


def _maps(widths: list[int]) -> Config:
    """min(base // px, most) at 4, 8, ... pixels. ValueError for widths of no such rule."""
    most, last = max(widths), 2 * 2 ** len(widths)
    base = widths[-1] * last
    if widths != [min(base // (4 << i), most) for i in range(len(widths))]:
        raise ValueError(f"its feature maps {widths} do not halve from {most} on as the published ones do")
    return {"fmaps_base": base, "fmaps_max": most}


def discriminator(state: State) -> tuple[str, Config]:
    """Of either paper: StyleGAN's has blurs."""
    layers, colours = numbered(state, r"layer(\d+)\.weight"), numbered(state, r"input(\d+)\.weight")
    widths = [weight.shape[0] for weight in colours.values()][::-1]  # which begin at the full resolution
    last = max(layers)
    added = layers[last - 2].shape[1] - widths[0]
    config = {"resolution": 2 * 2 ** len(colours), "image_channels": colours[0].shape[1], **_maps(widths)}
    outputs = layers[last].shape[0]
    if "layer1.blur.kernel" in state:
        classes = {"label_size": outputs if outputs > 1 else 0}
        groups = {"minibatch_std_group_size": 4 if added else 0, "minibatch_std_channels": max(added, 1)}
        return "StyleGANDiscriminator", {**config, **classes, **groups, "fused_scale": "auto"}
    groups = {"minibatch_std_group_size": 16 if added else 0}
    return "PGGANDiscriminator", {**config, "label_size": outputs - 1, **groups, "fused_scale": False}


def stylegan_generator(state: State) -> tuple[str, Config]:
    dense, colours = numbered(state, r"mapping\.dense(\d+)\.weight"), numbered(state, r"synthesis\.output(\d+)\.weight")
    label = state.get("mapping.label_weight")
    config = {"resolution": 2 * 2 ** len(colours), "z_space_dim": dense[0].shape[1] // (1 if label is None else 2)}
    config |= {"w_space_dim": dense[max(dense)].shape[0], "mapping_layers": len(dense)}
    config |= {"mapping_fmaps": dense[0].shape[0], "label_size": 0 if label is None else label.shape[0]}
    return "StyleGANGenerator", {
        **config, "image_channels": colours[0].shape[0], **_maps(_widths(colours)), "fused_scale": "auto"
    }  # fmt: skip


def msg_generator(state: State) -> tuple[str, Config]:
    depth = len(numbered(state, r"rgb_converters\.(\d+)\.weight"))
    latent = state["layers.0.conv_1.weight"].shape[0]  # and as wide are the first layers
    config = {"resolution": 2 * 2**depth, "latent_size": latent, "width": latent, "use_eql": True}
    return "MSGGenerator", {**config, "image_channels": state["rgb_converters.0.weight"].shape[0]}


def msg_discriminator(state: State) -> tuple[str, Config]:
    depth = len(numbered(state, r"layers\.(\d+)\.conv_1\.weight")) + 1
    width = state["final_block.conv_2.weight"].shape[0]
    config = {"resolution": 2 * 2**depth, "feature_size": width, "use_eql": True}
    return "MSGDiscriminator", {**config, "image_channels": state["final_converter.weight"].shape[1]}
