"""State dicts of pix2pix, CycleGAN and pix2pixHD to folders of ours and back."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_gans.base.images import save_png
from lit_gans.convert import convert, main
from lit_gans.official import write_state_dict
from lit_gans.papers.cyclegan import ResNet
from lit_gans.papers.pix2pix import PatchGAN, UNet
from lit_gans.papers.pix2pixhd import GlobalGenerator
from lit_gans.runs.load import load_run, load_translator
from lit_gans.runs.pretrained import save_pretrained
from lit_gans.translate import translate
from tests.parity.golden import Golden, cases


def official_state(model: nn.Module) -> dict[str, Tensor]:
    """Random weights of a ResNet or a PatchGAN under the official names."""
    inner = re.compile(r"layers\.(\d+)\.layers\.")
    return {
        inner.sub(r"model.\1.conv_block.", name).replace("layers.", "model."): torch.randn_like(tensor)
        for name, tensor in model.state_dict().items()
    }


@pytest.fixture
def states() -> dict[str, dict[str, Tensor]]:
    """Of a CycleGAN's four networks."""
    torch.manual_seed(4)
    generators = {name: official_state(ResNet(width=2, blocks=2)) for name in ("G_A", "G_B")}
    judges = {name: official_state(PatchGAN(channels=3, width=2, norm="instance")) for name in ("D_A", "D_B")}
    return generators | judges


@pytest.fixture
def training(tmp_path: Path, states: dict) -> Path:
    """What the official training leaves after epoch 200."""
    for name, state in states.items():
        write_state_dict(tmp_path / "official" / f"200_net_{name}.pth", state)
    return tmp_path / "official"


def test_a_training_goes_to_ours_and_back_bit_for_bit(training: Path, states: dict, tmp_path: Path) -> None:
    certificate = convert(training, tmp_path / "ours", epoch="200")
    assert set(certificate.networks) == set(states)
    assert certificate.networks["G_A"].class_path == "lit_gans.papers.cyclegan.ResNet"
    assert certificate.networks["D_B"].arguments == {"channels": 3, "width": 2, "norm": "instance", "layers": 3}
    assert sum(path.endswith(".pth") for path in certificate.files) == 4
    assert json.loads((tmp_path / "ours" / "official.json").read_text())["name"] == "G_A"
    convert(tmp_path / "ours", tmp_path / "back", to="official", epoch="7")
    for name, state in states.items():
        back = torch.load(tmp_path / "back" / f"7_net_{name}.pth", weights_only=True)
        assert list(back) == list(state) and all(torch.equal(back[key], state[key]) for key in state)


def test_a_converted_training_translates_both_ways(training: Path, tmp_path: Path) -> None:
    convert(training, tmp_path / "ours", epoch="200")
    save_png(torch.randint(256, (3, 30, 40), dtype=torch.uint8), tmp_path / "photo.png")
    made = {}
    for direction in ("ab", "ba"):
        done = translate(tmp_path / "ours", tmp_path / "photo.png", direction=direction)
        made[direction] = done.files[0].read_bytes()
    assert made["ab"] != made["ba"]


def test_one_file_goes_to_ours_and_back(training: Path, states: dict, tmp_path: Path, capsys) -> None:
    source = training / "200_net_G_A.pth"
    source.rename(tmp_path / "zebras.pth")
    assert main([str(tmp_path / "zebras.pth"), str(tmp_path / "ours")]) == 0
    assert "G: lit_gans.papers.cyclegan.ResNet" in capsys.readouterr().out
    assert main([str(tmp_path / "ours"), str(tmp_path / "back.pth"), "--to", "official"]) == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert all(torch.equal(back[key], tensor) for key, tensor in states["G_A"].items())


def test_a_norms_old_statistics_come_back(states: dict, tmp_path: Path) -> None:
    """Instance norms of PyTorch before 0.4 kept statistics that nothing read."""
    old = states["G_A"] | {"model.2.running_mean": torch.randn(2), "model.2.running_var": torch.rand(2)}
    convert(write_state_dict(tmp_path / "old.pth", old), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back.pth", to="official")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back) == list(old) and all(torch.equal(back[key], old[key]) for key in old)


RECORDED = [case for kind in ("Unet", "Resnet") for case in cases(f"models.networks.{kind}Generator")]


@pytest.mark.parametrize("golden", RECORDED)
def test_the_certificate_compares_recorded_translations(golden: Golden, tmp_path: Path) -> None:
    path = write_state_dict(tmp_path / "latest_net_G.pth", golden.state)
    if "eval/y" not in golden.outputs:
        pytest.skip("no output in evaluation is recorded")
    certificate = convert(path, tmp_path / "ours", golden=golden.path)
    difference, told = certificate.differences["G"][1], golden.config.get("padding_type") != "replicate"
    assert 0 <= difference and (difference <= golden.tolerance["forward"]) == told  # weights do not tell this padding


def test_what_cannot_be_done_is_said(training: Path, tmp_path: Path) -> None:
    convert(training, tmp_path / "ours", epoch="200")
    with pytest.raises(ValueError, match="G_A, D_A, D_B, G_B do not go into the one file .*one.pth: name a folder"):
        convert(tmp_path / "ours", tmp_path / "one.pth", to="official")
    with pytest.raises(FileNotFoundError, match="has no latest_net_.*; its epochs are: 200"):
        convert(training, tmp_path / "other")
    torch.save({"weights": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth holds dict, expected a state dict"):
        convert(tmp_path / "list.pth", tmp_path / "other")
    write_state_dict(tmp_path / "strange.pth", {"a.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"strange.pth: its names \(a.weight, ...\) are of no network of"):
        convert(tmp_path / "strange.pth", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def of_labels(path: Path) -> Path:
    """A generator of pix2pixHD that takes 3 classes and the edges of instances."""
    torch.manual_seed(0)
    return write_state_dict(path, official_state(GlobalGenerator(in_channels=4, width=2, downsamplings=3, blocks=1)))


def test_what_a_generator_of_label_maps_takes_is_told_and_kept(tmp_path: Path, capsys) -> None:
    source, ours = of_labels(tmp_path / "g.pth"), tmp_path / "ours"
    assert main([str(source), str(ours)]) == 2
    told = "g.pth, G: its generator takes 4 channels, and pictures have 1 or 3: "
    assert told in (message := capsys.readouterr().err) and "convert --num_labels 3 --instances" in message
    assert not ours.exists()
    assert main([str(source), str(ours), "--num_labels", "3", "--instances"]) == 0
    assert json.loads((ours / "config.json").read_text())["input"] == {"num_labels": 3, "instances": True}
    game = load_translator(ours)
    assert game.takes("ab") == (1, 3) and (game.num_labels, game.instances) == (3, True)
    maps, ids = torch.tensor([[0, 1], [2, 1]]).repeat(8, 8), torch.arange(256).view(16, 16)
    expected = game.generator(game.inputs(maps[None], ids[None]))
    assert torch.equal(game.translate(maps[None, None] / 127.5 - 1, instance=ids[None]), expected)
    convert(ours, tmp_path / "back.pth", to="official")
    back, given = (torch.load(path, weights_only=True) for path in (tmp_path / "back.pth", source))
    assert all(torch.equal(back[name], tensor) for name, tensor in given.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_labels": 4, "instances": True}, "4 channels, and 4 labels and the edges are 5"),
        ({"num_labels": 0}, "4 channels, and pictures have 1 or 3"),
        ({"instances": True}, "instances are of label maps: say of how many labels"),
        ({"num_labels": 3, "to": "official"}, "labels are told on the way to ours"),
    ],
)
def test_labels_that_cannot_be_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(of_labels(tmp_path / "g.pth"), tmp_path / "ours", **arguments)


def test_labels_of_a_generator_of_pictures_are_refused(training: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="official has no generator of which num_labels, instances must be told"):
        convert(training, tmp_path / "ours", epoch="200", num_labels=3)


def test_features_of_an_encoder_are_converted_and_not_translated(tmp_path: Path) -> None:
    convert(of_labels(tmp_path / "g.pth"), tmp_path / "ours", num_labels=2)
    with pytest.raises(ValueError, match="ours: 2 of the 4 channels .* features, of which no file .* has clusters"):
        load_run(tmp_path / "ours")


def test_either_repository_generator_serves_either_training(tmp_path: Path) -> None:
    """Two U-Nets are a CycleGAN by their names, and run as they were trained: each image has its own statistics."""
    torch.manual_seed(0)
    networks, images = {}, torch.rand(2, 3, 8, 8)
    for name, folder in (("G_A", tmp_path / "ours"), ("G_B", tmp_path / "ours" / "G_B")):
        networks[name] = UNet(width=2, levels=3, dropout=False)
        save_pretrained(networks[name], folder, arguments={"width": 2, "levels": 3, "dropout": False})
        (folder / "official.json").write_text(json.dumps({"name": name}))
    game = load_translator(tmp_path / "ours", direction="ba")
    assert game.directions == ("ab", "ba") and game.stride == 8 and game.takes("ba") == (3, 0)
    for direction, name in (("ab", "G_A"), ("ba", "G_B")):
        alone = torch.cat([networks[name].train()(image[None]) for image in images])
        assert torch.allclose(game.translate(images, direction=direction), alone, atol=1e-5)
    (tmp_path / "ours" / "official.json").write_text(json.dumps({"name": "G"}))
    assert type(load_translator(tmp_path / "ours")).__name__ == "Pix2Pix"
