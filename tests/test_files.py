"""A file is whole, or as it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lit_gans.base.files import lasting, replacing, user_path


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    with replacing(path) as unfinished:
        unfinished.write_text("old")
    with replacing(path) as unfinished:
        unfinished.write_text("ne")
        assert path.read_text() == "old"
    assert path.read_text() == "ne"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_file_as_it_was_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), replacing(path) as unfinished:
        unfinished.write_text("n")
        raise OSError("the disk is full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_share_a_name(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_what_lasts_is_flushed_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, rename, flush = [], os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), rename(a, b)))

    def noted(file: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        flush(file)

    monkeypatch.setattr(os, "fsync", noted)
    with lasting(tmp_path / "file.txt") as unfinished:
        unfinished.write_text("whole")
    assert done == ["file", "rename", "folder"] and (tmp_path / "file.txt").read_text() == "whole"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("~/x", "home/x"), ("$PLACE/x", "place/x"), ("${PLACE}/x", "place/x"), ("a~b/~", "a~b/~"), ("a$5", "a$5")],
)
def test_paths_as_users_write_them(written: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "home")
    monkeypatch.setenv("PLACE", "place")
    assert user_path(written) == Path(meant)


def test_a_path_that_is_there_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$RECYCLE").mkdir()
    assert user_path("$RECYCLE") == Path("$RECYCLE")


@pytest.mark.parametrize(
    ("written", "message"),
    [("$NO_SUCH_VARIABLE/x", "no variable NO_SUCH_VARIABLE"), ("${NO_SUCH}/x", "no variable NO_SUCH"),
     ("~no-such-user-here/x", "no home folder")],
)  # fmt: skip
def test_paths_that_lead_nowhere(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        user_path(written)
