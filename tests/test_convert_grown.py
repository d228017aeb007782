"""PGGAN, StyleGAN and MSG-GAN as released for PyTorch, to folders of ours and back; the verbs take such a folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lit_gans.adversarial.progressive import enlarged, stage_at
from lit_gans.convert import convert
from lit_gans.official import fingerprint, invert, write_named_states, write_state_dict
from lit_gans.papers import msg_gan, pggan, stylegan1
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained
from lit_gans.sample import main as sample
from tests.parity import test_pggan, test_stylegan1
from tests.parity.genforce import label
from tests.parity.golden import Golden, assert_close, cases

SMALL = {"resolution": 16, "channel_base": 64, "channel_max": 8}


def of_pggan() -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(0)
    players = {"G": pggan.Generator(z_dim=6, **SMALL), "D": pggan.Discriminator(**SMALL)}
    players["G_ema"] = pggan.Generator(z_dim=6, **SMALL)
    return {name: named(network, pggan.OFFICIAL_KEYS) for name, network in players.items()}


def named(network: nn.Module, table: dict) -> dict[str, Tensor]:
    """Under the port's names, by trying them."""
    ours = {name: torch.randn_like(t) if t.dim() else t for name, t in network.state_dict().items()}
    renamed = {"to_rgb": "output", "from_rgb": "input", "layers": "layer"}
    official = []
    for name in ours:
        parts = name.split(".")
        official.append(".".join([renamed[parts[0]] + parts[1], *parts[2:]]) if parts[0] in renamed else name)
    return invert(ours, table, official=official, dropped={})


def test_the_networks_of_one_file_go_to_ours_and_back(tmp_path: Path) -> None:
    states = of_pggan()
    source = write_named_states(tmp_path / "pggan.pth", states, pggan.PORT["in_one_file"])
    assert {*torch.load(source, weights_only=True)} == {"generator", "discriminator", "generator_smooth"}
    certificate = convert(source, tmp_path / "ours")
    assert {n: c.official_fingerprint for n, c in certificate.networks.items()} == {
        name: fingerprint(state) for name, state in states.items()
    }
    assert (
        certificate.networks["G"].arguments["channel_base"] == 64
        and not certificate.networks["D"].arguments["num_classes"]
    )
    assert type(from_pretrained(tmp_path / "ours")) is pggan.Generator
    assert type(from_pretrained(tmp_path / "ours" / "D")) is pggan.Discriminator
    convert(tmp_path / "ours", tmp_path / "again.pth", to="official")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    for theirs, name in (("generator", "G"), ("discriminator", "D"), ("generator_smooth", "G_ema")):
        assert list(again[theirs]) == list(states[name])
        assert all(torch.equal(again[theirs][key], tensor) for key, tensor in states[name].items())


RECORDED = [
    c for name in ("PGGAN", "StyleGAN") for kind in ("Generator", "Discriminator") for c in cases(f"{name}{kind}")
]


@pytest.mark.parametrize("golden", RECORDED)
def test_recorded_networks_are_recognised(golden: Golden, tmp_path: Path) -> None:
    paper = test_pggan if "PGGAN" in golden.official_class else test_stylegan1
    certificate = convert(write_state_dict(tmp_path / "a.pth", golden.state), tmp_path / "ours")
    (network,) = certificate.networks.values()
    assert network.official_fingerprint == fingerprint(golden.state)
    name = next((name for name in golden.outputs if name.startswith("image/lod")), None)
    # A PGGAN's weights tell neither its labels nor, of equal widths, whether layers are fused.
    told = all(network.arguments.get(name) == value for name, value in paper.our_arguments(golden).items())
    if name is None or not told:
        return
    gan, inputs = load_run(tmp_path / "ours"), golden.inputs
    how = {**test_stylegan1.truncation(golden), "noise": "const"} if paper is test_stylegan1 else {}
    gan.set_progress(*stage_at(float(name.removeprefix("image/lod")), gan.resolution))
    images = enlarged(gan.generator(inputs["z"], label(inputs), **how), gan.resolution)
    assert_close(images, golden.outputs[name], golden.tolerance["forward"], name)


@pytest.mark.parametrize("golden", [c for kind in ("Generator", "Discriminator") for c in cases(f"MSG_GAN.GAN.{kind}")])
def test_msg_gan_is_recognised(golden: Golden, tmp_path: Path) -> None:
    parallel = {f"module.{name}": tensor for name, tensor in golden.state.items()}
    certificate = convert(write_state_dict(tmp_path / "a.pth", parallel), tmp_path / "ours")
    (network,) = certificate.networks.values()
    assert network.class_path.startswith("lit_gans.papers.msg_gan.")
    if network.class_path.endswith("Generator"):
        gan = load_run(tmp_path / "ours")
        assert isinstance(gan, msg_gan.MSGGAN) and gan.sample([0]).shape[-1] == gan.resolution


def test_a_converted_stylegan_is_sampled_and_mixed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = stylegan1.Generator(z_dim=8, w_dim=8, num_layers=2, **SMALL)
    from lit_gans.runs.pretrained import save_pretrained

    arguments = {"z_dim": 8, "w_dim": 8, "num_layers": 2, **SMALL}
    save_pretrained(network, tmp_path / "ours", arguments=arguments)
    assert sample([str(tmp_path / "ours"), "--seeds", "0-3", "--grid", "--output", str(tmp_path / "grid.png")]) == 0
    for layers in ("coarse", "middle", "0-1"):
        argv = ["--mix", "0-1", "2-3", "--mix-layers", layers, "--output", str(tmp_path / f"{layers}.png")]
        assert sample([str(tmp_path / "ours"), *argv]) == 0
    assert (tmp_path / "coarse.png").read_bytes() != (tmp_path / "middle.png").read_bytes()
    network.synthesis.layers[3].noise_weight.data.fill_(0.5)
    save_pretrained(network, tmp_path / "noisy", arguments=arguments)
    assert sample([str(tmp_path / "noisy"), "--noise", "--seeds", "0-2", "--output", str(tmp_path / "noise.png")]) == 0
    table = torch.from_numpy(np.array(Image.open(tmp_path / "noise.png"))).unfold(0, 64, 66)  # three rows of cells
    assert len(table) == 3 and not torch.equal(table[0], table[1]) and not torch.equal(table[1], table[2])


def test_feature_maps_of_no_published_rule_are_refused(tmp_path: Path) -> None:
    state = of_pggan()["G"]
    state["output1.weight"] = torch.randn(3, 7, 1, 1)
    with pytest.raises(ValueError, match=r"its feature maps \[8, 7, 4\] do not halve from 8 on"):
        convert(write_state_dict(tmp_path / "a.pth", state), tmp_path / "ours")
