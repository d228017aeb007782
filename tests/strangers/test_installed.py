"""Papers of an installed package are known by name and trusted; those of the working folder can be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_gans import fit as fitting
from lit_gans import sample as sampling
from lit_gans.base.checkpoints import checkpoints
from lit_gans.evaluate import evaluate
from lit_gans.list import list_
from lit_gans.runs.classes import load_added
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained, save_pretrained
from tests.distributed.launch import ROOT

HERE = Path(__file__).parent
SHORT = [
    "--model.init_args.total_kimg=0.032", "--data.init_args.batch_size=16", "--logger=none", "--image_grid.columns=2",
    "--image_grid.rows=2", "--health.diversity_every_kimg=0", "--evaluate.every_kimg=0.032", "--evaluate.num_images=20",
    "--evaluate.metrics=[swd]", "--throughput.every_kimg=0", "--model.init_args.resolution=16",
    "--data.init_args.resolution=16",
]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, with one that has a paper and data."""
    package, told = tmp_path / "site" / "third_party", tmp_path / "site" / "third_party-1.2.dist-info"
    package.mkdir(parents=True)
    told.mkdir()
    (package / "__init__.py").write_text("")
    (package / "gans.py").write_text((HERE / "styled.py").read_text().replace("class Styled(", "class Foreign("))
    (package / "data.py").write_text((HERE / "stripes.py").read_text().replace("Stripes", "ForeignStripes"))
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.2\n")
    entries = ["[lit_gans.papers]", "Foreign = third_party.gans:Foreign", "Stripes = third_party.data:ForeignStripes"]
    (told / "entry_points.txt").write_text("\n".join(entries))
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path / "site"
    for name in [name for name in sys.modules if name.partition(".")[0] == "third_party"]:
        del sys.modules[name]


def test_an_installed_paper_is_at_home(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    argv = ["--model=Foreign", "--data=ForeignStripes", *SHORT, f"--run_folder={run}"]
    assert fitting.main([*argv, "--model.init_args.total_kimg=0.016"]) == 0
    assert fitting.main([*argv, "--ckpt_path=last"]) == 0
    assert [path.name for path in checkpoints(run)] == ["kimg00000.016.ckpt", "kimg00000.032.ckpt"]
    assert torch.isfinite(torch.tensor(evaluate(run, device="cpu").values["swd"]))
    assert sampling.main([str(run), "--output", str(tmp_path / "out"), "--seeds", "0-2", "--grid"]) == 0
    model = load_run(run)
    saved = save_pretrained(model, tmp_path / "saved")
    assert torch.equal(from_pretrained(saved).sample([3]), model.sample([3]))
    about = "of the installed package third-party 1.2"
    assert {"name": "Foreign", "class_path": "third_party.gans.Foreign", "about": about} in list_()["papers"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        fitting.main(["--model=Foreing", "--data=Digits", "--data.init_args.batch_size=16"])
    assert "The nearest known classes: Foreign" in capsys.readouterr().err
    with monkeypatch.context() as without:
        without.setattr(sys, "path", [path for path in sys.path if path != str(site)])
        with pytest.raises(ValueError, match=r"'third_party.gans.Foreign' is not one of lit_gans"):
            load_run(run)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("third_party.nowhere:Foreign", "third_party.nowhere:Foreign .* cannot be loaded: No module"),
        ("third_party.gans:Nothing", "third_party.gans:Nothing .* cannot be loaded"),
        ("third_party.gans:GAN", "third_party.gans:GAN .* is no class of its own"),
        ("third_party.gans:LAYERS", "third_party.gans:LAYERS .* is no class of its own"),
    ],
)
def test_what_a_package_cannot_add_is_told_and_left_out(site: Path, entry: str, message: str) -> None:
    with (site / "third_party-1.2.dist-info" / "entry_points.txt").open("a") as file:
        file.write(f"\nWrong = {entry}")
    with pytest.warns(UserWarning, match=message):
        found = load_added()
    assert {cls.__name__ for cls in found} == {"Foreign", "ForeignStripes"}


@pytest.mark.slow
def test_a_file_of_the_working_folder_is_trained_by_the_command_in_two_processes(tmp_path: Path) -> None:
    command, work = tmp_path / "bin" / "lit-gans", tmp_path / "work"  # python sees the command's folder, not this one
    for folder in (command.parent, work):
        folder.mkdir()
    command.write_text("import sys\nfrom lit_gans.cli import main\nsys.exit(main())\n")
    (work / "my_file.py").write_text((HERE / "styled.py").read_text().replace("class Styled(", "class MyGAN("))
    argv = ["--model=my_file.MyGAN", "--data=Digits", *SHORT, "--run_folder=run"]
    argv += ["--trainer.accelerator=cpu", "--trainer.devices=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, str(command), "fit", *argv], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.name for path in checkpoints(work / "run")] == ["kimg00000.032.ckpt"]
