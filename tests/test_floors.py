"""The lowest versions that pyproject.toml allows, installed and at work; and what holds on every platform."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from lit_gans.data import packing

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEXT = {"open", "read_text", "write_text", "TextIOWrapper", "fdopen"}
NOT_TEXT = {"Image", "os", "lmdb", "tarfile", "source"}  # whose `open` gives bytes or takes no encoding


def lowest(requirement: str) -> str:
    """`name[extra]>=1.2,!=1.3` -> `name[extra]==1.2`."""
    return re.fullmatch(r"([\w\-\[\]]+)>=([\w.]+).*", requirement).expand(r"\1==\2")


def test_every_dependency_has_a_floor() -> None:
    assert [lowest(each).split("==")[0] for each in PROJECT["dependencies"]]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_lowest_versions_work(tmp_path: Path) -> None:
    """About 6 GB and ten minutes: the floors of all direct dependencies, torch among them, and what they ask for."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--no-cache-dir", "--quiet", "--disable-pip-version-check"]
    reachable = subprocess.run([*pip, "--no-deps", "--dry-run", "jinja2"], capture_output=True, timeout=120)
    if reachable.returncode:
        pytest.skip("no package registry is reached from here: the lowest versions cannot be installed")
    installed = subprocess.run([*pip, *map(lowest, PROJECT["dependencies"])], capture_output=True, encoding="utf-8")
    assert installed.returncode == 0, installed.stderr[-2000:]
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    fit = ["--config", "experiments/cgan/digits.yaml", "--model.init_args.total_kimg=0.256"]
    fit += ["--evaluate.every_kimg=0", "--run_folder", run]  # the logger is that of the default: wandb, offline
    measured = ["--num_images=50", "--extractor=digits", "--metrics", "frechet", "kid", "precision", "recall", "is"]
    for verb, *argv in (["fit", *fit], ["sample", run, "--output", out, "--seeds=0-9"], ["evaluate", run, *measured]):
        work = subprocess.run(
            [str(python), "-m", f"lit_gans.{verb}", *argv], cwd=tmp_path, capture_output=True, encoding="utf-8",
            env=os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}, timeout=600,
        )  # fmt: skip
        assert work.returncode == 0, f"{verb}: {work.stderr[-3000:]}"
    assert len(list((tmp_path / "out").glob("*.png"))) == 10


# ---- platforms -------------------------------------------------------------------------------------------------------


def test_text_files_name_their_encoding() -> None:
    """Windows reads and writes text in its own code page unless told."""
    missing = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for folder in ("lit_gans", "experiments")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and _is_text(call)
    ]
    assert not missing, f"encoding= is missing: {missing}"


def _is_text(call: ast.Call) -> bool:
    """Whether it opens a text file without naming the encoding, as far as the call tells."""
    function, keywords = call.func, {keyword.arg for keyword in call.keywords}
    if keywords & {"text", "universal_newlines"}:
        return "encoding" not in keywords
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name not in TEXT or "encoding" in keywords:
        return False
    if isinstance(function, ast.Name):
        return name == "open" and not _binary(call.args[1:])
    owner = ast.unparse(function.value)
    if name == "open":  # a source's `open(name)` gives bytes; a path's has the mode first
        return "path" in owner.split(".")[-1] + "path" * (owner == "unfinished") and not _binary(call.args)
    return True


def _binary(mode: list[ast.expr]) -> bool:
    return bool(mode) and isinstance(mode[0], ast.Constant) and "b" in str(mode[0].value)


def test_looking_for_a_process_does_not_end_it_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(number: int, signal: int) -> None:
        raise AssertionError("os.kill ends the process on Windows, whatever the signal")

    with monkeypatch.context() as patch:
        patch.setattr(packing, "os", type("os", (), {"name": "nt", "kill": staticmethod(kill)}))
        assert packing._is_running("1234")
    assert packing._is_running(str(os.getpid())) and not packing._is_running(str(2**22 + 1))


@pytest.mark.slow
def test_what_windows_lacks_is_not_needed_to_start() -> None:
    """Neither locks of files nor the sizes of processes, which only POSIX has."""
    code = """
import sys
from pathlib import Path
import torch, lightning.pytorch
for name in ("fcntl", "resource"):
    sys.modules[name] = None
sys.platform = "win32"
from lit_gans.callbacks.throughput import peak_memory_mib
from lit_gans.runs.folder import _lock
assert _lock(Path("nowhere")) is None and str(peak_memory_mib(torch.device("cpu"))) == "nan"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
