"""A run folder belongs to one start, from its first moment, and nothing in it leads elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_gans.base.checkpoints import checkpoints
from lit_gans.runs import folder as module
from lit_gans.runs.folder import RunFolder, check_output, new_run_folder
from lit_gans.runs.loggers import append_row, run_id
from lit_gans.runs.records import append_line, read_side_file
from lit_gans.runs.timelines import cut_table, set_apart
from lit_gans.training.place import place_of

HOLD = """
import sys
from pathlib import Path
from lit_gans.runs.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("there", ["nothing in it", "metrics.jsonl", "checkpoints/best.ckpt", "a link"])
def test_a_folder_that_is_there_is_not_taken(there: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    if there == "a link":
        run.symlink_to(tmp_path / "nowhere")
    else:
        (run / there).parent.mkdir(parents=True)
        (run / there).touch()
    folders = [RunFolder.new(run) for _ in range(2)]
    assert [f.path.name for f in folders] == ["run-2", "run-3"]
    assert "run is there already: this start writes to" in capsys.readouterr().err
    assert new_run_folder(run).name == "run-4"


def test_an_empty_folder_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert [RunFolder.new(tmp_path / "run").path.name for _ in range(3)] == ["run", "run-2", "run-3"]


def test_a_name_of_dots_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert RunFolder.new(Path(".")).path == tmp_path / "here-2"


def test_a_folder_is_held_until_its_process_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"another process .*process {holder.pid}.* writes to .*--run_folder"):
        RunFolder(tmp_path)
    holder.kill()
    holder.wait()
    RunFolder(tmp_path).leave(trained=True)


def test_a_new_folder_in_which_nothing_was_trained_goes(tmp_path: Path) -> None:
    for name, trained, extra, stays in (("a", False, [], False), ("b", True, [], True), ("c", False, ["note"], True)):
        folder = RunFolder.new(tmp_path / name)
        for file in ("run.json", "config.yaml", *extra):
            (folder.path / file).touch()
        folder.leave(trained=trained)
        assert folder.path.exists() == stays


def test_what_the_options_mean(tmp_path: Path) -> None:
    run, other = tmp_path / "x", tmp_path / "x-2"
    assert place_of(str(run), None, default=run).is_new and place_of(str(run), "auto", default=run) == (
        run,
        None,
        False,
    )
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        place_of(str(run), "last", default=run)
    for folder, name in ((run, "best.ckpt"), (other, "kimg00000.016.ckpt")):
        checkpoint(folder / "checkpoints" / name)
    for option in ("last", "auto"):
        assert place_of(str(run), option, default=run) == (run, run / "checkpoints" / "best.ckpt", False)
    found = other / "checkpoints" / "kimg00000.016.ckpt"
    assert place_of(None, "last", default=run) == (other, found, False)
    assert (
        place_of(None, str(found), default=run)
        == place_of(str(other), str(found), default=run)
        == (other, found, False)
    )
    assert place_of(str(run), str(found), default=run) == (run, found, True)


def checkpoint(path: Path, images_seen: int = 0) -> Path:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"lit_gans": {"class_path": "x.Y", "images_seen": images_seen, "batches_seen": 1}}, path)
    return path


# ---- side files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [b"", b"{", b"\x00" * 40, b"[1]", b'{"starts": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_side_file_that_cannot_be_read_is_put_aside(left: bytes, tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "run.json").write_bytes(left)
        with pytest.warns(UserWarning, match=r"run.json cannot be read .*the run goes on with a new one"):
            assert read_side_file(tmp_path / "run.json", lambda text: list(json.loads(text)["starts"])) is None
    assert [(tmp_path / f"run.json.unreadable-{i}").read_bytes() for i in (1, 2)] == [left, left]


@pytest.mark.parametrize("left", [b"", b"  \n", b"\x00" * 16, b"a/b", b"\xff"])
def test_an_unreadable_identity_is_made_anew(left: bytes, tmp_path: Path) -> None:
    (tmp_path / "wandb_id").write_bytes(left)
    with pytest.warns(UserWarning, match="wandb_id cannot be read"):
        new = run_id(tmp_path)
    assert run_id(tmp_path) == new and len(new) == 16


# ---- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "samples", "run.json", ".lock", "csv/metrics.csv"])
def test_a_link_that_leads_out_of_a_run_is_refused(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="leads by a link to .*outside, out of .*remove the link"):
        RunFolder(run)
    assert not (tmp_path / "outside").exists()


def test_links_within_a_run_and_to_it_are_followed(tmp_path: Path) -> None:
    (tmp_path / "run" / "samples").mkdir(parents=True)
    (tmp_path / "run" / "pictures").symlink_to("samples")
    (tmp_path / "mine").symlink_to(tmp_path / "run")
    RunFolder(tmp_path / "mine").leave(trained=True)
    check_output(tmp_path / "mine" / "out")


def test_outputs_in_a_run_do_not_leave_it(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads by a link"):
        check_output(tmp_path / "run" / "out" / "pictures")
    (tmp_path / "run" / "evaluations.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="leads by a link"):
        append_line(tmp_path / "run" / "evaluations.jsonl", {})
    assert not (tmp_path / "outside").exists()


# ---- timelines -------------------------------------------------------------------------------------------------------


def test_what_is_later_is_set_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for kimg in (16, 32, 48):
        checkpoint(tmp_path / "checkpoints" / f"kimg00000.{kimg:03}.ckpt", kimg)
        (tmp_path / "samples").mkdir(exist_ok=True)
        for name in ("fakes", "table"):
            (tmp_path / "samples" / f"{name}-00000.{kimg:03}.png").touch()
        append_line(tmp_path / "metrics.jsonl", {"kimg": kimg / 1000})
        append_row(tmp_path / "csv" / "metrics.csv", {"kimg": kimg / 1000, "step": kimg})
    checkpoint(tmp_path / "checkpoints" / "best.ckpt", 48)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'5\n{"loss": 1}\n\x00\x00\x00')
    folder = set_apart(tmp_path, images_seen=16)
    assert str(folder) in capsys.readouterr().err
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")} == {
        "checkpoints/kimg00000.032.ckpt", "checkpoints/kimg00000.048.ckpt", "checkpoints/best.ckpt", "metrics.jsonl",
        "samples/fakes-00000.032.png", "samples/fakes-00000.048.png", "samples/table-00000.032.png",
        "samples/table-00000.048.png", "metrics.csv",
    }  # fmt: skip
    assert [p.name for p in checkpoints(tmp_path)] == ["kimg00000.016.ckpt"]
    assert (tmp_path / "metrics.jsonl").read_text() == '{"kimg": 0.016}\n'
    assert (tmp_path / "csv" / "metrics.csv").read_text().split() == ["kimg,step", "0.016,16"]
    assert (folder / "metrics.csv").read_text().split() == ["kimg,step", "0.032,32", "0.048,48"]
    assert set_apart(tmp_path, images_seen=16) is None
    append_line(tmp_path / "metrics.jsonl", {"kimg": 0.1})
    assert set_apart(tmp_path, images_seen=16).name == f"{folder.name}-2"


def test_a_table_gains_columns_and_loses_no_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    append_row(path, {"kimg": 0.016, "b": 1})
    append_row(path, {"kimg": 0.032, "a": 2})
    append_row(path, {"kimg": 0.048, "b": 3})
    assert path.read_text().split() == ["a,b,kimg", ",1,0.016", "2,,0.032", ",3,0.048"]
    with path.open("a") as file:
        file.write("7,8,0.0")  # a kill cut it short
    cut_table(path, images_seen=48)
    assert path.read_text().split()[-1] == ",3,0.048"
    cut_table(path, images_seen=0)
    assert path.read_text() == ""


def test_an_unfinished_file_goes(tmp_path: Path) -> None:
    (tmp_path / ".run.json.0123456789ab.4.tmp").touch()
    RunFolder(tmp_path)
    assert os.listdir(tmp_path) == [".lock"]
