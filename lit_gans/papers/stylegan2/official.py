"""State-dict names and constructor arguments of stylegan2-ada-pytorch, and ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lit_gans.nn.resample import fir_filter

# State-dict names of stylegan2-ada-pytorch -> ours; None: dropped, since constructors make them. Of a generator, a
# discriminator, or a mapping network alone. The first pattern that matches a whole name counts.
OFFICIAL_KEYS: dict[str, str | None] = {
    r"(?:.+\.)?resample_filter": None,
    r"((?:mapping\.)?)fc(\d+)\.(weight|bias)": r"\1layers.\2.\3",
    r"((?:mapping\.)?)(embed\.weight|embed\.bias|w_avg)": r"\1\2",
    r"b4\.((?:conv|fc|out)\.(?:weight|bias))": r"epilogue.\1",
    r"b4\.fromrgb\.(weight|bias)": r"epilogue.from_rgb.\1",
    r"b(\d+)\.fromrgb\.(weight|bias)": r"blocks.\1.from_rgb.\2",
    r"synthesis\.b(\d+)\.torgb\.((?:affine\.)?(?:weight|bias))": r"synthesis.blocks.\1.to_rgb.\2",
    r"((?:synthesis\.)?)b(\d+)\.(const|skip\.weight)": r"\1blocks.\2.\3",
    r"((?:synthesis\.)?)b(\d+)\.(conv[01])\.((?:affine\.)?(?:weight|bias)|noise_const|noise_strength)": (
        r"\1blocks.\2.\3.\4"
    ),
}
_OUR_KEYS = {
    r"\blayers\.(\d+)": r"fc\1",
    r"\bblocks\.(\d+)": r"b\1",
    r"\bepilogue\b": "b4",
    r"\b(to|from)_rgb": r"\1rgb",
}


def our_key(official: str) -> str | None:
    """Our name of an official parameter or buffer; None where it is dropped.

    Raises:
        ValueError: the official code has no such name.
    """
    for pattern, ours in OFFICIAL_KEYS.items():
        if match := re.fullmatch(pattern, official):
            return None if ours is None else match.expand(ours)
    raise ValueError(f"{official!r} is no state-dict name of stylegan2-ada-pytorch's networks")


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official names and tensors -> ours, for `load_state_dict`, which is strict about the rest.

    Raises:
        ValueError: a name is not known.
    """
    return {ours: tensor for name, tensor in state.items() if (ours := our_key(name)) is not None}


def to_official(state: dict[str, Tensor], *, resample_filter: Sequence[float] = (1, 3, 3, 1)) -> dict[str, Tensor]:
    """Our names and tensors -> all that the official networks' strict loading expects, their filters included.

    Layers that do not resample keep the default filter in the official networks, and never use it.
    """
    official = {}
    for name, tensor in state.items():
        for pattern, theirs in _OUR_KEYS.items():
            name = re.sub(pattern, theirs, name)
        official[name] = tensor
    layers = [m[1] for name in official if (m := re.fullmatch(r"(.+\.(?:conv[01]?|skip|fromrgb))\.weight", name))]
    blocks = [layer.removesuffix(".conv1") for layer in layers if layer.endswith(".conv1")]
    filters = {f"{block}.resample_filter": fir_filter(resample_filter) for block in blocks}
    for layer in layers:
        resamples = layer.endswith((".skip", ".conv0" if layer.startswith("synthesis.") else ".conv1"))
        filters[f"{layer}.resample_filter"] = fir_filter(resample_filter if resamples else (1, 3, 3, 1))
    return official | filters


# Official constructor arguments -> ours; None: accepted at the given value alone (FIXED) or of no consequence.
OFFICIAL_ARGUMENTS: dict[str, str | None] = {
    "img_resolution": "resolution",
    "img_channels": "channels",
    "num_fp16_res": "num_half_res",
    "embed_features": "embed_dim",
    "layer_features": "hidden_dim",
    "w_avg_beta": "w_avg_decay",
    "mbstd_num_channels": "mbstd_channels",
    **{name: name for name in ("z_dim", "c_dim", "w_dim", "num_ws", "num_layers", "lr_multiplier", "cmap_dim")},
    **{name: name for name in ("channel_base", "channel_max", "architecture", "conv_clamp", "resample_filter")},
    "mbstd_group_size": "mbstd_group_size",
    "fp16_channels_last": None,  # a memory layout
    "activation": None,
    "kernel_size": None,
    "use_noise": None,
    "freeze_layers": None,
    "class_name": None,
}
FIXED = {"activation": "lrelu", "kernel_size": 3, "use_noise": True, "freeze_layers": 0}
NESTED = ("mapping_kwargs", "synthesis_kwargs", "epilogue_kwargs", "block_kwargs", "layer_kwargs")


def from_official_config(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of an official Generator, Discriminator or MappingNetwork -> of ours of the same name.

    Raises:
        ValueError: an argument is not known, or has a value that ours cannot take.
    """
    ours: dict[str, Any] = {}
    for name, value in config.items():
        if name in NESTED:
            ours |= from_official_config(value)
        elif name not in OFFICIAL_ARGUMENTS:
            raise ValueError(f"{name!r} is no argument of stylegan2-ada-pytorch's networks")
        elif name in FIXED and value != FIXED[name]:
            raise ValueError(f"{name} is {value!r}; these networks have {FIXED[name]!r} alone")
        elif name == "w_avg_beta" and value is None and config.get("num_ws", 0) is not None:
            raise ValueError("w_avg_beta is None; these mapping networks keep an average of w, 0.995 as published")
        elif (argument := OFFICIAL_ARGUMENTS[name]) is not None:
            ours[argument] = value
    return ours
