"""State dicts of the two official PyTorch repositories, recognised by names and shapes and loaded into our networks."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_gans.official import OfficialFile, OfficialNetwork, apply_keys, dropped_keys, fingerprint, invert, of_state
from lit_gans.official.state_dicts import are_state_dicts, read_state_dict, read_state_dicts, write_state_dict
from lit_gans.papers.cyclegan import ResNet
from lit_gans.papers.pix2pix import PatchGAN, UNet
from lit_gans.papers.pix2pixhd import GlobalGenerator
from lit_gans.runs.releases import releases
from tests.parity.golden import Golden, assert_close, cases

CLASSES = {release.class_name for release in releases()}
# By the weights of a U-Net, or of no weights at all.
UNTOLD = ("use_dropout", "use_sigmoid", "use_lsgan", "lambda_feat")


def official_network(state: dict[str, Tensor]) -> OfficialNetwork:
    return of_state(state, releases()).read(state)


def build_ours(network: OfficialNetwork) -> tuple[torch.nn.Module, dict]:
    return of_state(network.state, releases()).build(network)


def read(source: Path, *, epoch: str = "latest") -> OfficialFile:
    return read_state_dicts(source, releases(), epoch=epoch)


def back_to_official(model: torch.nn.Module, network: OfficialNetwork, aside: dict) -> dict[str, Tensor]:
    table = of_state(network.state, releases()).table(network.state)
    return invert(model.state_dict(), table, official=network.state, dropped=aside)


def goldens() -> list:
    """Recorded networks of the two repositories, each alone in its file."""
    found = [case for source in ("CycleGAN-and-pix2pix", "pix2pixHD") for case in cases("networks.", source)]
    return [case for case in found if case.id == "absent" or _alone(case.values[0])]


def _alone(golden: Golden) -> bool:
    return bool(golden.state) and class_of(golden) in CLASSES


def class_of(golden: Golden) -> str:
    return re.match(r"(?:models\.)?networks\.(\w+)|.*", golden.official_class)[1] or ""


def expected_config(golden: Golden) -> tuple[str, dict]:
    """What weights can tell of the recorded class and arguments."""
    name, config = class_of(golden), {k: v for k, v in golden.config.items() if k not in UNTOLD}
    if name == "ResnetGenerator":
        config |= {key: golden.config[key] for key in ("use_dropout",) if key in golden.config}
        config |= {"padding_type": "reflect"} if config.get("padding_type") == "replicate" else {}
    if name == "GlobalGenerator" and config.get("n_downsampling", 3) == 2 and config.get("norm") == "instance":
        config |= {"padding_type": "reflect", "use_dropout": False}
        del config["n_downsampling"]
        name = "ResnetGenerator"
    return name, config


@pytest.mark.parametrize("golden", goldens())
def test_recorded_networks_are_recognised_and_loaded_from_files(golden: Golden, tmp_path: Path) -> None:
    name, config = expected_config(golden)
    path = write_state_dict(tmp_path / "latest_net_G.pth", golden.state)
    network = read(path).networks["G"]
    found = {key: value for key, value in network.init_kwargs.items() if key in config}
    assert (network.class_name, found) == (name, config)
    assert network.fingerprint == fingerprint(golden.state)
    model, arguments = build_ours(network)
    back = back_to_official(model, network, {})
    assert list(back) == list(network.state) and fingerprint(back) == network.fingerprint
    assert type(model)(**arguments).state_dict().keys() == model.state_dict().keys()
    if "eval/y" in golden.outputs and golden.config.get("padding_type") != "replicate":
        with torch.no_grad():
            assert_close(model(golden.inputs["x"]), golden.outputs["eval/y"], golden.tolerance["forward"], "eval/y")


def official(model: torch.nn.Module, pattern: str, name: str) -> dict[str, Tensor]:
    """Our weights under official names, which differ from ours by their beginning alone; none may be zero."""
    state = {re.sub(pattern, name, key): torch.randn_like(t.float()) for key, t in model.state_dict().items()}
    return {key: t.abs().long() if key.endswith("tracked") else t for key, t in state.items()}


def cyclegan_generator(*, dropout: bool = False, **arguments) -> dict[str, Tensor]:
    state = official(ResNet(width=2, blocks=2, dropout=dropout, **arguments), r"^layers\.", "model.")
    return {re.sub(r"(\d+)\.layers\.", r"\1.conv_block.", name): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"norm": "instance", "use_dropout": False, "padding_type": "reflect", "n_blocks": 2}),
        ({"norm": "batch", "dropout": True}, {"norm": "batch", "use_dropout": True, "padding_type": "reflect"}),
        ({"padding": "zero", "in_channels": 1}, {"padding_type": "zero", "use_dropout": False, "input_nc": 1}),
        ({"padding": "zero", "dropout": True}, {"padding_type": "zero", "use_dropout": True}),
        ({"norm": "none", "out_channels": 1}, {"norm": "none", "output_nc": 1}),
    ],
)
def test_variants_of_the_resnet(arguments: dict, expected: dict) -> None:
    network = official_network(cyclegan_generator(**arguments))
    assert network.class_name == "ResnetGenerator"
    assert {key: network.init_kwargs[key] for key in expected} == expected
    build_ours(network)


def test_a_generator_of_pix2pixhd_with_two_halvings_is_known_by_its_biases_before_batch_norms() -> None:
    model = GlobalGenerator(in_channels=4, width=2, downsamplings=2, blocks=1, norm="batch")
    state = official(model, r"^layers\.", "model.")
    state = {re.sub(r"(\d+)\.layers\.", r"\1.conv_block.", name): tensor for name, tensor in state.items()}
    network = official_network(state)
    found = network.class_name, network.init_kwargs["n_downsampling"], network.init_kwargs["norm"]
    assert found == ("GlobalGenerator", 2, "batch")
    build_ours(network)


def test_statistics_of_instance_norms_in_old_files_are_dropped_and_kept_aside(tmp_path: Path) -> None:
    state = cyclegan_generator()
    old = {"model.2.running_mean": torch.ones(2), "model.2.running_var": torch.ones(2),
           "model.10.conv_block.2.running_mean": torch.ones(8), **state}  # fmt: skip
    path = tmp_path / "latest_net_G_A.pth"
    torch.save(old, path, _use_new_zipfile_serialization=False)  # as PyTorch wrote files before 1.6
    network = read(path).networks["G_A"]
    model, _ = build_ours(network)
    assert official_network(old).init_kwargs == official_network(state).init_kwargs
    aside = dropped_keys(network.state, of_state(old, releases()).table(network.state))
    assert sorted(aside) == sorted(old.keys() - state.keys())
    assert fingerprint(back_to_official(model, network, aside)) == fingerprint(old)


def test_names_of_parallel_networks_and_counters_that_old_batch_norms_lack(tmp_path: Path) -> None:
    model = PatchGAN(channels=4, width=2, layers=2)
    state = official(model, r"^layers\.", "module.model.")
    saved = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(saved, tmp_path / "net.pth")
    found = read_state_dict(tmp_path / "net.pth")
    assert found.keys() == {name.removeprefix("module.") for name in state}
    network = read(tmp_path / "net.pth").networks["D"]
    ours, arguments = build_ours(network)
    assert arguments == {"channels": 4, "width": 2, "layers": 2, "norm": "batch"}
    assert ours.layers[3].num_batches_tracked == 0 and ours.layers[3].running_mean.equal(found["model.3.running_mean"])
    assert network.buffers == {name for name in found if "running" in name or "tracked" in name}


def test_the_dropout_of_a_unet_is_as_its_repository_trains_it() -> None:
    for norm, expected in (("batch", True), ("instance", False)):
        ours = UNet(width=2, levels=5, norm=norm)
        state = {official: torch.zeros_like(ours.state_dict()[own]) for official, own in unet_names(ours).items()}
        told = {"input_nc": 3, "output_nc": 3, "num_downs": 5, "ngf": 2, "norm": norm}
        assert official_network(state).init_kwargs == told | {"use_dropout": expected}


def unet_names(model: UNet) -> dict[str, str]:
    """Official names to ours: in a level, 1 halves, 2 is its norm, 3 the level inside, 5 doubles, 6 is its norm."""
    names, levels = {}, len(model.downs)
    for name in model.state_dict():
        kind, level, own = name.split(".", 2)
        level, innermost = int(level), int(level) == levels - 1
        at = "model.model." if level == 0 else "model.model.1.model." + "3.model." * (level - 1)
        number = {"downs": 0 if level == 0 else 1, "down_norms": 2, "ups": 3 if level == 0 or innermost else 5,
                  "up_norms": 4 if innermost else 6}[kind]  # fmt: skip
        names[f"{at}{number}.{own}"] = name
    return names


def test_a_training_folder_gives_its_networks_by_name_and_epoch(tmp_path: Path) -> None:
    for name in ("latest_net_G_A", "latest_net_G_B", "200_net_G_A"):
        write_state_dict(tmp_path / f"{name}.pth", cyclegan_generator())
    (tmp_path / "loss_log.txt").write_text("nothing")
    assert are_state_dicts(tmp_path) and are_state_dicts("x.pth") and not are_state_dicts("x.pkl")
    latest, early = read(tmp_path), read(tmp_path, epoch="200")
    assert list(latest.networks) == ["G_A", "G_B"] and list(early.networks) == ["G_A"]
    assert latest.sha256 != early.sha256 == read(tmp_path / "200_net_G_A.pth").sha256
    with pytest.raises(FileNotFoundError, match=r"has no 100_net_\*.pth; its epochs are: 200, latest"):
        read(tmp_path, epoch="100")
    assert not are_state_dicts(tmp_path / "nothing")


class Code:
    def __reduce__(self) -> tuple:
        return print, ("run by the reader",)


def test_files_that_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(FileNotFoundError, match="no weights at .*x.pth"):
        read(path)
    for content, message in [
        ({"model.0.weight": Code()}, "is damaged or holds more than tensors"),
        ({"epoch": 3}, "holds dict, expected a state dict"),
        ({}, r"x.pth: its names \(none, ...\) are of no network of BMSG-GAN, genforce, BigGAN-PyTorch,"),
        ({"head.weight": torch.ones(1)}, r"its names \(head.weight, ...\) are of no network"),
        ({"model.0.weight": torch.ones(2, 3, 4, 4)}, "begins like a NLayerDiscriminator, and lacks tensors of one"),
        ({"model.model.0.weight": torch.ones(2, 3, 4, 4)}, "UnetGenerator, and lacks .*model.model.3.weight"),
    ]:
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            read(path)
    assert capsys.readouterr().out == ""


def test_weights_that_do_not_fit_are_named() -> None:
    state = cyclegan_generator()
    state["model.10.conv_block.1.weight"] = torch.ones(8, 7, 3, 3)
    with pytest.raises(ValueError, match=r"another shape or type: layers.10.layers.1.weight \(8, 7, 3, 3\)"):
        build_ours(official_network(state))
    state = cyclegan_generator() | {"model.99.gain": torch.ones(1)}
    with pytest.raises(ValueError, match="1 are not in our network: layers.99.gain"):
        build_ours(official_network(state))
    state = cyclegan_generator()
    table = of_state(state, releases()).table(state)
    assert apply_keys(state, table).keys() == ResNet(width=2, blocks=2).state_dict().keys()
