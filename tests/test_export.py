"""An own StyleGAN2 as a network pickle: opened in a process that knows nothing of lit_gans, and by our own reader."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_gans.convert import convert
from lit_gans.official import read_official
from lit_gans.papers import DCGAN, StyleGAN2
from lit_gans.papers.stylegan2 import Discriminator, Generator, standalone
from lit_gans.papers.stylegan2.official import from_official_config, to_official_config
from lit_gans.runs.pretrained import from_pretrained, save_pretrained

from .parity.golden import Golden, cases

LOADER = Path(__file__).parent / "official" / "their_loader.py"
SIZE = {"resolution": 16, "z_dim": 8, "w_dim": 12, "channel_base": 128, "channel_max": 12}


def seeded(module: nn.Module, seed: int) -> None:
    """Every tensor random, averages and strengths of noise too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn_like(tensor))


def opened(folder: Path, *paths: Path) -> list[dict[str, Tensor]]:
    """What the official side makes of the files, in a process of its own."""
    done = subprocess.run([sys.executable, "-I", LOADER, folder, *paths], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{path.name}.pt") for path in paths]


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


OPTIONS = [
    {"num_classes": 3, "conv_clamp": 256, "num_half_res": 2, "generator_architecture": "resnet"},
    {"num_layers": 2, "channels": 1, "mbstd_group_size": 2},
    {"num_classes": 2, "generator_architecture": "orig", "discriminator_architecture": "skip", "mbstd_channels": 0},
    {"resolution": 8, "channel_max": 512, "discriminator_architecture": "orig", "half_dtype": "bfloat16"},
]


@pytest.mark.parametrize("options", [OPTIONS[0], *(pytest.param(o, marks=pytest.mark.slow) for o in OPTIONS[1:])])
def test_images_there_are_ours(options: dict, tmp_path: Path) -> None:
    gan = StyleGAN2(**SIZE | options)
    seeded(gan, 0)
    save_pretrained(gan, tmp_path / "ours")
    certificate = convert(tmp_path / "ours", tmp_path / "ours.pkl", to="official")
    assert "The networks' source goes along" in str(certificate) and "untrained" not in str(certificate)
    written = read_official(tmp_path / "ours.pkl")  # our own reader, which runs nothing
    assert written.extra == {"training_set_kwargs": None, "augment_pipe": None}
    convert(tmp_path / "ours.pkl", tmp_path / "back")
    convert(tmp_path / "back", tmp_path / "again.pkl", to="official")
    found, again = opened(tmp_path, tmp_path / "ours.pkl", tmp_path / "again.pkl")
    assert all(torch.equal(again[name], tensor) for name, tensor in found.items())
    z, c = found["z"], found.get("c")
    g, ws = gan.generator_ema, gan.generator_ema.mapping(z, c, psi=0.7, cutoff=3)
    assert_equal(found["G_ema/const"], g(z, c, noise="const"))
    assert_equal(found["G_ema/psi"], g(z, c, psi=0.5, noise="const"))
    assert_equal(found["G_ema/none"], g.synthesis(ws, noise="none"))
    assert (found["G_ema/random"] - found["G_ema/const"]).abs().max() > 0.1
    assert_equal(found["G/const"], gan.generator(z, c, noise="const"))
    assert_equal(found["D/logits"].flatten(), gan.discriminator(found["G_ema/const"], c))
    back = from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in g.state_dict().items())


@pytest.mark.slow
def test_a_generator_alone_goes_with_a_new_discriminator(tmp_path: Path) -> None:
    arguments = {**SIZE, "num_layers": 2, "c_dim": 2}
    generator = Generator(**arguments)
    seeded(generator, 0)
    save_pretrained(generator, tmp_path / "g", arguments=arguments)
    certificate = convert(tmp_path / "g", tmp_path / "g.pkl", to="official")
    assert "D is new and untrained" in str(certificate)
    (found,) = opened(tmp_path, tmp_path / "g.pkl")
    assert_equal(found["G/const"], generator(found["z"], found["c"], noise="const"))
    assert found["D/logits"].shape == (4, 1)


@pytest.mark.parametrize("filter_taps", [(1, 3, 3, 1), (1, 1), tuple(range(1, 9))])
def test_arguments_are_read_from_networks(filter_taps: tuple) -> None:
    sizes = {**SIZE, "c_dim": 5, "num_layers": 3, "hidden_dim": 7, "embed_dim": 6, "lr_multiplier": 0.1}
    del sizes["z_dim"], sizes["w_dim"]
    mapping = {name: sizes.pop(name) for name in ("num_layers", "hidden_dim", "embed_dim", "lr_multiplier")}
    half = {"num_half_res": 1, "conv_clamp": 9.0, "resample_filter": filter_taps}
    for network in (
        Generator(z_dim=8, w_dim=12, w_avg_decay=0.9, **sizes, **mapping, **half),
        Discriminator(cmap_dim=4, mbstd_group_size=None, mbstd_channels=2, **sizes, **mapping, **half),
    ):
        again = type(network)(**from_official_config(to_official_config(network)))
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        assert {name: tensor.shape for name, tensor in again.state_dict().items()} == shapes
        assert to_official_config(again) == to_official_config(network)
        again.load_state_dict(network.state_dict())
        c, taken = torch.eye(5)[:4], torch.randn(4, 8) if isinstance(network, Generator) else torch.randn(4, 3, 16, 16)
        given = {"noise": "const"} if isinstance(network, Generator) else {}
        torch.testing.assert_close(again(taken, c, **given), network(taken, c, **given))


def test_models_that_do_not_go(tmp_path: Path) -> None:
    save_pretrained(DCGAN(resolution=16, width=4), tmp_path / "dcgan")
    with pytest.raises(ValueError, match="holds a DCGAN, which does not go to an official pickle.*StyleGAN2 has"):
        convert(tmp_path / "dcgan", tmp_path / "a.pkl", to="official")
    save_pretrained(StyleGAN2(**SIZE), tmp_path / "ours")
    with pytest.raises(ValueError, match="is no .pkl file"):
        convert(tmp_path / "ours", tmp_path / "a.pth", to="official")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        convert(tmp_path / "none", tmp_path / "a.pkl", to="official")


@pytest.mark.parametrize("golden", cases("training.networks.Generator", "stylegan2-ada-pytorch"))
def test_the_source_gives_the_images_of_the_official_code(golden: Golden) -> None:
    network, inputs = standalone.Generator(**golden.config).eval(), golden.inputs
    network.load_state_dict(golden.state)  # strict: the names are the official ones, all of them
    call = {"noise_mode": "const"} | golden.call.get("kwargs", {})
    assert_equal(network(inputs["z"], inputs.get("c"), **call), golden.outputs["img"])


@pytest.mark.parametrize("golden", cases("training.networks.Discriminator", "stylegan2-ada-pytorch"))
def test_the_source_gives_the_logits_of_the_official_code(golden: Golden) -> None:
    network, inputs = standalone.Discriminator(**golden.config).eval(), golden.inputs
    network.load_state_dict(golden.state)
    assert_equal(network(inputs["img"], inputs.get("c"), **golden.call.get("kwargs", {})), golden.outputs["logits"])
