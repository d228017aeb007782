"""Stacked MNIST: three digits to a picture, by a rule that depends on seed, split and number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from lit_gans.data import MNIST
from lit_gans.data.stacked_mnist import StackedMNIST

from .common import real
from .test_mnist import write_set


def stacked(root: Path, **options: object) -> StackedMNIST:
    return StackedMNIST(str(root), **{"batch_size": 4, "resolution": 28, "images": 300, "test_images": 50, **options})


@pytest.mark.parametrize("resolution", [28, 32, 16])
def test_channels_are_mnists_pictures_and_the_label_reads_them(tmp_path: Path, resolution: int) -> None:
    write_set(tmp_path)
    data, digits = stacked(tmp_path, resolution=resolution), MNIST(str(tmp_path), batch_size=1, resolution=resolution)
    batch, every = data.dataset().fetch(torch.arange(300)), digits.dataset().fetch(torch.arange(6))
    assert batch["image"].shape == (300, 3, resolution, resolution) and batch["image"].dtype == torch.uint8
    pictures = {number: picture for number, picture in zip(every["label"].tolist(), every["image"][:, 0], strict=True)}
    for image, label in zip(batch["image"], batch["label"].tolist(), strict=True):
        a, b, c = (int(digit) for digit in data.class_names[label])
        assert label == 100 * a + 10 * b + c
        assert torch.equal(image, torch.stack([pictures[a], pictures[b], pictures[c]]))
    assert (data.num_classes, data.channels, data.class_names[7]) == (1000, 3, "007")


def test_every_digit_is_drawn_equally_often_and_channels_are_independent(tmp_path: Path) -> None:
    write_set(tmp_path)
    members = stacked(tmp_path, images=12_000).dataset().members.numpy()
    for channel in range(3):
        assert stats.chisquare(np.bincount(members[:, channel], minlength=6)).pvalue > 1e-3
        table = np.zeros((6, 6))
        np.add.at(table, (members[:, channel], members[:, channel - 1]), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_picture_depends_on_seed_split_and_number_alone(tmp_path: Path) -> None:
    write_set(tmp_path, labels=[0, 1, 2, 0, 1, 2])
    whole = stacked(tmp_path).dataset().fetch(torch.arange(300))
    longer = stacked(tmp_path, images=5000).dataset().fetch(torch.tensor([299, 0]))
    assert torch.equal(longer["image"], whole["image"][[299, 0]])
    assert torch.equal(stacked(tmp_path, resolution=32).dataset().labels, whole["label"])
    assert not torch.equal(stacked(tmp_path, seed=1).dataset().labels, whole["label"])
    assert not torch.equal(stacked(tmp_path).dataset("test").labels, whole["label"][:50])


def test_fingerprint_changes_with_seed_length_and_digits(tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    write_set(tmp_path / "b", labels=[5, 0, 4, 1, 9, 3])
    prints = [
        stacked(tmp_path / folder, **options).fingerprint()
        for folder, options in (("a", {}), ("a", {"seed": 1}), ("a", {"images": 301}), ("b", {}))
    ]
    assert len(set(prints)) == 4 and prints[0] == stacked(tmp_path / "a").fingerprint()


def test_lengths_are_the_usual_ones_and_resolution_may_change(tmp_path: Path) -> None:
    write_set(tmp_path)
    data = StackedMNIST(str(tmp_path), batch_size=4)
    assert (len(data.dataset()), len(data.dataset("test"))) == (128_000, 26_000)
    assert data.dataset().images(torch.tensor([5])).shape[-1] == 32
    data.resolution = 16
    assert data.dataset().images(torch.tensor([5])).shape[-1] == 16


def test_batches_for_training(tmp_path: Path) -> None:
    write_set(tmp_path)
    data = stacked(tmp_path)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 28, 28) and batch["label"].shape == (4,)
    image = data.on_after_batch_transfer(batch, 0)["image"]
    assert image.dtype == torch.float32 and image.min() == -1 and image.max() <= 1


def test_missing_files_and_bad_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no train-images-idx3-ubyte .*MNIST needs .*download=True to fetch"):
        stacked(tmp_path).setup()
    with pytest.raises(ValueError, match="images is 0; it must be a whole number of 1 or more"):
        stacked(tmp_path, images=0)
    with pytest.raises(ValueError, match="test_images is 2.5"):
        stacked(tmp_path, test_images=2.5)


def test_download_is_mnists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "served", zipped=True)

    def serve(url: str, root: Path, *, filename: str, md5: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / filename).write_bytes((tmp_path / "served" / filename).read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", serve)
    data = stacked(tmp_path / "root", download=True)
    data.prepare_data()
    assert len(data.dataset()) == 300


def test_the_real_files_hold_all_modes() -> None:
    data = StackedMNIST(str(real("mnist")), batch_size=64, resolution=28)
    for split, count in (("train", 128_000), ("test", 26_000)):
        counts = data.dataset(split).labels.bincount(minlength=1000)
        assert counts.sum() == count and (counts > 0).all()
