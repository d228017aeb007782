"""What goes to PyPI: it holds all that an installed lit_gans needs, and its page leads somewhere."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml

import lit_gans

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUP = runpy.run_path(str(ROOT / "setup.py"))
URL = "https://github.com/OWNER/lit_gans"
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # of keepachangelog.com


def test_every_package_is_listed() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {".".join(f.parent.relative_to(ROOT).parts) for f in (ROOT / "lit_gans").rglob("*.py")}
    assert found | {"lit_gans.experiments"} == listed


def test_constraints_pin_every_dependency() -> None:
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    wanted = PROJECT["project"]["dependencies"] + sum(PROJECT["project"]["optional-dependencies"].values(), [])
    names = {w.split(">")[0].split("[")[0].strip().lower().replace("_", "-") for w in wanted}
    assert names <= pinned, names - pinned


# ---- versions --------------------------------------------------------------------------------------------------------


def test_the_version_is_one() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2}|unreleased)$", changelog, re.M)
    assert re.findall(r"^## (?!\[)(.*)", changelog, re.M) in ([], ["Unreleased"])
    assert set(re.findall(r"^### (.*)", changelog, re.M)) <= SECTIONS
    versions = [tuple(map(int, version.split("."))) for version, _ in releases]
    assert versions == sorted(versions, reverse=True) and "unreleased" not in [date for _, date in releases[1:]]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert {PROJECT["project"]["version"], cited, lit_gans.__version__} == {releases[0][0]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["TAG=v9.9.9", f"URL={URL}"], "the tag is 'v9.9.9', and pyproject.toml has version"),
        ([f"TAG=v{lit_gans.__version__}", "URL="], "the README's links would lead nowhere on PyPI"),
        ([f"TAG=v{lit_gans.__version__}", f"URL={URL}"], "has no date for version"),
    ],
)
def test_a_release_that_is_not_ready_is_refused(given: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(f"## [{lit_gans.__version__}] - unreleased\n")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    made = subprocess.run(
        ["make", "-f", ROOT / "Makefile", "tagged", *given], cwd=tmp_path, capture_output=True, text=True
    )
    assert made.returncode != 0 and message in made.stdout
    (tmp_path / "CHANGELOG.md").write_text(f"## [{lit_gans.__version__}] - 2026-11-30\n")
    ready = ["make", "-f", ROOT / "Makefile", "tagged", f"TAG=v{lit_gans.__version__}", f"URL={URL}"]
    assert subprocess.run(ready, cwd=tmp_path, capture_output=True).returncode == 0


# ---- the page on PyPI ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](docs/b.md#c)", f"[a]({URL}/blob/v1/docs/b.md#c)"),
        ("[![a](b.png)](c.md)", f"[![a]({URL}/raw/v1/b.png)]({URL}/blob/v1/c.md)"),
        ('<img src="a/b.gif" width="3">', f'<img src="{URL}/raw/v1/a/b.gif" width="3">'),
        ("[a](https://b.c/d.png) [e](#f) [g](mailto:h)", "[a](https://b.c/d.png) [e](#f) [g](mailto:h)"),
    ],
)
def test_relative_links_become_absolute(text: str, shown: str) -> None:
    assert SETUP["absolute"](text, URL, "v1") == shown


def test_a_copy_without_an_address_keeps_its_links() -> None:
    given = SETUP["metadata"](ROOT, "")
    assert given["long_description"] == (ROOT / "README.md").read_text(encoding="utf-8") and "project_urls" not in given
    with pytest.raises(ValueError, match="LIT_GANS_URL is 'lit_gans': give the repository, as https://"):
        SETUP["metadata"](ROOT, "lit_gans")


# ---- the files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("experiments", "lit_gans", "tests"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("[!.]*"):
        if file.is_file():
            shutil.copy(file, folder / "source")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(folder / "source")]
    built = subprocess.run(build, capture_output=True, text=True, env=os.environ | {"LIT_GANS_URL": URL})
    assert built.returncode == 0, built.stderr[-2000:]
    return folder / "dist"


def read_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


@pytest.mark.slow
def test_pypi_accepts_it(dist: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()], capture_output=True, text=True
    )
    assert checked.returncode == 0 and checked.stdout.count("PASSED") == 2, checked.stdout
    told = read_metadata(next(dist.glob("*.whl")))
    assert (told["Name"], told["Version"], told["License-Expression"]) == ("lit-gans", lit_gans.__version__, "MIT")
    assert {line.split(",")[0] for line in told.get_all("Project-URL")} == {
        "Source",
        "Documentation",
        "Changelog",
        "Issues",
    }
    page = told.get_payload()
    assert not re.findall(r"\]\((?!https://|#)[^)]*\)", page)
    pictures = re.findall(rf"{URL}/raw/v{lit_gans.__version__}/([\w/.]+)", page)
    assert pictures and all((ROOT / picture).is_file() for picture in pictures)


@pytest.mark.slow
def test_the_sdist_has_what_is_read_beside_the_code(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "constraints.txt", "lit_gans/py.typed"} <= names
    assert not [name for name in names if name.startswith("tests/")]


@pytest.mark.slow
def test_wheel_runs_without_the_checkout(dist: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
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
