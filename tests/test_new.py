"""`lit-gans new`: its file is ours to the letter, and is trained, resumed, sampled and measured as our papers are."""

import json
import re
from pathlib import Path

import pytest

from lit_gans import cli
from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.new import TEMPLATE, new
from lit_gans.runs.load import load_run
from tests.cases import largest_difference

SMALL = ["--model.init_args.width=4", "--evaluate.every_kimg=0", "--logger=none", "--trainer.accelerator=cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # what is imported from here is not found afterwards


def fit(config: str, run: str, kimg: float, *options: str) -> Path:
    total = f"--model.init_args.total_kimg={kimg}"
    assert cli.main(["fit", "--config", config, f"--run_folder={run}", total, *SMALL, *options]) == 0
    return Path(run)


def test_what_it_writes_is_trained_resumed_sampled_and_measured(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["new", "first_gan"]) == 0
    assert "lit-gans fit --config first_gan/first_gan.yaml" in capsys.readouterr().out
    written = Path("first_gan/gan.py").read_text()
    assert written.replace("FirstGan", "Template") == TEMPLATE.read_text()
    whole, halves = fit("first_gan/first_gan.yaml", "whole", 0.064), fit("first_gan/first_gan.yaml", "halves", 0.032)
    used = capsys.readouterr().out.splitlines()[-1].split()
    assert used[1:] == ["lit-gans", "evaluate", "halves", "--trust", "first_gan"]
    page = re.sub("</?span>", "", Path("halves/index.html").read_text())
    assert "--output halves/out --trust first_gan" in page
    fit("first_gan/first_gan.yaml", "halves", 0.064, "--ckpt_path=last")
    states = [read_checkpoint(checkpoints(run)[-1])["state_dict"] for run in (whole, halves)]
    assert largest_difference(*states) == 0.0
    assert load_run(whole, trust="first_gan").sample([1, 2]).shape == (2, 1, 16, 16)
    assert cli.main(["sample", "whole", "--seeds", "0-3", "--output", "whole/out", "--trust", "first_gan"]) == 0
    assert len(list(Path("whole/out").iterdir())) == 4
    assert cli.main([*used[2:], "--metrics", "swd", "--num_images", "20", "--device", "cpu"]) == 0
    assert "swd" in json.loads(Path("halves/evaluations.jsonl").read_text())


def test_by_its_path_it_lies_where_it_is_put(tmp_path: Path) -> None:
    assert new("models/deep/second.py") == [Path("models/deep/second.py"), Path("models/deep/second.yaml")]
    assert "class_path: models.deep.second.Second\n" in Path("models/deep/second.yaml").read_text()
    assert new(tmp_path / "models" / "third.py") == [Path("models/third.py"), Path("models/third.yaml")]
    assert new("fourth.py") == [Path("fourth.py"), Path("fourth.yaml")]
    model = fit("fourth.yaml", "run", 0.032, "--model.init_args.micro_batches=2", "--model.init_args.resolution=8",
                "--data.init_args.resolution=8")  # fmt: skip
    assert load_run(model, trust="fourth").sample([1]).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-gan", "'my-gan' cannot be a name in Python: give letters, digits and underscores, as my_gan"),
        ("2gan", "'2gan' cannot be a name in Python"),
        ("class", "'class' cannot be a name in Python"),
        ("none", "'None' cannot be a name in Python"),
        ("my folder/gan.py", "'my folder' cannot be a name in Python"),
        ("generator", "the class would be Generator, as another in its file is called"),
        (".", "is not below the working folder"),
        ("../gan.py", "is not below the working folder"),
        ("random", "'random' is the name of another module ("),
        ("lit_gans", "'lit_gans' is the name of another module"),
        ("lit_gans/mine.py", "'lit_gans' is the name of another module"),
        ("torchmetrics", "'torchmetrics' is the name of another module ("),
        ("torchmetrics/mine.py", "'torchmetrics' is the name of another module ("),
        ("there", "there/gan.py is there already: give another name, or move it away"),
        ("there/settings.py", "there/settings.yaml is there already"),
        ("lone", "'lone' is the name of another module ("),
        ("both/both.py", "'both' is the name of another module (both/both.py), which would be found"),
        ("gan", "'gan' is the name of another module (gan/gan.py), which would be found: give another name"),
    ],
)
def test_names_that_cannot_be(name: str, message: str, capsys: pytest.CaptureFixture) -> None:
    Path("there").mkdir()
    Path("there/gan.py").touch()
    Path("there/settings.yaml").touch()
    Path("lone.py").touch()
    before = sorted(Path().rglob("*"))
    assert cli.main(["new", name]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1 and sorted(Path().rglob("*")) == before
