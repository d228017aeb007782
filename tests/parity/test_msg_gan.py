"""MSG-GAN's networks and losses against recorded values of BMSG-GAN; its style-based generator against StyleGAN's."""

import dataclasses
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial.losses import loss_by_path
from lit_gans.official import Change, apply_keys, invert
from lit_gans.papers import stylegan1
from lit_gans.papers.msg_gan import (
    OFFICIAL_KEYS,
    Discriminator,
    Generator,
    StyleGenerator,
    from_official_config,
)
from tests.parity.golden import Golden, absent, cases, count_parameters, published, under
from tests.parity.recorded_images import as_recorded, enlarged_to, reduced, weighted_terms

SOURCE = "BMSG-GAN"
LOSSES = {
    "rahinge": "lit_gans.adversarial.losses.relativistic_average_hinge",
    "hinge": "lit_gans.adversarial.losses.hinge",
    "wgan": "lit_gans.papers.msg_gan.wasserstein_with_drift",
    "lsgan": "lit_gans.papers.msg_gan.least_squares_of_means",
}


def loaded(cls: type[nn.Module], golden: Golden) -> nn.Module:
    """The network with the official weights; strict both ways."""
    network = cls(**from_official_config({"depth": 7} | golden.config))  # the official default
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS))
    return network


def images(leaves: dict[str, Tensor], side: str) -> list[Tensor]:
    """in/<side>0, in/<side>1, ..., smallest first; `<side>i_32` and the like are enlarged to their scale."""
    found = {int(match[1]): leaves[name] for name in leaves if (match := re.fullmatch(rf"{side}(\d+)(_\d+)?", name))}
    return [enlarged_to(found[scale], 4 * 2**scale) for scale in sorted(found)]


@pytest.mark.parametrize("golden", cases("MSG_GAN.GAN.Generator", SOURCE))
def test_generator(golden: Golden) -> None:
    network, leaves = loaded(Generator, golden), golden.leaves
    whole = {f"img{i}": image for i, image in enumerate(network(leaves["z"]))}
    found = as_recorded(whole, golden, "train/") | as_recorded(whole, golden, "eval/")  # no layer here has a mode
    terms = weighted_terms(whole, golden.inputs)
    found |= {"scalar": terms.sum()} | golden.gradients(terms.sum(), leaves, network, keys=OFFICIAL_KEYS)
    golden.compare(found, scales={"scalar": terms.norm()})


@pytest.mark.parametrize("golden", cases("MSG_GAN.GAN.Discriminator", SOURCE))
def test_discriminator_and_losses(golden: Golden) -> None:
    """Gradients are those of the relativistic loss."""
    network, leaves = loaded(Discriminator, golden), golden.leaves
    reals, fakes = images(leaves, "real"), images(leaves, "fake")
    real_logits, fake_logits = network(reals), network(fakes)
    found = {"pred_real": real_logits, "pred_fake": fake_logits}
    for name, path in LOSSES.items():
        found[f"{name}_dis"], found[f"{name}_gen"] = loss_by_path(path)(real_logits, fake_logits)
    for side in ("dis", "gen"):
        prefix = f"grad_{side}/"
        gradients = golden.gradients(found[f"rahinge_{side}"], leaves, network, keys=OFFICIAL_KEYS, prefix=prefix)
        for name, expected in under(golden.outputs, prefix).items():  # of large images the centre is recorded
            gradient = gradients[prefix + name]
            found[prefix + name] = reduced(gradient, name, expected.shape[-1]) if name in leaves else gradient
    golden.compare(found)


BOTH = [(p, cls) for cls in (Generator, Discriminator) for p in cases(f"MSG_GAN.GAN.{cls.__name__}", SOURCE)]


@pytest.mark.parametrize(
    ("golden", "cls"), [pytest.param(p.values[0], cls, id=f"{p.id}", marks=p.marks) for p, cls in BOTH]
)
def test_names_go_both_ways(golden: Golden, cls: type[nn.Module]) -> None:
    back = invert(loaded(cls, golden).state_dict(), OFFICIAL_KEYS, official=golden.state, dropped={})
    assert all(torch.equal(back[name], tensor) for name, tensor in golden.state.items())


@pytest.mark.parametrize("case", published("param_counts_other.json", "msggan/"))
def test_parameter_counts(case: tuple[str, int]) -> None:
    """Of names such as "msggan/G 256 (depth 7, latent 512)"."""
    name, expected = case
    which, depth, width = re.fullmatch(r"msggan/([GD]) .*depth (\d+).*latent (\d+).*", name).groups()
    size = {"G": "latent_size", "D": "feature_size"}[which]
    with torch.device("meta"):
        arguments = from_official_config({"depth": int(depth), size: int(width)})
        network = {"G": Generator, "D": Discriminator}[which](**arguments)
    assert count_parameters(network) == expected


def without_synthesis(new: str | Change | None) -> str | Change | None:
    """StyleGAN 1's generator has the layers of `StyleGenerator`, in a part of their own."""
    if isinstance(new, Change):
        return dataclasses.replace(new, name=new.name.removeprefix("synthesis."))
    return None if new is None else new.removeprefix("synthesis.")


# Only the last colours are of the full resolution.
STYLE_KEYS = {r"synthesis\.lod": None, **{k: without_synthesis(v) for k, v in stylegan1.OFFICIAL_KEYS.items()}}
STYLES = {"z_space_dim": 512, "w_space_dim": 512, "mapping_fmaps": 512, "mapping_layers": 8, "label_size": 0}
STYLES |= {"fmaps_base": 16384, "fmaps_max": 512, "fused_scale": "auto", "resolution": 1024}  # the port's defaults


def has_our_widths(config: dict[str, Any]) -> bool:
    """8 layers, one latent, maps halved from 32 pixels on, and no fused layer."""
    c = STYLES | config
    sides = [2**level for level in range(2, c["resolution"].bit_length())]
    halved = all(min(c["fmaps_base"] // r, c["fmaps_max"]) == c["fmaps_max"] * 32 // max(r, 32) for r in sides)
    unfused = c["fused_scale"] is False or (c["fused_scale"] == "auto" and c["resolution"] < 128)
    one_latent = not c["label_size"] and c["z_space_dim"] == c["w_space_dim"] == c["mapping_fmaps"]
    return halved and unfused and one_latent and c["mapping_layers"] == 8


def of_our_widths() -> list:
    """Recorded StyleGAN 1 generators that `StyleGenerator` can be; StyleGAN's own tests compare all that they have."""
    found = cases("stylegan_generator.StyleGANGenerator")
    fitting = [p for p in found if p.values[0].path is None or has_our_widths(p.values[0].config)]
    return fitting or absent("no recorded StyleGAN 1 generator of MSG-GAN's widths")


@pytest.mark.parametrize("golden", of_our_widths())
def test_style_based_generator(golden: Golden) -> None:
    config, leaves, call = STYLES | golden.config, golden.leaves, golden.call.get("kwargs", {})
    channels = next(t.shape[0] for name, t in golden.state.items() if name.endswith("output0.weight"))
    size = {"z_dim": config["z_space_dim"], "width": config["fmaps_max"]}
    network = StyleGenerator(resolution=config["resolution"], channels=channels, **size)
    network.load_state_dict(apply_keys(golden.state, STYLE_KEYS))
    psi, cutoff = min(call.get("trunc_psi") or 1.0, 1.0), call.get("trunc_layers") or 0
    images = network(leaves["z"], noise="const", psi=psi, cutoff=cutoff)

    found = {"w": network.mapping(leaves["z"])[:, 0]}
    for name in golden.outputs:
        lod = float(name.removeprefix("image/lod")) if name.startswith("image/lod") else 0.5
        if lod == int(lod):  # between two of them StyleGAN blends, which nothing does here
            found[name] = enlarged_to(images[-1 - int(lod)], config["resolution"])
    if golden.call.get("grad_lod") == 0:
        found |= golden.gradients(golden.scalar(images[-1]), leaves, network, keys=STYLE_KEYS)
    golden.compare(found, recorded={name: t for name, t in golden.outputs.items() if name in found})
