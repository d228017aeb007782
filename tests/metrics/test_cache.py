from pathlib import Path

import pytest
import torch

from lit_gans.base import cache as files
from lit_gans.base.checkpoints import read_weights


def test_folder_is_the_environments_or_the_homes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path))
    assert files.cache_folder() == tmp_path
    monkeypatch.delenv("LIT_GANS_CACHE")
    monkeypatch.setenv("HOME", "/home/of/nobody")
    assert files.cache_folder() == Path("/home/of/nobody/.cache/lit_gans")


def test_round_trip_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(3)}
    files.write_tensors(path, tensors, {"made": "here"})
    read, metadata = files.read_tensors(path)
    assert metadata["made"] == "here" and torch.equal(read["a"], tensors["a"]) and read["n"] == 3
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "replace", lambda a, b: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:-1] + b"\x07", lambda b: b"", lambda b: b"x" * 40])
def test_damage_is_noticed(tmp_path: Path, damage) -> None:
    path = tmp_path / "x.safetensors"
    files.write_tensors(path, {"a": torch.ones(5)}, {})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="x.safetensors is damaged"):
        assert files.read_tensors(path) is None


def test_digest_sees_names_types_shapes_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.tensor(1)}
    others = [
        {"a": torch.zeros(2, 3), "c": torch.tensor(1)},
        {"a": torch.zeros(3, 2), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3), "b": torch.tensor(2)},
    ]
    assert len({files.digest(tensors) for tensors in (base, *others)}) == 5
    assert files.digest(base) == files.digest(dict(reversed(base.items())))


class Payload:
    def __reduce__(self):
        return (print, ("this code must not run",))


def test_weights_are_tensors_only_and_float32(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good, bad, other = (tmp_path / name for name in ("good.pth", "bad.pth", "other.pth"))
    torch.save({"w": torch.ones(2, dtype=torch.float16), "n": torch.tensor(1)}, good)
    torch.save({"w": Payload()}, bad)
    torch.save([torch.ones(1)], other)
    weights = read_weights(good)
    assert weights["w"].dtype == torch.float32 and weights["n"].dtype == torch.int64
    with pytest.raises(ValueError, match="bad.pth is damaged or holds more than tensors"):
        read_weights(bad)
    with pytest.raises(ValueError, match="other.pth holds list, expected a state dict"):
        read_weights(other)
    with pytest.raises(FileNotFoundError, match="no weights at .*none.pth"):
        read_weights(tmp_path / "none.pth")
    assert capsys.readouterr().out == ""
