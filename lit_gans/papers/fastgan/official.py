"""The official generator of autonomousvision/projected-gan, its names and arguments, and ours."""

from __future__ import annotations

from lit_gans.official import OfficialNetwork
from lit_gans.official.releases import Config, Release, renaming
from lit_gans.papers.fastgan.networks import MULTIPLES, Generator
from lit_gans.papers.fastgan.training import FastGAN

# A layer's tensors: `weight_orig` is the weight under spectral normalisation, `weight_u` and `weight_v` its vectors.
_T = r"\.(?:weight_)?(?P<t>[uv]|weight|bias|running_mean|running_var|num_batches_tracked)(?:_orig)?"

# State-dict names of the official generator, in all its forms, -> ours. Nothing is dropped.
OFFICIAL_KEYS: dict[str, str | None] = {
    rf"synthesis\.init\.init\.(\d){_T}": r"stem.\1.\g<t>",
    rf"synthesis\.feat_(\d+)\.(\d){_T}": r"blocks.\1.\2.\g<t>",
    rf"synthesis\.se_(\d+)\.main\.(\d){_T}": r"excitations.\1.\2.\g<t>",
    rf"synthesis\.to_big{_T}": r"to_rgb.\g<t>",
    # Of the conditional form, whose layers have names, with numbers where there are two of each.
    r"synthesis\.embed\.weight": "embed.weight",
    r"synthesis\.feat_(\d+)\.noise\.weight": r"blocks.\1.noise.weight",
    **{
        rf"synthesis\.feat_(\d+)\.{theirs}": rf"blocks.\1.{ours}"
        for i, n in enumerate(("1?", "2"))
        for theirs, ours in {
            rf"conv{n}{_T}": rf"convs.{i}.\g<t>",
            rf"bn{n}\.gain{_T}": rf"norms.{i}.gain.\g<t>",
            rf"bn{n}\.bias{_T}": rf"norms.{i}.shift.\g<t>",
            rf"bn{n}\.stored_(mean|var)": rf"norms.{i}.running_\2",
        }.items()
    },
}

# Official constructor arguments -> ours; None: of no consequence.
ARGUMENTS = {
    "z_dim": "z_dim", "c_dim": "num_classes", "img_resolution": "resolution", "img_channels": "channels",
    "ngf": "width", "lite": "lite", "num_classes": "embeddings", "w_dim": None, "mapping_kwargs": None,
}  # fmt: skip
EMBEDDINGS = 1000  # of the official conditional form, which is ImageNet's, unless it is told otherwise

_arguments = renaming(ARGUMENTS)


def from_official_config(config: Config) -> Config:
    """Arguments of an official Generator -> of ours. ValueError for one that is not known."""
    given = dict(config)
    given |= given.pop("synthesis_kwargs", {})
    embeddings = given.pop("num_classes", EMBEDDINGS)
    if not given.pop("cond", False):  # then it is not told the class, whatever c_dim is
        return _arguments(given | {"c_dim": 0})
    return _arguments(given | {"c_dim": given.get("c_dim") or embeddings, "num_classes": embeddings})


def told(network: OfficialNetwork) -> Config:
    """The arguments of a pickle's generator: those that it says, and those that its names and shapes do."""
    state, table = network.state, network.state.get("synthesis.embed.weight")
    found: Config = {"cond": table is not None} | ({} if table is None else {"num_classes": table.shape[0]})
    if "synthesis.init.init.0.weight_orig" in state:
        found["ngf"] = state["synthesis.init.init.0.weight_orig"].shape[1] // (2 * MULTIPLES[4])
        found["lite"] = not state.keys() & {"synthesis.feat_8.5.weight_orig", "synthesis.feat_8.conv2.weight_orig"}
    return found | network.init_kwargs


OFFICIAL = [
    Release("projected-gan", "Generator", Generator, OFFICIAL_KEYS, from_official_config, model=FastGAN, says=told),
]
