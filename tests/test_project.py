import io
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lit_gans.base.cache import digest
from lit_gans.base.images import from_uint8, save_png, to_uint8
from lit_gans.base.progress import Lines
from lit_gans.edit import edit
from lit_gans.editing import Step, read_projection, render
from lit_gans.editing.projection_files import read_picture, reporter
from lit_gans.project import main, project
from lit_gans.runs.load import load_run

from .callbacks.common import tiny_gan
from .editing.test_projector import Blurs
from .metrics.test_perceptual import random_state
from .test_sample import pixels, saved, saved_stylegan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_stylegan(tmp_path_factory.mktemp("stylegan2"), resolution=32)


@pytest.fixture
def picture(run: Path, tmp_path: Path) -> Path:
    """An image of the model itself."""
    return save_png(to_uint8(load_run(run).sample([5]))[0], tmp_path / "own.png")


def test_everything_is_in_the_folder(run: Path, picture: Path, tmp_path: Path) -> None:
    folder = project(run, picture, output=tmp_path / "out", distance=Blurs(), steps=40)
    assert {path.name for path in folder.iterdir()} == {
        "w.safetensors", "projected.png", "target.png", "side_by_side.png", "progress.png", "progress.gif", "log.jsonl",
        "edit.yaml",
    }  # fmt: skip
    steps = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(40)) and steps[0]["lr"] == 0
    ws, noise, settings = read_projection(folder / "w.safetensors")
    assert settings["distance"] < steps[0]["distance"] / 4
    gan = load_run(run)
    assert torch.equal(pixels(folder / "projected.png"), to_uint8(render(gan, ws, noise))[0, 0])
    assert torch.equal(pixels(folder / "target.png"), pixels(picture))
    edit(folder / "edit.yaml", output=tmp_path / "again.png", device="cpu")
    assert torch.equal(pixels(tmp_path / "again.png"), pixels(folder / "projected.png"))
    assert settings["model"] == "lit_gans.papers.stylegan2.StyleGAN2" and settings["image"] == "own.png"
    assert settings["weights"] == digest(gan.generator_ema.state_dict())[:16] and settings["network"] == "blurs"


def test_pictures_show_the_target_and_the_way(run: Path, picture: Path, tmp_path: Path) -> None:
    folder = project(run, picture, output=tmp_path, distance=Blurs(), steps=20, space="w+", seed=3)
    target, projected = pixels(folder / "target.png"), pixels(folder / "projected.png")
    cells = torch.nn.functional.pad(pixels(folder / "progress.png"), (0, 2, 0, 2)).unfold(1, 66, 66)[:64:2, :, :64:2]
    assert cells.shape[1] == 11 and torch.equal(cells[:, 0], target) and torch.equal(cells[:, 10], projected)
    assert not torch.equal(cells[:, 1], projected)
    beside = pixels(folder / "side_by_side.png")[::2]
    assert torch.equal(beside[:, :64:2], target) and torch.equal(beside[:, 66::2], projected)
    with Image.open(folder / "progress.gif") as film:
        assert (film.n_frames, film.size) == (20, (130, 64))


def test_the_command_with_a_published_network(
    run: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(random_state("squeezenet1_1"), tmp_path / "squeeze.safetensors")
    weights = ["--lpips", "squeeze", "--lpips-weights", str(tmp_path / "squeeze.safetensors")]
    monkeypatch.chdir(tmp_path)
    assert main([str(run), str(picture), *weights, "--steps", "2", "--raw", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "own-projected\n"
    assert "own.png is 32 x 32 px\n" in printed.err and "2/2 100%  distance " in printed.err
    _, noise, settings = read_projection(tmp_path / "own-projected" / "w.safetensors")
    assert (settings["network"], settings["ema"], settings["steps"]) == ("lpips_form_squeezenet1_1", False, 2)
    assert all(name.startswith("generator.") for name in noise)


def test_any_picture_is_cropped_and_scaled(tmp_path: Path) -> None:
    wide = Image.new("RGB", (96, 64), "red")
    wide.paste("blue", (16, 0, 80, 64))
    wide.save(tmp_path / "wide.webp", lossless=True)
    found, said = read_picture(tmp_path / "wide.webp", resolution=32, channels=3)
    assert said == "wide.webp is 96 x 64 px, cropped to the middle 64 and scaled to 32"
    assert found.shape == (3, 32, 32) and found.flatten(1).amax(1).tolist() == [0, 0, 255]
    assert from_uint8(found).min() == -1
    grey, said = read_picture(tmp_path / "wide.webp", resolution=64, channels=1)
    assert grey.shape == (1, 64, 64) and said.endswith("cropped to the middle 64")


def test_progress_tells_the_time_that_is_left(tmp_path: Path) -> None:
    path, screen, time = tmp_path / "log.jsonl", io.StringIO(), iter([0.0, 24.0, 31.0])
    report = reporter(path, 1000, Lines(screen=screen, now=lambda: next(time)))
    report(Step(118, 0.4, 0.0, 0.1))
    assert json.loads(path.read_text())["step"] == 118 and screen.getvalue() == ""
    report(Step(119, 0.31416, 0.0, 0.1))
    assert screen.getvalue() == "120/1000  12%  distance 0.3142  0:00:31 < 0:03:47\n"


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_pictures_that_cannot_be_read(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.png does not exist: give a picture file"):
        project(run, tmp_path / "none.png", distance=Blurs())
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="text.png cannot be read as a picture: cannot identify"):
        project(run, tmp_path / "text.png", distance=Blurs())


def test_settings_that_cannot_be_met(run: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs" / "checkpoints").mkdir(parents=True)
    (tmp_path / "theirs" / "out").symlink_to(tmp_path)
    for options, message in [
        ({"output": tmp_path / "theirs" / "out" / "found"}, "leads by a link"),
        ({"output": picture}, "own.png is a file: give a folder"),
        ({"format": "avi"}, "format 'avi' is neither"),
        ({"steps": 0}, "steps is 0: give 1 or more"),
        ({"label": 1}, "label 1 does not exist: this model has no classes"),
        ({"tune": -1}, "tuning steps are -1: give 0 for none"),
        ({"space": "x"}, "space 'x' is none of w, w\\+ and z"),
        ({"start": "mean"}, "start 'mean' is not of the form encoder:FILE"),
        ({"start": "encoder:none.safetensors"}, "none.safetensors does not exist: make one with `lit-gans encode RUN`"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            project(run, picture, **{"output": tmp_path / "out", "distance": Blurs(), **options})
    assert not (tmp_path / "out").exists()


def test_mp4_without_the_extra_fails_before_the_work(
    run: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"lit-gans\[video\]"):
        project(run, picture, output=tmp_path / "out", distance=Blurs(), format="mp4")
    assert not (tmp_path / "out").exists()


def test_the_command_says_one_line_without_w(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = saved(tmp_path / "plain", tiny_gan(total_kimg=0.016))
    capsys.readouterr()
    assert main([str(plain), str(picture), "--space", "w", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lit-gans project: projection in W needs a model that has styles")
    assert "; give the space z" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()
