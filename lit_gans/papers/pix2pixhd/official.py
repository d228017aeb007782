"""pix2pixHD's official networks, and ours."""

from __future__ import annotations

from lit_gans.official.releases import Config, Release, State, numbered, renaming
from lit_gans.papers.cyclegan import halvings, in_one_row, is_resnet, residual_blocks
from lit_gans.papers.pix2pix import IMAGES, JUDGED, convs
from lit_gans.papers.pix2pixhd.networks import Encoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator
from lit_gans.papers.pix2pixhd.training import Pix2PixHD, encoded_channels

# State-dict names of pix2pixHD -> ours, of a generator, an encoder or a discriminator. Without intermediate features
# the official discriminator has its layers in one row: a convolution, a rectifier, then by threes with a norm between.
_GROUPS = {0: (0, 0)} | {2 + 3 * i + part: (i + 1, part) for i in range(8) for part in (0, 1)}
OFFICIAL_KEYS: dict[str, str | None] = {
    r"scale(\d+)_layer(\d+)\.(\d+)\.(\w+)": r"scales.\1.groups.\2.\3.\4",
    **{rf"layer(\d+)\.{i}\.(\w+)": rf"scales.\1.groups.{j}.{part}.\2" for i, (j, part) in _GROUPS.items()},
    r"model\.(\d+)\.conv_block\.(\d+)\.(\w+)": r"layers.\1.layers.\2.\3",
    r"model\.(\d+)\.(\w+)": r"layers.\1.\2",
    r"model(\d+)_1\.(\d+)\.(\w+)": r"enhancers.\1.down.\2.\3",
    r"model(\d+)_2\.(\d+)\.conv_block\.(\d+)\.(\w+)": r"enhancers.\1.up.\2.layers.\3.\4",
    r"model(\d+)_2\.(\d+)\.(\w+)": r"enhancers.\1.up.\2.\3",
}


def _norm(state: State, norm: str) -> str:
    """Batch or instance norm, and biases before both."""
    return "batch" if f"{norm}.weight" in state else "instance"


def _is_global(state: State) -> bool:
    return in_one_row(state) and bool(residual_blocks(state)) and not is_resnet(state)


def _is_encoder(state: State) -> bool:
    return in_one_row(state) and not residual_blocks(state)


def _encoder(state: State) -> Config:
    found = convs(state)
    ngf, input_nc = found[0][1][:2]
    config = {"input_nc": input_nc, "output_nc": found[-1][1][0], "ngf": ngf, "n_downsampling": halvings(found)}
    return {**config, "norm": _norm(state, "model.2")}


def _global(state: State) -> Config:
    return {**_encoder(state), "n_blocks": len(residual_blocks(state))}


def _local_enhancer(state: State) -> Config:
    enhancers = max(numbered(state, r"model(\d+)_1\.1\.weight"))
    ngf, input_nc = state[f"model{enhancers}_1.1.weight"].shape[:2]  # the finest has the highest number
    output_nc = convs(state, f"model{enhancers}_2.")[-1][1][0]
    config = {"input_nc": input_nc, "output_nc": output_nc, "ngf": ngf, "n_local_enhancers": enhancers}
    config |= {"n_downsample_global": halvings(convs(state)), "n_blocks_global": len(residual_blocks(state))}
    return {**config, "n_blocks_local": len(residual_blocks(state, "model1_2.")), "norm": _norm(state, "model.2")}


def _multiscale(state: State) -> Config:
    """Without intermediate features the layers of a scale are numbered through."""
    apart = "scale0_layer0.0.weight" in state
    scales = numbered(state, r"scale(\d+)_layer0\.0\.weight" if apart else r"layer(\d+)\.0\.weight")
    layers = numbered(state, r"scale0_layer(\d+)\.0\.weight") if apart else convs(state, "layer0.")
    ndf, input_nc = scales[0].shape[:2]
    config = {"input_nc": input_nc, "ndf": ndf, "n_layers": len(layers) - 2, "num_D": len(scales)}
    return {**config, "getIntermFeat": apart, "norm": _norm(state, "scale0_layer1.1" if apart else "layer0.3")}


_HALVED = {"n_downsample_global": "downsamplings", "n_blocks_global": "blocks"}
_ENHANCED = {"n_local_enhancers": "enhancers", "n_blocks_local": "local_blocks"}
_ENCODED = {"input_nc": "channels", "output_nc": "features", "ngf": "width", "norm": "norm"}
OFFICIAL = [
    Release(
        "pix2pixHD", "GlobalGenerator", GlobalGenerator, OFFICIAL_KEYS,
        renaming({**IMAGES, "n_downsampling": "downsamplings", "n_blocks": "blocks"}), _global,
        begins={"model.1.weight": (7, 7)}, fits=_is_global, model=Pix2PixHD, told=encoded_channels,
    ),
    Release(
        "pix2pixHD", "LocalEnhancer", LocalEnhancer, OFFICIAL_KEYS,
        renaming({**IMAGES, **_HALVED, **_ENHANCED}), _local_enhancer,
        begins={"model1_1.1.weight": (7, 7)}, model=Pix2PixHD, told=encoded_channels,
    ),
    Release(
        "pix2pixHD", "MultiscaleDiscriminator", MultiscaleDiscriminator, OFFICIAL_KEYS,
        renaming({**JUDGED, "n_layers": "layers", "num_D": "scales", "getIntermFeat": None}), _multiscale,
        begins={"scale0_layer0.0.weight": (4, 4), "layer0.0.weight": (4, 4)}, name="D",
    ),
    Release(
        "pix2pixHD", "Encoder", Encoder, OFFICIAL_KEYS,
        renaming({**_ENCODED, "n_downsampling": "downsamplings"}), _encoder,
        begins={"model.1.weight": (7, 7)}, fits=_is_encoder, name="E",
    ),
]  # fmt: skip
