"""Presets in `fit`: what is computed is said, plain in config.yaml, overruled by options, and kept by a resume."""

from pathlib import Path

import pytest
import yaml
from PIL import Image

from lit_gans.adversarial.preset import Facts
from lit_gans.fit import main
from lit_gans.training.cli import parse

QUIET = ["--logger=none", "--trainer.accelerator=cpu", "--trainer.devices=1"]
SHORT = ["--model.init_args.total_kimg=0.008", "--evaluate=off", "--image_grid=off", "--report", "off",
         "--health.diversity_every_kimg=0"]  # fmt: skip


def counted(facts: Facts) -> dict[str, object]:
    """A preset of a stranger: what it is given is in what it gives."""
    return {"model.init_args.total_kimg": facts.pictures / 1000, "report.every_kimg": facts.side_px}


def tiny(facts: Facts) -> dict[str, object]:
    return {"model.init_args.lr": 0.001 * facts.pictures, "data.init_args.batch_size": 4}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(6):
        Image.linear_gradient("L").rotate(30 * i).resize((40 + i, 30)).save(tmp_path / "photos" / f"{i}.jpg")
    (tmp_path / "photos" / "cut.jpg").write_bytes((tmp_path / "photos" / "1.jpg").read_bytes()[:300])
    Image.new("L", (3, 3)).save(tmp_path / "photos" / "icon.png")
    return tmp_path / "photos"


def test_photos_computes_what_is_not_given(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--config", "stylegan2/photos", f"--data.init_args.path={photographs}", *QUIET]
    cli = parse([*argv, "--ema.half_life_kimg=3", "--evaluate=off"], run_folder=str(tmp_path / "run"))
    assert (cli.model.resolution, cli.datamodule.resolution, cli.datamodule.min_px) == (16, 16, 4)
    assert cli.model.r1_gamma == pytest.approx(0.0002 * 16**2 / 16)
    assert cli.config["preset"] is None and cli.config["evaluate"]["every_kimg"] == 0
    said = capsys.readouterr().err
    assert "preset photos, for 8 pictures of about 30 px, 1 CPU process:" in said
    assert "ema.half_life_kimg                   3 (given; 5 is computed)" in said


def test_a_resolution_that_is_given_decides_the_others(photographs: Path, tmp_path: Path) -> None:
    argv = ["--config=stylegan2/photos", f"--data.init_args.path={photographs}", "--model.init_args.resolution=32"]
    cli = parse([*argv, *QUIET, "--evaluate=off"], run_folder=str(tmp_path / "run"))
    assert (cli.model.resolution, cli.datamodule.resolution) == (32, 32)
    assert cli.model.r1_gamma == pytest.approx(0.0002 * 32**2 / 16)


def test_a_resume_keeps_what_was_computed(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {"class_path": "lit_gans.papers.DCGAN", "init_args": {"resolution": 16, "width": 4}}
    data = {"class_path": "lit_gans.data.Images", "init_args": {"path": str(photographs), "labels": "none",
            "resolution": 16, "batch_size": 2, "on_error": "skip"}}  # fmt: skip
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump({"preset": "tests.test_presets.tiny", "model": model, "data": data}))
    argv = ["--config", str(config), *QUIET, *SHORT, f"--run_folder={tmp_path / 'run'}"]
    assert main(argv) == 0
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["model"]["init_args"]["lr"] == pytest.approx(0.008) and kept["preset"] is None
    Image.new("RGB", (64, 64), "red").save(photographs / "new.png")
    capsys.readouterr()
    with pytest.warns(UserWarning, match="the data are not those that the checkpoint was trained on"):
        assert main([*argv, "--ckpt_path=last", "--model.init_args.total_kimg=0.012"]) == 0
    resumed = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert resumed["model"]["init_args"]["lr"] == pytest.approx(0.008)
    said = capsys.readouterr().err
    assert "preset tiny, for the run of" in said and "model.init_args.lr: " not in said


def test_a_preset_of_ones_own_on_the_command_line(photographs: Path, tmp_path: Path) -> None:
    given = {"path": photographs, "labels": "none", "resolution": 16, "batch_size": 2}
    argv = ["--model=DCGAN", "--model.init_args.resolution=16", "--data=Images"]
    argv += [f"--data.init_args.{name}={value}" for name, value in given.items()]
    cli = parse(["--preset=tests.test_presets.counted", *argv, *QUIET], run_folder=str(tmp_path / "run"))
    assert cli.model.total_kimg == 0.008 and cli.config["report"]["every_kimg"] == 30


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--preset=no.such.preset", "preset 'no.such.preset' is no function that can be imported"),
        ("--evaluate=maybe", "--evaluate=maybe: give off, or what is to be set, as --evaluate.every_kimg=20"),
    ],
)
def test_bad_arguments(argument: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config=cgan/digits", *QUIET, f"--run_folder={tmp_path / 'run'}", argument]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_any_folder_of_photographs_trains_offline(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub.download_url_to_file", _no_network)
    argv = ["--config=stylegan2/photos", f"--data.init_args.path={photographs}", f"--run_folder={tmp_path / 'run'}"]
    sizes = ["--model.init_args.total_kimg=0.032", "--evaluate.num_images=20", "--image_grid.rows=2"]
    with pytest.warns(UserWarning, match="nothing is measured with 'inception'"):
        assert main([*argv, *sizes, *QUIET]) == 0
    assert '"rfid"' in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert {"walks.png", "reals.png", "latest.png"} <= {p.name for p in (tmp_path / "run" / "samples").iterdir()}
    said = capsys.readouterr().err
    assert "2 that cannot be used" in said and "6 pictures are few" in said


def _no_network(*args: object, **options: object) -> None:
    raise OSError("Network is unreachable")
