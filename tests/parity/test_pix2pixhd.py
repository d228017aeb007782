"""pix2pixHD's networks, losses, edges and schedule against recorded values of the official code."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial import learning_rate_factor
from lit_gans.adversarial.losses import is_fake, is_real
from lit_gans.official import apply_keys, invert
from lit_gans.papers import pix2pixhd
from lit_gans.papers.pix2pixhd import OFFICIAL_KEYS, MultiscaleDiscriminator
from lit_gans.papers.pix2pixhd.instances import edges
from lit_gans.papers.pix2pixhd.losses import feature_matching, least_squares
from lit_gans.papers.pix2pixhd.networks import Features
from tests.parity.golden import Golden, cases, count_parameters, published, translated

SOURCE = "NVIDIA/pix2pixHD"
# Official constructor arguments -> ours; None: says nothing that ours must know, or at the value of FIXED alone.
IMAGES = {"input_nc": "in_channels", "output_nc": "out_channels", "ngf": "width", "norm": "norm", "padding_type": None}
ARGUMENTS: dict[str, dict[str, str | None]] = {
    "GlobalGenerator": IMAGES | {"n_downsampling": "downsamplings", "n_blocks": "blocks"},
    "LocalEnhancer": IMAGES
    | {"n_downsample_global": "downsamplings", "n_blocks_global": "blocks"}
    | {"n_local_enhancers": "enhancers", "n_blocks_local": "local_blocks"},
    "Encoder": {"input_nc": "channels", "output_nc": "features", "ngf": "width", "norm": "norm"}
    | {"n_downsampling": "downsamplings"},
    "MultiscaleDiscriminator": {"input_nc": "channels", "ndf": "width", "n_layers": "layers", "num_D": "scales"}
    | {"norm": "norm"}
    | dict.fromkeys(("use_sigmoid", "getIntermFeat", "use_lsgan", "lambda_feat")),
}
FIXED = {"padding_type": "reflect"}
DEFAULTS: dict[str, dict[str, Any]] = {  # of the official classes, where ours are others
    "GlobalGenerator": {"n_downsampling": 3},
    "LocalEnhancer": {"n_downsample_global": 3},
    "Encoder": {"ngf": 32},
    "MultiscaleDiscriminator": {},
}


def class_name(golden: Golden) -> str:
    """The network's: the official class may be followed by what else was recorded."""
    return golden.official_class.split(" ")[0].rsplit(".", 1)[-1]


def loaded(golden: Golden) -> nn.Module:
    """Our network of the recorded configuration with the recorded weights; strict both ways."""
    name = class_name(golden)
    config = {"norm": "batch"} | DEFAULTS[name] | golden.config
    network = getattr(pix2pixhd, name)(**translated(config, ARGUMENTS[name], FIXED))
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS, ours=network.state_dict()))
    return network.train()


NETWORKS = [p for c in ARGUMENTS for p in cases(f"models.networks.{c}", SOURCE)]
GENERATORS = [p for c in ("GlobalGenerator", "LocalEnhancer") for p in cases(f"models.networks.{c}", SOURCE)]


@pytest.mark.parametrize("golden", GENERATORS)
def test_generators(golden: Golden) -> None:
    network, leaves = loaded(golden), golden.leaves
    found = {f"{mode}/y": network.train(mode == "train")(leaves["x"]) for mode in ("eval", "train")}
    found |= golden.buffers(network, OFFICIAL_KEYS)
    if "w_y" in leaves:
        mode = "eval" if golden.call.get("modes") == ["eval"] or "eval" in golden.call.get("grad", "") else "train"
        terms = found[f"{mode}/y"] * leaves["w_y"]
        found |= {"scalar": terms.sum()} | golden.gradients(terms.sum(), leaves, network, keys=OFFICIAL_KEYS)
    golden.compare(found, scales={"scalar": terms.norm()} if "scalar" in found else None)


@pytest.mark.parametrize("golden", cases("models.networks.Encoder", SOURCE))
def test_encoder(golden: Golden) -> None:
    network, leaves, before = loaded(golden), golden.leaves, []
    network.layers.register_forward_hook(lambda _, x, y: before.append(y))
    y = network.train("eval" not in golden.call.get("mode", ""))(leaves["image"], leaves["inst"][:, 0])
    found = {"y": y, "y_before_pooling": before[0]} | golden.buffers(network, OFFICIAL_KEYS)
    if "w_y" in leaves:
        found |= golden.gradients((y * leaves["w_y"]).sum(), leaves, network, keys=OFFICIAL_KEYS)
    golden.compare(found)


@pytest.mark.parametrize("golden", cases("models.networks.MultiscaleDiscriminator", SOURCE))
def test_discriminator_and_losses(golden: Golden) -> None:
    """The official sigmoid after the prediction is not ours: it is put there, and lost with intermediate features."""
    network, leaves, config = loaded(golden), golden.leaves, golden.config
    fake, real = network(leaves["fake"]), network(leaves["real"])
    features = config.get("getIntermFeat", False)
    sigmoid = config.get("use_sigmoid", False) and not features
    found = golden.buffers(network, OFFICIAL_KEYS) | golden.buffers(network, OFFICIAL_KEYS, prefix="state_after/")
    for i, scale in enumerate(through_sigmoid(real) if sigmoid else real):
        found |= {f"real/scale{i}/feat{j}": x for j, x in enumerate(scale if features else scale[-1:])}
    if config.get("use_lsgan", "use_lsgan=False" not in golden.official_class):
        loss, fake_, real_ = least_squares, *(through_sigmoid(x) if sigmoid else x for x in (fake, real))
    else:
        assert sigmoid, "use_lsgan is false, and the logits pass no sigmoid: the official cross-entropy is of none"
        loss, fake_, real_ = cross_entropy, fake, real
    found |= {"D_fake": loss(fake_, 0), "D_real": loss(real_, 1), "G_GAN": loss(fake_, 1)}
    total = found["G_GAN"]
    if features:
        found["G_GAN_Feat"] = config.get("lambda_feat", 10.0) * feature_matching(fake, real)
        total = total + found["G_GAN_Feat"]
    golden.compare(found | golden.gradients(total, leaves, network, keys=OFFICIAL_KEYS))


def through_sigmoid(features: Features) -> Features:
    return [[*scale[:-1], scale[-1].sigmoid()] for scale in features]


def cross_entropy(logits: Features, target: int) -> Tensor:
    return torch.stack([(is_real if target else is_fake)(scale[-1]) for scale in logits]).sum()


@pytest.mark.parametrize("golden", cases("get_edges", SOURCE))
def test_edges(golden: Golden) -> None:
    golden.compare({"edges": edges(golden.inputs["inst"][:, 0])}, tolerance=0)


@pytest.mark.parametrize("golden", NETWORKS)
def test_names_go_both_ways(golden: Golden) -> None:
    ours = loaded(golden).state_dict()
    back = invert(ours, OFFICIAL_KEYS, official=golden.state, dropped={})
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())


@pytest.mark.parametrize("features", [True, False])
def test_discriminators_without_intermediate_features_have_their_names(features: bool) -> None:
    network = MultiscaleDiscriminator(channels=4, width=2, layers=3, scales=2, norm="batch")
    ours, official = network.state_dict(), {}
    place = {0: {0: 0}, 1: {0: 2, 1: 3}, 2: {0: 5, 1: 6}, 3: {0: 8, 1: 9}, 4: {0: 11}}
    for name, tensor in ours.items():
        _, scale, _, group, part, own = name.split(".")
        flat = f"layer{scale}.{place[int(group)][int(part)]}.{own}"
        official[f"scale{scale}_layer{group}.{part}.{own}" if features else flat] = tensor
    found = apply_keys(official, OFFICIAL_KEYS, ours=ours)
    assert found.keys() == ours.keys() and all(found[name] is ours[name] for name in ours)


CITYSCAPES: dict[str, tuple[str, dict[str, Any]]] = {  # by what a recorded name says
    "global 1024x512 Cityscapes (36 input": ("GlobalGenerator", {"in_channels": 36}),
    "global with instance features (39 input": ("GlobalGenerator", {"in_channels": 39}),
    "local enhancer 2048x1024 (36 input": ("LocalEnhancer", {"in_channels": 36}),
    "multiscale D num_D 2 (39 input": ("MultiscaleDiscriminator", {"channels": 39, "scales": 2}),
    "multiscale D num_D 3 (39 input": ("MultiscaleDiscriminator", {"channels": 39, "scales": 3}),
    "encoder (3->3, nef 16, 4": ("Encoder", {}),
}


@pytest.mark.parametrize("case", published("param_counts_other.json", "pix2pixhd"))
def test_parameter_counts(case: tuple[str, int]) -> None:
    name, expected = case
    cls, arguments = next(v for k, v in CITYSCAPES.items() if k in name)
    with torch.device("meta"):
        network = getattr(pix2pixhd, cls)(**arguments)
    assert count_parameters(network) == expected


@pytest.mark.parametrize("case", published("facts_other.json", "pix2pixhd lr"))
def test_learning_rate_at_the_beginning_of_epochs(case: tuple[str, dict[str, float]]) -> None:
    """niter 100, niter_decay 100; the official steps are the values of our line at epochs' beginnings."""
    _, rates = case
    for epoch, expected in rates.items():
        factor = learning_rate_factor(int(epoch) - 1, schedule="linear", total_kimg=200, decay_from_kimg=100)
        assert 2e-4 * factor == pytest.approx(expected, rel=1e-9), epoch
