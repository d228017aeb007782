"""What verbs say of the data that they read, and the names of classes from training to sampling."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.data import Images
from lit_gans.editing.sampling import classes_of
from lit_gans.fit import main as fit_main
from lit_gans.prepare import main as prepare_main
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import save_pretrained
from lit_gans.sample import main as sample_main

CONFIG = "experiments/cgan/digits.yaml"


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes called 2, 9 and 10, one folder down, with what lies about in folders of pictures."""
    root, rng = tmp_path_factory.mktemp("messy"), np.random.default_rng(0)
    for name in ("2", "9", "10", ".ipynb_checkpoints"):
        (root / "mine" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(root / "mine" / name / f"{i}.png")
    (root / "mine" / "2" / "more.heic").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def run(messy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert fit_main(fitting(messy, folder)) == 0
    return folder


def fitting(data: Path, folder: Path, *more: str) -> list[str]:
    model = {"num_classes": 3, "resolution": 16, "total_kimg": 0.012, "width": 8}
    off = ("image_grid", "evaluate", "report")
    return [
        f"--config={CONFIG}", "--data=lit_gans.data.Images", f"--data.init_args.path={data}",
        "--data.init_args.resolution=16", "--data.init_args.channels=1", "--data.init_args.batch_size=6",
        *(f"--model.init_args.{name}={value}" for name, value in model.items()),
        *(f"--{name}.every_kimg=0" for name in off), "--health.diversity_every_kimg=0", "--logger=none",
        "--trainer.accelerator=cpu", f"--run_folder={folder}", *more,
    ]  # fmt: skip


def test_fit_says_what_it_understood_and_keeps_it(
    messy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit_main(fitting(messy, tmp_path / "r")) == 0
    said = capsys.readouterr().err
    for line in (
        "used     18 pictures (18 .png), split 'train'", "left out 1 .heic, hidden: .ipynb_checkpoints",
        "sizes    16 x 16", f"layout   labels of folders in {messy / 'mine'}", "classes  0=2 (6), 1=9 (6), 2=10 (6)",
        "framing  the largest square of the middle, scaled to 16 x 16",
    ):  # fmt: skip
        assert line in said
    assert json.loads((tmp_path / "r" / "data.json").read_text())["class_names"] == ["2", "9", "10"]


def test_names_of_classes_stay_with_the_model(run: Path, tmp_path: Path) -> None:
    assert read_checkpoint(checkpoints(run)[-1])["lit_gans"]["class_names"] == ["2", "9", "10"]
    model = load_run(run)
    assert model.class_names == ("2", "9", "10")
    assert load_run(save_pretrained(model, tmp_path / "kept")).class_names == ("2", "9", "10")


def test_sample_says_which_number_is_which(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample_main([str(run), "--seeds", "0", "--classes", "2,0", "--output", str(tmp_path)]) == 0
    assert "classes: 2=10, 0=2" in capsys.readouterr().err
    assert sample_main([str(run), "--seeds", "0", "--classes", "cat", "--output", str(tmp_path)]) == 2
    assert "no class is called 'cat': The classes are 0=2, 1=9, 2=10" in capsys.readouterr().err


def test_another_order_of_classes_is_told_at_a_resume(run: Path, messy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in ("2", "9", "11"):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).symlink_to(messy / "mine" / ("10" if name == "11" else name))
    more = ("--data.init_args.follow_links=true", f"--ckpt_path={checkpoints(run)[-1]}")
    with pytest.warns(UserWarning, match="classes of the data are 0=2, 1=9, 2=11, and .* trained with 0=2, 1=9, 2=10"):
        assert fit_main([*fitting(other, tmp_path / "r", *more), "--model.init_args.total_kimg=0.018"]) == 0


def test_prepare_says_what_it_understood_and_keeps_names(
    messy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare_main([str(messy), str(tmp_path / "a.zip"), "--resolution", "32", "--workers", "1"]) == 0
    said = capsys.readouterr().err
    assert "sizes    16 x 16; 18 smaller than 32 px and enlarged" in said
    assert "classes  0=2 (6), 1=9 (6), 2=10 (6)" in said
    assert Images(str(tmp_path / "a.zip"), batch_size=1, resolution=32).class_names == ("2", "9", "10")


@pytest.mark.parametrize(
    ("given", "numbers"),
    [("cat", [0]), ("sea-lion,cat", [2, 0]), ("0-1,sea-lion", [0, 1, 2]), (["dog", 2], [1, 2]), ("a, b", [3])],
)
def test_classes_by_name(given: str, numbers: list[int]) -> None:
    assert classes_of(given, ("cat", "dog", "sea-lion", "a, b")) == numbers


def test_a_name_that_no_class_has() -> None:
    with pytest.raises(ValueError, match="no class is called 'cta': did you mean 'cat'. The classes are 0=cat, 1=dog"):
        classes_of("cta", ("cat", "dog"))
    with pytest.raises(ValueError, match="'cat' is not a number or range"):
        classes_of("cat", ())
