"""The official networks of stylegan2-ada-pytorch, their names and arguments, and ours."""

from __future__ import annotations

from lit_gans.official.releases import Config, Release, renaming
from lit_gans.papers.stylegan2.networks import Discriminator, Generator
from lit_gans.papers.stylegan2.training import StyleGAN2

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

# Official constructor arguments -> ours; None: accepted at the given value alone (FIXED) or of no consequence.
_ARGUMENTS = renaming({
    "img_resolution": "resolution", "img_channels": "channels", "num_fp16_res": "num_half_res",
    "embed_features": "embed_dim", "layer_features": "hidden_dim", "w_avg_beta": "w_avg_decay",
    "mbstd_num_channels": "mbstd_channels", "mbstd_group_size": "mbstd_group_size",
    **{name: name for name in ("z_dim", "c_dim", "w_dim", "num_ws", "num_layers", "lr_multiplier", "cmap_dim")},
    **{name: name for name in ("channel_base", "channel_max", "architecture", "conv_clamp", "resample_filter")},
    **dict.fromkeys(("activation", "kernel_size", "use_noise", "freeze_layers", "class_name")),
    **dict.fromkeys(("fp16_channels_last", "fused_modconv_default")),  # a memory layout, an order of operations
})  # fmt: skip
# What the code of StyleGAN3 and of Projected GAN, which alone has `fused_modconv_default`, does unasked.
LATER = {"num_half_res": 4, "conv_clamp": 256, "w_avg_decay": 0.998}
FIXED = {"activation": "lrelu", "kernel_size": 3, "use_noise": True, "freeze_layers": 0}
NESTED = ("mapping_kwargs", "synthesis_kwargs", "epilogue_kwargs", "block_kwargs", "layer_kwargs")


def from_official_config(config: Config) -> Config:
    """Arguments of an official Generator, Discriminator or MappingNetwork -> of ours of the same name.

    Raises:
        ValueError: an argument is not known, or has a value that ours cannot take.
    """
    flat = _flat(config)
    ours: Config = dict(LATER) if "fused_modconv_default" in flat else {}
    for name, value in flat.items():
        if name in FIXED and value != FIXED[name]:
            raise ValueError(f"{name} is {value!r}; these networks have {FIXED[name]!r} alone")
        if name == "w_avg_beta" and value is None and flat.get("num_ws", 0) is not None:
            raise ValueError("w_avg_beta is None; these mapping networks keep an average of w, 0.995 as published")
        ours |= _ARGUMENTS({name: value})
    return ours


def _flat(config: Config) -> Config:
    nested = [_flat(config[name]) for name in NESTED if name in config]
    return {name: value for part in (config, *nested) for name, value in part.items() if name not in NESTED}


# fused_modconv is another order of the same operations.
CALL = {"noise_mode": "noise", "truncation_psi": "psi", "truncation_cutoff": "cutoff", "force_fp32": "force_fp32",
        "fused_modconv": None}  # fmt: skip
OFFICIAL = [
    Release(
        "stylegan2-ada-pytorch", "Generator", Generator, OFFICIAL_KEYS, from_official_config, call=CALL,
        model=StyleGAN2,
    ),
    Release(
        "stylegan2-ada-pytorch", "Discriminator", Discriminator, OFFICIAL_KEYS, from_official_config, call=CALL,
        name="D",
    ),
]  # fmt: skip
