"""The same command, killed again and again, leaves what it leaves without a kill."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.launch import ROOT


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_command_that_is_killed_again_and_again(kills: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.resume.kills", str(tmp_path), "--kills", str(kills)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert f"\n{kills} kills, " in "\n" + result.stdout
