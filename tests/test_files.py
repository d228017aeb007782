"""A file is whole, or as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_gans.base.files import replacing


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
