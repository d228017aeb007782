"""Pairs of files: where they are looked for, how they are matched, cut alike, and what is refused before training."""

from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gans.data import Paired
from lit_gans.data.sides import framed

from .common import assert_worlds_agree, real, taken

SIDE = 16


def picture(number: int, *, width: int = SIDE, height: int = SIDE, seed: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]: noise, with `number` in the whole red channel."""
    pixels = np.random.default_rng([number, seed]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[..., 0] = number
    return pixels


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def side_by_side(folder: Path, count: int = 6, split: str = "train") -> Path:
    """Left halves have their number in red, right halves 100 more."""
    for i in range(count):
        save(folder / split / f"{i}.png", np.concatenate([picture(i), picture(100 + i)], 1))
    return folder


def parallel(folder: Path, count: int = 6, split: str = "train") -> Path:
    for i in range(count):
        save(folder / f"{split}A" / f"{i}.png", picture(i))
        save(folder / f"{split}B" / f"{i}.png", picture(100 + i))
    return folder


def triples(folder: Path, count: int = 4, *, labels: int = 5, endings: tuple[str, str, str] = ("", "", "")) -> Path:
    """Label i everywhere but in the middle, where it is the next; instances of up to 26,000; photographs of i."""
    for i in range(count):
        label = np.full((8, SIDE), i % labels, np.uint8)
        label[2:6, 4:12] = (i + 1) % labels
        save(folder / "train_label" / f"{i}{endings[0]}.png", label)
        save(folder / "train_inst" / f"{i}{endings[1]}.png", label.astype(np.uint16) * 1000 + 26_000 - 5000)
        save(folder / "train_img" / f"{i}{endings[2]}.png", picture(i, height=8))
    return folder


def paired(folder: Path, **options: object) -> Paired:
    return Paired(str(folder), **{"batch_size": 6, "resolution": SIDE, **options})


def refused(folder: Path, **options: object) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        paired(folder, **options).setup("fit")
    return str(error.value)


# ---- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [side_by_side, parallel])
@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_both_sides_of_a_sample_are_its_own(build: object, direction: str, tmp_path: Path) -> None:
    data = paired(build(tmp_path), direction=direction)
    batch = data.dataset().fetch(torch.arange(6))
    first, second = ("a", "b") if direction == "ab" else ("b", "a")
    assert torch.equal(batch[first][2], torch.from_numpy(picture(2)).movedim(-1, 0))
    assert torch.equal(batch[second][2], torch.from_numpy(picture(102)).movedim(-1, 0))
    assert torch.equal(batch[first][:, 0, 0, 0] + 100, batch[second][:, 0, 0, 0])


def test_two_folders_given(tmp_path: Path) -> None:
    parallel(tmp_path)
    options = {"path_b": str(tmp_path / "trainB"), "test_path": str(tmp_path / "trainB")}
    data = paired(tmp_path / "trainA", **options, test_path_b=str(tmp_path / "trainA"))
    test, train = (data.dataset(split).fetch(torch.tensor([1])) for split in ("test", "train"))
    assert torch.equal(test["a"], train["b"]) and torch.equal(test["b"], train["a"])
    assert data.preview_split == "test"


def test_folders_with_splits_in_them_and_channels(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "photos" / "train" / f"{i}.png", picture(i))
        save(tmp_path / "maps" / "train" / f"{i}.png", picture(100 + i))
    data = paired(tmp_path / "photos", path_b=str(tmp_path / "maps"), a_channels=1)
    batch = next(data.batches())
    assert batch["a"].shape == (3, 1, SIDE, SIDE) and batch["b"][:, 0, 0, 0].tolist() == [100, 101, 102]
    assert (data.a_channels, data.channels, data.size, data.num_classes) == (1, 3, (SIDE, SIDE), 0)


def test_splits_are_those_that_are_there(tmp_path: Path) -> None:
    data = paired(side_by_side(side_by_side(tmp_path), 2, "val"))
    assert len(data.dataset("val")) == 2 and data.preview_split == "val"
    with pytest.raises(FileNotFoundError, match="has no split 'test'; it has train, val"):
        data.dataset("test")
    assert paired(tmp_path / "train").preview_split == "train" and len(paired(tmp_path / "train").dataset()) == 6


@pytest.mark.parametrize(
    "endings", [("", "", ""), ("_gtFine_labelIds", "_gtFine_instanceIds", "_leftImg8bit")], ids=["plain", "cityscapes"]
)
def test_label_instance_and_photo(endings: tuple[str, str, str], tmp_path: Path) -> None:
    data = paired(triples(tmp_path, endings=endings), num_labels=5, height=8)
    batch = data.on_after_batch_transfer(next(iter(data.stream())), 0)
    assert list(batch) == ["label", "instance", "b"] and batch["b"].shape == (6, 3, 8, SIDE)
    assert batch["label"].dtype == batch["instance"].dtype == torch.int64
    assert torch.equal(batch["instance"], batch["label"] * 1000 + 21_000)
    assert torch.equal(batch["label"][:, 0, 0], ((batch["b"][:, 0, 0, 0] + 1) * 127.5).round().long() % 5)
    assert list(next(paired(tmp_path, num_labels=5, height=8, instances=False).batches())) == ["label", "b"]


# ---- size, crop and flip ---------------------------------------------------------------------------------------------


def test_crop_and_flip_are_the_same_for_both_halves_and_move(tmp_path: Path) -> None:
    for i in range(6):
        half = picture(i, width=20, height=20)
        save(tmp_path / "train" / f"{i}.png", np.concatenate([half, half], 1))
    data = paired(tmp_path, load_px=20, mirror=True, resolution=16)
    assert data.load_size == (20, 20)
    batch = taken(data, 20)
    assert torch.equal(batch["a"], batch["b"]) and batch["a"].shape == (120, 3, 16, 16)
    number = int(batch["a"][0, 0, 0, 0])
    views = batch["a"][batch["a"][:, 0, 0, 0] == number]
    whole = torch.from_numpy(picture(number, width=20, height=20)).movedim(-1, 0)
    windows = {}
    for y, x in product(range(5), range(5)):
        cut = whole[:, y : y + 16, x : x + 16]
        windows |= {cut.numpy().tobytes(): (y, x, False), cut.flip(-1).numpy().tobytes(): (y, x, True)}
    places = {windows[view.numpy().tobytes()] for view in views}
    assert len(places) > 10 and {f for *_, f in places} == {True, False}
    assert {y for y, *_ in places} == {x for _, x, _ in places} == set(range(5))


@pytest.mark.parametrize("batch_size", [1, 6])
def test_maps_are_cropped_and_mirrored_with_their_photograph(batch_size: int, tmp_path: Path) -> None:
    """No row or column is like another in any of the three."""
    rows, columns = np.indices((20, 20))
    place = (rows * 20 + columns).astype(np.uint16)
    for i in range(3):
        save(tmp_path / "train_label" / f"{i}.png", (rows * 7 + columns * 3).astype(np.uint8) % 251)
        save(tmp_path / "train_inst" / f"{i}.png", place)
        save(
            tmp_path / "train_img" / f"{i}.png", np.stack([rows * 10, columns * 10, rows * 0 + i], -1).astype(np.uint8)
        )
    data = paired(tmp_path, num_labels=251, batch_size=batch_size, load_px=20, mirror=True, resolution=16)
    batch = taken(data, 24 // batch_size)
    down, across = batch["b"][:, 0].long() // 10, batch["b"][:, 1].long() // 10
    assert torch.equal(batch["instance"].long(), down * 20 + across)
    assert torch.equal(batch["label"].long(), (down * 7 + across * 3) % 251)
    assert {bool(x[0, 0] > x[0, 1]) for x in across} == {True, False}


@pytest.mark.parametrize("cache_mb", [0, 1024])
def test_processes_workers_and_restarts_change_nothing(cache_mb: int, tmp_path: Path) -> None:
    folder = side_by_side(tmp_path)
    assert_worlds_agree(lambda: paired(folder, load_px=24, mirror=True, cache_mb=cache_mb, seed=4))
    kept, read = (paired(folder, load_px=24, cache_mb=mb) for mb in (0, 1024))
    assert torch.equal(taken(kept, 3)["b"], taken(read, 3)["b"])
    assert kept.dataset().kept is None and len(read.dataset().kept) == 6


def test_evaluation_scales_the_whole_picture(tmp_path: Path) -> None:
    data = paired(side_by_side(tmp_path), resolution=8, load_px=12)
    found = data.dataset().fetch(torch.tensor([3]))["a"][0]
    expected = Image.fromarray(picture(3)).resize((8, 8), Image.Resampling.BICUBIC)
    assert torch.equal(found, torch.from_numpy(np.array(expected)).movedim(-1, 0))


def test_labels_are_scaled_without_mixing() -> None:
    label = np.arange(64, dtype=np.uint8).reshape(8, 8) % 7
    for size in ((5, 3), (16, 24), (4, 8)):
        pillow = Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST)
        assert np.array_equal(framed(label, size, resize="stretch"), np.asarray(pillow))
    assert np.array_equal(framed(label, (4, 8), resize="crop"), label[2:6])


def test_resize_none_cuts_from_pictures_of_any_size_and_crop_keeps_the_aspect(tmp_path: Path) -> None:
    for i, width in enumerate((16, 24)):
        half = picture(i, width=width, height=20)
        save(tmp_path / "train" / f"{i}.png", np.concatenate([half, half], 1))
    assert "does not look like two pictures side by side" in refused(tmp_path, resize="none")
    data = paired(tmp_path, resize="none", batch_size=2, layout="side_by_side")
    assert taken(data, 4)["a"].shape == (8, 3, 16, 16)
    middle = picture(1, width=24, height=20)[2:18, 4:20]
    assert torch.equal(data.dataset().fetch(torch.tensor([1]))["a"][0], torch.from_numpy(middle).movedim(-1, 0))
    cropping = paired(tmp_path, resize="crop", resolution=20, layout="side_by_side")
    cropped = cropping.dataset().fetch(torch.tensor([1]))["a"][0]
    assert torch.equal(cropped, torch.from_numpy(picture(1, width=24, height=20)[:, 2:22]).movedim(-1, 0))


# ---- domains and fingerprints ----------------------------------------------------------------------------------------


def test_a_domain_is_data_of_single_images(tmp_path: Path) -> None:
    data = paired(side_by_side(side_by_side(tmp_path), 3, "test"), a_channels=1)
    domain = data.domain("b")
    images = torch.cat([batch["image"] for batch in domain.batches("test", 2)])
    assert torch.equal(images, data.dataset("test").fetch(torch.arange(3))["b"])
    assert (domain.resolution, domain.channels, data.domain("a").channels) == (SIDE, 3, 1)
    prints = [domain.fingerprint(), domain.fingerprint("test"), data.domain("a").fingerprint()]
    prints.append(paired(tmp_path, resolution=8).domain("b").fingerprint())
    assert len(set(prints)) == 4 and domain.fingerprint() == paired(tmp_path).domain("b").fingerprint()


def test_the_real_facades() -> None:
    data = paired(real("facades"), direction="ba", resolution=64, load_px=72, batch_size=4, mirror=True)
    data.setup("fit")
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [24, 8, 6]
    batch = next(islice(data.stream(), 1))
    assert batch["a"].shape == batch["b"].shape == (4, 3, 64, 64)
    # The maps lie in the right halves, and are flat: neighbouring pixels are more often equal than in photographs.
    flat = {side: (x[..., 1:].int() - x[..., :-1].int()).abs().lt(3).float().mean() for side, x in batch.items()}
    assert flat["a"] > flat["b"] + 0.2


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_missing_partners_are_listed(tmp_path: Path) -> None:
    parallel(tmp_path, 12)
    for i in range(7):
        (tmp_path / "trainB" / f"{i}.png").unlink()
    save(tmp_path / "trainB" / "other.png", picture(1))
    message = refused(tmp_path)
    assert f"7 in {tmp_path / 'trainA'} (0.png, 1.png, 2.png, 3.png, 4.png, ...)" in message
    assert f"1 in {tmp_path / 'trainB'} (other.png)" in message
    save(tmp_path / "trainA" / "9.jpg", picture(9))
    assert "9.jpg and 9.png" in refused(tmp_path)


def test_unequal_halves_and_broken_files_are_named_together(tmp_path: Path) -> None:
    side_by_side(tmp_path)
    save(tmp_path / "train" / "3.png", picture(3, width=31))
    (tmp_path / "train" / "4.png").write_bytes(b"no picture")
    message = refused(tmp_path)
    assert "2 of 6 samples" in message and "train/4.png cannot identify" in message
    assert "train/3.png is 31 pixels wide, which does not part into two equal halves" in message


def test_partners_of_another_shape(tmp_path: Path) -> None:
    parallel(tmp_path)
    save(tmp_path / "trainB" / "2.png", picture(2, width=24))
    message = refused(tmp_path)
    assert "trainA/2.png + trainB/2.png is 16 x 16 in a and 24 x 16 in b: partners must fit" in message


@pytest.mark.parametrize("cache_mb", [0, 1024])
def test_labels_outside_of_their_number(cache_mb: int, tmp_path: Path) -> None:
    message = refused(triples(tmp_path), num_labels=4, height=8, cache_mb=cache_mb)
    assert "1 of 4 samples" in message and "has the label 4, and num_labels is 4: labels run from 0 to 3" in message


def test_maps_of_colours(tmp_path: Path) -> None:
    save(triples(tmp_path) / "train_label" / "1.png", picture(1, height=8))
    assert "is in mode RGB; a map has one number per pixel" in refused(tmp_path, num_labels=5, height=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_px": 8}, "load_px 8 is smaller than resolution 16"),
        ({"resize": "none", "load_px": 20}, "resize='none' scales nothing, so load_px 20"),
        ({"resize": "none", "resolution": 32}, "is 16 x 16, smaller than the 32 x 32 that are cut out of it"),
        ({"direction": "aa"}, "direction is 'aa'; it must be one of 'ab', 'ba'"),
        ({"layout": "pairs"}, "layout is 'pairs'"),
        ({"a_channels": 2}, "a_channels is 2; it must be one of 1, 3"),
        ({"num_labels": 300}, "8-bit label maps tell at most 256"),
        ({"test_path": "x", "test_path_b": "y"}, "test_path_b goes with path_b"),
        ({"layout": "folders"}, "train (6 pictures): no known layout 'folders' of pairs for split 'train'. Known"),
        ({"layout": "labels"}, "train_label holds label maps: set num_labels"),
        ({"layout": "labels", "num_labels": 3, "direction": "ba"}, "which is segmentation: use 'ab'"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str, tmp_path: Path) -> None:
    assert message in refused(side_by_side(tmp_path), **options)


def test_an_instance_folder_that_is_missing(tmp_path: Path) -> None:
    triples(tmp_path)
    (tmp_path / "train_inst").rename(tmp_path / "elsewhere")
    assert "train_inst is neither a folder" in refused(tmp_path, num_labels=5, height=8)


# ---- layouts that are known, and those that are refused --------------------------------------------------------------


def two_folders(root: Path, a: str, b: str, count: int = 4) -> Path:
    for i in range(count):
        save(root / a / f"{i}.png", picture(i))
        save(root / b / f"{i}.png", picture(100 + i))
    return root


KNOWN = [("A/{}", "B/{}"), ("{}_A", "{}_B"), ("{}/A", "{}/B"), ("{}A", "{}B")]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("a", "b"), KNOWN)
def test_published_pairs_of_folders(a: str, b: str, wrapped: bool, tmp_path: Path) -> None:
    root = tmp_path / "set" if wrapped else tmp_path
    for split, count in (("train", 4), ("test", 2)):
        two_folders(root, a.format(split), b.format(split), count)
    data = paired(tmp_path)
    batch = data.dataset().fetch(torch.arange(4))
    assert batch["a"][:, 0, 0, 0].tolist() == [0, 1, 2, 3] and batch["b"][:, 0, 0, 0].tolist() == [100, 101, 102, 103]
    assert len(data.dataset("test")) == 2 and data.preview_split == "test"
    assert data.describe().layout == f"{a.format('train')} + {b.format('train')}"


def test_two_folders_without_splits(tmp_path: Path) -> None:
    data = paired(two_folders(tmp_path, "A", "B"))
    assert len(data.dataset()) == 4 and data.describe().layout == "A + B" and data.preview_split == "train"


@pytest.mark.parametrize(
    "folders", [("photo", "sketch"), ("train/photo", "train/sketch"), ("input", "target"), ("training", "testing")]
)
def test_other_folders_are_refused_with_what_was_found_and_what_is_known(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    message = refused(two_folders(tmp_path, *folders))
    assert f"holds {', '.join(f'{name} (4 pictures)' for name in sorted(folders))}: no known layout" in message
    assert "Known are two folders" in message and "A/train + B/train" in message and "path_b" in message


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (64, 36), (32, 48)])
def test_photographs_are_not_cut_in_half(size: tuple[int, int], tmp_path: Path) -> None:
    ramp = np.linspace(0, 200, size[0])[None, :, None] + np.linspace(0, 50, size[1])[:, None, None]
    for i in range(3):
        save(tmp_path / f"{i}.png", np.broadcast_to(ramp, (size[1], size[0], 3)).astype(np.uint8))
    message = refused(tmp_path)
    assert f"3 of 3 samples in {tmp_path}" in message and f"0.png is {size[0]} x {size[1]} and does not look" in message
    assert len(paired(tmp_path, layout="side_by_side").dataset()) == 3


def test_a_seam_tells_two_pictures_of_another_aspect(tmp_path: Path) -> None:
    ramp = np.linspace(0, 60, 20)[None, :, None] + np.zeros((32, 1, 3))
    for i in range(3):
        save(tmp_path / "train" / f"{i}.png", np.concatenate([ramp, ramp + 150], 1).astype(np.uint8))
    assert len(paired(tmp_path).dataset()) == 3


def test_several_layouts_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    side_by_side(parallel(tmp_path))
    assert "in several layouts: trainA + trainB; side by side in each file" in refused(tmp_path)
    assert paired(tmp_path, layout="folders").describe().layout == "trainA + trainB"
    assert "side by side" in paired(tmp_path, layout="side_by_side").describe().layout


def test_splits_are_not_mixed_in_two_folders_of_other_names(tmp_path: Path) -> None:
    for split in ("training", "testing"):
        two_folders(tmp_path, f"photo/{split}", f"map/{split}")
    message = refused(tmp_path / "photo", path_b=str(tmp_path / "map"))
    assert "holds training, testing, the splits of a data set and no classes" in message


def test_links_are_followed_when_asked(tmp_path: Path) -> None:
    two_folders(tmp_path / "store", "A", "B")
    for letter in "AB":
        (tmp_path / f"train{letter}").mkdir()
        for i in range(4):
            (tmp_path / f"train{letter}" / f"{i}.png").symlink_to(tmp_path / "store" / letter / f"{i}.png")
    assert "4 symbolic links lead out" in refused(tmp_path)
    assert len(paired(tmp_path, follow_links=True).dataset()) == 4
