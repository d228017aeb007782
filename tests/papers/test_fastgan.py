"""FastGAN: what its networks and its training promise beyond the battery and the recorded values."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import one_hot

from lit_gans.base.checkpoints import checkpoints
from lit_gans.convert import convert
from lit_gans.nn.spectral_norm import SpectralLayer
from lit_gans.official import read_official
from lit_gans.papers.fastgan import Discriminator, FastGAN, Generator, from_official_config
from lit_gans.papers.fastgan.networks import Noise, judged_maps, maps, quarter
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained
from tests.cases import CASES, train
from tests.official.layout import official_modules, tree, written
from tests.papers.games import GANS
from tests.papers.replay import Replay, replayed

__all__ = ["official_modules"]


def generator(**arguments: Any) -> Generator:
    torch.manual_seed(0)
    network = Generator(**{"resolution": 64, "z_dim": 8, "width": 4, **arguments})
    for layer in network.modules():
        if isinstance(layer, Noise):
            nn.init.constant_(layer.weight, 0.3)
    return network.eval()


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512, pytest.param(1024, marks=pytest.mark.slow)])
def test_networks_are_built_at_every_size(resolution: int, lite: bool) -> None:
    network = generator(resolution=resolution, width=2, lite=lite, channels=1)
    images = network(torch.randn(2, 8))
    assert images.shape == (2, 1, resolution, resolution) and images.isfinite().all()
    logits, whole, part = Discriminator(resolution=resolution, channels=1, width=2)(images, torch.tensor([0, 3]))
    assert logits.shape == (2, 25)
    assert whole.shape == part.shape == (2, 1, min(resolution, 128), min(resolution, 128))


@pytest.mark.parametrize("resolution", [16, 48, 2048])
def test_other_sizes_are_refused(resolution: int) -> None:
    for network in (Generator, Discriminator):
        with pytest.raises(ValueError, match=f"resolution {resolution} is not a power of two from 32 to 1024; FastGAN"):
            network(resolution=resolution)


def test_feature_maps_are_the_published() -> None:
    """Of the official code's ngf and ndf of 64."""
    assert [maps(2**i, width=64) for i in range(2, 11)] == [1024, 512, 256, 128, 128, 64, 32, 16, 8]
    assert [judged_maps(2**i, width=64) for i in range(3, 10)] == [512, 256, 128, 64, 32, 16, 8]
    entry = Discriminator(resolution=1024, width=16).entry
    assert [m.weight.shape[0] for m in entry.modules() if isinstance(m, SpectralLayer)] == [2, 4]


def test_what_128_pixels_have_for_256_alone_is_never_trained() -> None:
    network = generator(resolution=128).train()
    network(torch.randn(2, 8)).sum().backward()
    for name, p in network.named_parameters():
        assert (p.grad is not None) == p.requires_grad == (".256." not in name), name


def test_latents_count_by_their_direction_alone() -> None:
    network, z = generator(), torch.randn(2, 8)
    assert torch.allclose(network(z), network(3 * z), atol=1e-5)


@pytest.mark.parametrize("lite", [False, True])
def test_classes_are_told_by_number_or_by_vector(lite: bool) -> None:
    network, z = generator(num_classes=3, embeddings=5, lite=lite), torch.randn(1, 8).expand(3, -1)
    labels = torch.arange(3)
    images = network(z, labels)
    assert torch.equal(images, network(z, one_hot(labels, 3).float())) and len(network.embed.weight) == 5
    assert not torch.allclose(images[0], images[1], atol=1e-4)
    with pytest.raises(ValueError, match=r"conditional: give labels \[N\] of its 3 classes"):
        network(z)
    with pytest.raises(ValueError, match="embeddings 2 are fewer than num_classes 3"):
        generator(num_classes=3, embeddings=2)


def test_noise_is_the_layers_own_in_evaluation_and_drawn_in_training() -> None:
    network, z = generator(), torch.randn(4, 8)
    assert torch.equal(network(z), network(z)) and torch.equal(network(z), generator()(z))
    assert not torch.equal(network(z), network(z, noise="random"))
    network.train()
    assert not torch.equal(network(z), network(z)) and not torch.equal(network(z), network(z, noise="const"))
    assert not [name for name in network.state_dict() if "noise_const" in name]
    assert not torch.equal(network.blocks["8"][2].noise_const, network.blocks["8"][6].noise_const)
    with pytest.raises(ValueError, match="noise 'none' is not one of random, const"):
        network(z, noise="none")


def test_quarters() -> None:
    x = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    assert torch.equal(quarter(x, torch.tensor([1, 2])), torch.stack([x[0, :, :2, 3:], x[1, :, 2:, :3]]))
    assert torch.equal(quarter(x, torch.tensor([3, 0])), torch.stack([x[0, :, 2:, 3:], x[1, :, :2, :3]]))


# ---- training --------------------------------------------------------------------------------------------------------


def test_reals_alone_are_made_again_each_with_its_own_quarter(tmp_path: Path) -> None:
    asked: list[tuple[Tensor, Tensor]] = []
    compared: list[tuple[Tensor, Tensor]] = []

    def look(game: FastGAN, batch: dict[str, Tensor]) -> None:
        forward, distance = game.discriminator.forward, game.distance
        game.discriminator.forward = lambda x, quarters=None: (
            asked.append((x, quarters)) or forward(x, quarters) if quarters is not None else forward(x)
        )
        game.distance = lambda rebuilt, images: compared.append((rebuilt, images)) or distance(rebuilt, images)
        Replay(game, batch).fresh()
        (x, quarters), (whole, part) = asked[0], compared
        assert len(asked) == 1 and torch.equal(x, batch["image"])
        assert torch.equal(whole[1], x) and torch.equal(part[1], quarter(x, quarters))
        assert set(quarters.tolist()) == {0, 1, 2, 3}

    replayed(CASES["fastgan"](augment=None), GANS["fastgan"][1](tmp_path), tmp_path, look)


def test_images_are_compared_at_the_decoders_size() -> None:
    gan, rebuilt = CASES["fastgan"](), torch.zeros(2, 1, 4, 4)
    image = torch.zeros(2, 1, 8, 8)
    image[0, 0, ::2, ::2] = 1.0  # of every four pixels, the one that is taken
    assert gan.distance(rebuilt, image).item() == 0.5
    gan.reconstruction = "mse"
    assert gan.distance(rebuilt, 2 * image).item() == 2.0


def squeezenet(path: Path) -> Path:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None).state_dict(), path)
    return path


def perceptual(**arguments: Any) -> FastGAN:
    return CASES["fastgan"](reconstruction="lpips", perceptual_net="squeeze", **arguments)


def test_lpips_trains_the_discriminator_and_is_no_part_of_the_run(tmp_path: Path) -> None:
    gan = perceptual(weights_path=str(squeezenet(tmp_path / "net.pth")))
    train(gan, tmp_path / "run", batches=2)
    saved = torch.load(checkpoints(tmp_path / "run")[-1], weights_only=True)["state_dict"]
    assert saved.keys() == CASES["fastgan"]().state_dict().keys()
    (network,) = gan.frozen_networks()
    assert (network["network"], network["weights"]) == ("lpips_form_squeezenet1_1", str(tmp_path / "net.pth"))
    assert len(network["fingerprint"]) == 16 and not CASES["fastgan"]().frozen_networks()
    (tmp_path / "net.pth").unlink()
    assert load_run(tmp_path / "run").sample([1]).shape == (1, 1, 32, 32)
    x = torch.rand(2, 1, 32, 32)
    assert gan.distance(x, x).item() == 0 and gan.distance(x, 1 - x).item() > 0


def test_weights_that_cannot_be_had_are_missed_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(FastGAN, "training_step", lambda *args: pytest.fail("training began"))
    with pytest.raises(
        ValueError, match=r"by LPIPS, and squeezenet1_1.*fetch https://.* or pass weights_path.*l1 or mse"
    ):
        train(perceptual(), tmp_path, batches=1)
    with pytest.raises(ValueError, match=r"no weights at .*mine\.pth: https://.*reconstruction=l1 or mse"):
        train(perceptual(weights_path=str(tmp_path / "mine.pth")), tmp_path, batches=1)
    with pytest.raises(pytest.fail.Exception, match="training began"):
        train(perceptual(reconstruction_weight=0.0), tmp_path, batches=1)


def test_the_average_has_copies_of_vectors_and_statistics(tmp_path: Path) -> None:
    gan = CASES["fastgan"]()
    train(gan, tmp_path, batches=3)
    own, average = gan.generator, gan.generator_ema
    for (name, mine), theirs in zip(own.named_buffers(), average.buffers(), strict=True):
        assert torch.equal(mine, theirs), name
    assert not torch.equal(own.to_rgb.weight, average.to_rgb.weight)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_classes": 3}, "discriminator is unconditional: set num_classes=0"),
        ({"reconstruction": "l2"}, "reconstruction 'l2' is not one of lpips, l1, mse"),
        ({"perceptual_net": "resnet"}, "perceptual_net 'resnet' is not one of vgg, alex, squeeze"),
    ],
)
def test_bad_arguments_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CASES["fastgan"](**given)


# ---- released generators ---------------------------------------------------------------------------------------------

BUFFERS = {"weight_u", "weight_v", "running_mean", "running_var", "num_batches_tracked", "stored_mean", "stored_var"}


def official_state(network: Generator, *, lite: bool, conditional: bool) -> dict[str, Tensor]:
    """Our tensors under the names of projected-gan's code."""
    normalised = [name for name, layer in network.named_modules() if isinstance(layer, SpectralLayer)]
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        layer, _, own = name.rpartition(".")
        if layer in normalised:
            own = {"weight": "weight_orig", "u": "weight_u", "v": "weight_v"}.get(own, own)
        parts = layer.split(".")
        if parts[0] == "stem":
            parts[:1] = ["init", "init"]
        elif parts[0] == "blocks":
            parts[:2] = [f"feat_{parts[1]}"]
            if conditional and len(parts) > 2:  # .convs.0, .norms.1.gain
                kind, number = {"convs": "conv", "norms": "bn"}[parts[1]], "" if lite else str(int(parts[2]) + 1)
                parts[1:3] = [f"{kind}{number}"]
                parts = ["bias" if part == "shift" else part for part in parts]
                own = own.replace("running_", "stored_")
        elif parts[0] == "excitations":
            parts[:2] = [f"se_{parts[1]}", "main"]
        elif parts[0] == "to_rgb":
            parts = ["to_big"]
        state[".".join(["synthesis", *parts, own])] = tensor
    return state


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("lite", [False, True])
def test_a_released_pickle_goes_both_ways(
    lite: bool, conditional: bool, tmp_path: Path, official_modules: None
) -> None:
    """Of a conditional one the table has more classes than its data."""
    config = {"z_dim": 8, "c_dim": 3 * conditional, "w_dim": 0, "img_resolution": 128, "img_channels": 3, "ngf": 4}
    config |= {"cond": conditional, "mapping_kwargs": {}, "synthesis_kwargs": {"lite": lite}}
    network = generator(**from_official_config(config))
    official = official_state(network, lite=lite, conditional=conditional)
    contents = {"G_ema": tree("Generator", official, buffers=BUFFERS.__contains__, arguments=config)}
    convert(written(tmp_path / "official.pkl", contents), tmp_path / "ours")
    z, labels = torch.randn(2, 8), torch.tensor([0, 2]) if conditional else None
    assert torch.equal(from_pretrained(tmp_path / "ours")(z, labels), network(z, labels))
    assert isinstance(gan := load_run(tmp_path / "ours"), FastGAN) and gan.sample([1, 5]).shape == (2, 3, 128, 128)
    assert gan.num_classes == 3 * conditional and len(official) == len(network.state_dict())
    convert(tmp_path / "ours", tmp_path / "again.pkl", to="official")
    first, second = (read_official(tmp_path / f"{name}.pkl").networks["G_ema"] for name in ("official", "again"))
    assert list(second.state) == list(first.state) and second.fingerprint == first.fingerprint
    assert second.buffers == first.buffers and second.init_kwargs == first.init_kwargs


def test_an_unknown_argument_of_a_released_generator_is_named() -> None:
    with pytest.raises(ValueError, match="'depth' is no argument of the official network"):
        from_official_config({"z_dim": 8, "img_resolution": 128, "depth": 3})


def test_a_generator_alone_is_a_model() -> None:
    network = generator(channels=1, num_classes=3)
    gan = FastGAN.from_generator(network)
    assert (gan.resolution, gan.channels, gan.num_classes, gan.z_dim) == (64, 1, 3, 8)
    z = gan.seeded_latents([5])
    assert torch.equal(gan.sample([5], labels=torch.tensor([1])), network(z, torch.tensor([1])).clamp(-1, 1))
    with pytest.raises(ValueError, match=r"psi 0\.5 would change nothing: FastGAN normalises its latents"):
        gan.sample([5], psi=0.5)


# ---- experiments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fastgan/fewshot256", "fastgan/fewshot1024"])
def test_experiments_have_the_published_numbers(name: str) -> None:
    plan = yaml.safe_load(shipped_configs()[name].read_text())
    model, data, ema = plan["model"]["init_args"], plan["data"]["init_args"], plan["ema"]
    assert model["resolution"] == data["resolution"] and data["batch_size"] == 8 and data["mirror"]
    assert 0.5 ** (8 / 1000 / ema["half_life_kimg"]) == pytest.approx(0.999, abs=1e-6) and ema["ramp_up"] is None
    assert model["augment"]["init_args"]["policy"] == ["color", "translation"]
    assert not {"lr", "betas", "reconstruction", "lite"} & model.keys(), "they are the published ones unasked"
