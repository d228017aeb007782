"""StyleGAN-T's networks and losses against recorded values of autonomousvision/stylegan-t."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial.losses import hinge
from lit_gans.official import apply_keys, invert
from lit_gans.papers.stylegan3.training import blurred
from lit_gans.papers.stylegan_t import (
    HEAD_KEYS,
    OFFICIAL,
    OFFICIAL_KEYS,
    Discriminator,
    Generator,
    Head,
    StyleGANT,
    from_official_config,
)
from lit_gans.papers.stylegan_t.features import read_out
from lit_gans.papers.stylegan_t.guidance import spherical_distance
from tests.parity.golden import (
    Golden,
    assert_close,
    cases,
    count_parameters,
    facts,
    published,
    translated,
    weighted_sum,
)

SOURCE = "autonomousvision/stylegan-t"
CALL = OFFICIAL[0].call
GENERATORS = cases("networks.generator.Generator", SOURCE)
on = pytest.mark.parametrize


def loaded(golden: Golden) -> Generator:
    """With the official weights; strict both ways."""
    network = Generator(**from_official_config(golden.config))
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS, ours=network.state_dict()))
    return network.train(golden.mode == "train")


@on("golden", GENERATORS)
def test_generator(golden: Golden) -> None:
    """In training the average moves before it is used, as it does there."""
    network, leaves = loaded(golden), golden.leaves
    z, c = leaves["z"], leaves.get("c")
    if golden.mode == "train":
        network.mapping.track(network.mapping(z, c)[:, 0, : network.mapping.z_dim].detach().mean(0))
    call = golden.call.get("kwargs", {})
    given = {"noise": "random", **translated(call, CALL)}
    found = {"ws": network.mapping(z, c, **{name: given[name] for name in ("psi", "cutoff") if name in given})}
    for name, changes in {"": {}, **golden.call.get("variants", {})}.items():
        found["img" + (f"_{name}" if name else "")] = network(z, c, **{**given, **translated(changes, CALL)})
    found |= golden.gradients(golden.scalar(found["img"]), leaves, network, keys=OFFICIAL_KEYS)
    golden.compare(found | golden.buffers(network, OFFICIAL_KEYS, prefix="after/"))


@on("golden", GENERATORS)
def test_names_go_both_ways(golden: Golden) -> None:
    """What the table drops are the filters that constructors make."""
    network = loaded(golden)
    made = {name: t for name, t in network.named_buffers() if name.endswith("resample_filter")}
    dropped = {name: t for name, t in golden.state.items() if name.endswith("resample_filter")}
    assert len(dropped) == len(made) and all(torch.equal(f, next(iter(made.values()))) for f in dropped.values())
    back = invert(network.state_dict(), OFFICIAL_KEYS, official=golden.state, dropped=dropped)
    assert list(back) == list(golden.state) and all(torch.equal(back[name], t) for name, t in golden.state.items())


# ---- discriminators and losses ---------------------------------------------------------------------------------------


@on("golden", cases("networks.discriminator.DiscHead", SOURCE))
def test_heads(golden: Golden) -> None:
    leaves, found = golden.leaves, dict[str, Tensor]()
    for mode in ("eval", "train"):
        head = Head(**golden.config["head"])
        head.load_state_dict(apply_keys(golden.state, HEAD_KEYS, ours=head.state_dict()))
        logits = head.train(mode == "train")(leaves["x"], leaves.get("c"))
        found[f"logits_{mode}"] = logits
        found |= golden.gradients(weighted_sum(logits), leaves, head, keys=HEAD_KEYS, prefix=f"grad/{mode}/")
    golden.compare(found | golden.buffers(head, HEAD_KEYS, prefix="after/"))
    back = invert(head.state_dict(), HEAD_KEYS, official=golden.state, dropped={})
    assert list(back) == list(golden.state)


class Linear(nn.Module):
    """Stands in for the discriminators."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight


def tiny(**arguments: Any) -> StyleGANT:
    small = {"encoder": "none", "channel_base": 64, "channel_max": 2, "num_res_blocks": 1, "gn_groups": 1, "z_dim": 2}
    return StyleGANT(**small, features="torchvision:squeezenet1_1", features_px=64, **arguments)


@on("golden", cases("training.loss.ProjectedGANLoss (", SOURCE))
def test_losses(golden: Golden) -> None:
    """Means over samples and logits, divided once more by how many samples there are."""
    leaves, config = golden.leaves, golden.config
    fake, real, judge = leaves["fake_img"], leaves["real_img"], Linear(leaves["w"])
    fades = config["blur_fade_kimg"] > 1  # there less is no blur at all
    blur = {"blur_sigma": config["blur_init_sigma"] if fades else 0, "blur_kimg": max(config["blur_fade_kimg"], 1)}
    gan = tiny(resolution=config["res"], at_once=len(fake), **blur)
    gan.images_seen = config["cur_nimg"]
    fake_logits, real_logits = judge(gan.seen(fake)), judge(gan.seen(real))
    (d_loss, _), (_, g_loss) = hinge(real_logits, fake_logits), hinge(fake_logits, fake_logits)
    losses = {"D": d_loss / gan.at_once, "G": g_loss / gan.at_once}
    found = {f"{phase}/loss": loss for phase, loss in losses.items()}
    for phase, loss in losses.items():
        found |= golden.gradients(loss, leaves, prefix=f"grad/{phase}/")
    golden.compare(found)


@on("golden", cases("spherical_distance", SOURCE))
def test_parts_of_the_loss(golden: Golden) -> None:
    leaves = golden.leaves
    found = {"spherical": spherical_distance(leaves["a"], leaves["b"]), "readout": read_out(leaves["tokens"], prefix=1)}
    found |= {f"blur_{sigma}": blurred(leaves["img"], sigma) for sigma in golden.config["sigmas"]}
    golden.compare(found)


# ---- numbers ---------------------------------------------------------------------------------------------------------

SIZES = {"full": {}, "lite": {"channel_base": 32768, "channel_max": 512, "num_res_blocks": 2}}


@on("case", [p for size in SIZES for p in published("param_counts.json", f"stylegan-t_{size}_")])
def test_parameter_counts(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    _, size, resolution = name.split("_")
    with torch.device("meta"):
        network = Generator(resolution=int(resolution), c_dim=768, **SIZES[size])
    found: dict[str, Any] = {"generator": count_parameters(network), "mapping": count_parameters(network.mapping)}
    found |= {"synthesis": count_parameters(network.synthesis), "num_ws": network.mapping.num_ws}
    assert found == {key: value for key, value in expected.items() if key != "note"}


@on("case", published("param_counts.json", "stylegan-t_dischead"))
def test_counts_of_heads(case: tuple[str, dict[str, Any]]) -> None:
    """One head of DINO's tokens, and the five of a discriminator that has no network yet."""
    name, expected = case
    judges = Discriminator(c_dim=0 if name.endswith("uncond") else 768)
    counts = [count_parameters(head) for head in judges.heads]
    assert counts[0] == expected["one_head"] and sum(counts) == expected["five_heads"] == count_parameters(judges)


def test_defaults_are_as_published() -> None:
    expected, gan = facts("stylegan-training-formulas.json")["stylegan_t"], inspect.signature(StyleGANT).parameters
    names = {
        "lr": "lr_g", "lr_text_encoder": "lr_text", "blur_init_sigma": "blur_sigma", "blur_fade_kimg": "blur_kimg",
        "p_crop": "crop_probability", **{name: name for name in ("z_dim", "gn_groups")},
    }  # fmt: skip
    for theirs, ours in names.items():
        assert gan[ours].default == expected[theirs], ours
    assert {name: gan[name].default for name in expected["full"]} == expected["full"]
    assert SIZES["lite"] == expected["lite"]
    assert [*gan["betas"].default] == expected["betas"] and gan["lr_d"].default == expected["lr"]
    with torch.device("meta"):
        network = Generator(resolution=64)
    assert network.synthesis.base_px == expected["base_resolution"]
    assert network.mapping.x_avg_decay == expected["x_avg_beta"]
    assert all(("to_rgb" in dict(b.named_children())) for b in network.synthesis.blocks.values()) == (
        expected["architecture"] == "skip"
    )
    assert_close(torch.tensor(1e-8), torch.tensor(expected["eps"]), 1e-12, "eps")
