"""Smaller copies of a set of pictures, and the batches that follow a plan."""

import pickle
import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lit_gans.data import TensorSet, pyramid
from lit_gans.data.pyramid import GrowingStream, Pyramid, reduced


def pictures(count: int = 11, px: int = 16) -> TensorSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, px, px), dtype=torch.uint8, generator=generator)
    return TensorSet(pixels, torch.arange(count))


@dataclass(frozen=True)
class Steps:
    """4 px in batches of 6 until image 20, then 16 px in batches of 3."""

    def batch_at(self, images_seen: int) -> tuple[int, int]:
        return (4, 6) if images_seen < 20 else (16, 3)


def test_sizes_are_means_of_squares_rounded_once() -> None:
    source = pictures()
    pixels = source.images(torch.arange(11))
    expected = pixels.double().unflatten(-1, (4, 4)).unflatten(-3, (4, 4)).mean((-1, -3)).round()
    assert torch.equal(reduced(pixels, 4).double(), expected)
    assert reduced(pixels, 1) is pixels


def test_small_sets_are_kept_in_memory(tmp_path: Path) -> None:
    source = pictures()
    made = Pyramid(source, 16, [4, 8, 16], folder=tmp_path / "none")
    made.build(write=True)
    assert not (tmp_path / "none").exists() and made.level(16) is source
    some = torch.tensor([7, 2])
    for px in (4, 8):
        batch = made.level(px).fetch(some)
        assert torch.equal(batch["image"], reduced(source.images(some), 16 // px))
        assert batch["label"].tolist() == [7, 2]


def test_large_sets_are_kept_in_files_that_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "IN_MEMORY_BYTES", 100)
    source, told = pictures(count=70), []
    Pyramid(source, 16, [4, 8], folder=tmp_path).build(write=True, progress=lambda *at: told.append(at))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4.npy", "8.npy"] and told == [(64, 70), (70, 70)]
    again = Pyramid(source, 16, [4, 8], folder=tmp_path)
    monkeypatch.setattr(Pyramid, "_fill", lambda *_: pytest.fail("made again"))
    again.build(write=True)
    some = torch.tensor([69, 0, 5])
    assert torch.equal(again.level(8).images(some), reduced(source.images(some), 2))


def test_an_interrupted_making_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "IN_MEMORY_BYTES", 100)
    made = Pyramid(pictures(count=70), 16, [4, 8], folder=tmp_path)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.build(write=True, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_sizes_above_a_limit_are_made_for_each_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "IN_MEMORY_BYTES", 0)
    source = pictures()
    made = Pyramid(source, 16, [4, 8], folder=tmp_path, cache_px=4)
    made.build(write=True)
    assert [p.name for p in tmp_path.iterdir()] == ["4.npy"]
    assert torch.equal(made.level(8).images(torch.tensor([3])), reduced(source.images(torch.tensor([3])), 2))


def test_a_disk_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(
        OSError, match="the pictures at 4, 8 px take .* set LIT_GANS_CACHE to another disk, or cache_px"
    ):
        Pyramid(pictures(), 16, [4, 8], folder=tmp_path).build(write=True)


# ---- batches ---------------------------------------------------------------------------------------------------------


def stream(**place: int) -> GrowingStream:
    made = Pyramid(pictures(), 16, [4, 16], folder=Path("none"))
    made.build(write=True)
    return GrowingStream(made, Steps(), seed=3, mirror=True, **place)


def taken(count: int, workers: int = 0, **place: int) -> list[dict[str, Tensor]]:
    return list(islice(DataLoader(stream(**place), batch_size=None, num_workers=workers), count))


def test_batches_follow_the_plan() -> None:
    batches = taken(7)
    assert [tuple(b["image"].shape) for b in batches] == [(6, 3, 4, 4)] * 4 + [(3, 3, 16, 16)] * 3
    labels = torch.cat([b["label"] for b in batches])
    assert sorted(labels[:11].tolist()) == sorted(labels[11:22].tolist()) == list(range(11)), "no picture is left out"


def test_processes_workers_and_restarts_change_no_batch() -> None:
    whole = taken(7)
    for rank in range(3):
        for batch, share in zip(whole, taken(7, rank=rank, world=3), strict=True):
            size = len(batch["image"]) // 3
            assert torch.equal(share["image"], batch["image"][rank * size : (rank + 1) * size])
    for place in ({"workers": 2}, {"workers": 3}):
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(whole, taken(7, **place), strict=True))
    resumed = taken(3, start=24)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(whole[4:], resumed, strict=True))
    pickle.dumps(stream())
