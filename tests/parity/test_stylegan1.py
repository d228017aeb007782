"""StyleGAN's networks against recorded values of genforce's port of the official TensorFlow code."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lit_gans.adversarial.progressive import enlarged, stage_at
from lit_gans.official import apply_keys, dropped_keys, invert
from lit_gans.papers.stylegan1 import OFFICIAL_KEYS, BlurredDownConv, Discriminator, Generator, StyledUpConv
from tests.parity.golden import FOLDER, Golden, absent, assert_close, cases

SOURCE = "genforce"
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


def ours(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        if ARGUMENTS[name] is None:
            assert value == FIXED[name], f"{name} is {value!r}, ours have {FIXED[name]!r} alone"
        else:
            found[ARGUMENTS[name]] = value
    if found.get("mbstd_group_size", 4) <= 1:  # the port's way to leave the layer out
        found |= {"mbstd_group_size": 1, "mbstd_channels": 0}
    return found


def loaded(cls: type[nn.Module], golden: Golden) -> nn.Module:
    """The network with the recorded weights; strict both ways."""
    default = {"mapping_fmaps": 512} if cls is Generator else {}  # of the port
    network = cls(**ours(default | golden.config))
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS, ours=network.state_dict()))
    return network.eval()


def check_gradients(golden: Golden, network: nn.Module, output: Tensor, inputs: dict[str, Tensor]) -> None:
    """Of (output * grad_weight).sum(), with respect to whatever the file has gradients of."""
    expected = {name.removeprefix("grad/"): t for name, t in golden.outputs.items() if name.startswith("grad/")}
    assert {*expected} - {*inputs} == {*golden.call["grads"]}
    names = {theirs: next(iter(apply_keys({theirs: t}, OFFICIAL_KEYS))) for theirs, t in expected.items()
             if theirs not in inputs}  # fmt: skip
    of = [inputs[name] if name in inputs else network.get_parameter(names[name]) for name in expected]
    found = torch.autograd.grad((output * golden.inputs["grad_weight"].view_as(output)).sum(), of)
    for name, gradient in zip(expected, found, strict=True):
        assert_close(gradient, expected[name], golden.tolerance["gradient"], name)


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
    check_gradients(golden, network, image_at(call["grad_lod"]), {"z": z})


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
    check_gradients(golden, network, logits_at(call["grad_lod"]), {"image": image})


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


def published() -> list:
    """(name, counts) of every recorded StyleGAN configuration."""
    path = FOLDER / "param_counts.json"
    if not path.is_file():
        return absent(f"no {path}")
    counts = json.loads(path.read_text())
    return [pytest.param((name, counts[name]), id=name) for name in counts if name.startswith("stylegan1")]


@pytest.mark.parametrize("case", published())
def test_parameter_counts(case: tuple[str, dict[str, int]]) -> None:
    name, expected = case
    resolution = int(name.rsplit("_", 1)[-1])
    with torch.device("meta"):
        generator, discriminator = Generator(resolution=resolution), Discriminator(resolution=resolution)
    parts = {"generator": generator, "mapping": generator.mapping, "synthesis": generator.synthesis}
    found = {k: sum(p.numel() for p in m.parameters()) for k, m in (parts | {"discriminator": discriminator}).items()}
    assert found == {k: v for k, v in expected.items() if k in found}
