"""scikit-learn's digits."""

import pytest
import torch
from sklearn.datasets import load_digits

from lit_gans.data import Digits


def test_pixels_and_labels_are_those_of_scikit_learn() -> None:
    data = Digits(batch_size=4, resolution=8)
    batch = data.dataset().fetch(torch.arange(1797))
    published = load_digits()
    assert torch.equal(batch["image"][:, 0].float(), torch.from_numpy(published.images * 255 / 16).round().float())
    assert batch["label"].tolist() == published.target.tolist()
    assert (data.num_classes, data.channels, data.class_names[7]) == (10, 1, "7")
    assert batch["image"].max() == 255


def test_holdout_keeps_every_fifth_picture_apart() -> None:
    data, whole = Digits(batch_size=4, resolution=8, holdout=True), Digits(batch_size=4, resolution=8)
    assert (len(data.dataset("train")), len(data.dataset("test"))) == (1438, 359)
    expected = whole.dataset().fetch(torch.arange(4, 1797, 5))["image"]
    assert torch.equal(data.dataset("test").fetch(torch.arange(359))["image"], expected)
    with pytest.raises(ValueError, match="no split 'test' unless holdout=True"):
        whole.dataset("test")


@pytest.mark.parametrize("resolution", [4, 8, 16, 28, 32, 64])
def test_any_resolution(resolution: int) -> None:
    image = Digits(batch_size=4, resolution=resolution).dataset().fetch(torch.arange(3))["image"]
    assert image.shape == (3, 1, resolution, resolution) and image.dtype == torch.uint8
