"""Two domains without partners: orders of their own, any numbers, the same for all processes."""

from pathlib import Path

import pytest
import torch

from lit_gans.data import Unpaired

from .common import assert_worlds_agree, real, taken
from .test_paired import SIDE, picture, save


def folders(path: Path, a: int = 7, b: int = 4, split: str = "train") -> Path:
    for letter, count, first in (("A", a, 0), ("B", b, 100)):
        for i in range(count):
            save(path / f"{split}{letter}" / f"{i:02d}.png", picture(first + i))
    return path


def unpaired(path: Path, **options: object) -> Unpaired:
    return Unpaired(str(path), **{"batch_size": 6, "resolution": SIDE, **options})


def numbers(data: Unpaired, count: int) -> tuple[list[int], list[int]]:
    batch = taken(data, count)
    return batch["a"][:, 0, 0, 0].tolist(), batch["b"][:, 0, 0, 0].tolist()


def test_each_domain_has_its_epochs_and_its_order(tmp_path: Path) -> None:
    a, b = numbers(unpaired(folders(tmp_path)), 14)
    for seen, length, first in ((a, 7, 0), (b, 4, 100)):
        epochs = [tuple(seen[i : i + length]) for i in range(0, 84, length)]
        assert all(sorted(epoch) == list(range(first, first + length)) for epoch in epochs)
        assert len(set(epochs)) > len(epochs) / 2
    assert numbers(unpaired(tmp_path, seed=1), 14) != (a, b)


def test_equal_domains_are_not_paired_by_chance_of_the_seed(tmp_path: Path) -> None:
    a, b = numbers(unpaired(folders(tmp_path, 6, 6)), 20)
    together = sum(x + 100 == y for x, y in zip(a, b, strict=True))
    assert 5 < together < 40  # 20 of 120 where they are independent


def test_crops_and_flips_of_the_domains_are_their_own(tmp_path: Path) -> None:
    for letter in "AB":
        for i in range(3):
            save(tmp_path / f"train{letter}" / f"{i}.png", picture(7))
    data = unpaired(tmp_path, resolution=12, load_px=SIDE, mirror=True)
    batch = taken(data, 10)
    same = (batch["a"] == batch["b"]).flatten(1).all(1)
    assert same.sum() < 12  # 25 windows, flipped or not: one in 50


@pytest.mark.parametrize("cache_mb", [0, 1024])
def test_processes_workers_and_restarts_change_nothing(cache_mb: int, tmp_path: Path) -> None:
    folder = folders(tmp_path)
    assert_worlds_agree(lambda: unpaired(folder, load_px=20, mirror=True, cache_mb=cache_mb, seed=3))


def test_direction_splits_and_domains(tmp_path: Path) -> None:
    data = unpaired(folders(tmp_path), direction="ba", a_channels=1)
    assert data.preview_split == "train"
    folders(tmp_path, 2, 3, "test")
    assert data.preview_split == "test" and len(data.dataset("test")) == 3
    whole = data.dataset().fetch(torch.arange(7))
    assert whole["a"].shape == (7, 1, SIDE, SIDE) and whole["b"][:, 0, 0, 0].tolist() == list(range(7))
    assert torch.equal(whole["a"][4:], whole["a"][:3])  # the smaller one goes round
    lengths = {(n, s): len(data.domain(n).dataset(s)) for n in "ab" for s in ("train", "test")}
    assert lengths == {("a", "train"): 4, ("a", "test"): 3, ("b", "train"): 7, ("b", "test"): 2}
    assert data.domain("a").fingerprint() != data.domain("b").fingerprint()
    assert data.fingerprint() == unpaired(tmp_path, direction="ba", a_channels=1).fingerprint()


def test_the_real_faces() -> None:
    data = unpaired(real("young2old"), resolution=64, load_px=72, mirror=True, batch_size=2)
    data.setup("fit")
    assert [len(data.domain(n).dataset(s)) for n in "ab" for s in ("train", "test")] == [16, 6, 16, 6]
    batch = data.on_after_batch_transfer(taken(data, 2), 0)
    assert batch["a"].shape == (4, 3, 64, 64) and -1 <= batch["a"].min() and batch["b"].max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "shrink"}, "resize is 'shrink'"),
        ({"direction": "both"}, "direction is 'both'"),
        ({"b_channels": 4}, "b_channels is 4"),
        ({"load_px": 10}, "load_px 10 is smaller than resolution 16"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        unpaired(tmp_path, **options)


def test_missing_folders_and_broken_files_are_named(tmp_path: Path) -> None:
    save(tmp_path / "trainA" / "0.png", picture(0))
    with pytest.raises(FileNotFoundError, match="no folder .*trainB: unpaired pictures lie in trainA and trainB"):
        unpaired(tmp_path).setup("fit")
    (tmp_path / "trainB").mkdir()
    with pytest.raises(FileNotFoundError, match="no picture in .*trainB"):
        unpaired(tmp_path).setup("fit")
    (tmp_path / "trainB" / "x.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"1 of 1 samples in .*trainB cannot be used: trainB/x\.png cannot identify"):
        unpaired(tmp_path).setup("fit")
