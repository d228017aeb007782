"""StyleGAN's networks against recorded values of genforce's port of the official TensorFlow code."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lit_gans.adversarial.progressive import enlarged, stage_at
from lit_gans.official import apply_keys, dropped_keys, invert
from lit_gans.papers.stylegan1 import OFFICIAL_KEYS, BlurredDownConv, Discriminator, Generator, StyledUpConv
from tests.parity.genforce import SOURCE, check_gradients, published, translated
from tests.parity.golden import Golden, assert_close, cases

# Constructor arguments of the port -> ours; None: accepted at the value of FIXED alone.
ARGUMENTS = {
    "resolution": "resolution",
    "z_space_dim": "z_dim",
    "w_space_dim": "w_dim",
    "image_channels": "channels",
    "label_size": "num_classes",
    "mapping_layers": "num_layers",
    "mapping_fmaps": "hidden_dim",
    "mapping_lr_mul": "lr_multiplier",
    "fmaps_base": "channel_base",
    "fmaps_max": "channel_max",
    "fused_scale": "fused_scale",
    "minibatch_std_group_size": "mbstd_group_size",
    "minibatch_std_channels": "mbstd_channels",
    "repeat_w": None,
    "final_tanh": None,
    "const_input": None,
    "use_wscale": None,
    "noise_type": None,
}
FIXED = {"repeat_w": True, "final_tanh": False, "const_input": True, "use_wscale": True, "noise_type": "spatial"}


def loaded(cls: type[nn.Module], golden: Golden) -> nn.Module:
    """The network with the recorded weights; strict both ways."""
    default = {"mapping_fmaps": 512} if cls is Generator else {}  # of the port
    network = cls(**translated(default | golden.config, ARGUMENTS, FIXED))
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS, ours=network.state_dict()))
    return network.eval()


@pytest.mark.parametrize("golden", cases("StyleGANGenerator", SOURCE))
def test_generator(golden: Golden) -> None:
    network, call, tolerance = loaded(Generator, golden), golden.call, golden.tolerance["forward"]
    z, labels, given = golden.inputs["z"].requires_grad_(), golden.inputs.get("label"), dict(call.get("kwargs", {}))
    psi, cutoff = given.pop("trunc_psi", None) or 1.0, given.pop("trunc_layers", None) or 0
    psi = min(psi, 1.0)  # the port truncates, and never does the opposite
    assert not given.pop("randomize_noise", False) and not given, f"no counterpart of {given}"
    if "w" in golden.outputs:
        ws = network.mapping(z, labels)
        assert_close(ws, golden.outputs["w"][:, None].expand_as(ws), tolerance, "w")

    def image_at(lod: float) -> Tensor:
        network.set_progress(*stage_at(lod, network.synthesis.resolution))
        image = network(z, labels, psi=psi, cutoff=cutoff, noise="const")
        return enlarged(image, network.synthesis.resolution)

    for lod in call["lods"]:
        assert_close(image_at(lod), golden.outputs[f"image/lod{lod}"], tolerance, f"lod {lod}")
    check_gradients(golden, network, image_at(call["grad_lod"]), {"z": z}, keys=OFFICIAL_KEYS)


@pytest.mark.parametrize("golden", cases("StyleGANDiscriminator", SOURCE))
def test_discriminator(golden: Golden) -> None:
    network, call = loaded(Discriminator, golden), golden.call
    image, labels = golden.inputs["image"].requires_grad_(), golden.inputs.get("label")

    def logits_at(lod: float) -> Tensor:
        network.set_progress(*stage_at(lod, network.resolution))
        return network(avg_pool2d(image, network.resolution // network.stage), labels)[:, None]

    for lod in call["lods"]:
        expected = golden.outputs[f"logits/lod{lod}"]
        assert_close(logits_at(lod), expected, golden.tolerance["forward"], f"lod {lod}")
    check_gradients(golden, network, logits_at(call["grad_lod"]), {"image": image}, keys=OFFICIAL_KEYS)


CLASSES = {"StyleGANGenerator": Generator, "StyleGANDiscriminator": Discriminator}


@pytest.mark.parametrize("golden", [p for name in CLASSES for p in cases(name, SOURCE)])
def test_names_go_both_ways(golden: Golden) -> None:
    network = loaded(CLASSES[golden.official_class.rsplit(".", 1)[-1]], golden)
    dropped = dropped_keys(golden.state, OFFICIAL_KEYS)
    assert all(name.endswith("blur.kernel") for name in dropped)
    for kernel in dropped.values():  # the constant that our constructors make
        blur = next(layer.blur for layer in network.modules() if isinstance(layer, (StyledUpConv, BlurredDownConv)))
        assert torch.equal(kernel, blur.expand_as(kernel))
    back = invert(network.state_dict(), OFFICIAL_KEYS, official=golden.state, dropped=dropped)
    assert back.keys() == golden.state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())


@pytest.mark.parametrize("case", published("stylegan1"))
def test_parameter_counts(case: tuple[str, dict[str, int]]) -> None:
    name, expected = case
    resolution = int(name.rsplit("_", 1)[-1])
    with torch.device("meta"):
        generator, discriminator = Generator(resolution=resolution), Discriminator(resolution=resolution)
    parts = {"generator": generator, "mapping": generator.mapping, "synthesis": generator.synthesis}
    found = {k: sum(p.numel() for p in m.parameters()) for k, m in (parts | {"discriminator": discriminator}).items()}
    assert found == {k: v for k, v in expected.items() if k in found}
