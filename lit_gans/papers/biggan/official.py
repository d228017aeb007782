"""Official networks and ours: BigGAN-PyTorch's, and the released modules as pytorch-pretrained-BigGAN has them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_gans.official.names import Change, Table
from lit_gans.official.releases import Config, Release, State, numbered, renaming
from lit_gans.papers.biggan.deep import DeepDiscriminator, DeepGenerator
from lit_gans.papers.biggan.networks import (
    DISCRIMINATOR_MAPS,
    GENERATOR_MAPS,
    Discriminator,
    Generator,
    discriminator_sides,
    generator_sides,
)
from lit_gans.papers.biggan.training import BigGAN, BigGANDeep

# ---- BigGAN-PyTorch --------------------------------------------------------------------------------------------------

_T = r"\.(?P<t>weight|bias|u\d+|sv\d+)"  # a layer's tensors; u and sv are of spectral normalisation
# Where a norm's statistics lie depends on its kind: `bn.` of the official code's own and of its synchronised norm.
_STORED = r"(?:bn\.)?(?:stored|running)_(?P<s>mean|var)"

# State-dict names of all four official networks -> ours.
OFFICIAL_KEYS: dict[str, str | None] = {
    rf"(?P<l>shared|linear|embed){_T}": r"\g<l>.\g<t>",
    rf"input_conv{_T}": r"from_rgb.\g<t>",
    rf"blocks\.(\d+)\.(\d+)\.(conv\d){_T}": r"blocks.\1.\2.\3.\g<t>",
    rf"blocks\.(\d+)\.(\d+)\.conv_sc{_T}": r"blocks.\1.\2.shortcut.\g<t>",
    rf"blocks\.(\d+)\.0\.bn(\d)\.gain{_T}": r"blocks.\1.0.norm\2.gain.\g<t>",
    rf"blocks\.(\d+)\.0\.bn(\d)\.bias{_T}": r"blocks.\1.0.norm\2.shift.\g<t>",
    rf"blocks\.(\d+)\.0\.bn(\d)\.{_STORED}": r"blocks.\1.0.norm\2.norm.running_\g<s>",
    rf"blocks\.(\d+)\.(\d+)\.(theta|phi|g|o){_T}": r"blocks.\1.\2.\3.\g<t>",
    r"blocks\.(\d+)\.(\d+)\.gamma": r"blocks.\1.\2.gamma",
    r"output_layer\.0\.gain": "norm.gain",
    r"output_layer\.0\.bias": "norm.shift",
    rf"output_layer\.0\.{_STORED}": r"norm.norm.running_\g<s>",
    rf"output_layer\.2{_T}": r"to_rgb.\g<t>",
    # Counters: of standing statistics, which here are gathered anew, and of the synchronised norm, whose momentum is
    # fixed.
    r".*\.bn\.(accumulation_counter|num_batches_tracked)": None,
}

# Of both players: official constructor arguments, without their letter, -> ours; None: of training, or checked.
_BOTH = {
    "ch": "width", "resolution": "resolution", "attn": "attention", "n_classes": "num_classes", "num_SVs": "sn_vectors",
    "num_SV_itrs": "sn_steps", "SN_eps": "sn_eps", "init": "init", "image_channels": "channels", "depth": "depth",
    "param": "weight_norm", **dict.fromkeys(("kernel_size", "lr", "B1", "B2", "adam_eps", "mixed_precision", "fp16")),
    **dict.fromkeys(("skip_init", "no_optim", "activation")),
}  # fmt: skip
_OF_GENERATORS = {
    **_BOTH, "dim_z": "z_dim", "shared_dim": "shared_dim", "BN_eps": "bn_eps", "norm_style": "norm", "mybn": "biased",
    "shared": "shared", "hier": "hierarchical", "cross_replica": None, "bottom_width": None,
}  # fmt: skip
_OF_DISCRIMINATORS = {**_BOTH, "wide": "wide", "output_dim": None}
_INITS = {"ortho": "orthogonal", "N02": "normal", "glorot": "xavier", "xavier": "xavier"}
_STYLES = {"bn": "batch", "in": "instance", "nonorm": "none"}
_OWN = re.compile(r"(num_)?([GD])_(.+)")

# What the official constructors have unasked.
_DEFAULTS = {"attn": "64", "n_classes": 1000, "num_SVs": 1, "num_SV_itrs": 1, "SN_eps": 1e-12, "init": "ortho",
             "param": "SN", "ch": 64, "resolution": 128}  # fmt: skip
_GENERATOR_DEFAULTS = {**_DEFAULTS, "dim_z": 128, "shared": True, "shared_dim": 0, "hier": False, "BN_eps": 1e-5,
                       "norm_style": "bn", "mybn": False}  # fmt: skip


def _plain(config: Config, player: str) -> Config:
    """Without the letters of the player: G_ch is ch, num_G_SVs is num_SVs."""
    found = {}
    for name, value in config.items():
        match = _OWN.fullmatch(name)
        if match and match[2] != player:
            raise ValueError(f"{name!r} is of the other player")
        found[(match[1] or "") + match[3] if match else name] = value
    return found


def _only(given: Config, name: str, *allowed: Any) -> None:
    """Takes an argument out of which there is but one value here. ValueError for another."""
    if name in given and (value := given.pop(name)) not in allowed:
        raise ValueError(f"{name} is {value!r}; there is {allowed[0]!r} alone here")


def _chosen(given: Config, name: str, names: dict[str, str]) -> None:
    """Puts our name in the place of the official value. ValueError for one that is not known."""
    if given[name] not in names:
        raise ValueError(f"{name} is {given[name]!r}, not one of {', '.join(names)}")
    given[name] = names[given[name]]


def _common(given: Config, sides: Sequence[int]) -> None:
    """What both players' arguments have to become."""
    if "activation" in given and "relu" not in str(given["activation"]).lower():
        raise ValueError(f"activation is {given['activation']!r}; there are rectifiers alone here")
    _chosen(given, "init", _INITS)
    asked = {int(side) for side in str(given["attn"]).split("_")}
    given["attn"] = [side for side in dict.fromkeys(sides) if side in asked]  # others are passed over, as "0" is


def generator_arguments(config: Config) -> Config:
    """Arguments of an official BigGAN.Generator -> of ours. ValueError for one that is not known."""
    given = _GENERATOR_DEFAULTS | _plain(config, "G")
    _only(given, "bottom_width", 4)
    _common(given, generator_sides(given["resolution"]))
    if given["mybn"] or given.get("cross_replica"):
        given["norm_style"] = "bn"  # they are batch norms whatever it is
    _chosen(given, "norm_style", _STYLES)
    given["param"] = "spectral" if given["param"] == "SN" else "none"
    return renaming({name: own for name, own in _OF_GENERATORS.items() if name != "depth"})(given)


def deep_generator_arguments(config: Config) -> Config:
    """Arguments of an official BigGANdeep.Generator -> of ours. ValueError for one that is not known."""
    given = {"G_ch": 128, "resolution": 512, "hier": True, "G_depth": 2} | config
    depth = given.pop("G_depth")
    if not given.get("G_shared", True) or not given["hier"]:
        raise ValueError("BigGAN-deep's classes and latents go into the norms together: G_shared and hier are True")
    ours = generator_arguments(given)
    return {name: value for name, value in ours.items() if name not in ("shared", "hierarchical")} | {"depth": depth}


def discriminator_arguments(config: Config) -> Config:
    """Arguments of an official BigGAN.Discriminator -> of ours. ValueError for one that is not known."""
    given = _DEFAULTS | {"wide": True} | _plain(config, "D")
    _only(given, "output_dim", 1)
    _only(given, "param", "SN")
    _common(given, discriminator_sides(given["resolution"]))
    return renaming({name: own for name, own in _OF_DISCRIMINATORS.items() if name != "depth"})(given)


def deep_discriminator_arguments(config: Config) -> Config:
    """Arguments of an official BigGANdeep.Discriminator -> of ours. ValueError for one that is not known."""
    given = {"D_depth": 2} | config
    depth = given.pop("D_depth")
    ours = discriminator_arguments(given)
    del ours["wide"]  # which has no effect there
    blocks = len(DISCRIMINATOR_MAPS[ours["resolution"]]) - 1
    ours["attention"] = [side for side in ours["attention"] if side in discriminator_sides(ours["resolution"])[:blocks]]
    return ours | {"depth": depth}


# ---- what the tensors of a state dict say ----------------------------------------------------------------------------


def _pairs(state: State, first: str, last: str) -> list[tuple[int, int]]:
    """(in, out) feature maps of each block, by the patterns of its first and last convolution's weights."""
    ins, outs = numbered(state, first), numbered(state, last)
    return [(ins[block].shape[1], outs[block].shape[0]) for block in ins]


def _stages(
    pairs: Sequence[tuple[int, int]], blocks: Callable[[int, int], list[tuple[int, int]]]
) -> tuple[int, int, int]:
    """(resolution, depth, width) of deep networks' blocks; `blocks(resolution, depth)` are those of width 1."""
    for resolution in GENERATOR_MAPS:
        for depth in range(1, len(pairs) + 1):
            of_one = blocks(resolution, depth)
            if len(of_one) == len(pairs):
                width = pairs[-1][1] // of_one[-1][1]
                if [(width * a, width * b) for a, b in of_one] == list(pairs):
                    return resolution, depth, width
    raise ValueError(f"its {len(pairs)} blocks are of no resolution that is known, from 32 to 512")


def _up(resolution: int, depth: int) -> list[tuple[int, int]]:
    """(in, out) of a deep generator's blocks, in widths: the first of several at a resolution keeps its own."""
    stages = itertools.pairwise(GENERATOR_MAPS[resolution])
    return [(a if k < 2 else b, b if k or depth == 1 else a) for a, b in stages for k in range(depth)]


def _attended(state: State, sides: Sequence[int], *, depth: int = 1) -> str:
    """The sides of the blocks that attention follows, as the official code has them: "32_64"."""
    found = numbered(state, r"blocks\.(\d+)\.\d+\.gamma")
    return "_".join(dict.fromkeys(str(sides[block // depth]) for block in found)) or "0"


def _generator(state: State) -> Config:
    """Of a BigGAN.Generator."""
    pairs = _pairs(state, r"blocks\.(\d+)\.0\.conv1\.weight", r"blocks\.(\d+)\.0\.conv2\.weight")
    blocks, out = len(pairs), pairs[-1][1]
    resolution = 4 * 2**blocks
    if resolution not in GENERATOR_MAPS:
        raise ValueError(f"its {blocks} blocks make {resolution} px; known are {', '.join(map(str, GENERATOR_MAPS))}")
    gain, dim_z = state["blocks.0.0.bn1.gain.weight"], state["linear.weight"].shape[1]
    shared = state.get("shared.weight")
    part = 0 if shared is None else gain.shape[1] - shared.shape[1]
    found = {"G_ch": out // GENERATOR_MAPS[resolution][-1], "resolution": resolution, "G_shared": shared is not None}
    classes, shared_dim = (len(gain), 0) if shared is None else shared.shape
    found |= {"n_classes": classes, "shared_dim": shared_dim}
    found |= {"hier": part > 0, "dim_z": dim_z * (blocks + 1) if part else dim_z}
    return found | {"G_attn": _attended(state, generator_sides(resolution)), **_of_generators(state)}


def _deep_generator(state: State) -> Config:
    """Of a BigGANdeep.Generator."""
    pairs = _pairs(state, r"blocks\.(\d+)\.0\.conv1\.weight", r"blocks\.(\d+)\.0\.conv4\.weight")
    resolution, depth, width = _stages(pairs, _up)
    classes, shared_dim = state["shared.weight"].shape
    found = {"G_ch": width, "G_depth": depth, "resolution": resolution, "n_classes": classes, "shared_dim": shared_dim}
    found["dim_z"] = state["linear.weight"].shape[1] - shared_dim
    return found | {"G_attn": _attended(state, generator_sides(resolution), depth=depth), **_of_generators(state)}


def _of_generators(state: State) -> Config:
    """What weights do not tell is as in the official scripts: `SN_eps` and `BN_eps` of ImageNet."""
    norm = [name for name in state if name.startswith("blocks.0.0.bn1.")]
    own = any(name.endswith("bn.stored_mean") for name in norm)
    found = {"image_channels": len(state["output_layer.2.weight"]), "mybn": own, "SN_eps": 1e-6}
    found |= {"cross_replica": any(name.endswith("bn.running_mean") for name in norm)}
    found |= {"norm_style": "bn" if any(name.endswith("_mean") for name in norm) else "nonorm"}
    return found | {"G_param": "SN" if "linear.u0" in state else "none", "num_G_SVs": _vectors(state)}


def _vectors(state: State) -> int:
    return max(len(numbered(state, r"linear\.u(\d+)")), 1)


def _discriminator(state: State) -> Config:
    """Of a BigGAN.Discriminator."""
    pairs = _pairs(state, r"blocks\.(\d+)\.0\.conv1\.weight", r"blocks\.(\d+)\.0\.conv2\.weight")
    multiples = [out // pairs[0][1] for _, out in pairs]
    known = {r: m for r, m in DISCRIMINATOR_MAPS.items() if [each // m[0] for each in m] == multiples}
    if not known:
        raise ValueError(f"its {len(pairs)} blocks are of no resolution that is known, from 32 to 512")
    (resolution, maps), *_ = known.items()
    # The first block has maps between its convolutions that tell a wide one: as many as go out, or the image's.
    hidden = numbered(state, r"blocks\.(\d+)\.0\.conv1\.weight")
    found = {"D_ch": pairs[0][1] // maps[0], "resolution": resolution, "image_channels": pairs[0][0]}
    found |= {"D_wide": len(hidden[0]) == pairs[0][1], "D_attn": _attended(state, discriminator_sides(resolution))}
    return found | {"n_classes": len(state["embed.weight"]), "num_D_SVs": _vectors(state), "SN_eps": 1e-6}


def _deep_discriminator(state: State) -> Config:
    """Of a BigGANdeep.Discriminator, whose blocks of one resolution are side by side."""
    firsts = _pairs(state, r"blocks\.(\d+)\.0\.conv1\.weight", r"blocks\.(\d+)\.0\.conv4\.weight")
    resolution, _, width = _stages(firsts, lambda resolution, _: [*itertools.pairwise(DISCRIMINATOR_MAPS[resolution])])
    depth = len(numbered(state, r"blocks\.0\.(\d+)\.conv1\.weight"))
    found = {"D_ch": width, "D_depth": depth, "resolution": resolution, "n_classes": len(state["embed.weight"])}
    found |= {"image_channels": state["input_conv.weight"].shape[1], "num_D_SVs": _vectors(state), "SN_eps": 1e-6}
    return found | {"D_attn": _attended(state, discriminator_sides(resolution))}


# ---- the released modules --------------------------------------------------------------------------------------------

ATTENTION_AFTER = 8  # blocks of the released generators: behind the second at 64 px
HUB_EPS = 1e-4


def _swapped(t: Tensor) -> Tensor:
    """The latent stands before the embedding there, behind it here: both are of one size."""
    return torch.cat(t.chunk(2, dim=-1)[::-1], dim=-1)


def _channels_first(t: Tensor) -> Tensor:
    """Rows [4 4 C, ...] -> [C 4 4, ...]."""
    return t.unflatten(0, (4, 4, -1)).movedim(2, 0).flatten(0, 2).contiguous()


def _channels_last(t: Tensor) -> Tensor:
    return t.unflatten(0, (-1, 4, 4)).movedim(0, 2).flatten(0, 2).contiguous()


def _transposed(t: Tensor) -> Tensor:
    return t.T.contiguous()


_N = r"\.(?:weight_)?(?P<t>[uv]|weight|bias)(?:_orig)?"  # of a layer under torch's spectral normalisation


def _layer(theirs: str, ours: str) -> dict[str, str | Change | None]:
    """A block of the released generators."""
    table: dict[str, str | Change | None] = {}
    for k in range(4):
        norm, own = rf"{theirs}\.bn_{k}", f"{ours}.norm{k + 1}"
        table[rf"{theirs}\.conv_{k}{_N}"] = rf"{ours}.conv{k + 1}.\g<t>"
        table[rf"{norm}\.running_means"], table[rf"{norm}\.running_vars"] = f"{own}.norm.means", f"{own}.norm.variances"
        for what, mine in (("scale", "gain"), ("offset", "shift")):
            for tensor, name in (("weight_orig", "weight"), ("weight_v", "v")):
                table[rf"{norm}\.{what}\.{tensor}"] = Change(f"{own}.{mine}.{name}", _swapped, _swapped)
            table[rf"{norm}\.{what}\.weight_u"] = f"{own}.{mine}.u"
    return table


# State-dict names of pytorch-pretrained-BigGAN -> ours. Nothing is dropped.
HUB_KEYS: Table = {
    r"embeddings\.weight": Change("shared.weight", _transposed, _transposed),
    r"generator\.gen_z\.weight_orig": Change(
        "linear.weight", lambda t: _swapped(_channels_first(t)), lambda t: _channels_last(_swapped(t))
    ),
    r"generator\.gen_z\.(?:weight_)?(bias|u)": Change(r"linear.\1", _channels_first, _channels_last),
    r"generator\.gen_z\.weight_v": Change("linear.v", _swapped, _swapped),
    r"generator\.bn\.weight": "norm.gain",
    r"generator\.bn\.bias": "norm.shift",
    r"generator\.bn\.running_means": "norm.norm.means",
    r"generator\.bn\.running_vars": "norm.norm.variances",
    rf"generator\.conv_to_rgb{_N}": r"to_rgb.\g<t>",
    rf"generator\.layers\.{ATTENTION_AFTER}\.snconv1x1_(theta|phi|g|o)(?:_conv)?{_N}": (
        rf"blocks.{ATTENTION_AFTER - 1}.1.\1.\g<t>"
    ),
    rf"generator\.layers\.{ATTENTION_AFTER}\.gamma": Change(
        f"blocks.{ATTENTION_AFTER - 1}.1.gamma", lambda t: t.view(()), lambda t: t.view(1)
    ),
    **{
        theirs: ours
        for number in range(15)  # of 512 px, which have the most
        if number != ATTENTION_AFTER
        for theirs, ours in _layer(
            rf"generator\.layers\.{number}", f"blocks.{number - (number > ATTENTION_AFTER)}.0"
        ).items()
    },
}


def hub_arguments(config: Config) -> Config:
    """The released modules' config -> arguments of `DeepGenerator`. ValueError for networks that are not like them."""
    given = dict(config)
    layers = [(a, b) for _, a, b in given.pop("layers")]
    resolution, depth, _ = _stages(layers, _up)
    _only(given, "attention_layer_position", ATTENTION_AFTER)
    if given.pop("class_embed_dim", given["z_dim"]) != given["z_dim"]:
        raise ValueError("class_embed_dim is not z_dim, and both halves of what norms see are of one size there")
    given.pop("output_dim", None)  # which has no effect
    eps = given.pop("eps", HUB_EPS)
    names = {"z_dim": "z_dim", "channel_width": "width", "num_classes": "num_classes", "n_stats": "statistics"}
    sides = [generator_sides(resolution)[(ATTENTION_AFTER - 1) // depth]]
    return renaming(names)(given) | {
        "resolution": resolution, "depth": depth, "attention": sides, "shared_dim": given["z_dim"], "bn_eps": eps,
        "out_eps": eps, "sn_eps": eps, "weight_norm": "stored", "rgb_maps": given["channel_width"],
    }  # fmt: skip


def _hub(state: State) -> Config:
    """The config of a state dict; the eps of its norms, which weights do not tell, is the published one."""
    first, last = (rf"generator\.layers\.(\d+)\.conv_{k}\.weight_orig" for k in (0, 3))
    resolution, depth, width = _stages(_pairs(state, first, last), _up)
    z_dim, classes = state["embeddings.weight"].shape
    layers = [[k % depth == depth - 1, a, b] for k, (a, b) in enumerate(_up(resolution, depth))]
    found = {"z_dim": z_dim, "num_classes": classes, "channel_width": width, "layers": layers, "eps": HUB_EPS}
    return found | {"n_stats": len(state["generator.bn.running_means"])}


def _is_deep(state: State) -> bool:
    return "blocks.0.0.conv3.weight" in state


def _judges(state: State) -> bool:
    return "embed.weight" in state and "linear.weight" in state and "output_layer.2.weight" not in state


OFFICIAL = [
    Release(
        "BigGAN-PyTorch", "BigGAN.Generator", Generator, OFFICIAL_KEYS, generator_arguments, _generator,
        begins={"output_layer.2.weight": (3, 3)}, fits=lambda state: not _is_deep(state), model=BigGAN,
    ),
    Release(
        "BigGAN-PyTorch", "BigGANdeep.Generator", DeepGenerator, OFFICIAL_KEYS, deep_generator_arguments,
        _deep_generator, begins={"output_layer.2.weight": (3, 3)}, fits=_is_deep, model=BigGANDeep,
    ),
    Release(
        "BigGAN-PyTorch", "BigGAN.Discriminator", Discriminator, OFFICIAL_KEYS, discriminator_arguments, _discriminator,
        begins={"blocks.0.0.conv1.weight": (3, 3)}, fits=_judges, name="D",
    ),
    Release(
        "BigGAN-PyTorch", "BigGANdeep.Discriminator", DeepDiscriminator, OFFICIAL_KEYS, deep_discriminator_arguments,
        _deep_discriminator, begins={"input_conv.weight": (3, 3)}, fits=_judges, name="D",
    ),
    Release(
        "pytorch-pretrained-BigGAN", "BigGAN", DeepGenerator, HUB_KEYS, hub_arguments, _hub,
        begins={"generator.gen_z.weight_orig": ()}, model=BigGANDeep,
    ),
]  # fmt: skip
