"""The distance grows with blur, with noise and with dropped classes, on real images and a trained classifier."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_gans.data import MNIST, Digits, ImageSet, TensorSet
from lit_gans.data.base import ImageData
from lit_gans.metrics import Extractor, Plan, build_extractor, evaluate_images

Change = Callable[[Tensor, Tensor], Tensor]


def blur(times: int) -> Change:
    def change(images: Tensor, labels: Tensor) -> Tensor:
        x = images.float()
        for _ in range(times):
            x = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return x.round().byte()

    return change


def noise(std: float) -> Change:
    generator = torch.Generator().manual_seed(0)
    return lambda images, labels: (
        (images + std * torch.randn(images.shape, generator=generator)).clamp(0, 255).round().byte()
    )


def drop(classes: int) -> Change:
    def change(images: Tensor, labels: Tensor) -> Tensor:
        kept = images[labels < 10 - classes]
        return kept[torch.arange(len(images)) % len(kept)]

    return change


WAYS = {"blur": (blur, [0, 1, 2, 4]), "noise": (noise, [0, 25, 60, 120]), "drop": (drop, [0, 1, 3, 6, 8])}


def changed(reals: ImageData, source: ImageSet, change: Change) -> ImageData:
    """A data module whose images are those of `source` after the change."""
    labels = source.labels
    pixels = change(source.images(torch.arange(len(source))), labels)
    made = Digits(batch_size=1, resolution=reals.resolution)
    made.load = lambda split: TensorSet(pixels)
    return made


def distances(reals: ImageData, source: ImageSet, extractor: Extractor, way: str) -> list[float]:
    make, levels = WAYS[way]
    plan = Plan(metrics=["frechet"], num_images=len(source))
    fakes = [changed(reals, source, make(level)) for level in levels]
    return [next(iter(evaluate_images(f, reals, extractor=extractor, plan=plan).values.values())) for f in fakes]


def check(found: list[float]) -> None:
    assert all(a < b for a, b in zip(found, found[1:], strict=False)), found
    assert found[-1] > 5 * found[0], found


@pytest.mark.parametrize("way", WAYS)
def test_on_digits(way: str, trained) -> None:
    extractor, _ = trained
    reals = Digits(batch_size=1, resolution=16, holdout=True)
    check(distances(reals, reals.dataset("test"), extractor, way))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_on_mnist(way: str, real_data: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path_factory.getbasetemp() / "mnist"))  # the classifier is kept
    reals = MNIST(str(real_data / "mnist"), batch_size=100, resolution=28)
    extractor = build_extractor("mnist", data=reals)
    test = reals.dataset("test")
    check(distances(reals, TensorSet(test.images(torch.arange(4000)), test.labels[:4000]), extractor, way))


def test_a_real_set_against_itself_is_zero_and_against_noise_large(trained) -> None:
    extractor, _ = trained
    reals = Digits(batch_size=1, resolution=16)
    same = evaluate_images(reals, reals, extractor=extractor, plan=Plan(metrics=["frechet"], num_images=1797))
    assert abs(same.values["frechet_digits"]) < 1e-6
    pixels = torch.randint(256, (500, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    random = changed(reals, TensorSet(pixels, torch.zeros(500, dtype=torch.int64)), blur(0))
    found = evaluate_images(random, reals, extractor=extractor, plan=Plan(metrics=["frechet"], num_images=500))
    assert found.values["frechet_digits"] > 20
