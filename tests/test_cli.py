"""The command line itself: fast, and helpful about a typo."""

import re
import subprocess
import sys
import time

import pytest

from lit_gans import cli


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in cli.VERBS)


def test_typo_names_the_nearest_verb(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["smaple"]) == 2
    assert "did you mean 'sample'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main([verb, "--help"])
    assert exit.value.code == 0 and "usage" in capsys.readouterr().out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_imports_nothing_heavy(verb: str) -> None:
    code = f"import sys, lit_gans.cli\ntry: lit_gans.cli.main(['{verb}', '--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lit-gans ", list(cli.VERBS)),
        ("lit-gans pr", ["project", "prepare"]),
        ("lit-gans sample run --se", ["--seeds"]),
        ("lit-gans sample run --format ", ["gif", "mp4"]),
        ("lit-gans fit --run", ["--run_folder"]),
        ("lit-gans nothing --s", []),
        ("lit-gans sample photos/", []),  # left to the shell, which knows the files
    ],
)
def test_the_shell_is_told_what_may_come_next(
    line: str, expected: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", line + " and more")
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert cli.main(["--complete", "lit-gans", "", ""]) == 0
    assert capsys.readouterr().out.split() == expected


def test_help_of_fit_is_a_screenful_and_at_once(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", "--help"])
    told = capsys.readouterr().out
    assert len(told.splitlines()) < 40 and "--help=all" in told
    with pytest.raises(SystemExit) as exit:
        cli.main(["fit", "--help=health"])
    group = capsys.readouterr().out
    assert exit.value.code == 0 and "--health.warmup_kimg" in group and "--ema" not in group
    with pytest.raises(SystemExit) as exit:
        cli.main(["fit", "--help=helth"])
    assert exit.value.code == 2 and "no options are of 'helth': --help=all, or of adaptive" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["fit", "--help=all"])
    known = set(re.findall(r"--[a-z_]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z_]+", told)) - {"--help"} <= known


@pytest.mark.parametrize("command", [
    ["-c", "import lit_gans"], ["-m", "lit_gans", "--help"], ["-m", "lit_gans", "fit", "--help"],
])  # fmt: skip
def test_import_and_help_are_fast(command: list[str]) -> None:
    """The best of three: this is about what is imported, not about a busy machine."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0
    listing = "import sys, runpy; sys.argv = ['lit-gans', '--help']\nimport lit_gans.cli\nlit_gans.cli.main()\n"
    listing += "assert not {'torch', 'numpy', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True)
