"""Command lines are made of functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from lit_gans.base.command import run_verb


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
    expected = "lit-gans paint: there is no run: give another\nlit-gans paint: broken off\n"
    assert capsys.readouterr().err == expected
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
