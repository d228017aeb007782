"""The official networks of autonomousvision/projected-gan, their names, and ours."""

from __future__ import annotations

from lit_gans.official import OfficialNetwork
from lit_gans.official.releases import Config, Release, renaming
from lit_gans.papers.projected_gan.discriminators import Discriminator
from lit_gans.papers.projected_gan.features import PUBLISHED_PX

# A layer's tensors: `weight_orig` is the weight under spectral normalisation, `weight_u` and `weight_v` its vectors.
_T = r"\.(?:weight_)?(?P<t>[uv]|weight|bias|running_mean|running_var|num_batches_tracked)(?:_orig)?"

# State-dict names of the official discriminators of levels (MultiScaleD) -> ours.
HEAD_KEYS: dict[str, str | None] = {
    rf"mini_discs\.(\d+)\.main\.(\d+)\.main\.0\.main\.(\d(?:\.\w+wise)?){_T}": r"heads.\1.layers.\2.0.\3.\g<t>",
    rf"mini_discs\.(\d+)\.main\.(\d+)\.main\.(\d(?:\.\w+wise)?){_T}": r"heads.\1.layers.\2.\3.\g<t>",
    rf"mini_discs\.(\d+)\.main\.(\d+){_T}": r"heads.\1.layers.\2.\g<t>",
    rf"mini_discs\.(\d+)\.cls{_T}": r"heads.\1.classify.\g<t>",
    r"mini_discs\.(\d+)\.embed\.weight": r"heads.\1.condition.embed.weight",
    r"mini_discs\.(\d+)\.embed_proj\.0\.(weight|bias)": r"heads.\1.condition.project.0.\2",
}
# Of the random projections (F_RandomProj without the feature network).
PROJECTOR_KEYS: dict[str, str | None] = {
    r"scratch\.layer(\d)_ccm\.(weight|bias)": r"ccm.\1.\2",
    r"scratch\.layer(\d)_csm\.out_conv\.(weight|bias)": r"csm.\1.\2",
}
# Of the maps that StyleGAN-XL makes of a vision transformer's tokens; what stands before 3 has no weights.
TOKEN_KEYS: dict[str, str | None] = {
    rf"layer{k + 1}\.{3 + i}\.(weight|bias)": rf"layers.{k}.{i}.\1" for k in range(4) for i in range(2)
}
# Of the whole discriminator. The feature network has published weights, which our state dicts do not hold.
OFFICIAL_KEYS: dict[str, str | None] = {
    **{rf"discriminator\.{theirs}": f"heads.{ours}" for theirs, ours in HEAD_KEYS.items()},
    **{rf"feature_network\.{theirs}": f"projector.{ours}" for theirs, ours in PROJECTOR_KEYS.items()},
    r"feature_network\.pretrained\..+": None,
}

# Official constructor arguments -> ours; None: of training, or told by another.
_arguments = renaming({
    "cout": "mixed_channels", "expand": "expand", "num_discs": "num_heads", "separable": "separable", "patch": "patch",
    "c_dim": "num_classes", **dict.fromkeys(("cond", "diffaug", "im_res")),
})  # fmt: skip
FULL_PX = 256  # what features are taken to see that see images as they are: heads have the same layers from 128 px on


def from_official_config(config: Config) -> Config:
    """Arguments of an official ProjectedDiscriminator -> of ours. ValueError for one that is not known."""
    given = dict(config)
    given |= given.pop("backbone_kwargs", {})
    mixing = ("none", "channels", "scales")[given.pop("proj_type", 2)]
    px = PUBLISHED_PX if given.pop("interp224", True) else FULL_PX
    return {"features_px": px, "mixing": mixing} | _arguments(given)


def told(network: OfficialNetwork) -> Config:
    """The arguments of a pickle's discriminator: those that it says, and those that its names and shapes do."""
    state, heads = network.state, [name for name in network.state if name.startswith("discriminator.")]
    table = state.get("discriminator.mini_discs.0.embed.weight")
    found: Config = {"c_dim": 0 if table is None else table.shape[0]}
    found["num_discs"] = len({name.split(".")[2] for name in heads})
    found["separable"] = any(".depthwise." in name for name in heads)
    found["patch"] = any(".main.0.main.0.main." in name for name in heads)
    mixed = [state.get(f"feature_network.scratch.layer{k}_ccm.weight") for k in range(2)]
    if mixed[0] is None or mixed[1] is None:
        return found | {"proj_type": 0} | network.init_kwargs
    found["proj_type"] = 1 + ("feature_network.scratch.layer0_csm.out_conv.weight" in state)
    finest, next_finest = mixed[0].shape[0], mixed[1].shape[0]
    found |= {"cout": finest, "expand": next_finest > finest}
    return found | network.init_kwargs


OFFICIAL = [
    Release(
        "projected-gan", "ProjectedDiscriminator", Discriminator, OFFICIAL_KEYS, from_official_config, name="D",
        says=told,
    ),
]  # fmt: skip
