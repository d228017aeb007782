"""What computes in float64 does so on the CPU for a device that has none: Apple's, for which `apple` stands in."""

import copy
from types import SimpleNamespace

import pytest
import torch

from lit_gans.augment import AdaptiveAugment
from lit_gans.base.precision import with_double
from lit_gans.base.random import Draws, drawing
from lit_gans.callbacks.adaptive_augment import AdaptiveAugmentation
from lit_gans.editing.projector import style_statistics
from lit_gans.metrics import Plan, evaluate_gan
from lit_gans.metrics.path_length import measure_path_length
from lit_gans.metrics.separability import measure_separability
from lit_gans.papers.stylegan2 import StyleGAN2
from tests.apple import REFUSAL, apple
from tests.metrics.common import PixelFeatures, brightness, conditional, digits, squared, unconditional


def test_the_stand_in_refuses_what_the_device_refuses() -> None:
    with apple() as mps:
        x = torch.ones(3).to(mps)
        assert x.device.type == "mps" and (x + 1).cpu().tolist() == [2, 2, 2]
        doubled = torch.zeros(2, dtype=torch.float64)
        for convert in (x.double, lambda: doubled.to(mps), lambda: x.to("cpu", torch.float64)):
            with pytest.raises(TypeError, match=REFUSAL[:40]):
                convert()
        with pytest.raises(RuntimeError, match="on the same device"):
            x + torch.ones(3)


def test_with_double() -> None:
    assert with_double("mps") == torch.device("cpu") and with_double("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("make", [conditional, unconditional])
def test_an_evaluation(make) -> None:
    gan, metrics = make(), ["frechet", "kid", "precision", "recall", "density", "coverage", "is", "ppl_z_full"]
    if gan.num_classes:
        metrics += ["class_accuracy", "intra_frechet"]
    plan = Plan(num_images=60, num_real=60, batch_size=30, metrics=metrics, path_samples=8)
    expected = evaluate_gan(gan, digits(), extractor=PixelFeatures(), plan=plan, distance=squared).values
    with apple() as mps:
        found = evaluate_gan(gan.to(mps), digits(), extractor=PixelFeatures(), plan=plan, distance=squared).values
    assert found == pytest.approx(expected, nan_ok=True)


def test_styles_of_path_lengths_separability_and_projections() -> None:
    torch.manual_seed(0)
    gan = StyleGAN2(resolution=16, channels=1, z_dim=8, w_dim=8, channel_base=64, channel_max=8, num_layers=2)
    mean, spread = style_statistics(gan, num_samples=20)
    expected = measure_path_length(gan, squared, num_samples=4, space="w")
    score, _ = measure_separability(gan, {"bright": brightness}, num_samples=16, space="w")
    with apple() as mps:
        there = copy.deepcopy(gan).to(mps)
        assert measure_path_length(there, squared, num_samples=4, space="w") == pytest.approx(expected.item())
        there_mean, there_spread = style_statistics(there, num_samples=20)
        assert there_mean.device == mps and there_mean.cpu().allclose(mean) and there_spread == pytest.approx(spread)
        found, _ = measure_separability(there, {"bright": brightness}, num_samples=16, space="w")
    assert found.item() == pytest.approx(score.item())


def test_adaptive_augmentation() -> None:
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    augment = AdaptiveAugment.preset("bgcfnc", p=0.6)
    with drawing(Draws("test", 0)), torch.no_grad():
        expected = augment(images)
    with apple() as mps, drawing(Draws("test", 0)):
        assert augment.to(mps)(images.to(mps)).cpu().allclose(expected, rtol=1e-3, atol=1e-3)
        augment.observe(torch.tensor([1.0, 2.0, -1.0, 0.0]).to(mps))
        moves = AdaptiveAugmentation(target=0.2, interval=1, speed_kimg=0.04)
        moves._augment, moves._images = augment, 4
        (moves._signs, moves._logits), told = augment.take_observed(), {}
        moves._adjust(SimpleNamespace(report=lambda **values: told.update(values)))
        assert augment.p.item() == pytest.approx(0.7) and told["augment_r_t"].to(mps).item() == 0.25
