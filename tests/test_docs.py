"""The site of the documentation: nothing is left out of it, and it is built without a warning."""

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))


def leaves(nav: list) -> list[str]:
    return [leaf for entry in nav for to in entry.values() for leaf in (leaves(to) if isinstance(to, list) else [to])]


def test_every_page_is_in_the_navigation() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(leaves(nav)) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES)


@pytest.mark.parametrize("page", REFERENCE, ids=[page.stem for page in REFERENCE])
def test_the_reference_names_all_that_is_public(page: Path) -> None:
    module = importlib.import_module(f"lit_gans.{page.stem}")
    named = re.findall(rf"^::: lit_gans\.{page.stem}\.(\w+)$", page.read_text(), re.M)
    assert sorted(named) == sorted(module.__all__)


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    for name in ("docs", "lit_gans"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0 and built.stderr.split() == ["No", "issues", "found"], built.stdout + built.stderr
    papers = (tmp_path / "site" / "reference" / "papers" / "index.html").read_text()
    assert 'id="lit_gans.papers.StyleGAN2"' in papers and "features_fingerprint" in papers
    assert "<code>lr_g, lr_d" not in papers  # a row for each
    (tmp_path / "docs" / "index.md").write_text("[nowhere](nowhere.md)")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0
