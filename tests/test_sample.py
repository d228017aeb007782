import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_gans.adversarial import GAN
from lit_gans.images import to_uint8
from lit_gans.run import load_run
from lit_gans.sample import loop, main, parse_numbers, sample, slerp

from .callbacks.common import tiny_cgan, tiny_gan, tiny_trainer


def saved(folder: Path, gan: GAN) -> Path:
    """A run folder with one checkpoint, its averaged generator unlike the raw one."""
    from lit_gans.data import Digits

    trainer = tiny_trainer(folder)
    with torch.no_grad():
        for parameter in gan.generator_ema.parameters():
            parameter.mul_(10)
    trainer.fit(gan, Digits(batch_size=16, resolution=8))
    trainer.save_checkpoint(folder / "checkpoints" / "kimg00000.016.ckpt")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("gan"), tiny_gan(total_kimg=0.016))


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("cgan"), tiny_cgan(total_kimg=0.016))


def pixels(path: Path) -> torch.Tensor:
    image = Image.open(path)
    return torch.frombuffer(bytearray(image.convert("L").tobytes()), dtype=torch.uint8).view(image.height, image.width)


def cells(path: Path) -> torch.Tensor:
    """The grid [rows, columns, 8, 8] of 8-pixel images, enlarged eight times and parted by lines of two pixels."""
    picture = torch.nn.functional.pad(pixels(path), (0, 2, 0, 2))
    return picture.unfold(0, 66, 66).unfold(1, 66, 66)[..., :64:8, :64:8]


def names(paths: list[Path]) -> list[str]:
    return [p.name for p in paths]


# ---- single files --------------------------------------------------------------------------------------------------


def test_files_hold_the_images_of_their_seeds(run: Path, tmp_path: Path) -> None:
    paths = sample(run, seeds="0-2,100", output=tmp_path, batch_size=3)
    assert names(paths) == ["seed0000.png", "seed0001.png", "seed0002.png", "seed0100.png"]
    assert torch.equal(pixels(paths[3]), to_uint8(load_run(run).sample([100]))[0, 0])


def test_every_seed_with_every_class(conditional: Path, tmp_path: Path) -> None:
    paths = sample(conditional, seeds=[13, 0], classes="3,5", output=tmp_path)
    assert names(paths) == [f"seed{s}_class{c}.png" for s in ("0013", "0000") for c in (3, 5)]
    expected = to_uint8(load_run(conditional).sample([13], labels=torch.tensor([5])))[0, 0]
    assert torch.equal(pixels(paths[1]), expected)
    assert names(sample(conditional, seeds=[13], output=tmp_path)) == ["seed0013_class3.png"]


def test_raw_and_psi(run: Path, tmp_path: Path) -> None:
    gan = load_run(run)
    (raw,) = sample(run, seeds=[4], raw=True, output=tmp_path / "raw")
    (typical,) = sample(run, seeds=[4], psi=0.5, output=tmp_path / "psi")
    assert torch.equal(pixels(raw), to_uint8(gan.sample([4], ema=False))[0, 0])
    assert torch.equal(pixels(typical), to_uint8(gan.sample([4], psi=0.5))[0, 0])
    assert not torch.equal(pixels(raw), to_uint8(gan.sample([4]))[0, 0])


def test_a_checkpoint_file_serves_as_well(run: Path, tmp_path: Path) -> None:
    assert names(sample(next(run.glob("checkpoints/*.ckpt")), seeds=[0], output=tmp_path)) == ["seed0000.png"]


# ---- grids ---------------------------------------------------------------------------------------------------------


def test_grid_is_square_without_classes(run: Path, tmp_path: Path) -> None:
    (path,) = sample(run, seeds="0-4", grid=True, output=tmp_path)
    assert path == tmp_path / "grid.png"
    found = cells(path)
    assert found.shape == (2, 3, 8, 8)
    assert torch.equal(found[1, 1], to_uint8(load_run(run).sample([4]))[0, 0]) and found[1, 2].max() == 0


def test_grid_has_a_row_per_class(conditional: Path, tmp_path: Path) -> None:
    (path,) = sample(conditional, seeds="0-2", classes=[7, 1], grid=True, output=tmp_path / "named.png")
    assert path.name == "named.png" and cells(path).shape == (2, 3, 8, 8)
    expected = to_uint8(load_run(conditional).sample([2], labels=torch.tensor([1])))[0, 0]
    assert torch.equal(cells(path)[1, 2], expected)
    (path,) = sample(conditional, seeds="0-2", grid=True, output=tmp_path)
    assert cells(path).shape == (10, 3, 8, 8)


# ---- films ---------------------------------------------------------------------------------------------------------


def test_gif_loops_through_the_seeds(run: Path, tmp_path: Path) -> None:
    (path,) = sample(run, seeds="0-63", interpolate=3, frames=12, fps=20, output=tmp_path)
    film = Image.open(path)
    assert (path.name, film.n_frames, film.size, film.info["loop"], film.info["duration"]) == (
        "interpolation.gif", 12, (256, 256), 0, 50
    )  # fmt: skip
    film.seek(4)
    first = torch.frombuffer(bytearray(film.convert("L").tobytes()), dtype=torch.uint8).view(256, 256)[::32, ::32]
    assert (first.int() - to_uint8(load_run(run).sample([1]))[0, 0].int()).abs().max() <= 2


def test_film_of_a_grid(conditional: Path, tmp_path: Path) -> None:
    (path,) = sample(conditional, seeds="0-5", interpolate=2, frames=4, grid=True, output=tmp_path / "x.gif")
    assert Image.open(path).size == (3 * 66 - 2, 10 * 66 - 2)


def test_mp4(run: Path, tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    (path,) = sample(run, interpolate=2, frames=10, output=tmp_path / "film.mp4")
    reader = imageio_ffmpeg.read_frames(str(path))
    assert next(reader)["source_size"] == (256, 256) and len(list(reader)) == 10


def test_mp4_without_the_extra_says_what_to_install(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"lit-gans\[video\]"):
        sample(run, interpolate=2, frames=2, format="mp4", output=tmp_path)


def test_spherical_steps_keep_the_length_and_the_pace() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    third = slerp(a, b, torch.tensor([[1 / 3]]))
    assert torch.allclose(third, 2 * torch.tensor([[3**0.5 / 2, 0.5]]))
    assert torch.equal(slerp(a, a, torch.tensor([[0.5]])), a)


def test_loop_passes_through_every_point_and_closes() -> None:
    z = torch.tensor([[0.0], [1.0], [4.0]])
    assert loop(z, 6, spherical=False).flatten().tolist() == [0, 0.5, 1, 2.5, 4, 2]
    directions = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loop(directions, 6, spherical=True)[::2], directions, atol=1e-6)


# ---- arguments and the command -------------------------------------------------------------------------------------


def test_numbers() -> None:
    assert parse_numbers("0-3, 7") == [0, 1, 2, 3, 7]
    for text, message in [("a", "'a' is not a number"), ("3-1", "runs backwards; write 1-3"), ("1,", "'' is not"),
                          ("-3", "'-3' is not a number or range")]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            parse_numbers(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [2**63]}, "not a number from 0 to"),
        ({"classes": [1]}, "this VanillaGAN is unconditional: leave out"),
        ({"interpolate": 1}, "interpolate is 1: a film needs 2 seeds"),
        ({"interpolate": 65}, "and 64 are given"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"interpolate": 2, "output": "x.png"}, "does not fit a film: give a folder or a file .gif or .mp4"),
        ({"interpolate": 2, "output": "x.gif", "format": "mp4"}, "contradict each other"),
        ({"output": "x.png"}, "does not fit single images: give a folder$"),
    ],
)
def test_arguments_that_cannot_be_met(run: Path, tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(run, **{"output": tmp_path, **arguments})
    assert not any(tmp_path.iterdir())


def test_a_class_that_does_not_exist(conditional: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="class 10 does not exist: this model has the classes 0 to 9"):
        sample(conditional, classes="3,10", output=tmp_path)


def test_the_command_tells_where_the_files_are(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--seeds", "0-1", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"2 images in {tmp_path}\n"
    assert main([str(run), "--seeds", "0-1", "--grid", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'grid.png'}\n"


def test_the_command_says_one_line_when_there_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing"), "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("lit-gans sample: ") and "does not exist" in error and error.count("\n") == 1


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, lit_gans.sample as s\ns._parser().format_help()\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
