import os
import pickle
import socket
import time
import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from lit_gans.base import download
from lit_gans.base.download import weights_file
from lit_gans.official.weights import read_published

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # archives are published, so they are read
URL = "https://example.org/models/net-0a1b2c3d.pth?raw=1"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torch.hub's."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list:
    """What would have been downloaded: each file holds its own URL."""
    seen = []

    def download(url: str, path: str, *, hash_prefix: str | None, progress: bool) -> None:
        seen.append((url, Path(path).name, hash_prefix))
        Path(path).write_text(url)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return seen


def test_downloaded_once_into_the_cache(cache: Path, downloads: list) -> None:
    for _ in range(2):
        assert weights_file(URL, sha256_prefix="0a1b2c3d") == cache / "net-0a1b2c3d.pth"
    assert downloads == [(URL, "net-0a1b2c3d.pth", "0a1b2c3d")]
    assert weights_file(URL, name="other.pt").name == "other.pt" and len(downloads) == 2


def test_a_given_path_then_the_cache_then_the_hub(cache: Path, hub: Path, tmp_path: Path, downloads: list) -> None:
    hub.mkdir(parents=True)
    (hub / "net-0a1b2c3d.pth").write_text("hub")
    assert weights_file(URL).read_text() == "hub"
    cache.mkdir()
    (cache / "net-0a1b2c3d.pth").write_text("cache")
    assert weights_file(URL).read_text() == "cache"
    given = tmp_path / "mine.pth"
    given.write_text("mine")
    assert weights_file(URL, path=str(given)).read_text() == "mine" and downloads == []
    with pytest.raises(FileNotFoundError, match=r"no weights at .*absent.pth: https://example.org/models"):
        weights_file(URL, path=tmp_path / "absent.pth")


@pytest.mark.parametrize("failure", [URLError("no network"), RuntimeError("invalid hash value"), TimeoutError("slow")])
def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(
    cache: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*args: object, **kwargs: object) -> None:
        raise failure

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(ConnectionError) as caught:
        weights_file(URL, what="Net", hint="or draw them")
    for part in ("Net's weights", URL, str(cache / "net-0a1b2c3d.pth"), str(failure), "or draw them"):
        assert part in str(caught.value)


class Twig(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.body = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 3).half())
        self.register_buffer("size", torch.tensor(224))
        self.turned = nn.Parameter(torch.arange(6.0).view(2, 3).T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body[0](self.norm(x)).relu() + self.turned.sum() + self.size


def archive_of(module: nn.Module, path: Path) -> Path:
    torch.jit.trace(module, torch.zeros(1, 3, 4, 4)).save(str(path))
    return path


def rewritten(source: Path, target: Path, records: dict[str, bytes]) -> Path:
    """The archive with some of its records replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, records.get(name.split("/", 1)[1], old.read(name)))
    return target


def test_an_archive_gives_what_its_state_dict_would(tmp_path: Path) -> None:
    twig = Twig().eval()
    nn.init.normal_(twig.norm.running_mean)
    found, expected = read_published(archive_of(twig, tmp_path / "twig.pt")), twig.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.float() if tensor.is_floating_point() else tensor), name
    assert found["body.2.weight"].dtype == torch.float32 and found["size"].dtype == torch.int64


def test_other_files_are_read_as_weights(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2).half()}, tmp_path / "w.pth")
    assert read_published(tmp_path / "w.pth")["w"].dtype == torch.float32
    with pytest.raises(FileNotFoundError, match="no weights at"):
        read_published(tmp_path / "absent.pt")


class Dangerous:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    torch.save({"w": Dangerous(evil)}, tmp_path / "evil.pth")
    twig = archive_of(Twig().eval(), tmp_path / "twig.pt")
    rewritten(twig, tmp_path / "evil.pt", {"data.pkl": pickle.dumps(Dangerous(evil), protocol=2)})
    for name in ("evil.pth", "evil.pt"):
        with pytest.raises(ValueError, match=f"{name} is damaged or holds more than tensors, and is not read"):
            read_published(tmp_path / name)
    assert not evil.exists()


@pytest.mark.parametrize(
    "records", [{"data.pkl": b""}, {"data.pkl": b"\x80\x02K\x01."}, {"data/0": b""}, {"data/0": b"12345"}]
)
def test_a_damaged_archive_is_refused(tmp_path: Path, records: dict[str, bytes]) -> None:
    twig = archive_of(Twig().eval(), tmp_path / "twig.pt")
    with pytest.raises(ValueError, match="bad.pt is damaged or holds more"):
        read_published(rewritten(twig, tmp_path / "bad.pt", records))


def test_an_archive_that_swells_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    twig = archive_of(Twig().eval(), tmp_path / "twig.pt")
    with zipfile.ZipFile(twig) as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(20_000_000) if name.endswith("/data/0") else old.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < 100_000
    with pytest.raises(ValueError, match="makes more bytes of tensors than it has"):
        read_published(tmp_path / "bomb.pt")


def test_a_server_that_does_not_answer_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit of its own, a connection that a firewall swallows takes minutes to fail."""
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url, began = f"http://127.0.0.1:{silent.getsockname()[1]}/weights.pth", time.monotonic()
        with pytest.raises(ConnectionError, match=r"could not be downloaded \(.*timed out"):
            weights_file(url)
    assert time.monotonic() - began < 10 and socket.getdefaulttimeout() is None
