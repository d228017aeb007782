"""The verb `prepare`: what is written, from where, and what happens when it is broken off."""

import io
import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
import zipfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gans.data import Images
from lit_gans.data import packing as module
from lit_gans.data.pictures import FilePictures, LmdbPictures, Recipe
from lit_gans.data.shard_files import read_index
from lit_gans.data.shards import Shards
from lit_gans.prepare import main, prepare

from .data.test_cifar import content, write


def picture(seed: int, width: int = 8, height: int = 8) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format: str = "png") -> bytes:
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


def tree(root: Path, count: int = 7) -> Path:
    """Pictures of 10 x 8 px in the folders of two classes."""
    for i in range(count):
        path = root / "ba"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(i, 10, 8)))
    return root


@pytest.fixture(autouse=True)
def two_to_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_IMAGES", 2)
    monkeypatch.setattr(module, "CHUNK_BYTES", 200)
    # Workers that are forked see what a test has put in the place of reading a picture.
    forked = partial(ProcessPoolExecutor, mp_context=multiprocessing.get_context("fork"))
    monkeypatch.setattr(module, "ProcessPoolExecutor", forked)


def pack(source: Path, output: Path, **options: object) -> Path:
    return prepare(source, output, **{"resolution": 4, "workers": 1, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pixels(output: Path, resolution: int = 4) -> torch.Tensor:
    data = Shards if output.is_dir() else Images
    images = data(str(output), batch_size=1, resolution=resolution).dataset()
    return images.images(torch.arange(len(images)))


# ---- what is written -------------------------------------------------------------------------------------------------


def test_the_zip_is_stylegans(tmp_path: Path) -> None:
    path = pack(tree(tmp_path / "in"), tmp_path / "deep" / "out.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [*(f"00000/img{i:08d}.png" for i in range(7)), "dataset.json"]
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
        assert archive.getinfo("00000/img00000003.png").file_size > 4 * 4 * 3  # not compressed inside either
        labels = json.loads(archive.read("dataset.json"))["labels"]
        assert labels == [[f"00000/img{i:08d}.png", int(i >= 3)] for i in range(7)]  # a: 1, 3, 5; b: 0, 2, 4, 6
        with Image.open(archive.open("00000/img00000003.png")) as image:
            source = picture(0, 10, 8).crop((1, 0, 9, 8)).resize((4, 4), Image.Resampling.LANCZOS)
            assert np.array_equal(np.asarray(image), np.asarray(source))
    assert module.png_name(70_001) == "00070/img00070001.png" and not list(path.parent.glob(".*"))


def test_shards_hold_raw_pixels_labels_and_an_index(tmp_path: Path) -> None:
    folder = pack(tree(tmp_path / "in"), tmp_path / "out", channels=1, resize_filter="box")
    assert sorted(contents(folder)) == ["index.json", "labels.npy", *(f"shard-{i:05d}.bin" for i in range(4))]
    table = json.loads((folder / "index.json").read_text())
    assert (table["count"], table["shape"], table["classes"], table["resolution"]) == (7, [1, 4, 4], ["a", "b"], 4)
    assert [shard["images"] for shard in table["shards"]] == [2, 2, 2, 1]
    assert table["settings"]["resize_filter"] == "box"
    assert np.load(folder / "labels.npy", allow_pickle=False).tolist() == [0, 0, 0, 1, 1, 1, 1]
    first = picture(1, 10, 8).convert("L").crop((1, 0, 9, 8)).resize((4, 4), Image.Resampling.BOX)
    assert (folder / "shard-00000.bin").read_bytes()[:16] == first.tobytes()


def test_labels_of_a_dataset_json_follow_their_pictures(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", 3)
    (root / "dataset.json").write_text(json.dumps({"labels": [["b/0.png", 5], ["a/1.png", 2], ["b/2.png", 0]]}))
    with zipfile.ZipFile(pack(root, tmp_path / "out.zip")) as archive:
        assert [number for _, number in json.loads(archive.read("dataset.json"))["labels"]] == [2, 5, 0]
    with zipfile.ZipFile(pack(root, tmp_path / "bare.zip", labels="none")) as archive:
        assert archive.read("dataset.json") == b'{"labels": null}'
    again = pack(tmp_path / "out.zip", tmp_path / "out")
    assert read_index(again).class_names == tuple("012345")
    assert torch.equal(pixels(again), pixels(tmp_path / "out.zip"))
    (root / "dataset.json").unlink()
    with pytest.raises(ValueError, match="labels='json', but .*in has no dataset.json with labels"):
        pack(root, tmp_path / "no", labels="json")


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_the_number_of_workers_changes_no_byte(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "in", 9)
    one, three = (pack(root, tmp_path / str(w) / name, workers=w) for w in (1, 3))
    assert (contents(one) == contents(three)) if one.is_dir() else (one.read_bytes() == three.read_bytes())


def test_crops_keep_the_middle(tmp_path: Path) -> None:
    wide, scaled = Recipe(8, 3, "center-wide", "lanczos"), picture(0, 8, 6)
    framed, enlarged = wide.apply(scaled)  # of the final size: as StyleGAN's tool, the picture between two black bars
    assert not enlarged and not framed[:, [0, 7]].any()
    assert np.array_equal(framed[:, 1:7], np.asarray(scaled).transpose(2, 0, 1))
    # Wider and taller ones are cut to 4:3, not squeezed.
    for image, box in ((picture(1, 20, 12), (2, 0, 18, 12)), (picture(2, 16, 30), (0, 9, 16, 21))):
        cut = np.asarray(image.crop(box).resize((8, 6), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
        assert np.array_equal(wide.apply(image)[0][:, 1:7], cut)
    with pytest.raises(ValueError, match="is 8 x 6, not square: use --crop center or center-wide"):
        Recipe(8, 3, "none", "lanczos").apply(scaled)
    assert Recipe(5, 1, "center", "bicubic").apply(picture(0, 4, 9))[1]
    assert Recipe(1, 3, "center-wide", "box").apply(picture(0, 1, 9))[0].shape == (3, 1, 1)


def test_enlarged_pictures_are_counted(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", 3)
    (root / "a" / "big.png").write_bytes(encoded(picture(9, 20, 20)))
    for name in ("out", "out.zip"):
        with pytest.warns(UserWarning, match="3 of 4 pictures are smaller than 16 px and were enlarged"):
            pack(root, tmp_path / name, resolution=16)
    assert len(pixels(pack(root, tmp_path / "two", max_images=2))) == 2


# ---- sources ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["py", "bin", "tar"])
def test_cifar_as_published(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "in", form, monkeypatch)
    archive = root / "cifar-10-python.tar.gz"
    folder = pack(archive if archive.is_file() else root, tmp_path / "out", resolution=32, split="test")
    expected, labels = content(5)
    assert np.array_equal(pixels(folder, 32).flatten(1).numpy(), expected)
    data = Shards(str(folder), batch_size=1, resolution=32)
    assert data.dataset().labels.tolist() == labels and data.class_names[3] == "cat"
    bare = pack(root, tmp_path / "bare.zip", resolution=32, labels="none")
    assert len(pixels(bare, 32)) == 15
    with pytest.raises(ValueError, match="labels 'json' was asked for, but .* is neither a folder of pict"):
        pack(root, tmp_path / "no", labels="json")


def test_mnist_as_published(tmp_path: Path) -> None:
    digits = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    raw = tmp_path / "in" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    head = b"".join(size.to_bytes(4, "big") for size in (3, 28, 28))
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + head + digits.tobytes())
    (raw / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + head[:4] + bytes([4, 0, 9]))
    padded = pixels(pack(tmp_path / "in", tmp_path / "out", resolution=32), 32)
    assert padded.shape == (3, 1, 32, 32) and np.array_equal(padded[:, 0, 2:30, 2:30], digits)
    scaled = Image.fromarray(digits[1]).resize((16, 16), Image.Resampling.LANCZOS)
    grey = pixels(pack(tmp_path / "in", tmp_path / "rgb", resolution=16, channels=3), 16)[1]
    assert np.array_equal(grey.numpy(), np.stack([np.asarray(scaled)] * 3))


class FakeLmdb(SimpleNamespace):
    """The few calls of lmdb that are needed, over a dict."""

    def open(self, path: str, **options: object) -> "FakeLmdb":
        assert options["readonly"] and not options["lock"]
        return self

    def begin(self) -> "FakeLmdb":
        return self

    def __enter__(self) -> "FakeLmdb":
        return self

    def __exit__(self, *error: object) -> None: ...

    def cursor(self) -> "FakeLmdb":
        return self

    def iternext(self, *, keys: bool, values: bool) -> list[bytes]:
        assert keys and not values
        return sorted(self.table)

    def get(self, key: bytes) -> bytes:
        if isinstance(self.table[key], Exception):
            raise self.table[key]
        return self.table[key]


def test_an_lmdb_of_lsun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.mdb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ValueError, match=r"is an lmdb, which needs the package lmdb, .*pip install 'lit-gans\[lmdb\]'"):
        pack(tmp_path, tmp_path / "out")
    table = {b"\xffb": encoded(picture(1), "webp"), b"a": encoded(picture(0))}
    monkeypatch.setitem(sys.modules, "lmdb", FakeLmdb(table=table, Error=RuntimeError))
    assert LmdbPictures(tmp_path).names == ["a", "\udcffb"]
    assert torch.equal(pixels(pack(tmp_path, tmp_path / "out", resolution=8), 8)[0], chw(picture(0)))
    for damage, why in (
        (b"no picture", "cannot identify"),
        (RuntimeError("page 3"), r"the lmdb is damaged \(page 3\)"),
    ):
        table[b"\xffb"] = damage
        with pytest.warns(UserWarning, match=f"1 of 2 pictures in .* cannot be used: .*b: {why}"):
            pack(tmp_path, tmp_path / f"skip{len(why)}", on_error="skip")
    monkeypatch.setitem(sys.modules, "lmdb", FakeLmdb(table={}, Error=RuntimeError))
    with pytest.raises(FileNotFoundError, match="its lmdb is empty"):
        pack(tmp_path, tmp_path / "empty")


def chw(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def test_a_real_lmdb(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "in")) as environment, environment.begin(write=True) as writing:
        for i in range(5):
            writing.put(f"{4 - i}".encode(), encoded(picture(i)))
    found = pixels(pack(tmp_path / "in", tmp_path / "out", resolution=8, workers=2), 8)
    assert torch.equal(found, torch.stack([chw(picture(4 - i)) for i in range(5)]))
    (tmp_path / "in" / "data.mdb").write_bytes(b"no lmdb" * 5000)
    with pytest.raises(ValueError, match="is no readable lmdb"):
        pack(tmp_path / "in", tmp_path / "no")


# ---- broken off ------------------------------------------------------------------------------------------------------


def in_a_process(**arguments: object) -> int:
    process = multiprocessing.get_context("fork").Process(target=pack, kwargs=arguments)
    process.start()
    process.join(30)
    return process.exitcode


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_killed_in_the_middle_the_same_call_goes_on(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, image = tree(tmp_path / "in"), FilePictures.image
    whole = pack(root, tmp_path / "whole" / name)

    def killed(self: FilePictures, index: int) -> Image.Image:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return image(self, index)

    output = tmp_path / "again" / name
    monkeypatch.setattr(FilePictures, "image", killed)
    assert in_a_process(source=root, output=output) == -signal.SIGKILL
    left = {path.name: path.stat().st_ino for path in output.parent.rglob("shard*.bin")}
    assert list(output.parent.rglob(".*.tmp"))
    if name == "out":
        assert sorted(left) == ["shard-00000.bin", "shard-00001.bin"]
        with pytest.raises(FileNotFoundError, match="so it is no finished folder of shards"):
            read_index(output)
    decoded: list[int] = []
    monkeypatch.setattr(FilePictures, "image", lambda self, index: decoded.append(index) or image(self, index))
    pack(root, output)
    assert decoded == ([4, 5, 6] if name == "out" else list(range(7)))
    if name == "out":
        assert contents(output) == contents(whole)
        assert all((output / file).stat().st_ino == inode for file, inode in left.items())
    else:
        assert output.read_bytes() == whole.read_bytes() and [p.name for p in output.parent.iterdir()] == ["out.zip"]


def test_workers_end_with_a_killed_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: FilePictures, index: int) -> Image.Image:
        (tmp_path / f"pid{os.getpid()}").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
        raise AssertionError

    monkeypatch.setattr(FilePictures, "image", killed)
    assert in_a_process(source=tree(tmp_path / "in"), output=tmp_path / "out", workers=2) == -signal.SIGKILL
    numbers = [int(path.name[3:]) for path in tmp_path.glob("pid*")]
    deadline = time.monotonic() + 10
    while any(map(is_alive, numbers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = list(filter(is_alive, numbers))
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert numbers and not left


def is_alive(number: int) -> bool:
    state = Path(f"/proc/{number}/stat")
    return state.is_file() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_worker_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FilePictures, "image", lambda self, index: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(OSError, match="a worker process was ended from outside.*use fewer --workers"):
        pack(tree(tmp_path / "in"), tmp_path / "out.zip", workers=2)
    assert not list(tmp_path.glob("*out*"))


def test_finished_shards_are_verified_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "in")
    folder = pack(root, tmp_path / "out")
    whole = contents(folder)
    damaged = bytearray(whole["shard-00001.bin"])
    damaged[7] ^= 1
    (folder / "shard-00001.bin").write_bytes(damaged)
    (folder / "labels.npy").unlink()
    pack(root, folder)
    assert contents(folder) == whole
    monkeypatch.setattr(FilePictures, "image", lambda self, index: pytest.fail("nothing is to be decoded"))
    assert pack(root, folder, workers=2) == folder
    (root / "a" / "1.png").write_bytes(encoded(picture(99)))
    with pytest.raises(ValueError, match="out was made from other pictures: give another output, or remove it"):
        pack(root, folder)
    assert contents(folder) == whole


def test_a_broken_picture_is_named_and_the_call_goes_on_once_it_is_mended(tmp_path: Path) -> None:
    root, output = tree(tmp_path / "in"), tmp_path / "out"
    good = (root / "b" / "2.png").read_bytes()
    (root / "b" / "2.png").write_bytes(good[:60])
    for workers in (1, 2):
        with pytest.raises(ValueError, match=r"b/2.png in .*in cannot be used: .* Mend or remove it, or .* skip"):
            pack(root, output, workers=workers)
    assert not list(output.glob(".*"))
    kept = (output / "shard-00001.bin").stat().st_ino
    (root / "b" / "2.png").write_bytes(good)
    (root / "a" / "1.png").write_bytes(encoded(picture(99)))  # in a shard that is there, which is made again
    pack(root, output)
    assert (output / "shard-00001.bin").stat().st_ino == kept
    assert contents(output) == contents(pack(root, tmp_path / "fresh"))


def test_broken_pictures_can_be_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "in")
    for name in ("b/0.png", "b/2.png"):  # of order 3 and 4: the end of a shard and the beginning of the next
        (root / name).write_bytes(b"no picture")
    told = r"2 of 7 pictures in .*in cannot be used: b/0.png: cannot identify.*; b/2.png: .* They are left out"
    with pytest.warns(UserWarning, match=told):
        folder = pack(root, tmp_path / "out", on_error="skip")
    with pytest.warns(UserWarning, match=told):
        packed = pack(root, tmp_path / "out.zip", on_error="skip")
    index = read_index(folder)
    assert [shard.images for shard in index.shards] == [2, 1, 1, 1] and index.shards[1].skipped[0][0] == "b/0.png"
    assert torch.equal(pixels(folder), pixels(packed)) and len(pixels(folder)) == 5
    assert Shards(str(folder), batch_size=1, resolution=4).dataset().labels.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="b/0.png in .*in cannot be used"):
        pack(root, folder)
    for path in root.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="7 of 7 pictures .*: nothing to write"):
        pack(root, tmp_path / "none", on_error="skip")


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_an_output_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "in")
    with pytest.raises(ValueError, match="in exists and holds something else: give a new or an empty folder"):
        pack(root, root)
    folder, path = pack(root, tmp_path / "out"), pack(root, tmp_path / "out.zip")
    with pytest.raises(ValueError, match="out was made with crop 'center', now 'center-wide'; max_images None, now 3:"):
        pack(root, folder, crop="center-wide", max_images=3)
    inode = path.stat().st_ino
    assert pack(root, path, workers=2).stat().st_ino == inode
    with pytest.raises(ValueError, match="out.zip exists and is not what this command makes of these pictures"):
        pack(root, path, resolution=5)
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="out.zip exists and is not what"):
        pack(root, path)
    assert path.read_bytes() == b"mine"


def test_disk_space_is_asked_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=7 * 48 - 1))
    for name in ("out", "new/out.zip"):
        with pytest.raises(ValueError, match=r"not enough disk space: .* needs 0.00 GiB, 0.00 GiB are free: make room"):
            pack(tree(tmp_path / "in"), tmp_path / name)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=7 * 48))
    assert len(pixels(pack(tmp_path / "in", tmp_path / "out"))) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0}, "resolution is 0; it must be a whole number of 1 or more"),
        ({"workers": 0}, "workers is 0; it must be"),
        ({"max_images": 1.5}, "max_images is 1.5; it must be"),
        ({"channels": 4}, "channels is 4; it must be 1 or 3"),
        ({"crop": "middle"}, "crop is 'middle'; it must be one of center, none, center-wide"),
        ({"labels": "yes"}, "labels is 'yes'; it must be one of auto, none, folders, json"),
        ({"format": "tar"}, "format is 'tar'; it must be one of zip, shards"),
        ({"format": "zip"}, "does not fit the format 'zip': a zip ends in .zip, shards are a folder"),
        ({"split": "test"}, "split 'test' was asked for, but .*in is not CIFAR-10 or MNIST"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(tree(tmp_path / "in"), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root, output = tree(tmp_path / "in", 3), tmp_path / "out"
    arguments = [str(root), str(output), "--resolution", "16", "--workers", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}\n"
    assert "  used     3 pictures (3 .png)\n  sizes    10 x 8; 3 smaller than 16 px and enlarged\n" in printed.err
    assert printed.err.splitlines()[-1] == "lit-gans prepare: 3 of 3 pictures are smaller than 16 px and were enlarged"
    assert main([*arguments, "--crop", "none"]) == 2
    assert "lit-gans prepare: output" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), *arguments[1:]]) == 2
    assert "nowhere is neither a folder nor a file" in capsys.readouterr().err
    with warnings.catch_warnings(), pytest.raises(SystemExit):
        main([str(root), str(output)])


def test_ctrl_c_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    image = FilePictures.image

    def interrupted(self: FilePictures, index: int) -> Image.Image:
        if index == 3:
            raise KeyboardInterrupt
        return image(self, index)

    monkeypatch.setattr(FilePictures, "image", interrupted)
    for name in ("out", "out.zip"):
        arguments = [str(tree(tmp_path / "in")), str(tmp_path / name), "--resolution", "4", "--workers", "1"]
        assert main(arguments) == 130
        assert capsys.readouterr().err.splitlines()[-1] == "lit-gans prepare: broken off; the same command goes on"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    monkeypatch.undo()
    assert main(arguments[:1] + [str(tmp_path / "out"), *arguments[2:]]) == 0


def test_a_terminal_is_told_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = tree(tmp_path / "in")
    pack(root, tmp_path / "quiet")
    assert "7/7" not in capsys.readouterr().err
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    pack(root, tmp_path / "told", workers=2)
    told = capsys.readouterr().err
    assert all(part in told for part in ("pictures", "7/7", "0:00:00"))
