"""Flickr8k in its distributed layout."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_gans.data import Flickr8k
from lit_gans.data.flickr8k import read_table
from tests.data.test_paired import picture, save

TABLE = """image,caption
b.jpg,"A dog , wet , runs ."
a.jpg,Two  people .
b.jpg,A wet dog .
c.jpg,"She said ""no"" ."
"""


def written(folder: Path) -> Path:
    for number, name in enumerate("abc"):
        save(folder / "Images" / f"{name}.jpg", picture(number))
    (folder / "captions.txt").write_text(TABLE, encoding="utf-8")
    return folder


def test_pictures_have_their_captions_and_the_last_are_set_apart(tmp_path: Path) -> None:
    data = Flickr8k(str(written(tmp_path)), test_images=1, batch_size=4, resolution=16, num_workers=0)
    train, test = data.split_captions("train"), data.split_captions("test")
    assert train.names == ("a.jpg", "b.jpg") and test.names == ("c.jpg",)
    assert train.of(1) == ["A dog , wet , runs .", "A wet dog ."] and test.of(0) == ['She said "no" .']
    data.setup("fit")
    batch = data.stream().batch(0)
    assert batch["image"].shape == (4, 3, 16, 16) and batch["words"].shape[0] == 4
    assert np.array_equal(data.dataset("test").images(torch.tensor([0])).shape, (1, 3, 16, 16))
    other = Flickr8k(str(tmp_path), test_images=2, batch_size=1, resolution=16)
    assert other.transform() != data.transform()


def test_what_is_missing_or_of_another_kind(tmp_path: Path) -> None:
    folder = written(tmp_path)
    with pytest.raises(ValueError, match="captions of 3 pictures, and test_images is 3: give fewer"):
        Flickr8k(str(folder), test_images=3, batch_size=1).split_captions("train")
    (folder / "Images" / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 pictures of captions.txt are not in .*b.jpg"):
        Flickr8k(str(folder), test_images=1, batch_size=1, resolution=16).files("train")
    with pytest.raises(FileNotFoundError, match="no folder .*Images: set root"):
        Flickr8k(str(tmp_path / "nowhere"), batch_size=1).files("train")
    for text, message in (
        ("name,caption\n", "begins with 'name,caption', expected the header"),
        ("image,caption\na.jpg,b,c\n", "line 2 of .* has 3 columns"),
    ):
        (folder / "captions.txt").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read_table(folder / "captions.txt")
    (folder / "captions.txt").write_bytes(b"image,caption\na.jpg,\xff\n")
    with pytest.raises(ValueError, match="no table of captions in UTF-8"):
        read_table(folder / "captions.txt")
    with pytest.raises(FileNotFoundError, match="give Flickr8k's table"):
        read_table(tmp_path / "none.txt")
