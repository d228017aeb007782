"""FID and Inception Score by torchmetrics' own classes, against those classes fed with images."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from lit_gans.data import Digits
from lit_gans.metrics import Plan, evaluate_gan
from lit_gans.metrics.evaluator import Evaluation, evaluate_images
from lit_gans.metrics.extractors import InceptionFeatures, _random_state
from lit_gans.metrics.frechet import frechet_of_features
from lit_gans.metrics.score import class_score, class_scores
from lit_gans.metrics.torchmetrics_classes import Given, TorchmetricsInception, torchmetrics_score

from .common import PixelFeatures, conditional, digits

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BOTH = ["torchmetrics_fid", "torchmetrics_is"]


def measured(**settings) -> Evaluation:
    plan = Plan(num_images=300, seed=3, batch_size=64, **settings)
    return evaluate_gan(conditional(), digits(), extractor=PixelFeatures(), plan=plan)


def pictures() -> tuple[Tensor, Tensor]:
    """Those of `measured`, uint8: real, and generated."""
    real = torch.cat([batch["image"] for batch in digits().batches("train", 64)])
    seen = []
    extractor = PixelFeatures()
    extractor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    evaluate_gan(conditional(), digits(), extractor=extractor, plan=Plan(metrics=["is"], num_images=300, seed=3))
    return real, torch.cat(seen)


def test_the_numbers_are_those_of_the_classes_fed_with_images() -> None:
    class Layer(torch.nn.Module):
        num_features = 8

        def __init__(self, which: str) -> None:
            super().__init__()
            self.extractor, self.which = PixelFeatures(), which

        def forward(self, images: Tensor) -> Tensor:
            return getattr(self.extractor(images), self.which)

    evaluation = measured(metrics=BOTH)
    real, fake = pictures()
    assert len(fake) == 300 and fake.dtype == torch.uint8
    fid, score = FrechetInceptionDistance(Layer("features")), InceptionScore(Layer("logits"))
    fid.update(real, real=True)
    fid.update(fake, real=False)
    score.update(fake)
    torch.manual_seed(3)
    mean, deviation = score.compute()
    expected = {"torchmetrics_fid_pixels": fid.compute(), "torchmetrics_is_pixels": mean}
    expected["torchmetrics_is_pixels_std"] = deviation
    assert evaluation.values == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-5)


def test_the_protocol_says_whose_class_it_was() -> None:
    evaluation = measured(metrics=["frechet", *BOTH])
    stamp = evaluation.stamp("torchmetrics_fid_pixels")
    assert stamp["class"] == "torchmetrics.image.FrechetInceptionDistance" and stamp["n_fake"] == 300
    assert stamp["versions"]["torchmetrics"] and "class" not in evaluation.stamp("frechet_pixels")
    assert evaluation.stamp("torchmetrics_is_pixels")["shuffled_by"] == 3


def test_without_logits_there_is_no_score() -> None:
    plan = Plan(metrics=BOTH, num_images=20)
    evaluation = evaluate_gan(conditional(), digits(), extractor=PixelFeatures(num_classes=0), plan=plan)
    assert list(evaluation.values) == ["torchmetrics_fid_pixels"]


@cache
def inception() -> InceptionFeatures:
    """The published network with weights that were never trained, and a head."""
    state = _random_state(2020)
    state["fc.weight"] = torch.randn(state["fc.weight"].shape, generator=torch.Generator().manual_seed(0))
    return InceptionFeatures(state)


@pytest.mark.slow
def test_inception_is_torchmetrics_own(tmp_path: Path) -> None:
    ours, path = inception(), tmp_path / "inception.pth"
    torch.save(ours.network.state_dict(), path)
    images = torch.randint(256, (6, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(path))
    made = TorchmetricsInception(ours)
    assert torch.equal(made(images).features, theirs.inception(images))
    assert made.fingerprint == ours.fingerprint and made.resize != ours.resize
    assert (made(images).features - ours(images).features).norm() / ours(images).features.norm() < 0.2


@pytest.mark.slow
def test_numbers_of_inception_have_the_plain_names() -> None:
    small = Digits(batch_size=8, resolution=8)
    plan = Plan(metrics=BOTH, kind="images", num_images=12, num_real=12)
    evaluation = evaluate_images(small, small, extractor=inception(), plan=plan)
    assert list(evaluation.values) == [*BOTH, "torchmetrics_is_std"]
    assert evaluation.stamp("torchmetrics_fid")["resize"] == "torchmetrics' antialiased bilinear to 299"


def fid_of(real: Tensor, fake: Tensor) -> float:
    """torchmetrics' own distance of features."""
    distance = FrechetInceptionDistance(Given(real.shape[1]))
    distance.update(real, real=True)
    distance.update(fake, real=False)
    return distance.compute().item()


def differences() -> dict[str, float]:
    """On the 1,797 scanned digits, seen as averages over a 4x4 grid through a fixed layer."""
    images = next(iter(digits().batches("train", 1797, indices=torch.arange(1797))))["image"]
    features, pixels = PixelFeatures()(images), images.flatten(1).float()
    seen, logits = features.features, features.logits
    real, fake = seen[0::2], seen[1::2]
    far = torch.tensor([torchmetrics_score(logits, seed=seed)[0] for seed in range(20)])
    return {
        "distance": frechet_of_features(real, fake).item(),
        "theirs": fid_of(real, fake),
        "few": frechet_of_features(pixels[:20], pixels[20:40]).item(),
        "few, theirs": fid_of(pixels[:20], pixels[20:40]),
        "of itself": frechet_of_features(pixels[:20], pixels[:20]).item(),
        "of itself, theirs": fid_of(pixels[:20], pixels[:20]),
        "mean of 1000": frechet_of_features(real + 1000, fake + 1000).item(),
        "mean of 1000, theirs": fid_of(real + 1000, fake + 1000),
        "score": class_score(logits).item(),
        "score, theirs": far.mean().item(),
        "score, spread": far.std().item(),
        "deviation": class_scores(logits).std(correction=0).item(),
        "deviation, theirs": torchmetrics_score(logits, seed=0)[1].item(),
    }


def test_the_differences_are_those_that_the_page_tells() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {row.split("`")[1]: float(row.split("|")[2]) for row in rows}
    assert len(told) == 13 and 0 < abs(told.pop("of itself, theirs")) < 0.1
    found = differences()
    assert 1e-6 < abs(found["of itself, theirs"]) < 0.1  # noise, which every processor has its own of
    assert told == pytest.approx({name: found[name] for name in told}, rel=1e-2, abs=2e-5)
