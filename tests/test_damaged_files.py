"""Damaged and hostile files: refused by name, at once and in little memory; what checksums cover is never other."""

import collections
import io
import os
import pickle
import random
import struct
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lit_gans.base.checkpoints import open_checkpoint, read_checkpoint, read_weights
from lit_gans.base.files import check_regular
from lit_gans.base.machine import HostilePickle
from lit_gans.base.pickles import loads
from lit_gans.data.cifar import read_pickled
from lit_gans.data.embeddings import read_values
from lit_gans.data.sources import open_source
from lit_gans.official import read_official
from lit_gans.official.weights import read_published
from lit_gans.runs.load import load_run

from .cases import CASES, train
from .damage import digest, flipped, forms, table, try_all


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two checkpoints."""
    from lit_gans.callbacks import Checkpoint

    folder = tmp_path_factory.mktemp("run")
    train(CASES["gan"](), folder, batches=2, checkpoint=Checkpoint(0.016, 0, monitor=None))
    return folder


def weights(value: Any, path: Path, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


# ---- what is whole is read as torch.load reads it --------------------------------------------------------------------


def shared() -> dict[str, Any]:
    base = torch.arange(24.0).view(4, 6)
    return {
        "whole": base, "column": base[:, 2], "turned": base.t()[1:3], "repeated": torch.ones(1).expand(5),
        "half": torch.rand(3).half(), "complex": torch.randn(2, dtype=torch.complex64), "empty": torch.empty(0, 3),
        "eighth": torch.rand(4).to(torch.float8_e4m3fn), "parameter": nn.Parameter(torch.ones(2)), "counts": [1, {2.5}],
        "type": torch.bfloat16, "device": torch.device("cpu"), "bytes": bytearray(b"\xff"), "size": torch.Size([1, 2]),
        "counter": collections.Counter("aab"), "complex number": 1 + 2j, "none": None, "text": "\u00e9\U0001f600",
    }  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_values_are_those_of_torch_load(tmp_path: Path, options: dict) -> None:
    values = shared()
    if "_use_new_zipfile_serialization" in options:
        del values["eighth"]
    path = weights(values, tmp_path / "x.pth", **options)
    if "pickle_protocol" not in options:
        assert digest(torch.load(path, weights_only=True)) == digest(values)
    from lit_gans.base.checkpoints import read_pth

    found = read_pth(path)
    assert digest(found) == digest(values) and found["type"] is torch.bfloat16
    assert found["whole"].data_ptr() == found["turned"].untyped_storage().data_ptr()  # shared as it was


def test_state_dicts_keep_their_versions(tmp_path: Path) -> None:
    from lit_gans.base.checkpoints import read_pth

    state = nn.Sequential(nn.BatchNorm1d(2)).state_dict()
    found = read_pth(weights(state, tmp_path / "x.pth"))
    assert found._metadata == state._metadata and found._metadata["0"] == {"version": 2}


def test_a_checkpoint_is_what_torch_reads(run: Path) -> None:
    path, found = open_checkpoint(run)
    assert path.name == "kimg00000.032.ckpt" and digest(found) == digest(torch.load(path, weights_only=True))


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_no_flipped_bit_of_a_checkpoint_is_loaded(run: Path, tmp_path: Path) -> None:
    whole = (run / "checkpoints" / "kimg00000.032.ckpt").read_bytes()
    rng, path, expected = random.Random(1), tmp_path / "x.ckpt", digest(open_checkpoint(run)[1])
    refused = 0
    for _ in range(40):
        path.write_bytes(flipped(whole, rng))
        try:
            assert digest(read_checkpoint(path)) == expected  # in bytes that say nothing
        except ValueError as error:
            refused += str(path) in str(error)
    assert refused > 20


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for old in (run / "checkpoints").glob("kimg*.ckpt"):
        (folder / old.name).write_bytes(old.read_bytes())
    newest = folder / "kimg00000.032.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    (folder / "kimg00000.048.ckpt").mkdir()
    os.mkfifo(folder / "kimg00000.064.ckpt")
    with pytest.warns(UserWarning) as told:
        path, found = open_checkpoint(tmp_path)
    assert path.name == "kimg00000.016.ckpt" and found["lit_gans"]["images_seen"] == 16
    said = [str(warning.message) for warning in told]
    assert "kimg00000.064.ckpt is a pipe" in said[0] and "kimg00000.048.ckpt is a folder" in said[1]
    assert "kimg00000.032.ckpt is not a checkpoint that can be read safely" in said[2] and "the one before" in said[2]
    with pytest.warns(UserWarning, match="the one before it is taken"):
        assert load_run(tmp_path).images_seen == 16
    with pytest.raises(ValueError, match="Bad CRC-32"):
        load_run(newest)
    path.unlink()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of the checkpoints in .* can be read"):
        open_checkpoint(tmp_path)


def test_some_of_every_damage_ends_in_a_message(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = forms(tmp_path)
    rng = random.Random(2)
    from .damage import cut, mutated

    for name, form in known.items():
        damaged = [damage(form.content, rng) for damage in (flipped, cut, mutated) for _ in range(4)]
        found = try_all(form, damaged, tmp_path)
        assert not found.nameless, (name, found.nameless)
        assert not (form.checked and found.counts["other"]), name


@pytest.mark.slow
def test_none_of_4000_mutations_ends_without_a_name(tmp_path: Path) -> None:
    for name, how, found in table(tmp_path, mutations=4000, flips=200, truncations=60):
        assert not found.nameless, (name, how, found.nameless[:5])
        if name in ("checkpoint", "run of a checkpoint", ".pth", "TorchScript") and "fitting" not in how:
            assert found.counts["other"] == 0, (name, how)
        assert found.longest_s < 20 and found.most_bytes < 2**28, (name, how, found)


# ---- claims ----------------------------------------------------------------------------------------------------------


def changed(path: Path, record: str, content: bytes) -> Path:
    """The archive with another record, whose checksum fits."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith(record) else old.read(name))
    path.write_bytes(out.getvalue())
    return path


def test_a_tensor_of_1_5_kilobytes_asks_for_no_gigabytes(tmp_path: Path) -> None:
    wide = torch.ones(1, dtype=torch.float16).expand(2**32)
    with pytest.raises(ValueError, match="reaches beyond its storage of 1 elements"):
        read_weights(weights({"w": wide}, tmp_path / "x.pth"))
    many = {f"w{i}": torch.ones(1).expand(2**20) for i in range(100)}
    with pytest.raises(ValueError, match="more bytes of tensors than it has"):
        read_weights(weights(many, tmp_path / "y.pth"))


def lying(path: Path, content: bytes, claimed: int) -> Path:
    """An archive whose record `x/data.pkl` unpacks to more than its directory claims."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/constants.pkl", b"")
        archive.writestr("x/data.pkl", content)
    data = bytearray(out.getvalue())
    directory = data.rindex(b"x/data.pkl") - 46
    struct.pack_into("<I", data, directory + 24, claimed)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("read", [read_published, read_weights, read_checkpoint])
def test_records_that_lie_about_their_size(tmp_path: Path, read: Any) -> None:
    path = lying(tmp_path / "x.pt", bytes(2**28), 100)
    with pytest.raises(ValueError, match="x.pt .*(CRC|damaged)"):
        read(path)
    swollen = lying(tmp_path / "y.pt", bytes(2**28), 2**28)
    with pytest.raises(ValueError, match="more bytes of tensors than it has"):
        read(swollen)


def colliding(count: int) -> bytes:
    """A dictionary of integers that have one hash."""
    keys = b"".join(pickle.LONG1 + bytes([n]) + k.to_bytes(n, "little") + b"N" for k, n in (
        ((i * (2**61 - 1)), (i * (2**61 - 1)).bit_length() // 8 + 1) for i in range(1, count)
    ))  # fmt: skip
    return b"\x80\x02}(" + keys + b"u."


def puts(count: int) -> bytes:
    return b"\x80\x02N" + b"".join(b"p%d\n" % (i * (2**61 - 1)) for i in range(1, count)) + b"."


def doubling(times: int) -> bytes:
    """Lists that hold the one before twice."""
    return b"\x80\x02]q\x00" + b"".join(b"0](h%ch%ceq%c" % (i, i, i + 1) for i in range(times)) + b"."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (colliding(100_000), "an integer of 61 bits is the key"),
        (puts(100_000), "keeps a value under the number"),
        (doubling(60), "too many"),
        (b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".", "too deep"),
        pytest.param(b"\x80\x02" + b"]" * 1_100_000 + b".", "more than 1000000 containers", marks=pytest.mark.slow),
        (b"\x80\x02]q\x00h\x00a.", "in themselves"),
    ],
)
def test_pickles_that_would_take_for_ever_are_refused_at_once(tmp_path: Path, content: bytes, message: str) -> None:
    start = time.process_time()
    path = tmp_path / "x.pickle"
    path.write_bytes(content)
    with pytest.raises(HostilePickle, match=message):
        loads(content)
    with pytest.raises(ValueError, match=f"x.pickle .*{message}"):
        read_values(path)
    with pytest.raises(ValueError, match=f"here is no batch of CIFAR-10: .*{message}"):
        read_pickled(content, "here")
    inner = changed(weights({}, tmp_path / "x.pth"), "data.pkl", content)
    with pytest.raises(ValueError, match=f"x.pth .*({message}|more bytes)"):
        read_weights(inner)
    assert time.process_time() - start < 30


def test_a_cifar_batch_sets_no_attribute() -> None:
    batch = {"data": np.zeros((1, 3072), np.uint8), "labels": [0]}
    content = pickle.dumps(batch, 2)[:-1] + b"}X\x05\x00\x00\x00aliveK\x01sb."
    with pytest.raises(ValueError, match="sets attributes of a dict"):
        read_pickled(content, "here")


def test_shared_modules_of_torchscript_are_not_written_out_for_ever(tmp_path: Path) -> None:
    made = b"c__torch__\nM\n)\x81"
    body = made + b"}b" + b"q\x00"
    for i in range(60):
        held = b"}(X\x01\x00\x00\x00ah" + bytes([i]) + b"X\x01\x00\x00\x00bh" + bytes([i]) + b"u"
        body += b"0" + made + held + b"bq" + bytes([i + 1])
    path = lying(tmp_path / "x.pt", b"\x80\x02" + body + b".", len(body) + 3)
    with pytest.raises(ValueError, match="more than 1000000 modules|too many"):
        read_published(path)


@pytest.mark.parametrize("read", [read_weights, read_checkpoint, read_official, read_values, read_published])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, read: Any) -> None:
    os.mkfifo(tmp_path / "x.pkl")
    for path, what in ((tmp_path / "x.pkl", "a pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        with pytest.raises(ValueError, match=f"{path} is {what}"):
            read(path)
    with pytest.raises(FileNotFoundError, match="no such|does not exist|no weights at|there is no"):
        read(tmp_path / "none.pth")
    check_regular(Path(__file__))


def test_labels_that_a_zip_swells_to_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    picture = io.BytesIO()
    from PIL import Image

    Image.new("L", (2, 2)).save(picture, "png")
    for table_ in (b'{"labels": [' + b"[]," * 2**22 + b"[]]}", b" " * 2**26, b'{"labels": [' + b"1," * 2**22 + b"1]}"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", picture.getvalue())
            archive.writestr("dataset.json", table_)
        with pytest.raises(ValueError, match="dataset.json of .* values in .* too many for 1 pictures"):
            open_source(path).read_labels()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture.getvalue())
    os.mkfifo(tmp_path / "pictures" / "b.png")
    assert open_source(tmp_path / "pictures").names == ("a.png",)
