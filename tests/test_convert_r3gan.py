"""Snapshots of R3GAN's training, whose networks are pickled by reference, to ours and back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from lit_gans.convert import convert
from lit_gans.official import HostilePickle, OfficialNetwork, fingerprint, read_official
from lit_gans.papers import R3GAN, r3gan
from lit_gans.runs.initial import fit_of, read_initial
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained

from .official.layout import modules_of_pickles, written
from .official.r3gan import Discriminator, Generator, classes_of

NAMES = {"R3GAN": ("R3GAN", "training.networks"), "BaselineGAN": ("BaselineGAN", "training.networks_baseline")}
WIDTHS, COUNTS = [12, 12, 8, 4], [2, 1, 1, 1]  # 32 px; the first two stages need no convolution between them


def snapshot(path: Path, *, classes: int, package: str = "R3GAN") -> dict[str, nn.Module]:
    """Writes a training's snapshot, with the states of its optimisers; its networks."""
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {name: Generator(WIDTHS, COUNTS, classes=classes) for name in ("G", "G_ema")}
    networks["D"] = Discriminator(WIDTHS, COUNTS, classes=classes)
    contents: dict[str, Any] = {**networks, "training_set_kwargs": {"path": "x.zip", "max_size": 9}, "cur_nimg": 512}
    for name in "GD":
        adam = torch.optim.Adam(networks[name].parameters(), betas=(0.0, 0.9))
        sum(p.sum() for p in networks[name].parameters()).backward()
        adam.step()
        contents[f"{name}_opt_state"] = adam.state_dict()
    for network in networks.values():
        network.eval().requires_grad_(False)
        for p in network.parameters():
            p.grad = None
    with modules_of_pickles(*classes_of(*NAMES[package])):
        written(path, contents)
    return networks


@pytest.mark.parametrize("package", NAMES)
@pytest.mark.parametrize("classes", [0, 5])
def test_a_snapshot_goes_both_ways_and_draws_and_judges_the_same(package: str, classes: int, tmp_path: Path) -> None:
    networks = snapshot(tmp_path / "snapshot.pkl", classes=classes, package=package)
    told = str(convert(tmp_path / "snapshot.pkl", tmp_path / "ours"))
    assert "D_opt_state" in told and "G_opt_state" in told and "states of optimisers, which are left out" in told
    convert(tmp_path / "ours", tmp_path / "again.pkl", to="official")
    first, second = read_official(tmp_path / "snapshot.pkl"), read_official(tmp_path / "again.pkl")
    assert first.left_out == ("G_opt_state", "D_opt_state") and second.left_out == ()
    assert first.extra == second.extra == {"training_set_kwargs": {"path": "x.zip", "max_size": 9}, "cur_nimg": 512}
    assert first.networks.keys() == second.networks.keys() == networks.keys()
    for name, network in networks.items():
        found = second.networks[name]
        assert list(found.state) == list(network.state_dict())
        assert found.fingerprint == first.networks[name].fingerprint == fingerprint(network.state_dict())
        assert (found.class_name, found.modules) == (first.networks[name].class_name, first.networks[name].modules)

    z, labels = torch.randn(3, 6), torch.arange(3) if classes else None
    c = one_hot(labels, classes).float() if classes else torch.zeros(3, 0)
    for name, folder in (("G_ema", tmp_path / "ours"), ("G", tmp_path / "ours" / "G")):
        ours = from_pretrained(folder)
        assert type(ours) is r3gan.Generator
        images = networks[name](z, c)
        torch.testing.assert_close(ours(z, labels), images, rtol=1e-4, atol=1e-5)
    judge = from_pretrained(tmp_path / "ours" / "D")
    assert type(judge) is r3gan.Discriminator
    torch.testing.assert_close(judge(images, labels), networks["D"](images, c), rtol=1e-4, atol=1e-5)
    # The authors' configuration of 32 pixels computes three resolutions in half precision.
    assert [half for half in judge.halves if half] == [half for half in ours.halves if half] == [torch.bfloat16] * 3


def test_what_was_converted_is_sampled_and_trained_on(tmp_path: Path) -> None:
    networks = snapshot(tmp_path / "snapshot.pkl", classes=5)
    convert(tmp_path / "snapshot.pkl", tmp_path / "ours")
    model = load_run(tmp_path / "ours")
    assert type(model) is R3GAN and (model.num_classes, model.z_dim, model.resolution) == (5, 6, 32)
    z = model.seeded_latents([3, 4])
    expected = networks["G_ema"](z, one_hot(torch.tensor([3, 4]), 5).float()).clamp(-1, 1)
    torch.testing.assert_close(model.sample([3, 4]), expected, rtol=1e-4, atol=1e-5)

    initial = read_initial(str(tmp_path / "snapshot.pkl"))
    assert initial.arguments == {
        "resolution": 32, "channels": 3, "num_classes": 5, "z_dim": 6, "widths": WIDTHS, "num_blocks": COUNTS,
        "cardinalities": [3, 3, 2, 1], "expansion": 2, "num_half_res": 3,
    }  # fmt: skip
    fit = fit_of(initial, R3GAN(**initial.arguments))
    assert not fit.left
    for name, official in (("generator", "G"), ("generator_ema", "G_ema"), ("discriminator", "D")):
        weight = networks[official].Model.MainLayers[1].Layers[1 if official != "D" else 0].LinearLayer2.Layer.weight
        place = f"{name}.stages.1.{1 if official != 'D' else 0}.conv2.weight"
        assert torch.equal(fit.taken[place], weight)


def official_name(ours: str) -> str:
    """Of a generator without classes."""
    if ours == "to_rgb.weight":
        return "AggregationLayer.Layer.weight"
    _, i, n, layer = ours.split(".", 3)
    if layer.startswith("act"):
        return f"MainLayers.{i}.Layers.{n}.NonLinearity{layer[3]}.Bias"
    if layer.startswith("conv"):
        return f"MainLayers.{i}.Layers.{n}.LinearLayer{layer[4:-7]}.Layer.weight"
    return f"MainLayers.{i}.Layers.{n}." + {"basis": "Basis", "linear.weight": "LinearLayer.weight"}[layer]


def test_other_filters_and_widths_are_told_by_their_tensors() -> None:
    config = {"widths": [8, 4], "cardinalities": [2, 4], "num_blocks": [1, 2], "expansion": 3, "kernel_size": 5}
    given = config | {"resample_filter": [1.0, 4.0, 6.0, 4.0, 1.0]}
    network = r3gan.Generator(z_dim=3, **given)
    taps = torch.tensor([1.0, 5, 10, 10, 5, 1]) / 32
    state = {"Model.MainLayers.1.Layers.0.Resampler.Kernel": taps.outer(taps)}
    state |= {f"Model.{official_name(name)}": tensor for name, tensor in network.state_dict().items()}
    found = r3gan.from_official_config(r3gan.told(OfficialNetwork("Generator", (), {}, state, frozenset(), {}, "")))
    assert found == given | {"z_dim": 3, "c_dim": 0, "num_half_res": 0}


@pytest.mark.parametrize(
    "config", [{"FP16Stages": [-1, -3], "NoiseDimension": 3}, {"FP16Stages": [1]}, {"FP16Stages": [-1]}]
)
def test_half_precision_elsewhere_than_in_the_largest_resolutions_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="FP16Stages .* are not those of the largest resolutions"):
        r3gan.from_official_config(config)
    with pytest.raises(ValueError, match="'Width' is no argument of the official network"):
        r3gan.from_official_config({"Width": 3})


def test_a_network_without_its_blocks_is_told(tmp_path: Path) -> None:
    snapshot(tmp_path / "whole.pkl", classes=0)
    state = read_official(tmp_path / "whole.pkl").networks["G"].state
    kept = {name: tensor for name, tensor in state.items() if ".2.Layers.1." not in name}
    network = OfficialNetwork("Generator", (), {}, kept, frozenset(), {}, "")
    release = next(release for release in r3gan.OFFICIAL if release.class_name == "Generator")
    with pytest.raises(ValueError, match="G is named like a Generator, and lacks what tells its size"):
        release.build(network, "G")


class Elsewhere(nn.Module):
    pass


def test_other_packages_names_stay_refused(tmp_path: Path) -> None:
    with modules_of_pickles(("R3GANx.Networks", Elsewhere)):
        written(tmp_path / "other.pkl", {"G": Elsewhere()})
    with pytest.raises(HostilePickle, match=r"R3GANx"):
        read_official(tmp_path / "other.pkl")
