"""The official generator of NVlabs/stylegan3, its names and arguments, and ours; the discriminator is StyleGAN2's."""

from __future__ import annotations

from lit_gans.official.releases import Config, Release, State, renaming
from lit_gans.papers.stylegan3.networks import Generator
from lit_gans.papers.stylegan3.training import StyleGAN3

# State-dict names of the official generator -> ours; None: dropped, since constructors make them.
OFFICIAL_KEYS: dict[str, str | None] = {
    r"synthesis\.L\d+_\d+_\d+\.(?:up|down)_filter": None,
    r"synthesis\.L(\d+)_\d+_\d+\.((?:affine\.)?(?:weight|bias)|magnitude_ema)": r"synthesis.layers.\1.\2",
    r"synthesis\.input\.((?:affine\.)?(?:weight|bias)|transform|freqs|phases)": r"synthesis.input.\1",
    r"mapping\.fc(\d+)\.(weight|bias)": r"mapping.layers.\1.\2",
    r"mapping\.(embed\.weight|embed\.bias|w_avg)": r"mapping.\1",
}

# Official constructor arguments -> ours; None: accepted at the given value alone (FIXED) or of no consequence.
SYNTHESIS = {
    "img_resolution": "resolution", "img_channels": "channels", "margin_size": "margin_px",
    "use_radial_filters": "radial_filters", "num_fp16_res": "num_half_res",
    **{name: name for name in ("w_dim", "channel_base", "channel_max", "num_layers", "num_critical", "conv_kernel")},
    **{name: name for name in ("first_cutoff", "first_stopband", "last_stopband_rel", "filter_size", "conv_clamp")},
    "output_scale": "output_scale",
    **dict.fromkeys(("lrelu_upsampling", "class_name")),
    "magnitude_ema_beta": None,  # of training, where it follows from the batch size
}  # fmt: skip
MAPPING = {
    "num_layers": "mapping_layers", "lr_multiplier": "lr_multiplier", "w_avg_beta": "w_avg_decay",
    **dict.fromkeys(("freeze_layers", "freeze_embed")),
}  # fmt: skip
FIXED = {"lrelu_upsampling": 2, "freeze_layers": 0, "freeze_embed": False}

_synthesis = renaming(SYNTHESIS | {"z_dim": "z_dim", "c_dim": "c_dim"})
_mapping = renaming(MAPPING)


def from_official_config(config: Config) -> Config:
    """Arguments of an official Generator -> of ours.

    Raises:
        ValueError: an argument is not known, or has a value that ours cannot take.
    """
    synthesis = dict(config)
    mapping = synthesis.pop("mapping_kwargs", {})
    for name, fixed in FIXED.items():
        value = (synthesis | mapping).get(name, fixed)
        if value != fixed:
            raise ValueError(f"{name} is {value!r}; this network has {fixed!r} alone")
    return _synthesis(synthesis) | _mapping(mapping)


# These layers have no noise: noise_mode is accepted by the official code, and without effect.
CALL = {"truncation_psi": "psi", "truncation_cutoff": "cutoff", "force_fp32": "force_fp32", "noise_mode": None}


def fits(state: State) -> bool:
    """StyleGAN-XL's embedding of classes, which it has without classes too, has no bias."""
    return ("mapping.embed.weight" in state) == ("mapping.embed.bias" in state)


OFFICIAL = [
    Release(
        "stylegan3", "Generator", Generator, OFFICIAL_KEYS, from_official_config, call=CALL, model=StyleGAN3, fits=fits
    ),
]
