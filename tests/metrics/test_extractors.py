import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from lit_gans.base.images import as_channels
from lit_gans.metrics import build_extractor
from lit_gans.metrics.extractors import INCEPTION_URL, RANDOM_INCEPTION_FINGERPRINT

from .common import PixelFeatures, digits

IMAGES = torch.randint(256, (3, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SHARED_WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "squeezenet1_1_fp16.safetensors"


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as torch-fidelity's file has them, but random."""
    path, empty = (tmp_path_factory.mktemp("inception") / name for name in ("inception.pth", "empty.pth"))
    torch.save({}, empty)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("random", ["2048"], str(empty))
    torch.save(network.state_dict(), path)
    return path


def test_inception_is_torch_fidelitys(inception_file: Path) -> None:
    ours = build_extractor("inception", weights_path=inception_file)
    theirs = FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"], str(inception_file))
    features, logits = ours(IMAGES)
    expected_features, expected_logits = theirs(IMAGES)
    assert torch.equal(features, expected_features) and torch.equal(logits, expected_logits)
    assert features.shape == (3, ours.num_features) and logits.shape == (3, ours.num_classes)
    assert (ours.name, ours.resize) == ("inception", "TensorFlow 1 bilinear to 299")
    assert not ours.training and not ours.train().network.training
    assert not any(p.requires_grad for p in ours.parameters())
    grey = IMAGES[:1, :1]
    assert torch.equal(ours(grey).features, ours(grey.repeat(1, 3, 1, 1)).features)


def test_inception_is_taken_from_the_cache(inception_file: Path, cache: Path) -> None:
    cache.mkdir()
    os.link(inception_file, cache / Path(INCEPTION_URL).name)
    assert build_extractor("inception").num_features == 2048


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def test_missing_inception_weights_say_what_to_fetch_and_where_to_put_it(offline: None, cache: Path) -> None:
    with pytest.raises(ConnectionError) as caught:
        build_extractor("inception")
    assert INCEPTION_URL in str(caught.value) and str(cache / "weights-inception-2015") in str(caught.value)
    assert "no network" in str(caught.value) and "weights_path" in str(caught.value)
    with pytest.raises(ConnectionError, match=r"fetch https://download.pytorch.org/models/resnet18-.* there, or"):
        build_extractor("torchvision:resnet18")


def test_torchvision_weights_are_taken_from_the_cache(cache: Path) -> None:
    from torchvision import models

    cache.mkdir()
    network, url = models.squeezenet1_1(), models.SqueezeNet1_1_Weights.DEFAULT.url
    torch.save(network.state_dict(), cache / Path(url).name)
    extractor = build_extractor("torchvision:squeezenet1_1")
    assert torch.equal(extractor.network.classifier[1].weight, network.classifier[1].weight)


def test_spatial_features_are_those_of_sfid(inception_file: Path) -> None:
    plain, spatial = (build_extractor("inception", weights_path=inception_file, spatial=s) for s in (False, True))
    entered = []
    plain.network.Mixed_6d.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    expected, made = plain(IMAGES[:2]), spatial(IMAGES[:2])
    assert torch.equal(made.features, expected.features) and torch.equal(made.logits, expected.logits)
    assert expected.spatial is None and (plain.num_spatial, spatial.num_spatial) == (0, 2023)
    assert spatial.fingerprint == plain.fingerprint and spatial.name == plain.name
    # Again from what enters the block: convolution, batch norm and ReLU of its first branch, seven channels.
    branch = plain.network.Mixed_6d.branch1x1
    expected = torch.relu(branch.bn(branch.conv(entered[0])))[:, :7]
    assert expected.shape[2:] == (17, 17)
    assert torch.allclose(made.spatial.view(2, 17, 17, 7), expected.movedim(1, 3), atol=1e-6)
    assert spatial._spatial == [] and made.spatial.min() >= 0 < made.spatial.std()


def test_random_inception_is_the_same_for_everyone_and_neither_vanishes_nor_explodes() -> None:
    from sklearn.datasets import load_sample_images

    before = torch.get_rng_state()
    extractor = build_extractor("random_inception")
    assert torch.equal(torch.get_rng_state(), before)
    assert extractor.fingerprint == RANDOM_INCEPTION_FINGERPRINT
    assert (extractor.name, extractor.num_features, extractor.num_classes) == ("random_inception", 2048, 0)
    for layer in (extractor.network.Conv2d_1a_3x3.conv, extractor.network.Mixed_7c.branch3x3_2a.conv):
        assert layer.weight.square().mean().item() == pytest.approx(2 / layer.weight[0].numel(), rel=0.1)
    photographs = torch.stack([torch.from_numpy(image[:400, :400].copy()) for image in load_sample_images().images])
    features, logits = extractor(photographs.movedim(3, 1))
    assert features.shape == (2, 2048) and logits is None
    assert 0.2 < features.square().mean().sqrt() < 0.6 and features.std(dim=0).mean() > 0.02


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"w": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="other.pth is not torch-fidelity's Inception v3, which https://"):
        build_extractor("inception", weights_path=path)
    with pytest.raises(ValueError, match="does not hold the weights of torchvision's squeezenet1_1"):
        build_extractor("torchvision:squeezenet1_1", weights_path=path)


@pytest.mark.parametrize(
    ("name", "width"), [("squeezenet1_1", 512), ("resnet18", 512), ("mobilenet_v3_small", 1024), ("convnext_tiny", 768)]
)
def test_torchvision_features_are_what_enters_the_last_layer(tmp_path: Path, name: str, width: int) -> None:
    from torchvision import models

    network, path = models.get_model(name, weights=None).eval(), tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    extractor = build_extractor(f"torchvision:{name}", weights_path=path)
    features, logits = extractor(IMAGES)
    assert extractor.name == name and features.shape == (3, width) and logits.shape == (3, 1000)
    last = [m for m in network.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1]
    if isinstance(last, torch.nn.Linear):
        assert torch.allclose(last(features), logits, atol=1e-5)
    assert extractor._entering == []


@pytest.mark.skipif(not SHARED_WEIGHTS.is_file(), reason=f"no {SHARED_WEIGHTS}")
def test_released_half_precision_weights_are_read_as_float() -> None:
    extractor = build_extractor("torchvision:squeezenet1_1", weights_path=SHARED_WEIGHTS)
    assert extractor(IMAGES).features.dtype == torch.float32
    assert extractor(IMAGES).logits.std() > 0.1


def test_unknown_or_incomplete_specs_say_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown extractor 'vgg'; known are inception, digits, mnist"):
        build_extractor("vgg")
    for spec in ("vgg16", "random_inception", "torchvision:<model>", "timm:<model>", "clip:<model>", "dinov2:<model>"):
        with pytest.raises(ValueError, match=spec):
            build_extractor("vgg")
    with pytest.raises(ValueError, match="'random_inception' draws its own weights: leave out"):
        build_extractor("random_inception", weights_path=tmp_path / "x.pth")
    with pytest.raises(ValueError, match="'digits' has no spatial features; 'inception' has"):
        build_extractor("digits", spatial=True)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*absent.pth: https://github.com/toshas"):
        build_extractor("inception", weights_path=tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="'digits' trains its own weights: leave out weights_path"):
        build_extractor("digits", weights_path=tmp_path / "x.pth")
    with pytest.raises(
        ValueError, match="'mnist' is trained on the data of that name, which must be given; got no data"
    ):
        build_extractor("mnist")
    with pytest.raises(ValueError, match="got Digits"):
        build_extractor("mnist", data=digits())
    torch.save({"w": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="torchvision has no classifier 'squeeze'; it has alexnet"):
        build_extractor("torchvision:squeeze", weights_path=tmp_path / "x.pth")


def test_fingerprint_is_of_the_weights() -> None:
    prints = [PixelFeatures(seed=seed).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2] and len(prints[0]) == 16


def test_extraction_ignores_training_precision() -> None:
    extractor = PixelFeatures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, exact = extractor(IMAGES).features, extractor.extract(IMAGES).features
    assert torch.equal(exact, extractor(IMAGES).features) and not torch.equal(rounded.float(), exact)


def test_channels() -> None:
    assert torch.equal(as_channels(IMAGES, 3), IMAGES)
    assert as_channels(IMAGES[:, :1], 3).shape == IMAGES.shape
    assert as_channels(IMAGES, 1).dtype == torch.uint8
    for wrong in (IMAGES.float(), IMAGES[0], IMAGES[:, :2]):
        with pytest.raises(ValueError, match="expected uint8"):
            as_channels(wrong, 3)
