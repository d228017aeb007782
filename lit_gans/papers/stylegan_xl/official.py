"""The official generators of autonomousvision/stylegan-xl, stem and super-resolution: names, arguments, and ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lit_gans.official import OfficialNetwork
from lit_gans.official.names import Table
from lit_gans.official.releases import Config, Release, State, renaming
from lit_gans.papers import stylegan3
from lit_gans.papers.projected_gan import official as projected
from lit_gans.papers.projected_gan.features import PUBLISHED_PX
from lit_gans.papers.stylegan3.networks import Signal, lowpass_filter, schedule
from lit_gans.papers.stylegan3.official import CALL, fits
from lit_gans.papers.stylegan_xl.discriminators import Discriminator
from lit_gans.papers.stylegan_xl.networks import PROGRESSION, Generator, head_signals
from lit_gans.papers.stylegan_xl.training import StyleGANXL, seen_px

IMAGENET = [1000, 320]  # the pickled class embedding's size, which the official arguments do not say
DEFAULTS = {"channel_base": 32768, "channel_max": 512, "num_layers": 14}  # of the official classes: not the published
FACTORS = (2, 4, 8, 16)
LAYER = re.compile(r"synthesis\.L(\d+)_(\d+)_(\d+)\.")

# State-dict names of the official generators -> ours.
OFFICIAL_KEYS: dict[str, str | None] = {
    r"mapping\.embed_proj\.(weight|bias)": r"mapping.embed_proj.\1",
    **{pattern: own for pattern, own in stylegan3.OFFICIAL_KEYS.items() if "embed" not in pattern},
    r"mapping\.(embed\.weight|w_avg)": r"mapping.\1",
}
# Of the discriminators of levels (MultiScaleD).
HEAD_KEYS: dict[str, str | None] = {
    r"mini_discs\.(\d+)\.embed_proj\.(weight|bias)": r"heads.\1.condition.project.\2",
    **projected.HEAD_KEYS,
}


def from_official_config(config: Config) -> Config:
    """Arguments of an official generator -> of ours; those of a super-resolution generator have `stem`, its stem's.

    Raises:
        ValueError: an argument is not known, has a value that ours cannot take, or the stem's are not there.
    """
    config = dict(config)
    if "head_layers" in config or "up_factor" in config:
        return _from_superres_config(config)
    embedding = list(config.pop("embedding", IMAGENET))
    mapping = dict(config.pop("mapping_kwargs", {}))
    mapping.pop("rand_embedding", None)  # how the table began
    given = stylegan3.from_official_config(DEFAULTS | config | {"mapping_kwargs": mapping})
    return given | {"embedding": embedding}


def _from_superres_config(config: Config) -> Config:
    known = ("stem", "head_layers", "up_factor", "img_resolution", "path_stem", "z_dim", "c_dim", "w_dim")
    if unknown := sorted(config.keys() - {*known, "img_channels"}):
        raise ValueError(f"{unknown[0]!r} is no argument of a super-resolution generator, which has {', '.join(known)}")
    if "stem" not in config:
        raise ValueError("a super-resolution generator of a stem whose arguments are not there: give them as 'stem'")
    stem = from_official_config(config["stem"])
    heads = [list(head) for head in stem.get("heads", [])]
    below = heads[-1][0] if heads else stem["resolution"]
    return stem | {"heads": [*heads, [below * config["up_factor"], config["head_layers"]]]}


# ---- a pickle's stem -------------------------------------------------------------------------------------------------


def with_stem(network: OfficialNetwork) -> Config:
    """The arguments of a pickle's super-resolution generator, with those of its stem and of the heads in between.

    It names its stem as a file elsewhere. The stem's own arguments are those of the parts that it was taken apart
    into; heads before the last are found by their layers' sizes.
    """
    config = dict(network.init_kwargs)
    if "stem" in config:
        return config
    synthesis, mapping = (dict(network.parts.get(name, {})) for name in ("synthesis", "mapping"))
    if not synthesis or not mapping:
        raise ValueError("a super-resolution generator whose parts do not say what they were built from")
    stem: Config = {name: mapping.pop(name) for name in ("z_dim", "c_dim", "w_dim")} | synthesis
    mapping.pop("num_ws", None)
    stem |= {"mapping_kwargs": mapping, "embedding": list(network.state["mapping.embed.weight"].shape)}
    for resolution, num_layers in heads_of(network.state, stem)[:-1]:
        below = stem["img_resolution"]
        stem = {"stem": stem, "head_layers": num_layers, "up_factor": resolution // below, "img_resolution": resolution}
    return config | {"stem": stem}


def heads_of(state: State, stem: Config) -> list[list[int]]:
    """Resolution and layers of each head on a stem of these arguments, by the layers' sizes and filters.

    Raises:
        ValueError: no heads make these layers.
    """
    given = from_official_config(stem)
    names = ("num_layers", "num_critical", "channel_base", "channel_max", "margin_px", "last_stopband_rel")
    bands = {name: given[name] for name in names if name in given}
    first = {name: given[name] for name in ("first_cutoff", "first_stopband") if name in given}
    signals = schedule(given["resolution"], channels=given["channels"], **bands, **first)
    bands.pop("num_layers", None)
    layers = sorted({(int(m[1]), int(m[2]), int(m[3])) for name in state if (m := LAYER.match(name))})
    filters = [state.get(f"synthesis.L{i}_{size}_{channels}.down_filter") for i, size, channels in layers]
    found = _heads(signals, [layer[1:] for layer in layers], filters, bands)
    if found is None:
        raise ValueError(f"no heads on a stem of {given['resolution']} px have the layers of this file")
    return found


def _heads(
    stem: Sequence[Signal], sizes: Sequence[tuple[int, int]], filters: Sequence[Tensor | None], bands: Config
) -> list[list[int]] | None:
    """The heads that lead from the stem to a network of these layers, one after the other; None where none do."""
    if [(s.size, s.channels) for s in stem] == [*sizes]:
        return []
    kept = [s for s in stem if not s.critical]
    for factor, num_layers in product(FACTORS, range(PROGRESSION + 1, len(sizes) - len(kept))):
        if factor * stem[-1].size > sizes[-1][0]:
            return None
        signals = [*kept, *head_signals(factor * stem[-1].size, stem, num_layers=num_layers, **bands)]
        stays = signals if len(signals) == len(sizes) else [s for s in signals if not s.critical]
        if all(map(_is, stays[:-1], stays[1:], sizes[1:], filters[1:])):
            rest = _heads(signals, sizes, filters, bands)
            if rest is not None:
                return [[signals[-1].size, num_layers], *rest]
    return None


def _is(before: Signal, after: Signal, size: tuple[int, int], taps: Tensor | None) -> bool:
    """Whether a layer between these signals has this size and this downsampling filter, if it is known."""
    if (after.size, after.channels) != size:
        return False
    if taps is None or taps.dim() == 2:  # a stem's radial filters: heads have none
        return True
    rate = 2 * max(before.sampling_rate, after.sampling_rate)
    f = lowpass_filter(len(taps), cutoff=after.cutoff, width=2 * after.half_width, rate=rate)
    return f is not None and torch.allclose(f, taps, atol=1e-5)


# ---- discriminators --------------------------------------------------------------------------------------------------

_judges = renaming({
    "features": "features", "c_dim": "num_classes", "embedding": "embedding", "cout": "mixed_channels",
    "num_discs": "num_heads", **dict.fromkeys(("diffaug", "cond", "rand_embedding", "im_res", "expand")),
})  # fmt: skip
_TORCHVISION = re.compile(r"resnet(18|34|50|101|152)|wide_resnet(50|101)_2")  # timm has the others


def backbones(names: Collection[str]) -> list[str]:
    """Official names of a discriminator's feature networks, in their order."""
    return list(dict.fromkeys(m[1] for name in names if (m := re.match(r"feature_networks\.([^.]+)\.", name))))


def from_official_judges(config: Config) -> Config:
    """Arguments of an official ProjectedDiscriminator -> of ours. ValueError for one that is not known."""
    given = dict(config)
    given |= given.pop("backbone_kwargs", {})
    names = given.pop("backbones")
    px = PUBLISHED_PX if given.pop("interp224", True) else projected.FULL_PX
    given["features"] = [f"torchvision:{name}" if _TORCHVISION.fullmatch(name) else name for name in names]
    nothing = [None] * len(names)
    return _judges(given) | {
        "weights": nothing, "fingerprints": nothing, "px": [seen_px(name, px) for name in given["features"]],
    }  # fmt: skip


def told_judges(network: OfficialNetwork) -> Config:
    """The arguments of a pickle's discriminator: those that it says, and those that its names and shapes do."""
    state, names = network.state, backbones(network.state)
    heads = f"discriminators.{names[0]}.mini_discs."
    mixed = state[f"feature_networks.{names[0]}.scratch.layer0_ccm.weight"]
    found: Config = {"backbones": names, "cout": mixed.shape[0]}
    found["num_discs"] = len({name.split(".")[3] for name in state if name.startswith(heads)})
    if (table := state.get(f"{heads}0.embed.weight")) is not None:
        found |= {"c_dim": table.shape[0], "embedding": list(table.shape)}
    return found | network.init_kwargs


class JudgesRelease(Release):
    """Names begin with those of the feature networks, in the place of which ours have numbers."""

    def table(self, names: Collection[str]) -> Table:
        table: dict[str, str | None] = {}
        for number, name in enumerate(map(re.escape, backbones(names))):
            features, judge = rf"feature_networks\.{name}\.", f"judges.{number}."
            table |= {rf"discriminators\.{name}\.{a}": f"{judge}heads.{b}" for a, b in HEAD_KEYS.items()}
            table |= {f"{features}{a}": f"{judge}projector.{b}" for a, b in projected.PROJECTOR_KEYS.items()}
            tokens = projected.TOKEN_KEYS.items()
            table |= {rf"{features}pretrained\.{a}": f"{judge}features.maps.{b}" for a, b in tokens}
            table[rf"{features}pretrained\..+"] = None  # published weights, which our state dicts do not hold
        return table


# ---- releases --------------------------------------------------------------------------------------------------------


class XLRelease(Release):
    """The names of a network without classes are others: it has an embedding, which it does not use."""

    def table(self, names: Collection[str]) -> Table:
        unused = {} if "mapping.embed_proj.weight" in names else {r"mapping\.embed\.weight": None}
        return unused | super().table(names)


_shared: dict[str, Any] = {"call": CALL, "model": StyleGANXL, "fits": lambda state: not fits(state)}
OFFICIAL = [
    XLRelease("stylegan-xl", "Generator", Generator, OFFICIAL_KEYS, from_official_config, **_shared),
    XLRelease(
        "stylegan-xl", "SuperresGenerator", Generator, OFFICIAL_KEYS, from_official_config, says=with_stem, **_shared
    ),
    JudgesRelease(
        "stylegan-xl", "ProjectedDiscriminator", Discriminator, {}, from_official_judges, name="D", says=told_judges
    ),
]
