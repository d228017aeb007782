"""The official networks of stylegan2-ada-pytorch, their names and arguments, and ours."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lit_gans.nn.minibatch_std import MinibatchStd
from lit_gans.official.names import invert
from lit_gans.official.pickles import OfficialNetwork
from lit_gans.official.releases import Config, Release, renaming
from lit_gans.official.writer import Sourced
from lit_gans.papers.stylegan2 import standalone
from lit_gans.papers.stylegan2.networks import Discriminator, Generator, MappingNetwork
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


def to_official_config(network: Generator | Discriminator) -> Config:
    """Official arguments that build a network of our network's sizes, read from it.

    Blocks that compute in bfloat16, which the official code does not know, compute there in single precision.
    """
    return _of_generator(network) if isinstance(network, Generator) else _of_discriminator(network)


def _of_generator(network: Generator) -> Config:
    mapping, blocks = network.mapping, network.synthesis.blocks
    first, maps = blocks[str(max(map(int, blocks)))], {int(r): len(block.conv1.weight) for r, block in blocks.items()}
    synthesis = _of_blocks(blocks, first, maps)
    synthesis |= {"architecture": first.architecture, "resample_filter": _taps(first.resample_filter)}
    return {
        "z_dim": mapping.z_dim,
        "c_dim": mapping.c_dim,
        "w_dim": len(mapping.w_avg),
        "img_resolution": max(maps),
        "img_channels": len(first.to_rgb.weight),
        "mapping_kwargs": _of_mapping(mapping) | {"w_avg_beta": mapping.w_avg_decay},
        "synthesis_kwargs": synthesis,
    }


def _of_discriminator(network: Discriminator) -> Config:
    blocks, epilogue, mapping = network.blocks, network.epilogue, network.mapping
    first = blocks[str(max(map(int, blocks)))]
    maps = {int(r): len(block.conv0.weight) for r, block in blocks.items()} | {4: len(epilogue.conv.weight)}
    conditional = mapping is not None
    std = {"mbstd_num_channels": 0}
    if isinstance(epilogue.minibatch_std, MinibatchStd):
        std = {"mbstd_num_channels": epilogue.minibatch_std.num_channels}
        std |= {"mbstd_group_size": epilogue.minibatch_std.group_size}
    return {
        "c_dim": mapping.c_dim if conditional else 0,
        "img_resolution": max(maps),
        "img_channels": first.from_rgb.weight.shape[1],
        "architecture": first.architecture,
        **_of_blocks(blocks, first, maps),
        "cmap_dim": len(mapping.layers[-1].weight) if conditional else None,
        "block_kwargs": {"resample_filter": _taps(first.resample_filter)},
        "mapping_kwargs": _of_mapping(mapping) if conditional else {},
        "epilogue_kwargs": std,
    }


def _of_blocks(blocks: nn.ModuleDict, first: nn.Module, maps: dict[int, int]) -> Config:
    config: Config = {"channel_base": max(r * width for r, width in maps.items()), "channel_max": max(maps.values())}
    half = sum(block.half == torch.float16 for block in blocks.values())
    return config | {"num_fp16_res": half, "conv_clamp": first.conv1.conv_clamp}


def _taps(f: Tensor) -> list[float]:
    """1-D taps of a filter, which is their outer product below 8."""
    return (f.sum(0) if f.dim() == 2 else f).tolist()


def _of_mapping(mapping: MappingNetwork) -> Config:
    config: Config = {"num_layers": len(mapping.layers), "lr_multiplier": mapping.layers[0].lr_multiplier}
    config |= {"layer_features": len(mapping.layers[0].weight)} if len(mapping.layers) > 1 else {}
    return config | ({} if mapping.embed is None else {"embed_features": len(mapping.embed.weight)})


def of_training(generator: Config) -> Config:
    """A generator's arguments -> those of `StyleGAN2`: sizes, and how it computes."""
    names = ("resolution", "channels", "z_dim", "w_dim", "num_layers", "channel_base", "channel_max", "num_half_res")
    found = {name: generator[name] for name in (*names, "conv_clamp") if name in generator}
    renamed = {"c_dim": "num_classes", "architecture": "generator_architecture"}
    return found | {own: generator[name] for name, own in renamed.items() if name in generator}


def sourced(network: OfficialNetwork) -> Sourced:
    """An official network as one of `standalone`, whose source goes along; ValueError for arguments it cannot take."""
    cls = {"Generator": standalone.Generator, "Discriminator": standalone.Discriminator}[network.class_name]
    return _with_source(cls(*network.init_args, **network.init_kwargs), network.state)


def official_network(network: Generator | Discriminator) -> Sourced:
    """Our network as one of `standalone`, with its weights under the official names."""
    cls = standalone.Generator if isinstance(network, Generator) else standalone.Discriminator
    module = cls(**to_official_config(network))
    names = list(module.state_dict())
    filters = {name: tensor for name, tensor in module.state_dict().items() if name.endswith("resample_filter")}
    return _with_source(module, invert(network.state_dict(), OFFICIAL_KEYS, official=names, dropped=filters))


def _with_source(module: nn.Module, state: dict[str, Tensor]) -> Sourced:
    module.load_state_dict(state)
    return Sourced(module.eval().requires_grad_(False), Path(standalone.__file__).read_text(encoding="utf-8"))


def snapshot(model: StyleGAN2) -> dict[str, Sourced]:
    """The networks of a training as its snapshots hold them in the official code: G, D and G_ema."""
    g_ema = official_network(model.generator_ema)
    if model.generator is not model.generator_ema:
        return {"G": official_network(model.generator), "D": official_network(model.discriminator), "G_ema": g_ema}
    # A generator alone. The official loader takes no file without a discriminator.
    kwargs = g_ema.module._init_kwargs
    shared = {name: kwargs[name] for name in ("c_dim", "img_resolution", "img_channels")}
    shared |= {name: kwargs["synthesis_kwargs"][name] for name in ("channel_base", "channel_max")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        new = standalone.Discriminator(**shared).eval().requires_grad_(False)
    note = "D is new and untrained: a generator alone was given, and the official loader wants one"
    return {"G": g_ema, "D": Sourced(new, g_ema.source, note), "G_ema": g_ema}


# fused_modconv is another order of the same operations.
CALL = {"noise_mode": "noise", "truncation_psi": "psi", "truncation_cutoff": "cutoff", "force_fp32": "force_fp32",
        "fused_modconv": None}  # fmt: skip
OFFICIAL = [
    Release(
        "stylegan2-ada-pytorch", "Generator", Generator, OFFICIAL_KEYS, from_official_config, call=CALL,
        model=StyleGAN2, sourced=sourced, snapshot=snapshot, trains=of_training,
    ),
    Release(
        "stylegan2-ada-pytorch", "Discriminator", Discriminator, OFFICIAL_KEYS, from_official_config, call=CALL,
        name="D", sourced=sourced,
    ),
]  # fmt: skip
