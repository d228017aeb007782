"""The workflows of GitHub and the Dockerfile: what they name is there. Neither can be run here."""

import fnmatch
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml

from lit_gans.cli import VERBS

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def jobs(path: Path) -> dict[str, dict]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_a_workflow_calls_what_there_is_and_may_do_no_more_than_it_needs(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in jobs(path).values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if "run" in step:
                assert re.match(r"make (\w+)", step["run"])[1] in TARGETS
            else:
                assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"])
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_only_what_publishes_may_publish() -> None:
    more = {
        f"{path.stem}.{name}": set(job["permissions"])
        for path in WORKFLOWS
        for name, job in jobs(path).items()
        if "permissions" in job
    }
    assert more == {"docs.deploy": {"pages", "id-token"}, "release.publish": {"id-token"}}
    assert not [path for path in WORKFLOWS if "secrets." in path.read_text(encoding="utf-8")]


def test_every_python_that_is_claimed_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    claimed = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert jobs(ROOT / ".github/workflows/tests.yml")["tests"]["strategy"]["matrix"]["python-version"] == claimed


@pytest.mark.slow
def test_a_linter_finds_nothing_in_the_workflows() -> None:
    linter = shutil.which("zizmor", path=sysconfig.get_path("scripts")) or "zizmor"
    found = subprocess.run([linter, "--offline", "--no-progress", str(ROOT)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


# ---- Dockerfile ------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """(instruction, what it is given), continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def given(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def copied() -> list[str]:
    return [source for rest in given("COPY") for source in rest.split()[:-1]]


def allowed() -> list[str]:
    """What .dockerignore lets in by name, and the patterns that it takes away again."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    return [line for line in lines if line and not line.startswith("#")]


def test_the_image_has_what_it_copies_and_starts_a_verb_without_root() -> None:
    assert [re.fullmatch(r"[\w/]+:[\w.-]*\d[\w.-]*", base) for base in given("FROM")] != [
        None
    ]  # a version, not "latest"
    assert sorted(copied()) == sorted(line[1:] for line in allowed() if line.startswith("!")) and allowed()[0] == "*"
    assert all((ROOT / source).exists() for source in copied())
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    ((program,), (verb, *_)) = (yaml.safe_load(given(name)[0]) for name in ("ENTRYPOINT", "CMD"))
    assert program in scripts and verb in VERBS
    assert int(given("USER")[-1]) > 0 and yaml.safe_load(given("VOLUME")[0]) == ["/workspace/runs", "/workspace/data"]
    installs = [rest for rest in given("RUN") if "pip install" in rest]
    assert all("$TORCH_INDEX" in rest and "--constraint /source/constraints.txt" in rest for rest in installs)


def test_the_page_on_installing_names_what_there_is() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"lit-gans\[(\w+)\]", page)) == set(project["optional-dependencies"])
    arguments = dict(rest.split("=", 1) for rest in given("ARG"))
    assert set(re.findall(r"--build-arg (\w+)=", page)) == set(arguments)
    assert f"--extra-index-url {arguments['TORCH_INDEX']} " in page
    assert set(re.findall(r":(/[\w/]+)\"", page)) == set(yaml.safe_load(given("VOLUME")[0]))


@pytest.mark.slow
def test_what_is_copied_into_the_image_can_be_installed(tmp_path: Path) -> None:
    hidden = [line.removeprefix("**/") for line in allowed() if line.startswith("**/")]
    for source in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns(*hidden))
        else:
            shutil.copy(ROOT / source, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if any(fnmatch.fnmatch(path.name, name) for name in hidden)]
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "out", "."]
    built = subprocess.run(wheel, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0 and list((tmp_path / "out").glob("lit_gans-*.whl")), built.stderr[-2000:]
