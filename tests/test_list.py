"""What there is, as `lit-gans list` tells it."""

import inspect
import json
import subprocess
import sys

import pytest

from lit_gans import data, papers
from lit_gans.data import ImageData
from lit_gans.list import claim, list_, main
from lit_gans.runs.configs import shipped_configs

HEADER = """# A run
# on digits.
#
#   command    lit-gans fit --config a.yaml
#   measured   fid 1.5 after
#              2 kimg
# Prose that belongs to no field.
model:
  # not of the header
"""


def test_a_header_is_a_claim() -> None:
    wanted = {
        "about": "A run on digits.",
        "command": "lit-gans fit --config a.yaml",
        "measured": "fid 1.5 after 2 kimg",
    }
    assert claim(HEADER) == wanted


def test_all_that_can_be_trained_is_listed() -> None:
    found = list_()
    assert {row["name"] for row in found["papers"]} == set(papers.__all__)
    classes = [each for each in vars(data).values() if isinstance(each, type) and issubclass(each, ImageData)]
    whole = {each.__name__ for each in classes if not inspect.isabstract(each)}
    assert {row["name"] for row in found["data"]} == whole
    assert all(row["about"] for rows in found.values() for row in rows)
    assert {row["name"] for row in found["experiments"]} == set(shipped_configs())
    assert all({"command", "paper", "measured"} <= row.keys() for row in found["experiments"])


def test_the_command_shows_it(capsys: pytest.CaptureFixture) -> None:
    assert main(["experiments", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["experiments"]
    assert next(row for row in rows if row["name"] == "cgan/digits")["measured"].startswith("frechet_digits 0.53")
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("StyleGAN2", "StackedMNIST", "cgan/digits"))


def test_it_starts_without_torch() -> None:
    code = "import sys; from lit_gans.list import main; main([]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
