"""MSG-GAN's networks and losses against recorded values of BMSG-GAN; its style-based generator against StyleGAN's."""

import json
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from lit_gans.adversarial.losses import loss_by_path
from lit_gans.official import apply_keys
from lit_gans.papers import stylegan1
from lit_gans.papers.msg_gan import (
    Discriminator,
    Generator,
    StyleGenerator,
    from_official,
    from_official_config,
    our_key,
    to_official,
)
from tests.parity.golden import FOLDER, Golden, absent, assert_close, cases

SOURCE = "BMSG-GAN"
LOSSES = {
    "rahinge": "lit_gans.adversarial.losses.relativistic_average_hinge",
    "hinge": "lit_gans.adversarial.losses.hinge",
    "wgan": "lit_gans.papers.msg_gan.wasserstein_with_drift",
    "lsgan": "lit_gans.papers.msg_gan.least_squares_of_means",
}


def loaded(cls: type[nn.Module], golden: Golden) -> nn.Module:
    """The network with the official weights; strict both ways."""
    network = cls(**from_official_config(golden.config))
    network.load_state_dict(from_official(golden.state))
    return network


def images(golden: Golden, side: str) -> list[Tensor]:
    """in/<side>0, in/<side>1, ..., smallest first; `<side>i_32` and the like are enlarged to their scale."""
    found = {}
    for name, tensor in golden.inputs.items():
        if match := re.fullmatch(rf"{side}(\d+)(_\d+)?", name):
            scale = int(match[1])
            found[scale] = interpolate(tensor, size=4 * 2**scale) if match[2] else tensor
    assert sorted(found) == list(range(golden.config["depth"]))
    return [found[scale].requires_grad_() for scale in sorted(found)]


def reduced(x: Tensor, form: str, size: int) -> Tensor:
    """`_pool<q>` or `_crop<c>` of images, as large ones are recorded; a smaller size without a word is a crop too."""
    if match := re.fullmatch(r"_pool(\d+)", form):
        return avg_pool2d(x, int(match[1]))
    edge = (x.shape[-1] - size) // 2
    return x[..., edge : edge + size, edge : edge + size]


def of_scale(images: list[Tensor], name: str, expected: Tensor) -> Tensor:
    """The images that `img3`, `w_img3`, `fake3`, `img5_crop24`, ... speaks of."""
    match = re.fullmatch(r"(?:w_img|img|fake|real)(\d+)(_.+)?", name)
    assert match, name
    return reduced(images[int(match[1])], match[2] or "", expected.shape[-1])


@pytest.mark.parametrize("golden", cases("MSG_GAN.GAN.Generator", SOURCE))
def test_generator(golden: Golden) -> None:
    network, outputs, tolerance = loaded(Generator, golden), golden.outputs, golden.tolerance
    z = golden.inputs["z"].requires_grad_()
    found = network(z)
    assert [x.shape[-1] for x in found] == [4 * 2**i for i in range(golden.config["depth"])]
    recorded = {name: tensor for name, tensor in outputs.items() if name.startswith(("train/", "eval/"))}
    assert recorded
    for name, expected in recorded.items():  # no layer here has a mode
        assert_close(of_scale(found, name.split("/")[1], expected), expected, tolerance["forward"], name)

    weights = {name: tensor for name, tensor in golden.inputs.items() if name.startswith("w_img")}
    for name in [*weights]:
        if match := re.fullmatch(r"(w_img(\d+))_\d+", name):  # stored smaller than it is used
            weights[match[1]] = interpolate(weights.pop(name), size=4 * 2 ** int(match[2]))
    scalar = torch.stack([(of_scale(found, name, w) * w).sum() for name, w in weights.items()]).sum()
    assert_close(scalar, outputs["scalar"], tolerance["forward"], "scalar")
    names = [name.removeprefix("grad/") for name in outputs if name.startswith("grad/")]
    of = [z if name == "z" else network.get_parameter(our_key(name)) for name in names]
    for name, gradient in zip(names, torch.autograd.grad(scalar, of), strict=True):
        assert_close(gradient, outputs[f"grad/{name}"], tolerance["gradient"], name)


@pytest.mark.parametrize("golden", cases("MSG_GAN.GAN.Discriminator", SOURCE))
def test_discriminator_and_losses(golden: Golden) -> None:
    network, outputs, tolerance = loaded(Discriminator, golden), golden.outputs, golden.tolerance
    reals, fakes = images(golden, "real"), images(golden, "fake")
    real_logits, fake_logits = network(reals), network(fakes)
    assert_close(real_logits, outputs["pred_real"], tolerance["forward"], "pred_real")
    assert_close(fake_logits, outputs["pred_fake"], tolerance["forward"], "pred_fake")
    names = {name.rsplit("_", 1)[0] for name in outputs if name.endswith(("_dis", "_gen"))}
    assert names, "no loss is recorded"
    for name in names:
        d_loss, g_loss = loss_by_path(LOSSES[name])(real_logits, fake_logits)
        assert_close(d_loss, outputs[f"{name}_dis"], tolerance["forward"], f"{name}_dis")
        assert_close(g_loss, outputs[f"{name}_gen"], tolerance["forward"], f"{name}_gen")


@pytest.mark.parametrize("golden", cases("MSG_GAN.GAN.Discriminator", SOURCE))
def test_gradients_of_the_relativistic_loss(golden: Golden) -> None:
    network, outputs, tolerance = loaded(Discriminator, golden), golden.outputs, golden.tolerance["gradient"]
    reals, fakes = images(golden, "real"), images(golden, "fake")
    assert any(name.startswith("grad_") for name in outputs), "no gradient is recorded"
    losses = dict(zip(("dis", "gen"), loss_by_path(LOSSES["rahinge"])(network(reals), network(fakes)), strict=True))
    for side, loss in losses.items():
        prefix = f"grad_{side}/"
        recorded = {name.removeprefix(prefix): t for name, t in outputs.items() if name.startswith(prefix)}
        inputs = {f"{who}{i}": x for who, side in (("real", reals), ("fake", fakes)) for i, x in enumerate(side)}
        of = [inputs[name] if name in inputs else network.get_parameter(our_key(name)) for name in recorded]
        gradients = torch.autograd.grad(loss, of, retain_graph=True) if of else ()
        for (name, expected), gradient in zip(recorded.items(), gradients, strict=True):
            found = reduced(gradient, "", expected.shape[-1]) if name in inputs else gradient
            assert_close(found, expected, tolerance, prefix + name)


BOTH = [(p, cls) for cls in (Generator, Discriminator) for p in cases(f"MSG_GAN.GAN.{cls.__name__}", SOURCE)]


@pytest.mark.parametrize(
    ("golden", "cls"), [pytest.param(p.values[0], cls, id=f"{p.id}", marks=p.marks) for p, cls in BOTH]
)
def test_names_go_both_ways(golden: Golden, cls: type[nn.Module]) -> None:
    back = to_official(loaded(cls, golden).state_dict())
    assert back.keys() == golden.state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())


COUNTS = FOLDER / "param_counts_other.json"


def published() -> list:
    """(name, count) of every recorded MSG-GAN network, such as "msggan/G 256 (depth 7, latent 512)"."""
    if not COUNTS.is_file():
        return absent(f"no {COUNTS}")
    counts: dict[str, int] = json.loads(COUNTS.read_text())["counts"]
    return [pytest.param((name, counts[name]), id=name) for name in counts if name.startswith("msggan/")]


@pytest.mark.parametrize("case", published())
def test_parameter_counts(case: Any) -> None:
    name, expected = case
    which, depth, width = re.fullmatch(r"msggan/([GD]) .*depth (\d+).*latent (\d+).*", name).groups()
    size = {"G": "latent_size", "D": "feature_size"}[which]
    with torch.device("meta"):
        arguments = from_official_config({"depth": int(depth), size: int(width)})
        network = {"G": Generator, "D": Discriminator}[which](**arguments)
    assert sum(p.numel() for p in network.parameters()) == expected


def style_state(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """StyleGAN 1's generator has the layers of `StyleGenerator`; only its last colours are of its full resolution."""
    ours = apply_keys(official, stylegan1.OFFICIAL_KEYS)
    return {name.removeprefix("synthesis."): tensor for name, tensor in ours.items() if name != "synthesis.lod"}


def of_our_widths() -> list:
    """Recorded StyleGAN 1 generators of which the widths are ours (8 layers, halved from 32 pixels on, one latent)."""
    found = []
    for case in cases("stylegan_generator.StyleGANGenerator"):
        golden = case.values[0]
        if golden.path is None:
            return [case]
        c = golden.config
        same = c.get("label_size", 0) == 0 and c["z_space_dim"] == c["w_space_dim"] == c["mapping_fmaps"]
        same &= c["mapping_layers"] == 8
        same &= all(
            min(c["fmaps_base"] // r, c["fmaps_max"]) == c["fmaps_max"] * 32 // max(r, 32)
            for r in (2**level for level in range(2, c["resolution"].bit_length()))
        )
        found += [case] if same else []
    return found or absent("no recorded StyleGAN 1 generator of these widths")


@pytest.mark.parametrize("golden", of_our_widths())
def test_style_based_generator(golden: Golden) -> None:
    config, outputs, tolerance = golden.config, golden.outputs, golden.tolerance
    size, resolution = config["z_space_dim"], config["resolution"]
    channels = next(t.shape[0] for name, t in golden.state.items() if name.endswith("output0.weight"))
    network = StyleGenerator(resolution=resolution, channels=channels, z_dim=size, width=config["fmaps_max"])
    network.load_state_dict(style_state(golden.state))
    z = golden.inputs["z"].requires_grad_()
    assert_close(network.mapping(z)[:, 0], outputs["w"], tolerance["forward"], "w")
    call = golden.call["kwargs"]
    truncated = call.get("trunc_psi", 1) < 1 and call.get("trunc_layers", 0) > 0
    how = {"psi": call["trunc_psi"], "cutoff": call["trunc_layers"]} if truncated else {}
    found = network(z, noise="const", **how)
    whole = [lod for lod in golden.call["lods"] if lod == int(lod)]
    assert whole
    for lod in whole:  # between two of them StyleGAN blends, which nothing does here
        image = interpolate(found[-1 - int(lod)], size=resolution)
        name = next(k for k in outputs if k.startswith("image/lod") and float(k.removeprefix("image/lod")) == lod)
        assert_close(image, outputs[name], tolerance["forward"], name)
    if golden.call["grad_lod"] != 0:
        return
    names = [name.removeprefix("grad/") for name in outputs if name.startswith("grad/")]
    of = [
        z if name == "z" else network.get_parameter(next(iter(style_state({name: outputs[f"grad/{name}"]}))))
        for name in names
    ]
    scalar = (found[-1] * golden.inputs["grad_weight"]).sum()
    for name, gradient in zip(names, torch.autograd.grad(scalar, of), strict=True):
        assert_close(gradient, outputs[f"grad/{name}"], tolerance["gradient"], name)
