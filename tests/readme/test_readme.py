"""The README's commands and the notebooks run as they stand."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from lit_gans import cli
from lit_gans.base.command import parsed, show_result
from lit_gans.runs.configs import shipped_configs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def commands() -> list[str]:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
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
    named = set(re.findall(r"experiments/(\w+/\w+)\.yaml", README))
    assert named and named <= set(shipped_configs())


def test_every_verb_is_shown() -> None:
    assert {shlex.split(c)[1] for c in commands()} | {"benchmark"} == set(cli.VERBS)


@pytest.mark.parametrize("command", [c for c in commands() if not c.startswith("lit-gans fit")])
def test_every_command_can_be_read(command: str) -> None:
    """Those of `fit` are read by the slow test below."""
    _, verb, *argv = shlex.split(command)
    module = import_module(f"lit_gans.{verb}")
    function = getattr(module, verb, None) or getattr(module, f"{verb}_")
    parsed(function, argv, show=getattr(module, "show", show_result))
    assert not [word for word in argv if re.match(r"--\w+-", word)]


TRIAL = ["model.init_args.total_kimg=0.064", "evaluate.every_kimg=0.064", "evaluate.num_images=100", "logger=none"]
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
    """Every `lit-gans` line of the README on the quickstart's run, shortened; MNIST and CelebA lines parse only."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def call(*argv: str, **options: object) -> str:
        result = subprocess.run([sys.executable, "-m", "lit_gans", *argv], cwd=tmp_path, env=environment,
                                capture_output=True, text=True, timeout=300, **options)  # fmt: skip
        assert result.returncode == 0, f"{argv}\n{result.stderr[-2000:]}"
        return result.stdout

    ran, weights = 0, materials(tmp_path)
    style = [a for a in SHORT if "width" not in a] + ["--model.init_args.channel_max=4", "--image_grid.columns=2"]
    call("fit", "--config", "stylegan2/digits32", *style)
    for command in commands():
        argv = shlex.split(command)[1:]
        if argv[0] == "sweep" and find_spec("optuna") is None:
            continue
        argv += ["--steps", "3", "--lpips", "squeeze", "--lpips_weights", weights] if argv[0] == "project" else []
        argv += ["--trials", "2", "--settings", *TRIAL] if argv[0] == "sweep" else []
        if argv[0] == "fit" and ("mnist" in command or "celeba" in command):
            call(*[a for a in argv if "ckpt_path" not in a], "--print_config")
        elif argv[0] == "fit":
            call(*argv, *([] if "--print_config" in argv else style if "stylegan2" in command else SHORT))
        elif argv[0] == "evaluate" and "fakes/" in command:
            call("sample", "runs/cgan-digits", "--seeds", "0-19", "--output", "fakes")
            call("sample", "runs/cgan-digits", "--seeds", "20-39", "--output", "reals")
            call(*[a if a != "inception" else "digits" for a in argv])
        elif argv[0] == "evaluate":
            call(*argv, "--num_images", "100", "--extractor", "digits")
        else:
            call(*argv)
        ran += 1
    assert ran >= 18
    made = ["out/grid.png", "film.gif", "walk.gif", "walks.gif", "projected/w.safetensors", "again.pkl",
            "photos256.zip", "photos256/index.json", "compare.html", "plots/tsne.png", "translated/0.png",
            "out/captions.json", "out/sentences.png", "translated/sheets/001.png"]  # fmt: skip
    assert [name for name in made if not (tmp_path / name).is_file()] == []


@pytest.mark.slow
def test_python_snippet_runs(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    snippet = snippet.replace("total_kimg=10", "total_kimg=0.064")
    result = subprocess.run([sys.executable, "-c", snippet + "\nassert images.shape == (3, 1, 16, 16)"], cwd=tmp_path,
                            env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_of_ours_is_there(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    imports = [line for line in code.splitlines() if line.strip().startswith("from lit_gans")]
    assert imports
    exec("\n".join(map(str.strip, imports)), {})


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
