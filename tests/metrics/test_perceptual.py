from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as theirs
from torchvision import models

from lit_gans.base.images import from_uint8, to_uint8
from lit_gans.metrics.perceptual import (
    LPIPS,
    LPIPS_NETS,
    PD_LAYERS,
    VGG16_LAYERS,
    PerceptualDistance,
    PerceptualSimilarity,
    build_lpips,
    build_perceptual_distance,
    feature_distance,
    unit_length,
)

SHARED_WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "squeezenet1_1_fp16.safetensors"
GENERATOR = torch.Generator().manual_seed(0)
FAKE, REAL = torch.randint(256, (2, 3, 3, 40, 36), dtype=torch.uint8, generator=GENERATOR)


def empty_features(model: str) -> nn.Sequential:
    with torch.device("meta"):
        return models.get_model(model, weights=None).features


def random_state(model: str) -> dict[str, Tensor]:
    """Weights of a convolutional part that keep the scale of what passes."""
    generator, state = torch.Generator().manual_seed(1), {}
    for name, like in empty_features(model).state_dict().items():
        scale = (2 / like[0].numel()) ** 0.5 if like.ndim == 4 else 0.1
        state[f"features.{name}"] = torch.randn(like.shape, generator=generator) * scale
    return state


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{model: file of random weights}."""
    folder = tmp_path_factory.mktemp("weights")
    found = {model: folder / f"{model}.safetensors" for model in ("vgg16", "alexnet", "squeezenet1_1")}
    for model, path in found.items():
        save_file(random_state(model), path)
    return found


@pytest.fixture(scope="module")
def squeeze() -> LPIPS:
    return LPIPS("squeeze", random_state("squeezenet1_1"))


@pytest.fixture(scope="module")
def vgg16() -> dict[str, Tensor]:
    return random_state("vgg16")


@pytest.mark.parametrize("net", ["vgg", "alex", "squeeze"])
def test_lpips_is_torchmetrics_on_the_same_backbone(
    net: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def features(model: str, pretrained: bool) -> nn.Sequential:
        layers = empty_features(model)
        state = {name.removeprefix("features."): tensor for name, tensor in random_state(model).items()}
        layers.load_state_dict(state, assign=True)
        return layers

    monkeypatch.setattr(theirs, "_get_tv_model_features", features)
    ours = build_lpips(net, weights_path=files[LPIPS_NETS[net].model])
    expected = theirs._NoTrainLpips(net=net)(from_uint8(FAKE), from_uint8(REAL)).flatten()
    assert torch.allclose(ours(FAKE, REAL), expected, rtol=1e-5, atol=0) and expected.min() > 0.01
    assert torch.allclose(ours(from_uint8(FAKE), from_uint8(REAL)), expected, rtol=1e-5, atol=0)
    assert ours.name == f"lpips_form_{LPIPS_NETS[net].model}", "weights that are not torchvision's own"


@pytest.mark.parametrize("net", ["vgg", "alex", "squeeze"])
def test_the_least_side_is_the_one_the_network_needs(net: str, files: dict[str, Path]) -> None:
    least = LPIPS_NETS[net].least_px
    lpips = build_lpips(net, weights_path=files[LPIPS_NETS[net].model])
    images = torch.zeros(1, 3, least, least + 3)
    assert lpips(images, -images).item() == 0
    with pytest.raises(ValueError, match=rf"{least + 2} x {least - 1} px are too small .* must be {least} px or more"):
        lpips(images[:, :, :-1, :-1], images[:, :, :-1, :-1])
    with pytest.raises(RuntimeError, match="[Kk]ernel size|[Oo]utput size"):
        lpips.backbone.layers(images[:, :, : least - 1])


def test_gradients_reach_the_images_and_nothing_else(squeeze: LPIPS) -> None:
    fake = from_uint8(FAKE).requires_grad_()
    squeeze(fake, from_uint8(REAL)).sum().backward()
    assert fake.grad.abs().sum() > 0 and fake.grad.isfinite().all()
    assert not any(p.requires_grad for p in squeeze.parameters())
    assert not squeeze.train().training and not squeeze.backbone.layers.training
    same = from_uint8(FAKE).requires_grad_()
    squeeze(same, same.detach()).sum().backward()
    assert same.grad.abs().max() == 0


def test_all_zero_places_have_finite_gradients() -> None:
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]], requires_grad=True)
    unit = unit_length(x)
    assert torch.allclose(unit, torch.tensor([[[[0.6, 0.0]], [[0.8, 0.0]]]]))
    unit.sum().backward()
    assert x.grad.isfinite().all()


def test_grey_is_repeated_and_features_can_be_kept(squeeze: LPIPS) -> None:
    grey = FAKE[:, :1], REAL[:, :1]
    expected = squeeze(*(x.repeat(1, 3, 1, 1) for x in grey))
    assert torch.equal(squeeze(*grey), expected)
    assert torch.allclose(squeeze(*map(from_uint8, grey)), expected, rtol=1e-5)
    target = squeeze.features(REAL[:1])
    assert torch.allclose(squeeze.between(squeeze.features(FAKE), target)[0], squeeze(FAKE, REAL)[0], rtol=1e-5)


def test_perceptual_distance_is_the_mean_squared_difference_of_activations(vgg16: dict[str, Tensor]) -> None:
    layers = empty_features("vgg16")
    layers.load_state_dict({name.removeprefix("features."): t for name, t in vgg16.items()}, assign=True)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    for names in (PD_LAYERS, ("relu2_2",), ("relu3_1", "relu1_1")):
        expected = torch.zeros(len(FAKE))
        for name in names:
            upto = layers[: VGG16_LAYERS[name] + 1]
            a, b = (upto((x.float() / 255 - mean) / std) for x in (FAKE, REAL))
            expected += (a - b).flatten(1).norm(dim=1) ** 2 / a[0].numel()
        found = PerceptualDistance(vgg16, layers=names)(FAKE, REAL)
        assert torch.allclose(found, expected, rtol=1e-4)


def test_named_layers_of_vgg16_are_its_activations() -> None:
    layers, block, number = empty_features("vgg16"), 1, 0
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.MaxPool2d):
            block, number = block + 1, 0
        elif isinstance(layer, nn.ReLU):
            number += 1
            assert VGG16_LAYERS[f"relu{block}_{number}"] == index
    assert len(VGG16_LAYERS) == sum(isinstance(layer, nn.ReLU) for layer in layers)


def test_feature_distance_in_closed_form() -> None:
    zeros, ones = (
        [torch.zeros(2, 5, 3, 4), torch.zeros(2, 7, 1, 1)],
        [torch.ones(2, 5, 3, 4), torch.full((2, 7, 1, 1), 3)],
    )
    assert feature_distance(zeros, ones).tolist() == [1 + 9, 1 + 9]


def test_mean_over_pairs(squeeze: LPIPS, vgg16: dict[str, Tensor]) -> None:
    for network in (squeeze, PerceptualDistance(vgg16, layers=["relu1_2"])):
        metric = PerceptualSimilarity(network)
        metric.update(FAKE[:1], REAL[:1])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            metric.update(FAKE[1:], REAL[1:])
        expected = torch.cat([network(FAKE[:1], REAL[:1]), network(FAKE[1:], REAL[1:])]).double().mean()
        assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-6)
        assert metric.name == network.name and metric.settings["network_fingerprint"] == network.fingerprint


def test_fingerprint_is_of_the_weights_in_use(squeeze: LPIPS) -> None:
    state = random_state("squeezenet1_1")
    assert LPIPS("squeeze", {**state, "classifier.1.weight": torch.ones(1)}).fingerprint == squeeze.fingerprint
    other = {**state, "features.0.bias": torch.zeros(64)}
    assert LPIPS("squeeze", other).fingerprint != squeeze.fingerprint and len(squeeze.fingerprint) == 16


@pytest.mark.skipif(not SHARED_WEIGHTS.is_file(), reason=f"no {SHARED_WEIGHTS}")
def test_trained_weights_find_more_noise_further_away() -> None:
    lpips = build_lpips("squeeze", weights_path=SHARED_WEIGHTS)
    down, across = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    image = torch.stack([down, across, (4 * down).sin() * across])[None]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    found = [lpips(to_uint8(image), to_uint8(image + level * noise)).item() for level in (0, 0.05, 0.1, 0.2, 0.4)]
    assert found[0] == 0 and found == sorted(found) and 0.01 < found[1] < found[-1] < 2


def test_missing_weights_say_what_to_fetch_and_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path
) -> None:
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for build, name in ((build_lpips, "vgg16-397923af.pth"), (build_perceptual_distance, "vgg16-397923af.pth")):
        with pytest.raises(ConnectionError) as caught:
            build()
        assert f"https://download.pytorch.org/models/{name}" in str(caught.value)
        assert str(cache / name) in str(caught.value) and "weights_path" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="none.pth"):
        build_lpips("alex", weights_path=tmp_path / "none.pth")


def test_kept_weights_are_found(files: dict[str, Path], cache: Path) -> None:
    cache.mkdir()
    torch.save(random_state("squeezenet1_1"), cache / "squeezenet1_1-b8a52dc0.pth")
    expected = build_lpips("squeeze", weights_path=files["squeezenet1_1"])
    assert build_lpips("squeeze").fingerprint == expected.fingerprint


def test_wrong_weights_nets_layers_and_images_are_refused(
    files: dict[str, Path], tmp_path: Path, squeeze: LPIPS, vgg16: dict[str, Tensor]
) -> None:
    with pytest.raises(ValueError, match="alexnet.safetensors does not hold the weights of torchvision's vgg16"):
        build_lpips("vgg", weights_path=files["alexnet"])
    with pytest.raises(ValueError, match="squeezenet1_1.safetensors does not hold the weights of torchvision's vgg16"):
        build_perceptual_distance(weights_path=files["squeezenet1_1"])
    torch.save(nn.ReLU(), tmp_path / "code.pth")
    with pytest.raises(ValueError, match="code.pth is damaged or holds more than tensors"):
        build_lpips("squeeze", weights_path=tmp_path / "code.pth")
    with pytest.raises(ValueError, match="no net 'resnet'; it has vgg, alex, squeeze"):
        build_lpips("resnet")
    for layers in (["relu1_2", "conv1"], []):
        with pytest.raises(ValueError, match="choose one or more of relu1_1, relu1_2"):
            PerceptualDistance(vgg16, layers=layers)
    with pytest.raises(ValueError, match="pairs have one type and one shape"):
        squeeze(FAKE, from_uint8(REAL))
    with pytest.raises(ValueError, match="pairs have one type and one shape"):
        squeeze(FAKE, REAL[:1])
    with pytest.raises(ValueError, match=r"float images \[3, 2, 40, 36\], expected \[N, 1 or 3, H, W\]"):
        squeeze(from_uint8(FAKE)[:, :2], from_uint8(REAL)[:, :2])
    with pytest.raises(ValueError, match="expected uint8"):
        squeeze(FAKE.int(), REAL.int())
