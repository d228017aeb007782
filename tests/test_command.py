"""Command lines are made of functions."""

import errno
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

import pytest

from lit_gans.base.command import run_verb, told
from lit_gans.base.files import replacing, user_path
from lit_gans.base.processes import first_on_rank_zero


def paint(
    run: str | Path,
    other: str | None = None,
    *,
    output: str | Path,
    text: str | Sequence[str] | None = None,
    psi: float | Sequence[float] = 0.5,
    metrics: Sequence[str] | None = None,
    mix: tuple[str, str] | None = None,
    format: Literal["gif", "mp4"] | None = None,
    channels: Literal[1, 3] | None = None,
    batch_size: int = 64,
    raw: bool = False,
    seed: int = 0,
    brush: "object" = None,
) -> dict:
    """Paints a run.

    Args:
        run: of which 100% is painted.
        psi: how
            wildly.
        brush: of Python alone.
    """
    if run == "missing":
        raise FileNotFoundError("there is no run: give another")
    if run == "long":
        raise KeyboardInterrupt
    return dict(locals())


def shown(result: dict, *, only: str | None = None) -> int | None:
    """Prints.

    Args:
        only: one argument.
    """
    given = {key: value for key, value in result.items() if value not in (None, 0, 64, 0.5)}
    print(given[only] if only else given)
    return 1 if result["run"] == "half" else None


def command(*argv: str) -> int:
    return run_verb(paint, argv, show=shown, brush="soft")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("r s", {"other": "s"}),
        ("--psi 0.5 .7 -1 r", {"psi": [0.5, 0.7, -1.0]}),
        ("--psi=2 r", {"psi": [2.0]}),
        ("--text A r --text B", {"text": ["A", "B"]}),
        ("r --metrics a b --metrics c", {"metrics": ["a", "b", "c"]}),
        ("--mix 0-4 10-14 r", {"mix": ["0-4", "10-14"]}),
        ("r --format gif --channels 3 --raw", {"format": "gif", "channels": 3, "raw": True}),
        ("r --batch-size 3", {"batch_size": 3}),
        ("r --batch_size=3", {"batch_size": 3}),
    ],
)
def test_types_say_how_words_are_read(argv: str, expected: dict, capsys: pytest.CaptureFixture) -> None:
    assert command(*argv.split(), "--output", "o") == 0
    assert eval(capsys.readouterr().out) == {"run": "r", "output": "o", "brush": "soft", **expected}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("r", "the following arguments are required: --output"),
        ("r --output o --format x", "argument --format: invalid choice: 'x' (choose from 'gif', 'mp4')"),
        ("r --output o --batch_size x", "argument --batch_size: invalid int value: 'x'"),
        ("r --output o --psi nan", "argument --psi: nan is no finite number"),
        ("r --output o --psi=-inf", "argument --psi: -inf is no finite number"),
        ("r --output o --psi x", "argument --psi: invalid finite value: 'x'"),
        ("r --output o --brush hard", "unrecognized arguments: --brush hard"),
    ],
)
def test_words_that_cannot_be_read(argv: str, message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit:
        command(*argv.split())
    assert exit.value.code == 2
    assert capsys.readouterr().err == f"lit-gans paint: {message}; see lit-gans paint --help\n"


def test_the_exit_status_tells_how_it_went(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = ("--output", "o", "--only", "output")
    assert command("r", *rest) == 0 and command("half", *rest) == 1
    assert capsys.readouterr().out == "o\no\n"
    assert command("missing", *rest) == 2 and command("long", *rest) == 130
    first, second = capsys.readouterr().err.splitlines()  # the verb is this file's: its place is told
    assert re.fullmatch(rf"lit-gans paint: there is no run: give another \({re.escape(__file__)}, line \d+; .+", first)
    assert second == "lit-gans paint: broken off"
    monkeypatch.setenv("LIT_GANS_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        command("missing", *rest)


def test_help_is_the_docstring(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command("--help")
    told = " ".join(capsys.readouterr().out.split())
    wanted = ("Paints a run.", "which 100% is painted.", "PSI how wildly. (default: 0.5)", "SEED (default: 0)", "ONLY")
    for part in wanted:
        assert part in told
    assert "brush" not in told


def test_a_full_disk_is_told_with_its_path_and_a_way_out() -> None:
    text = told(OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.jsonl"))
    assert text.startswith("the disk is full while runs/x/metrics.jsonl was written (No space left on device): free")


def test_what_a_users_file_raises_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("import torch\n\n\ndef wrong(path):\n    raise ValueError('too wide')\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = import_module("mine")
    with pytest.raises(ValueError) as ours:
        replaced(tmp_path / "a", mine.wrong)
    assert told(ours.value) == (
        f"too wide ({tmp_path / 'mine.py'}, line 5; LIT_GANS_TRACEBACK=1 shows how it came there)"
    )
    with pytest.raises(ValueError) as others:
        user_path("$NO_SUCH_VARIABLE/x")
    assert told(others.value) == str(others.value)


def replaced(path: Path, write: Callable[[Path], None]) -> None:
    """Calls what a user wrote from inside the package."""
    with replacing(path) as unfinished:
        first_on_rank_zero(lambda: write(unfinished))
