"""The wheel holds everything that an installed lit_gans needs."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(f.parent.relative_to(ROOT).parts) for f in (ROOT / "lit_gans").rglob("*.py")}
    assert found | {"lit_gans.experiments"} == listed


def test_constraints_pin_every_dependency() -> None:
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {w.split(">")[0].split("[")[0].strip() for w in wanted}
    assert names <= pinned, names - pinned


@pytest.mark.slow
def test_wheel_runs_without_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, cwd=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    argv = ["fit", "--config", "experiments/cgan/digits.yaml", "--model.init_args.total_kimg=0.064", "--logger=none"]
    argv += ["--evaluate.every_kimg=0"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    code = "import sys, lit_gans.cli; print(lit_gans.__file__); sys.exit(lit_gans.cli.main(sys.argv[1:]))"
    for command in (argv, ["new", "own_gan"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *command], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-2000:]
        assert str(tmp_path / "installed") in result.stdout
    assert (tmp_path / "own_gan" / "own_gan.yaml").is_file()
    assert (tmp_path / "runs" / "cgan-digits" / "samples" / "latest.png").is_file()
    example = tmp_path / "installed" / "lit_gans" / "experiments" / "vqgan_tokenizer"
    assert {"vqgan_tokenizer.py", "digits.yaml"} <= {path.name for path in example.iterdir()}
