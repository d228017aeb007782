"""Files of Projected GAN and StyleGAN-XL, whose networks are pickled by reference, to ours and back."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lit_gans.convert import convert
from lit_gans.official import fingerprint, read_official
from lit_gans.papers import fastgan, projected_gan, stylegan_xl
from lit_gans.papers.fastgan import FastGAN
from lit_gans.papers.projected_gan.features import whole
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained

from .official.by_reference import (
    PROJECTED_GAN,
    STYLEGAN_XL,
    Generator,
    Judges,
    ProjectedDiscriminator,
    stirred,
)
from .official.layout import modules_of_pickles, written


def converted(tmp_path: Path, contents: dict, names: tuple, protocol: int = 4) -> Path:
    """The folder of ours; the way back gives every tensor, under its name."""
    with modules_of_pickles(*names):
        path = written(tmp_path / "official.pkl", contents, protocol)
    convert(path, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "again.pkl", to="official")
    first, second = read_official(path), read_official(tmp_path / "again.pkl")
    assert second.extra == first.extra and second.networks.keys() == first.networks.keys()
    for name, network in first.networks.items():
        found = second.networks[name]
        expected = contents[name].state_dict()
        assert list(found.state) == list(network.state) == list(expected)
        assert found.fingerprint == network.fingerprint == fingerprint(expected)
        assert (found.class_name, found.modules) == (network.class_name, network.modules)
        assert (found.init_kwargs, found.parts, found.buffers) == (network.init_kwargs, network.parts, network.buffers)
        parameters = {n for n, _ in contents[name].named_parameters()}
        assert network.buffers == expected.keys() - parameters and network.source_sha256 == ""
    return tmp_path / "ours"


@pytest.mark.parametrize(("lite", "protocol"), [(True, 2), (False, 4)])
def test_generators_of_fastgan_draw_the_same_images(lite: bool, protocol: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = {name: stirred(Generator(lite=lite)) for name in ("G", "G_ema")}
    contents = {**networks, "training_set_kwargs": {"path": "x"}, "progress": {"cur_nimg": torch.tensor([8])}}
    folder = converted(tmp_path, contents, PROJECTED_GAN, protocol)
    z = torch.randn(2, 8)
    for name, path in (("G_ema", folder), ("G", folder / "G")):
        ours = from_pretrained(path)
        assert type(ours) is fastgan.Generator and torch.allclose(ours(z), networks[name](z), atol=1e-5)
    assert isinstance(load_run(folder), FastGAN)


def test_a_generator_of_classes_says_how_many(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Generator()
    network.c_dim, network.synthesis.embed = 3, nn.Embedding(1000, 8)
    for side in (8, 16, 32, 64, 128, 256):
        feat, block = getattr(network.synthesis, f"feat_{side}"), nn.Module()
        for i, layer in ((1, 1), (2, 5)):
            norm = nn.Module()
            for own in ("gain", "bias"):
                norm.add_module(own, nn.utils.spectral_norm(nn.Linear(8, feat[layer].out_channels)))
            norm.register_buffer("stored_mean", torch.zeros(feat[layer].out_channels))
            norm.register_buffer("stored_var", torch.ones(feat[layer].out_channels))
            block.add_module(f"conv{i}", feat[layer])
            block.add_module(f"bn{i}", norm)
        block.noise = feat[2]
        setattr(network.synthesis, f"feat_{side}", block)
    folder = converted(tmp_path, {"G_ema": network}, PROJECTED_GAN)
    ours = from_pretrained(folder)
    assert ours.num_classes == 3 and ours.embed.weight.equal(network.synthesis.embed.weight)
    assert ours(torch.randn(2, 8), torch.tensor([0, 2])).isfinite().all()


def test_a_network_without_its_first_layer_is_told(tmp_path: Path) -> None:
    network = Judges()
    del network.feature_networks["tf_efficientnet_lite0"], network.discriminators["tf_efficientnet_lite0"]
    del network.feature_networks["deit_tiny_distilled_patch16_224"].scratch
    with modules_of_pickles(*STYLEGAN_XL):
        path = written(tmp_path / "official.pkl", {"D": network})
    message = r"D is named like a ProjectedDiscriminator, and lacks what tells its size \('feature_networks.deit_tiny"
    with pytest.raises(ValueError, match=message):
        convert(path, tmp_path / "ours")


@pytest.mark.slow
def test_a_projected_discriminator_judges_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, images = stirred(ProjectedDiscriminator()), torch.rand(2, 3, 224, 224) * 2 - 1
    folder = converted(tmp_path, {"G_ema": Generator().eval(), "D": network}, PROJECTED_GAN)
    ours = from_pretrained(folder / "D")
    assert type(ours) is projected_gan.Discriminator
    # Ours reads the feature network's weights, which the file has too, from where they are published.
    full = {name: t.contiguous() for name, t in whole("tf_efficientnet_lite0", "random").state_dict().items()}
    cut = network.feature_network.pretrained.state_dict()
    places = {f"layer{k}.{i - first}." : f"blocks.{i}." for k, first, last in ((1, 2, 3), (2, 3, 5), (3, 5, 7))
              for i in range(first, last)}  # fmt: skip
    places |= {"layer0.0.": "conv_stem.", "layer0.1.": "bn1.", "layer0.2.": "blocks.0.", "layer0.3.": "blocks.1."}
    for name, tensor in cut.items():
        place = next(p for p in places if name.startswith(p))
        assert (own := places[place] + name.removeprefix(place)) in full
        full[own] = tensor.contiguous()
    save_file(full, tmp_path / "features.safetensors")
    ours.features.weights = str(tmp_path / "features.safetensors")
    assert torch.allclose(ours(images), network(images), atol=1e-4)


@pytest.mark.slow
def test_discriminators_of_stylegan_xl(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = stirred(Judges())
    folder = converted(tmp_path, {"G_ema": Generator().eval(), "D": network}, STYLEGAN_XL)
    ours = from_pretrained(folder / "D")
    assert type(ours) is stylegan_xl.Discriminator
    assert [judge.features.name for judge in ours.judges] == network.backbones
    assert [judge.features.px for judge in ours.judges] == [224, 256]  # a transformer's own side, and as it comes
    levels, labels = [torch.randn(2, 4, 112, 112)], torch.tensor([1, 7])
    for judge, theirs in zip(ours.judges, network.discriminators.values(), strict=True):
        assert torch.allclose(judge.heads(levels, labels), theirs(levels, labels), atol=1e-4)
