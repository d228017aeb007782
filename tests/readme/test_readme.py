"""The README's commands and the notebooks run as they stand."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_gans import cli
from lit_gans.base.command import parsed, show_result
from lit_gans.runs.configs import shipped_configs, shipped_sweeps

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def commands(text: str = README) -> list[str]:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [line.split("#")[0].strip() for line in blocks.splitlines() if line.startswith("lit-gans")]


def test_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(targets) >= 2
    assert not [t for t in targets if not (ROOT / t).exists()]


def test_every_class_in_the_table_exists() -> None:
    from lit_gans import papers

    named = set(re.findall(r"`lit_gans\.papers\.(\w+)`", README))
    assert named == set(papers.__all__)


def test_every_config_that_is_named_is_shipped() -> None:
    texts = [README, *(page.read_text() for page in (ROOT / "docs").rglob("*.md"))]
    named = {name for text in texts for name in re.findall(r"experiments/(\w+/\w+)\.yaml", text)}
    named |= set(re.findall(r"--config (\w+/\w+)", README))
    assert len(named) > 5 and named <= {*shipped_configs(), *(f"{paper}/sweep" for paper in shipped_sweeps())}


def test_every_verb_is_shown() -> None:
    texts = [README, *(page.read_text() for page in (ROOT / "docs").rglob("*.md"))]
    assert {shlex.split(c)[1] for text in texts for c in commands(text)} | {"benchmark"} == set(cli.VERBS)


@pytest.mark.parametrize("command", [c for c in commands() if not c.startswith("lit-gans fit")])
def test_every_command_can_be_read(command: str) -> None:
    """Those of `fit` are read by the slow test below."""
    _, verb, *argv = shlex.split(command)
    module = import_module(f"lit_gans.{verb}")
    function = getattr(module, verb, None) or getattr(module, f"{verb}_")
    parsed(function, argv, show=getattr(module, "show", show_result))
    assert not [word for word in argv if re.match(r"--\w+-", word)]


SHORT = ["--model.init_args.total_kimg=0.064", "--logger=none", "--evaluate.every_kimg=0", "--model.init_args.width=4"]


def materials(folder: Path) -> str:
    """What the commands are given: photographs, a released pickle; the path of a perceptual network's weights."""
    import torch
    from safetensors.torch import save_file
    from torchvision.models import squeezenet1_1

    from lit_gans.base.images import save_png
    from lit_gans.official import OfficialNetwork, write_official
    from tests.test_convert import BUFFERS, G_CONFIG, official_state

    pictures = torch.randint(256, (3, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, picture in enumerate(pictures):
        save_png(picture, folder / "photos" / f"{number}.png")
    save_png(pictures[0], folder / "photo.png")
    (folder / "captions.txt").write_text("a large green star in the centre on black\n")
    state = official_state("Generator", G_CONFIG, seed=0)
    buffers = frozenset(name for name in state if name.rpartition(".")[2] in BUFFERS)
    modules = {"": "Generator"} | {path: "Module" for name in state for path in _owners(name)}
    network = OfficialNetwork("Generator", (), G_CONFIG, state, buffers, modules, "")
    write_official(folder / "ffhq.pkl", {"G_ema": network})
    torch.manual_seed(0)
    save_file(squeezenet1_1(weights=None).state_dict(), folder / "squeezenet.safetensors")
    return str(folder / "squeezenet.safetensors")


def _owners(name: str) -> list[str]:
    """The modules that a tensor lies in, from the outermost on."""
    parts = name.split(".")[:-1]
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


@pytest.mark.slow
def test_commands_run(tmp_path: Path) -> None:
    """Those of the README that need no weights and no faces; the others are read alone."""
    materials(tmp_path)
    environment, ran = os.environ | {"PYTHONPATH": str(ROOT)}, 0
    for command in commands():
        argv = shlex.split(command)[1:]
        if "projected_gan" in command:
            argv = [*argv, "--print_config"] if argv[0] == "fit" else ["sample", "--help"]
        elif argv[0] == "fit":
            argv += [*(word for word in SHORT if "width" not in word), "--model.init_args.channel_max=4"]
        done = subprocess.run([sys.executable, "-m", "lit_gans", *argv], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=300)  # fmt: skip
        assert done.returncode == 0, f"{argv}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran >= 3 and (tmp_path / "runs" / "stylegan2-photos" / "index.html").is_file()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_of_ours_is_there(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    imports = [line for line in code.splitlines() if line.strip().startswith("from lit_gans")]
    assert imports
    exec("\n".join(map(str.strip, imports)), {})


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("there", "clone", "source"), [(True, False, []), (False, False, ["lit-gans"]), (False, True, [".."])]
)
def test_a_notebook_installs_what_it_needs(
    notebook: Path, there: bool, clone: bool, source: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first cell, as on Colab, and in a clone."""
    from IPython.core.inputtransformer2 import TransformerManager

    first = next(cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code")
    asked: list[tuple[str, str]] = []
    shell = SimpleNamespace(run_line_magic=lambda name, words: asked.append((name, words)))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    if clone:
        (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if there else None)
    names = {"get_ipython": lambda: shell}
    exec(TransformerManager().transform_cell("".join(first["source"])), names)
    extra = "[sweep]" if notebook.stem == "03_sweep" else ""
    wanted = [("pip", f"install --quiet {each}{extra}") for each in source]
    assert [(name, words.format(**names)) for name, words in asked] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request) -> None:
    import nbformat
    from nbclient import NotebookClient

    if notebook.stem == "03_sweep":
        pytest.importorskip("optuna")
    if notebook.stem == "02_metrics":  # skipped without the real data
        monkeypatch.setenv("NOTEBOOK_MNIST", str(request.getfixturevalue("real_data") / "mnist"))
    monkeypatch.setenv("NOTEBOOK_IMAGES", "1500")
    monkeypatch.setenv("NOTEBOOK_FIGURE", str(tmp_path / "figure.png"))
    monkeypatch.setenv("NOTEBOOK_KIMG", "2")
    monkeypatch.setenv("NOTEBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NOTEBOOK_TRIALS", "2")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    NotebookClient(
        nbformat.read(notebook, as_version=4), timeout=500, resources={"metadata": {"path": tmp_path}}
    ).execute()
    made = {"01_quickstart": tmp_path / "runs" / "r1" / "samples" / "latest.png", "02_metrics": tmp_path / "figure.png",
            "03_sweep": tmp_path / "runs" / "sweep" / "optuna.log"}  # fmt: skip
    assert made[notebook.stem].is_file()
