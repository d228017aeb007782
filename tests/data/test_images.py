"""Folders and zips of pictures: what is found, labelled, refused, skipped."""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gans.data import Images, Stream

from .common import real


def png(value: int, size: int = 4) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(out, "png")
    return out.getvalue()


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


def data(path: Path, **options: object) -> Images:
    return Images(str(path), **{"batch_size": 2, "resolution": 4, **options})


def values(images: Images, split: str = "train") -> list[int]:
    """The grey value of every picture, in order."""
    return [int(v) for batch in images.batches(split) for v in batch["image"][:, 0, 0, 0]]


TREE = {"b/2.png": png(2), "a/1.PNG": png(1), "a/deep/er/3.bmp": png(3), "readme.txt": b"", "a/._1.png": b"hidden"}
LABELLED = {"00000/img0.png": png(10), "00000/img1.png": png(11), "00001/img2.png": png(12)}


def labels_json(*labels: object) -> bytes:
    return json.dumps({"labels": [[name, label] for name, label in zip(LABELLED, labels, strict=False)]}).encode()


@pytest.mark.parametrize("make", [folder, packed])
@pytest.mark.parametrize("cache_mb", [0, 10])
def test_pictures_below_a_folder_or_in_a_zip_in_the_order_of_their_names(tmp_path: Path, make, cache_mb: int) -> None:
    images = data(make(tmp_path / "set.zip", TREE), cache_mb=cache_mb, labels="none")
    assert values(images) == [1, 3, 2]
    assert (images.num_classes, images.class_names) == (0, ())
    assert (images.dataset().pixels is None) == (cache_mb == 0)
    images.setup()


@pytest.mark.parametrize("make", [folder, packed])
def test_folders_of_the_first_level_are_classes(tmp_path: Path, make) -> None:
    images = data(make(tmp_path / "set.zip", TREE), labels="folders")
    assert images.class_names == ("a", "b") and images.num_classes == 2
    assert images.dataset().fetch(torch.tensor([2, 0]))["label"].tolist() == [1, 0]


@pytest.mark.parametrize("make", [folder, packed])
@pytest.mark.parametrize("labels", ["auto", "json"])
def test_dataset_json_gives_classes(tmp_path: Path, make, labels: str) -> None:
    images = data(make(tmp_path / "set.zip", {**LABELLED, "dataset.json": labels_json(6, 0, 2)}), labels=labels)
    assert images.num_classes == 7
    assert images.dataset().labels.tolist() == [6, 0, 2]
    assert data(tmp_path / "set.zip", labels="none").dataset().labels is None


def test_null_labels_are_no_labels(tmp_path: Path) -> None:
    path = packed(tmp_path / "set.zip", {**LABELLED, "dataset.json": b'{"labels": null}'})
    assert data(path).num_classes == 0
    with pytest.raises(ValueError, match="labels='json', but .*set.zip has no dataset.json with labels: use labels="):
        data(path, labels="json").setup()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{not json", "dataset.json of .*set.zip is no JSON"),
        (b"\xff\xfe\xfa", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[1, 2]", r"must read \{.labels.: \[\[.name.png., 3\], ...\]\}"),
        (b'{"labels": [["00000/img0.png", [0.5, 0.5]]]}', "classes whole numbers below 1048576"),
        (labels_json(0, -1, 2), "whole numbers"),
        (labels_json(0, True, 2), "whole numbers"),
        (labels_json(0, 2**31, 2), "whole numbers"),
        (labels_json(0, 1), "2 labels for 3 pictures; first picture without a label: '00001/img2.png'.*labels='none'"),
        (b'{"labels": [["x.png", 0]]}', "1 labels for 3 pictures; .* first label without a picture: 'x.png'"),
        (json.dumps({"labels": [[n, 0] for n in [*LABELLED, "00000/img0.png"]]}).encode(), "4 labels for 3 pictures"),
    ],
)
def test_wrong_labels_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(packed(tmp_path / "set.zip", {**LABELLED, "dataset.json": content})).setup()


def test_a_picture_outside_of_the_class_folders_is_refused(tmp_path: Path) -> None:
    stray = folder(tmp_path, {**TREE, "x.png": png(1)})
    for labels in ("folders", "auto"):  # a few beside many are no reason to train without classes in silence
        with pytest.raises(ValueError, match=r"but 1 of 4 pictures lie in .* itself.* \(x.png\): put every .*'none'"):
            data(stray, labels=labels).setup()
    assert data(stray, labels="none").num_classes == 0


def test_test_split_uses_the_classes_of_the_training_split(tmp_path: Path) -> None:
    train, test = folder(tmp_path / "train", TREE), folder(tmp_path / "test", {"b/9.png": png(9)})
    images = data(train, test_path=str(test), labels="folders")
    assert images.dataset("test").labels.tolist() == [1] and values(images, "test") == [9]
    folder(test, {"c/1.png": png(1)})
    with pytest.raises(ValueError, match="test has the class 'c', .*train only a, b: use the same in both"):
        data(train, test_path=str(test), labels="folders").dataset("test")
    with pytest.raises(ValueError, match="no test pictures: .* set test_path"):
        data(train).dataset("test")


def test_missing_and_empty_places_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is neither a folder nor a file"):
        data(tmp_path / "nowhere").setup()
    for empty in (folder(tmp_path / "empty", {"a.txt": b""}), packed(tmp_path / "empty.zip", {"a.txt": b""})):
        with pytest.raises(FileNotFoundError, match=r"no picture in .*empty.*, looked for .png, .jpg, .*.tiff in it"):
            data(empty).setup()
    (tmp_path / "false.zip").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match="false.zip is no readable zip"):
        data(tmp_path / "false.zip").setup()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"labels": "yes"}, "labels is 'yes'; it must be one of 'auto', 'none', 'folders', 'json'"),
        ({"resize": "pad"}, "resize is 'pad'; it must be one of 'crop', 'stretch', 'fit', 'none'"),
        ({"on_error": "ask"}, "on_error is 'ask'; it must be one of 'fail', 'skip'"),
        ({"channels": 4}, "channels is 4; it must be one of 1, 3"),
        ({"crop_px": 0}, "crop_px is 0; it must be 1 or more, or None"),
    ],
)
def test_options_are_checked_at_once(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(Path("unused"), **option)


HOSTILE = ["../up.png", "a/../../up.png", "/etc/abs.png", "C:/abs.png", "a\\..\\up.png"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_out_of_a_zip_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="which leads out of it: refused"):
        data(packed(tmp_path / "set.zip", {**LABELLED, name: png(1)})).setup()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.zip"]


def altered(path: Path, *, size: int | None = None, flags: int | None = None, mode: int | None = None) -> Path:
    """Changes what a zip's directory says of its first member."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2")
    if size is not None:
        content[at + 24 : at + 28] = struct.pack("<I", size)
    if flags is not None:
        content[at + 8 : at + 10] = struct.pack("<H", flags)
    if mode is not None:
        content[at + 38 : at + 42] = struct.pack("<I", mode << 16)
    path.write_bytes(content)
    return path


def test_a_member_that_declares_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = altered(packed(tmp_path / "set.zip", LABELLED), size=2**31)
    with pytest.raises(ValueError, match="'00000/img0.png' of 2147483648 bytes, more than 268435456: refused"):
        data(path).setup()


def test_encrypted_members_and_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encrypted: pack it again without a password"):
        data(altered(packed(tmp_path / "1.zip", LABELLED), flags=1)).setup()
    with pytest.raises(ValueError, match="a symbolic link: refused"):
        data(altered(packed(tmp_path / "2.zip", LABELLED), mode=0o120777)).setup()


def test_a_member_that_is_not_what_its_directory_says_is_named(tmp_path: Path) -> None:
    path = altered(packed(tmp_path / "set.zip", LABELLED), size=20)
    with pytest.raises(ValueError, match="1 of 3 files in .* cannot be used: 00000/img0.png: .*on_error='skip'"):
        data(path).setup()


def test_pictures_of_too_many_pixels_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, {"a.png": png(1), "b.png": png(2, size=30)})
    for cache_mb in (0, 1):
        with pytest.raises(ValueError, match="1 of 2 .*b.png: declares 30 x 30 pixels, more than max_pixels 100"):
            data(path, max_pixels=100, cache_mb=cache_mb).setup()


def test_links_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    outside = folder(tmp_path / "outside", {"secret.png": png(99), "sub/s.png": png(98)})
    inside = folder(tmp_path / "inside", {"a.png": png(1)})
    os.symlink(outside / "secret.png", inside / "out.png")
    os.symlink(outside / "sub", inside / "sub")
    os.symlink(inside, inside / "loop")
    os.symlink(inside / "a.png", inside / "b.png")
    os.symlink(outside / "missing.png", inside / "broken.png")
    with pytest.warns(UserWarning, match="in .*inside 4 symbolic links lead out of it or to folders and were not"):
        assert values(data(inside)) == [1, 1]
    os.remove(inside / "a.png")
    with pytest.raises(FileNotFoundError, match="5 symbolic links lead out of it or to folders and were not followed"):
        data(inside).setup()


def spoiled(count: int = 2) -> dict[str, bytes]:
    """Six pictures of values 0 to 5, of which `count` have a good header and no end, from number 1 on."""
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(out, "png")
    return {f"{i}.png": out.getvalue()[:900] if 1 <= i <= count else png(i) for i in range(6)}


@pytest.mark.parametrize("make", [folder, packed])
def test_unreadable_files_are_named_before_training(tmp_path: Path, make) -> None:
    path = make(tmp_path / "set.zip", {"a.png": png(1), "b.png": b"no picture", "c.jpg": b""})
    for cache_mb in (0, 1):
        with pytest.raises(ValueError, match="2 of 3 files in .*set.zip cannot be used: b.png: .*; c.jpg: .*'skip'"):
            data(path, cache_mb=cache_mb).setup()


def test_a_file_that_breaks_off_is_named_when_it_is_read(tmp_path: Path) -> None:
    images = data(folder(tmp_path, spoiled()), cache_mb=0)
    images.setup()
    with pytest.raises(ValueError, match="1.png in .* cannot be read: "):
        images.dataset().fetch(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="2 of 6 files"):
        data(tmp_path, cache_mb=1).setup()


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_skip_leaves_files_out_with_a_warning_and_keeps_the_order_certain(tmp_path: Path, cache_mb: int) -> None:
    images = data(folder(tmp_path, spoiled()), on_error="skip", cache_mb=cache_mb)
    with pytest.warns(UserWarning, match="2 of 6 files in .* cannot be used: 1.png: .*; 2.png: .*They are left out"):
        images.setup()
    assert values(images) == [0, 3, 4, 5]
    stream = Stream(images.dataset(), 4)
    assert sorted(stream.batch(0)["image"][:, 0, 0, 0].tolist()) == [0, 3, 4, 5]


@pytest.mark.parametrize("cache_mb", [0, 10])
@pytest.mark.parametrize("spoilt", range(6))
def test_skip_keeps_every_label_with_its_picture(spoilt: int, cache_mb: int, tmp_path: Path) -> None:
    """Whichever is left out, of classes of unequal sizes that take turns."""
    kinds = "abcbba"
    files = {f"{kind}/{i}.png": png(i) if i != spoilt else b"broken" for i, kind in enumerate(kinds)}
    images = data(folder(tmp_path, files), on_error="skip", labels="folders", cache_mb=cache_mb)
    with pytest.warns(UserWarning, match="1 of 6"):
        batch = images.dataset().fetch(torch.arange(5))
    shown = batch["image"][:, 0, 0, 0].tolist()
    assert sorted(shown) == [i for i in range(6) if i != spoilt]
    assert [images.class_names[label] for label in batch["label"].tolist()] == [kinds[i] for i in shown]


def test_skip_keeps_labels_with_their_pictures(tmp_path: Path) -> None:
    files = {f"{'ab'[i % 2]}/{i}.png": content for i, content in enumerate(spoiled(1).values())}
    images = data(folder(tmp_path, files), on_error="skip", labels="folders")
    with pytest.warns(UserWarning, match="1 of 6"):
        batch = images.dataset().fetch(torch.arange(5))
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 2, 4, 3, 5] and batch["label"].tolist() == [0, 0, 0, 1, 1]


def test_when_nothing_is_left_skip_fails_too(tmp_path: Path) -> None:
    files = {f"{i}.png": b"" for i in range(8)}
    with pytest.raises(ValueError, match="8 of 8 files .*4.png: .*; and 3 more. Mend or remove them$"):
        data(folder(tmp_path, files), on_error="skip").setup()


def test_workers_open_the_zip_for_themselves(tmp_path: Path) -> None:
    path = packed(tmp_path / "set.zip", {f"{i}.png": png(i) for i in range(12)})
    plain, parallel = (data(path, cache_mb=0, num_workers=n, batch_size=3) for n in (0, 2))
    parallel.setup()
    one, two = (iter(d.train_dataloader()) for d in (plain, parallel))
    for _ in range(12):
        assert torch.equal(next(one)["image"], next(two)["image"])
    source = pickle.loads(pickle.dumps(parallel.dataset())).source
    assert source._zip is None and source.open("3.png").read() == png(3)


def test_fingerprint_follows_content_labels_and_framing(tmp_path: Path) -> None:
    path = folder(tmp_path / "set", TREE)
    base = data(path).fingerprint()
    assert data(path, cache_mb=0, batch_size=8, mirror=True).fingerprint() == base
    assert len({base, data(path, resize="fit").fingerprint(), data(path, crop_px=2).fingerprint(),
                data(path, labels="folders").fingerprint(), data(path, channels=1).fingerprint()}) == 5  # fmt: skip
    folder(path, {"b/2.png": png(200)})
    assert data(path).fingerprint() != base


def test_real_folders() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faces = data(real("celeba"), resolution=64, crop_px=89)
        photographs = data(real("cifar") / "train", resolution=32, resize="none", labels="folders")
        birds = data(real("CUB_200_2011") / "images", resolution=32, cache_mb=0, labels="folders")
        assert len(faces.dataset()) == 400 and len(photographs.dataset()) == 800 and len(birds.dataset()) == 240
    assert photographs.class_names[0] == "airplane" and photographs.dataset().labels.bincount().tolist() == [80] * 10
    assert 60 < faces.dataset().fetch(torch.arange(400))["image"].float().mean() < 180


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["cat/a.png", "dog/b.png"], ("cat", "dog")),
        (["0/a.png", "1/b.png"], ("0", "1")),
        (["only/a.png", "only/b.png"], ()),
        (["cat/a.png", "b.png"], ()),
        (["00000/a.png", "00001/b.png"], ()),
    ],
)
def test_auto_labels_take_folders_that_are_classes(names: list[str], classes: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    data = Images(str(tmp_path), batch_size=1, resolution=4, channels=1)
    assert data.class_names == classes
    assert (data.dataset("train").labels is None) == (classes == ())


# ---- what is understood, and said ------------------------------------------------------------------------------------

CLASSES = {"cat/0.png": png(1), "dog/0.png": png(2), "dog/1.png": png(3)}


def below(prefix: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{prefix}{name}": content for name, content in files.items()}


@pytest.mark.parametrize("make", [folder, packed])
@pytest.mark.parametrize("prefix", ["", "mine/", "a/b/"])
def test_lone_folders_around_the_classes_are_stepped_over(tmp_path: Path, make, prefix: str) -> None:
    images = data(make(tmp_path / "set.zip", {**below(prefix, CLASSES), "notes/readme.txt": b""}))
    assert images.class_names == ("cat", "dog") and images.dataset().labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("make", [folder, packed])
def test_a_dataset_json_may_lie_in_a_lone_folder(tmp_path: Path, make) -> None:
    files = {**LABELLED, "dataset.json": labels_json(1, 0, 2)}
    images = data(make(tmp_path / "set.zip", below("mine/", files)))
    assert images.dataset().labels.tolist() == [1, 0, 2]
    astray = {**below("mine/", files), "other/x.png": png(1)}
    with pytest.raises(ValueError, match="mine/dataset.json of .* lies beside some of the pictures.*move it"):
        data(make(tmp_path / "astray.zip", astray)).setup()


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "val2017"), ("training_set", "test_set", "extra")])
@pytest.mark.parametrize("labels", ["auto", "folders"])
def test_splits_are_no_classes(tmp_path: Path, names: tuple[str, ...], labels: str) -> None:
    files = {f"{name}/{key}": content for name in names for key, content in CLASSES.items()}
    root = folder(tmp_path, files)
    with pytest.raises(ValueError, match=f"holds {names[0]}, {names[1]}, the splits .* give .*{names[0]} as path and"):
        data(root, labels=labels).setup()
    images = data(root / names[0], test_path=str(root / names[1]), labels=labels)
    assert images.class_names == ("cat", "dog") and len(images.dataset("test")) == 3
    assert len(data(root, labels="none").dataset()) == 3 * len(names)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert data(folder(tmp_path, {"train/0.png": png(1), "plane/0.png": png(2)})).class_names == ("plane", "train")


HIDDEN = (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".Trash-0", "cat/.thumbs", "dog/@eaDir/x.png")


@pytest.mark.parametrize("make", [folder, packed])
def test_hidden_folders_hold_no_data(tmp_path: Path, make) -> None:
    litter = {f"{name}/x.png": png(9) for name in HIDDEN} | {"Thumbs.db": b"", ".DS_Store": b"", "cat/._0.png": b""}
    images = data(make(tmp_path / "set.zip", {**CLASSES, **litter}))
    assert images.class_names == ("cat", "dog") and values(images) == [1, 2, 3]
    assert "hidden: " in images.describe().left and ".ipynb_checkpoints" in images.describe().left


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (range(12), [str(i) for i in range(12)]),
        (("10", "9", "007"), ["007", "9", "10"]),
        (("a10", "a9", "7"), ["7", "a10", "a9"]),
    ],
)
def test_whole_numbers_are_ordered_as_numbers(tmp_path: Path, names, order: list[str]) -> None:
    assert data(folder(tmp_path, {f"{name}/0.png": png(1) for name in names})).class_names == tuple(order)


@pytest.mark.parametrize("label", ["[0, 1]", "[0.2, -1.5]", "0.5", '{"age": 3}'])
def test_labels_of_another_kind_are_told_apart(tmp_path: Path, label: str) -> None:
    table = f'{{"labels": [["0.png", {label}]]}}'.encode()
    path = packed(tmp_path / "set.zip", {"0.png": png(1), "dataset.json": table})
    with pytest.raises(ValueError, match="0.png has .*One class per picture is what is supported: several labels"):
        data(path).setup()


def test_backslashes_in_a_zip_are_slashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as out:
        for name, content in {"cat\\0.png": png(1), "dog\\deep\\0.png": png(2)}.items():
            member = zipfile.ZipInfo("x")
            member.filename = name
            out.writestr(member, content)
    images = data(tmp_path / "set.zip", cache_mb=0)
    assert images.class_names == ("cat", "dog") and values(images) == [1, 2]


def test_links_are_followed_when_asked_and_never_in_circles(tmp_path: Path) -> None:
    folder(tmp_path / "store", {"cat/0.png": png(1), "dog/0.png": png(2)})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "store" / "cat")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "store" / "dog")
    (tmp_path / "store" / "cat" / "circle").symlink_to(tmp_path / "set")
    images = data(tmp_path / "set", follow_links=True)
    with pytest.warns(UserWarning, match="1 symbolic links lead nowhere or round in a circle"):
        assert images.class_names == ("cat", "dog") and len(images.dataset()) == 2
    with pytest.raises(FileNotFoundError, match="2 symbolic links .* the option follow_links takes them too"):
        data(tmp_path / "set").setup()


def test_home_in_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "set", CLASSES)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(data(Path("~/set")).dataset()) == len(data(Path("$HOME/set")).dataset()) == 3


@pytest.mark.parametrize("make", [folder, packed])
def test_what_is_left_out_is_counted_and_named(tmp_path: Path, make) -> None:
    others = dict.fromkeys(["c.jfif", "d.gif", "e.GIF", "noending", "readme.txt"], b"")
    images = data(make(tmp_path / "set.zip", {"a.png": png(1, size=2), "b.PNG": png(2, size=9), **others}))
    with pytest.warns(UserWarning, match=r"files in .* are left out by their endings: 2 .gif, 1 .jfif, 1 no ending$"):
        found = images.describe()
    assert found.used == "2 pictures (2 .png)" and found.left == "2 .gif, 1 .jfif, 1 .txt, 1 no ending"
    assert found.sizes == "2 x 2 to 9 x 9; 1 smaller than 4 px and enlarged"
    assert found.framing == "the largest square of the middle, scaled to 4 x 4"
    assert found.lines()[0] == f"data: Images, {tmp_path / 'set.zip'}"
    assert found.lines()[1] == "  used     2 pictures (2 .png), split 'train'"


@pytest.mark.parametrize("cache_mb", [0, 10])
def test_pages_that_are_left_out_are_told(tmp_path: Path, cache_mb: int) -> None:
    pages = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(10)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match="1 files in .* have 9 pages beyond the first, which are left out"):
        found = data(tmp_path, cache_mb=cache_mb).describe()
    assert "9 further pages of 1 files" in found.left


@pytest.mark.parametrize(("highest", "warned"), [(4095, True), (1023, True), (65535, False)])
@pytest.mark.parametrize("cache_mb", [0, 10])
def test_a_small_part_of_16_bits_is_told(tmp_path: Path, highest: int, warned: bool, cache_mb: int) -> None:
    for i in range(3):
        Image.fromarray(np.linspace(0, highest, 16).reshape(4, 4).astype(np.uint16)).save(tmp_path / f"{i}.png")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = data(tmp_path, cache_mb=cache_mb).describe()
    assert any("use a small part of their range" in str(each.message) for each in seen) == warned
    assert "3 of 16 bits" in found.sizes


def test_many_classes_are_shortened(tmp_path: Path) -> None:
    found = data(folder(tmp_path, {f"{i}/0.png": png(1) for i in range(100)})).describe()
    line = next(line for line in found.lines() if line.startswith("  classes"))
    assert "0=0 (1), 1=1 (1)" in line and line.endswith("..., 99=99 (1)") and len(found.classes) == 100
