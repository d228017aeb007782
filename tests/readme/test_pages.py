"""The pages of docs/ and docs/howto/: what is in them runs as it stands, in their order."""

import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from lit_gans.base.command import parsed, show_result
from lit_gans.base.images import save_png
from lit_gans.new import TEMPLATE
from tests.readme import short
from tests.readme.test_readme import ROOT, commands, materials

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("howto/*.md"))]
RUN = [page for page in PAGES if page.stem != "adversary"]  # which has a test of its own
COMMANDS = [(page.stem, each) for page in PAGES for each in commands(page.read_text()) if " fit " not in each]
BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.DOTALL)


def linked(page: Path) -> set[Path]:
    return {(page.parent / target).resolve() for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_linked_exists(page: Path) -> None:
    assert not [target for target in linked(page) if not target.exists()]


def test_the_start_leads_to_every_page() -> None:
    assert linked(DOCS / "index.md") >= {page.resolve() for page in PAGES if page.stem != "index"}


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_can_be_read(page: str, command: str) -> None:
    """Those of `fit` are read by the slow test below."""
    _, verb, *argv = shlex.split(command)
    module = import_module(f"lit_gans.{verb}")
    function = getattr(module, verb, None) or getattr(module, f"{verb}_")
    parsed(function, argv, show=getattr(module, "show", show_result))
    assert not [word for word in argv if re.match(r"--\w+-", word)]


def test_what_is_read_beside_a_paper_is_there() -> None:
    page = (DOCS / "howto" / "read_a_paper.md").read_text()
    cells = [line.split("|")[2] for line in page.splitlines() if line.startswith("| ") and "`" in line.split("|")[2]]
    assert len(cells) == 12
    for names in (re.findall(r"`([\w.]+)`", cell) for cell in cells):
        home = names[-1] if names[-1].startswith("lit_gans") else "lit_gans.papers.dcgan"
        for name in names:
            assert pkgutil.resolve_name(name if name.startswith("lit_gans") else f"{home}.{name}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages are given: pictures of all kinds, and a run of the quickstart, shortened."""
    folder = tmp_path_factory.mktemp("made")
    materials(folder)
    colours = torch.randint(256, (20, 3, 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, colour in enumerate(colours):
        save_png(colour.expand(3, 218, 178), folder / "data" / "celeba" / "img_align_celeba" / f"{number}.png")
        save_png(colour.expand(3, 64, 128), folder / "facades" / "train" / f"{number}.png")
        kind = ("daisy", "dandelion", "rose", "sunflower", "tulip")[number % 5]
        save_png(colour.expand(3, 40, 48), folder / "flowers" / kind / f"{number}.png")
        save_png(colour.expand(3, 80, 90), folder / "captioned" / f"{number}.png")
        save_png(colour.expand(3, 300, 320), folder / "photos" / f"more{number}.png")
        (folder / "captioned" / f"{number}.txt").write_text("a large green star\na star that is green\n")
    run("lit-gans fit --config cgan/digits", folder)
    for seeds, output in (("0-19", "fakes"), ("20-39", "reals")):
        run(f"lit-gans sample runs/cgan-digits --seeds {seeds} --output {output}", folder)
    return folder


def run(text: str, folder: Path, *, language: str = "bash") -> None:
    """A block of a page, with what stands in for commands first on the path."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in short.NAMES:
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.readme.short {name} "$@"\n')
        (tools / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"SCRATCH": str(folder), "DISK": str(folder / "disk"), "SLURM_ARRAY_TASK_ID": "3"}
    argv = ["bash", "-e", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, f"{text}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_what_is_in_a_page_runs(page: Path, made: Path, tmp_path: Path) -> None:
    """Each block as a script; what is shown of the template is it to the letter."""
    folder = shutil.copytree(made, tmp_path / "page")
    blocks = BLOCK.findall(page.read_text())
    assert blocks
    for language, text in blocks:
        if text not in TEMPLATE.read_text():
            run(text, folder, language=language)
