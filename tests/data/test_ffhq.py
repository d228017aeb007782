"""FFHQ: published folders, the zip, and the split by number."""

from pathlib import Path

import pytest
import torch

from lit_gans.data import FFHQ

from .common import real
from .test_images import folder, packed, png, values

NUMBERS = (0, 59_999, 60_000, 69_999)


def faces(path: Path, **options: object) -> FFHQ:
    return FFHQ(str(path), **{"batch_size": 1, "resolution": 4, **options})


def published(path: Path, name: str, value: int = 0) -> Path:
    """Pictures of values value, value + 1, ... under the published names of NUMBERS."""
    names = [f"{name}/{number // 1000 * 1000:05d}/{number:05d}.png" for number in NUMBERS]
    return folder(path, {name: png(value + i) for i, name in enumerate(names)})


def test_the_last_ten_thousand_are_the_test(tmp_path: Path) -> None:
    data = faces(published(tmp_path, "thumbnails128x128"))
    assert [values(data, split) for split in ("train", "test", "all")] == [[0, 1], [2, 3], [0, 1, 2, 3]]
    assert data.num_classes == 0 and len({data.fingerprint(split) for split in data.splits}) == 3


def test_the_zip_and_a_folder_given_directly_are_split_alike(tmp_path: Path) -> None:
    names = [f"{number // 1000:05d}/img{number:08d}.png" for number in NUMBERS]
    members = {name: png(i) for i, name in enumerate(names)}
    archive = packed(tmp_path / "ffhq.zip", {**members, "dataset.json": b'{"labels": null}'})
    assert values(faces(archive), "test") == [2, 3]
    published(tmp_path, "images1024x1024")
    assert values(faces(tmp_path / "images1024x1024"), "train") == [0, 1]


def test_the_folder_is_chosen_by_resolution(tmp_path: Path) -> None:
    published(published(tmp_path, "thumbnails128x128"), "images1024x1024", value=100)
    assert values(faces(tmp_path, resolution=128), "all")[0] == 0
    assert values(faces(tmp_path, resolution=256), "all")[0] == 100


def test_training_may_use_all(tmp_path: Path) -> None:
    data = faces(published(tmp_path, "thumbnails128x128"), train_split="all", batch_size=4)
    assert sorted(next(iter(data.train_dataloader()))["image"][:, 0, 0, 0].tolist()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="train_split is 'most'; it must be one of train, test, all"):
        faces(tmp_path, train_split="most")


def test_a_name_without_number_and_an_empty_split_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="face.png in .* has no number, by which FFHQ is split: use Images"):
        faces(folder(tmp_path / "a", {"face.png": png(0)})).setup()
    with pytest.raises(ValueError, match="no picture of split 'test': its numbers run from 3 to 3; 'train' is below"):
        faces(folder(tmp_path / "b", {"00003.png": png(0)})).dataset("test")


def test_the_real_faces() -> None:
    data = faces(real("ffhq"), resolution=128)
    batch = data.dataset().fetch(torch.arange(12))
    assert batch["image"].shape == (12, 3, 128, 128) and 90 < batch["image"].float().mean() < 150
