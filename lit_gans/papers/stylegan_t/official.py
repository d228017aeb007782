"""The official networks of autonomousvision/stylegan-t, their names and arguments, and ours.

Weights were never published: files are those of whoever trained with the official code, which pickles networks by
reference. CLIP, which its generators carry along, is left out: our text encoder reads its published weights.
"""

from __future__ import annotations

import re
from typing import Any

from lit_gans.official import OfficialNetwork
from lit_gans.official.releases import Config, Release, State, renaming
from lit_gans.papers.stylegan_t.discriminators import Discriminator
from lit_gans.papers.stylegan_t.networks import Generator
from lit_gans.papers.stylegan_t.training import StyleGANT

# State-dict names of the official generator -> ours; None: dropped, since constructors make them.
_PLACE = r"synthesis\.b(\d+)\."
_OWN = r"synthesis.blocks.\1."
OFFICIAL_KEYS: dict[str, str | None] = {
    rf"{_PLACE}(?:.+\.)?resample_filter": None,
    rf"{_PLACE}convs1\.(\d+)\.(.+)": rf"{_OWN}convs.\2.\3",
    rf"{_PLACE}torgb\.(.+)": rf"{_OWN}to_rgb.\2",
    rf"{_PLACE}((?:conv0|input)\..+)": rf"{_OWN}\2",
    r"mapping\.mlp\.fc(\d+)\.(weight|bias)": r"mapping.layers.\1.\2",
    r"mapping\.x_avg": "mapping.x_avg",
    r"mapping\.clip\..+": None,
}
# Of a discriminator's head; `weight_orig` is the weight under spectral normalisation, `weight_u` and `_v` its vectors.
_T = r"(?:weight_)?([uv]|weight|bias)(?:_orig)?"
HEAD_KEYS: dict[str, str | None] = {
    rf"main\.0\.0\.{_T}": r"first.conv.\1",
    r"main\.0\.1\.(weight|bias)": r"first.norm.\1",
    rf"main\.1\.fn\.0\.{_T}": r"second.conv.\1",
    r"main\.1\.fn\.1\.(weight|bias)": r"second.norm.\1",
    rf"cls\.{_T}": r"classify.\1",
    r"cmapper\.(weight|bias)": r"condition.\1",
}
DISCRIMINATOR_KEYS: dict[str, str | None] = {
    rf"heads\.(\d+)\.{theirs}": r"heads.\1." + str(ours).replace(r"\1", r"\2") for theirs, ours in HEAD_KEYS.items()
} | {r"dino\..+": None}  # published weights, which our state dicts do not hold

# Official constructor arguments -> ours; None: of training.
_generator = renaming({
    "z_dim": "z_dim", "txt_dim": "c_dim", "img_resolution": "resolution", "img_channels": "channels",
    "channel_base": "channel_base", "channel_max": "channel_max", "num_fp16_res": "num_half_res",
    "base_mult": "base_px", "num_res_blocks": "num_res_blocks", "architecture": "architecture",
    "resample_filter": "resample_filter", "conv_clamp": "conv_clamp", "kernel_size": "kernel_size",
    "use_noise": "noise", "activation": "activation", "layer_scale_init": "layer_scale", "gn_groups": "gn_groups",
    **dict.fromkeys(("train_mode", "fp16_channels_last", "fused_modconv_default", "channels_last")),
})  # fmt: skip
# Of the official classes, which are not the published "full" and "lite".
DEFAULTS: Config = {"channel_base": 32768, "channel_max": 512, "num_fp16_res": 4, "num_res_blocks": 3}
DEFAULTS |= {"architecture": "orig", "conv_clamp": 256, "base_mult": 3}
CLIP_DIM = 768  # of ViT-L/14's sentences

CALL: dict[str, str | None] = {
    "truncation_psi": "psi", "noise_mode": "noise", "force_fp32": "force_fp32", "fused_modconv": None,
}  # fmt: skip


def from_official_config(config: Config) -> Config:
    """Arguments of an official Generator -> of ours. ValueError for one that is not known."""
    given = dict(config)
    given = DEFAULTS | given.pop("synthesis_kwargs", {}) | given
    conditional = given.pop("conditional", "txt_dim" in given)
    given["txt_dim"] = given.get("txt_dim", CLIP_DIM) if conditional else 0
    given["base_mult"] = 2 ** given["base_mult"]
    return _generator(given)


def told(network: OfficialNetwork) -> Config:
    """The arguments of a pickle's generator: those that it says, and those that its names and shapes do."""
    state, said = network.state, network.init_kwargs
    sides = sorted({int(m[1]) for name in state if (m := re.match(r"synthesis\.b(\d+)\.", name))})
    first, last = (f"synthesis.b{side}." for side in (sides[0], sides[-1]))
    widths = [state[f"synthesis.b{side}.convs1.0.weight"].shape[0] for side in sides]
    z_dim, w_dim = len(state["mapping.x_avg"]), state[f"{last}torgb.affine.proj.weight"].shape[1]
    convs = {name.split(".")[3] for name in state if name.startswith(f"{first}convs1.")}
    layer = f"{first}convs1.0."
    found: Config = {
        "z_dim": z_dim, "conditional": w_dim > z_dim, "txt_dim": w_dim - z_dim, "img_resolution": sides[-1],
        "img_channels": state[f"{last}torgb.weight"].shape[0],
    }  # fmt: skip
    synthesis: Config = {
        "channel_base": widths[-1] * sides[-1], "channel_max": max(widths), "num_res_blocks": len(convs) // 2,
        "base_mult": sides[0].bit_length() - 1, "kernel_size": state[f"{layer}weight"].shape[-1],
        "use_noise": f"{layer}noise_const" in state,
        "architecture": "skip" if f"{first}torgb.weight" in state else "orig",
    }  # fmt: skip
    if "num_fp16_res" in network.parts.get("synthesis", {}):
        synthesis["num_fp16_res"] = network.parts["synthesis"]["num_fp16_res"]
    return found | {"synthesis_kwargs": synthesis | said.get("synthesis_kwargs", {})}


_judges = renaming({"c_dim": "c_dim", "cmap_dim": "cmap_dim", "features": "features", **dict.fromkeys(
    ("diffaug", "p_crop", "n_hooks")
)})  # fmt: skip


def told_judges(network: OfficialNetwork) -> Config:
    """The arguments of a pickle's discriminator, from its shapes where it does not say them."""
    condition = network.state.get("heads.0.cmapper.weight")
    shape = {} if condition is None else {"cmap_dim": condition.shape[0], "c_dim": condition.shape[1]}
    said = ("c_dim", "diffaug", "p_crop")
    return shape | {name: value for name, value in network.init_kwargs.items() if name in said}


def fits(state: State) -> bool:
    """Other projected discriminators have no such heads."""
    return any(re.fullmatch(r"heads\.0\.cls\.weight_orig", name) for name in state)


_shared: dict[str, Any] = {"call": CALL, "model": StyleGANT, "says": told}
OFFICIAL = [
    Release("stylegan-t", "Generator", Generator, OFFICIAL_KEYS, from_official_config, **_shared),
    Release(
        "stylegan-t", "ProjectedDiscriminator", Discriminator, DISCRIMINATOR_KEYS, _judges, name="D", says=told_judges,
        fits=fits,
    ),
]  # fmt: skip
