"""`lit-gans directions` as a user calls it, on a tiny StyleGAN2."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_gans.base.images import save_png, to_uint8
from lit_gans.directions import directions, main
from lit_gans.editing.directions import read_directions
from lit_gans.runs.load import load_run

from .callbacks.common import tiny_gan
from .metrics.test_attributes import Corners
from .test_sample import pixels, saved, saved_stylegan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_stylegan(tmp_path_factory.mktemp("stylegan2"), resolution=32)


@pytest.fixture(scope="module")
def labelled(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images of the model with a table of which are brighter than most: the options that name both."""
    folder = tmp_path_factory.mktemp("labelled")
    images = to_uint8(load_run(run).sample(range(48)))
    means = images.float().mean((1, 2, 3))
    rows = ["bright dark"]
    for number, (image, bright) in enumerate(zip(images, (means > means.median()).tolist(), strict=True)):
        save_png(image, folder / "own" / f"{number}.png")
        rows.append(f"{number}.png {'1 -1' if bright else '-1 1'}")
    (folder / "table.txt").write_text("\n".join(rows))
    return ["--attributes", str(folder / "table.txt"), "--images", str(folder / "own")]


def test_components_are_found_kept_and_shown(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, sheet = directions(run, method="pca", output=tmp_path / "a.safetensors", count=3, samples=60, seeds="0-1")
    found = read_directions(file)
    assert found.names == ("pc0", "pc1", "pc2") and "explained" in capsys.readouterr().err
    with Image.open(sheet) as picture:
        assert picture.width == 7 * 64 and picture.height > 6 * 64  # 32 px are shown twice as large
    again = directions(run, direction=f"{file}:pc1", output=tmp_path / "b.png", by=[0.0], seeds=[3])[0]
    named = directions(run, direction=str(file), names=["pc1"], output=tmp_path / "c.png", by=[0.0], seeds=[3])[0]
    assert named.read_bytes() == again.read_bytes()
    own = to_uint8(load_run(run).sample([3]))[0, 0]
    assert torch.equal(pixels(again)[-64::2, ::2], own)  # by nothing: the seed's own image


def test_planes_are_found_and_their_rates_told(
    run: Path, labelled: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lit_gans.metrics.building.build_extractor", lambda spec, *, weights_path: Corners())
    options = [*labelled, "--device", "cpu"]
    asked = ["--method", "svm", "--names", "bright", "--samples", "150", "--layers", "0-3", "--seeds", "0"]
    assert main([str(run), *asked, *options]) == 0
    found = read_directions("svm.safetensors")
    assert capsys.readouterr().out.split() == ["svm.safetensors", "svm.png"]
    assert found.names == ("bright",) and found.layers == (0, 1, 2, 3) and found.scores[0] > 0.5
    asked = ["--direction", "svm.safetensors", "--names", "bright", "--seeds", "0-29", "--by", "-3", "0", "3"]
    assert main([str(run), *asked, *options]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[-2].split() == ["along", "share", "with", "-3", "+0", "+3"]
    low, _, _, _, high, _ = told[-1].split()[2:]
    assert int(low) < int(high)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either method, to find directions, or direction"),
        (["--method", "pca", "--direction", "x.safetensors"], "give either method"),
        (["--method", "svm"], "method svm needs attributes and names: a table such as list_attr_celeba.txt"),
        (["--method", "pca", "--names", "Male"], "names is of method svm, and the method is pca: leave it out"),
        (["--method", "pca", "--output", "x.png"], "output x.png is no .safetensors file: name one"),
        (["--method", "pca", "--layers", "0-40"], "layer 8 does not exist: this model has the layers 0 to 7"),
        (["--direction", "none.safetensors"], "none.safetensors does not exist: give a file of `lit-gans directions"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), "--device", "cpu", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_a_model_without_styles_has_directions_of_z(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, tiny_gan())
    assert main([str(path), "--method", "sefa", "--output", str(tmp_path / "s.safetensors")]) == 2
    assert "SeFa needs a model that shows its layers" in capsys.readouterr().err
