"""Data of a server: the batches of the same files on the disk, whatever breaks off on the way."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import yaml

from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.data import Images, Shards, remote
from lit_gans.data import packing as verb
from lit_gans.data.remote import fetch, kept_folder
from lit_gans.data.shard_files import shard_name
from lit_gans.data.shards import RemoteShardSet
from lit_gans.data.stream import windowed
from lit_gans.prepare import prepare
from tests.cases import largest_difference
from tests.data.test_shards import SIZE, data, first, root, same
from tests.distributed.launch import ROOT
from tests.resume.kills import CONFIG, argv

__all__ = ["root"]
SHARD_BYTES = 4 * 3 * SIZE * SIZE


class Server:
    """Serves a folder; `asked` are the paths asked for, `broken` how many transfers are cut in the middle."""

    def __init__(self, folder: Path) -> None:
        server, self.asked, self.broken = self, list[str](), 0

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path.strip("/"))
                if server.broken:
                    server.broken -= 1
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b"half")
                    self.close_connection = True
                else:
                    super().do_GET()

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(verb, "SHARD_IMAGES", 4)
    monkeypatch.setattr(remote, "WAITS_S", (0.0, 0.0))
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    return prepare(root, tmp_path / "out", resolution=SIZE, workers=1)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    yield server
    server.end()


def kept(server: Server) -> list[Path]:
    return sorted(kept_folder(server.url).glob("*/shard-*.bin"))


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_those_of_the_same_folder(
    folder: Path, server: Server, window: int | None, num_workers: int
) -> None:
    options = {"mirror": True, "seed": 3, "num_workers": num_workers, "window_shards": window}
    here, there = data(folder, **options), Shards(server.url, batch_size=6, resolution=SIZE, **options)
    assert here.fingerprint() == there.fingerprint() and there.class_names == ("x", "y", "z")
    assert all(map(same, first(here.train_dataloader(), 9), first(there.train_dataloader(), 9)))
    fetched = [path for path in server.asked if path.startswith("shard-")]
    assert sorted(fetched) == [shard_name(n) for n in range(6)]  # each once, by whichever process
    assert same(next(here.batches("train", 23)), next(there.batches("train", 23)))


def test_it_goes_on_where_it_stopped_by_what_is_kept(folder: Path, server: Server) -> None:
    options = {"batch_size": 6, "resolution": SIZE, "window_shards": 2}
    unbroken = first(Shards(server.url, **options).stream(), 9)
    server.end()
    with pytest.warns(UserWarning, match="cannot be fetched .* What was fetched from there before is used"):
        resumed = first(Shards(server.url, **options).stream(start=24), 5)
    assert all(map(same, unbroken[4:], resumed))
    server.__init__(folder)  # for the fixture to end


def test_windows_need_few_shards_at_a_time() -> None:
    groups = np.repeat(np.arange(10), [3, 5, 4, 4, 4, 1, 7, 4, 4, 4])
    orders = [windowed(seed, epoch, groups, 3) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    for order in orders:
        seen = list(dict.fromkeys(groups[order].tolist()))
        for start in (0, 3, 6, 9):
            part = [g for g in groups[order].tolist() if g in seen[start : start + 3]]
            assert part != sorted(part, key=seen.index) or start == 9  # mixed, but for the last, which is alone
            place = [i for i, g in enumerate(groups[order].tolist()) if g in seen[start : start + 3]]
            assert place == list(range(place[0], place[0] + len(place)))  # and not begun before those before it ended
    everything = windowed(0, 0, groups, 10)
    assert not np.array_equal(everything, np.sort(everything))


def test_shards_are_fetched_when_they_are_needed_and_a_window_ahead(server: Server) -> None:
    shards = Shards(server.url, batch_size=4, resolution=SIZE, window_shards=1)
    images = shards.dataset()
    assert shards.describe().what == f"Shards, {server.url}"
    assert f"6 shards, fetched when needed; 0 of them are in {kept_folder(server.url)}" in shards.describe().layout
    assert not kept(server) and "shard" not in "".join(server.asked)
    order = images.order(0, 0)
    images.images(torch.from_numpy(order[:4]))
    for thread in threading.enumerate():
        if thread.daemon and thread is not server.thread and thread is not threading.current_thread():
            thread.join(5) if thread._target == images._try else None
    assert [path.name for path in kept(server)] == sorted(shard_name(number) for number in images._coming[:2])


def test_no_more_is_kept_than_told(folder: Path, server: Server) -> None:
    least = 3 * SHARD_BYTES / 1e9
    options = {"batch_size": 4, "resolution": SIZE, "window_shards": 1}
    bounded, most = Shards(server.url, keep_gb=least, **options).stream(), 0
    for k, expected in enumerate(first(data(folder, **options).stream(), 30)):  # five epochs
        assert same(bounded.batch(k), expected)
        most = max(most, len(kept(server)))
    assert 2 <= most <= 4  # one may be on its way
    assert len([path for path in server.asked if path.startswith("shard-")]) > 6  # what was let go is fetched again


def test_a_shard_that_another_process_let_go_is_fetched_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Shards(server.url, batch_size=4, resolution=SIZE).dataset()
    expected = images.images(torch.tensor([0, 1]))
    again, fetched = Shards(server.url, batch_size=4, resolution=SIZE).dataset(), RemoteShardSet._fetch
    gone = [True]

    def fetch_and_lose(self: RemoteShardSet, number: int) -> None:
        fetched(self, number)
        if gone.pop() if gone else False:
            (self.folder / shard_name(number)).unlink()

    monkeypatch.setattr(RemoteShardSet, "_fetch", fetch_and_lose)
    assert torch.equal(again.images(torch.tensor([0, 1])), expected)


def test_what_was_used_longest_ago_goes_first(server: Server) -> None:
    options = {"batch_size": 4, "resolution": SIZE, "window_shards": 1, "keep_gb": 3 * SHARD_BYTES / 1e9}
    for picture in (0, 4, 8):
        Shards(server.url, **options).dataset().images(torch.tensor([picture]))
    Shards(server.url, **options).dataset().images(torch.tensor([0]))  # used again, though fetched first
    Shards(server.url, **options).dataset().images(torch.tensor([12]))
    assert [path.name for path in kept(server)] == [shard_name(number) for number in (0, 2, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_gb": 1e-7}, "keep_gb 1e-07 is less than the .* GB of http.*every batch takes from all shards: set"),
        ({"keep_gb": 1e-7, "window_shards": 2}, "less than two windows of 2 shards and one shard: 1.5e-06 GB are"),
        ({"keep_gb": 0.0}, "keep_gb is 0.0 for http.*: it is more than 0, and of a URL alone"),
        ({"window_shards": 0}, "window_shards is 0; it must be a whole number of 1 or more"),
    ],
)
def test_bounds_that_cannot_be_kept(server: Server, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shards(server.url, batch_size=4, resolution=SIZE, **options).dataset()


def test_of_a_folder_nothing_is_let_go(folder: Path) -> None:
    with pytest.raises(ValueError, match="keep_gb is 1 for .*out: it is more than 0, and of a URL alone"):
        data(folder, keep_gb=1)


def test_a_transfer_that_breaks_off_is_tried_again(server: Server) -> None:
    images = Shards(server.url, batch_size=4, resolution=SIZE).dataset()
    server.broken = 2
    images.images(torch.tensor([0]))
    assert server.asked.count(shard_name(0)) == 3 and len(kept(server)) == 1
    server.broken = 3
    with pytest.raises(ConnectionError, match=rf"{shard_name(1)} cannot be fetched \(.*\): is it reachable"):
        images.images(torch.tensor([4]))
    assert len(kept(server)) == 1 and not list(kept_folder(server.url).glob("*/.*.tmp"))


def test_what_is_damaged_is_not_kept(folder: Path, server: Server) -> None:
    images = Shards(server.url, batch_size=4, resolution=SIZE).dataset()
    (folder / shard_name(0)).write_bytes(bytes(SHARD_BYTES))
    with pytest.raises(ValueError, match=f"{shard_name(0)} is damaged: it has not the SHA-256 that its index says"):
        images.images(torch.tensor([0]))
    assert not kept(server)


def test_another_version_of_the_data_is_not_mixed_with_the_first(root: Path, folder: Path, server: Server) -> None:
    options = {"batch_size": 6, "resolution": SIZE}
    first(Shards(server.url, **options).stream(), 4)
    for file in (*folder.glob("*"), root / "x" / "00.png"):
        file.unlink()
    prepare(root, folder, resolution=SIZE, workers=1)
    new = first(Shards(server.url, **options).stream(), 4)
    assert all(map(same, first(data(folder).stream(), 4), new))


def test_what_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{server.url}/none/index.json: no such file can be read there"):
        Shards(f"{server.url}/none", batch_size=4, resolution=SIZE).dataset()
    with pytest.raises(ValueError, match="gopher://host/index.json: Protocol not known: gopher"):
        Shards("gopher://host", batch_size=4, resolution=SIZE).dataset()


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(ValueError, match="s3://bucket/x: Install s3fs to access S3: `pip install` the package"):
        fetch("s3://bucket/x", tmp_path / "x")


def test_a_zip_is_fetched_once_and_again_when_it_changes(root: Path, folder: Path, server: Server) -> None:
    def pack(paths: list[Path]) -> None:
        with ZipFile(folder / "photos.zip", "w") as file:
            for path in paths:
                file.write(path, path.relative_to(root))

    pictures = sorted(root.glob("*/*.png"))
    pack(pictures)
    options = {"batch_size": 6, "resolution": SIZE, "seed": 2}
    here = first(Images(str(root), **options).stream(), 5)
    for _ in range(2):
        assert all(map(same, here, first(Images(f"{server.url}/photos.zip", **options).stream(), 5)))
    assert Images(f"{server.url}/photos.zip", **options).glance() == (len(pictures), 7)
    assert server.asked.count("photos.zip") == 1
    pack(pictures[:-1])
    assert len(Images(f"{server.url}/photos.zip", **options).dataset()) == len(pictures) - 1
    server.end()
    with pytest.warns(UserWarning, match="photos.zip cannot be reached .* What was fetched from there before is used"):
        assert len(Images(f"{server.url}/photos.zip", **options).dataset()) == len(pictures) - 1
    server.__init__(folder)  # for the fixture to end


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_exactly(folder: Path, server: Server, tmp_path: Path) -> None:
    options = {"path": server.url, "resolution": 8, "batch_size": 16, "window_shards": 2}
    model = {**CONFIG["model"], "init_args": {**CONFIG["model"]["init_args"], "channels": 3}}
    data = {"class_path": "lit_gans.data.Shards", "init_args": options}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "model": model, "data": data}))

    def started(run: str) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"{run}.log").open("ab")
        command = [sys.executable, "-m", "lit_gans.fit", *argv(config, tmp_path / run)]
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    unbroken, killed = started("unbroken"), started("killed")
    while not checkpoints(tmp_path / "killed"):
        assert killed.poll() is None, (tmp_path / "killed.log").read_text()[-3000:]
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    for shard in kept(server)[::2]:
        shard.unlink()
    assert unbroken.wait(600) == started("killed").wait(600) == 0, (tmp_path / "killed.log").read_text()[-3000:]
    one, other = (read_checkpoint(checkpoints(tmp_path / run)[-1]) for run in ("unbroken", "killed"))
    assert largest_difference(one["state_dict"], other["state_dict"]) == 0
