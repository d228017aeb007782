import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_gans.adversarial import GAN
from lit_gans.base.images import to_uint8
from lit_gans.base.interpolation import arc
from lit_gans.editing import style_mixing
from lit_gans.editing.films import loop, style_loop
from lit_gans.editing.sampling import parse_numbers
from lit_gans.runs.load import load_run
from lit_gans.sample import main, sample

from .callbacks.common import tiny_cgan, tiny_gan, tiny_trainer
from .editing.test_projector import tiny_stylegan


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


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_stylegan(tmp_path_factory.mktemp("stylegan2"))


def saved_stylegan(folder: Path, *, resolution: int = 8, num_classes: int = 0) -> Path:
    """A run folder with one checkpoint of a grey StyleGAN2."""
    from lit_gans.data import Digits

    options = {"channels": 1, "resolution": resolution, "num_classes": num_classes, "total_kimg": 0.016}
    gan, trainer = tiny_stylegan(**options).train(), tiny_trainer(folder)
    trainer.fit(gan, Digits(batch_size=16, resolution=resolution))
    trainer.save_checkpoint(folder / "checkpoints" / "kimg00000.016.ckpt")
    return folder


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


# ---- tables of styles ----------------------------------------------------------------------------------------------


def test_several_psi_are_rows(styled: Path, run: Path, conditional: Path, tmp_path: Path) -> None:
    (path,) = sample(styled, seeds="3-5", psi=[0.5, 1.0], output=tmp_path)
    assert path == tmp_path / "truncation.png" and cells(path).shape == (2, 3, 8, 8)
    gan = load_run(styled)
    assert torch.equal(cells(path)[0, 2], to_uint8(gan.sample([5], psi=0.5))[0, 0])
    assert torch.equal(cells(path)[1, 2], to_uint8(gan.sample([5]))[0, 0])
    (plain,) = sample(run, seeds=[3], psi=[0.5, 1.0], output=tmp_path / "plain.png")
    assert torch.equal(cells(plain)[0, 0], to_uint8(load_run(run).sample([3], psi=0.5))[0, 0])
    (path,) = sample(conditional, seeds="3,4", psi=[0.5, 1.0], classes="7", output=tmp_path / "class.png")
    expected = to_uint8(load_run(conditional).sample([4], labels=torch.tensor([7]), psi=0.5))[0, 0]
    assert torch.equal(cells(path)[0, 1], expected)
    (path,) = sample(conditional, seeds="3,4", psi=[0.5, 1.0], classes="7,2,5", output=tmp_path / "classes.png")
    assert cells(path).shape == (3, 4, 8, 8) and torch.equal(cells(path)[0, 1], expected)
    full = to_uint8(load_run(conditional).sample([3], labels=torch.tensor([5])))[0, 0]
    assert torch.equal(cells(path)[2, 2], full)


def test_table_of_mixed_styles(styled: Path, tmp_path: Path) -> None:
    (path,) = sample(styled, mix=("1,2", [4, 5, 6]), mix_layers="1-2", output=tmp_path)
    assert path == tmp_path / "mixing.png" and cells(path).shape == (3, 4, 8, 8)
    gan = load_run(styled)
    expected = style_mixing(gan, [1, 2], [4, 5, 6], layers=[1, 2])
    assert torch.equal(cells(path), expected[:, :, 0])
    (path,) = sample(styled, mix=([1, 2], [4, 5, 6]), output=tmp_path / "all.png")
    assert torch.equal(cells(path)[1, 1], to_uint8(gan.sample([4]))[0, 0])  # this model has no layers beyond 0 to 3


def test_psi_and_mix_on_the_command_line(styled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    single = ["--seeds", "0", "--output", str(tmp_path)]
    assert main(["--psi", "0.5", str(styled), *single]) == 0
    assert main([str(styled), "--psi", ".5", "1", "-1.5", *single]) == 0
    assert main([str(styled), "--mix", "0-1", "2", "--mix-layers", "3", *single]) == 0
    files = ("seed0000.png", "truncation.png", "mixing.png")
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in files]
    assert cells(tmp_path / "truncation.png").shape == (3, 1, 8, 8)


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


def test_film_through_w(styled: Path, tmp_path: Path) -> None:
    gan = load_run(styled)
    ws = style_loop(gan, [3, 4], frames=4, psi=0.7)
    a, b = gan.styles(gan.seeded_latents([3, 4]), psi=0.7)
    assert torch.allclose(ws, torch.stack([a, (a + b) / 2, b, (a + b) / 2]), atol=1e-6)
    (path,) = sample(styled, seeds="3-6", interpolate=2, frames=4, grid=True, space="w", psi=0.7, output=tmp_path)
    film = Image.open(path)
    assert film.n_frames == 4 and film.size == (2 * 66 - 2, 66 - 2)
    film.seek(1)
    middle = torch.frombuffer(bytearray(film.convert("L").tobytes()), dtype=torch.uint8).view(64, 130)[::8, 66::8]
    expected = to_uint8(gan.synthesize(style_loop(gan, [5, 6], frames=4, psi=0.7)))[1, 0]
    assert (middle.int() - expected.int()).abs().max() <= 2


def test_film_through_w_of_classes(tmp_path: Path) -> None:
    run = saved_stylegan(tmp_path / "run", num_classes=10)
    gan = load_run(run)
    (path,) = sample(run, seeds=[3, 4], interpolate=2, frames=2, grid=True, classes=[2, 7], space="w", output=tmp_path)
    film = Image.open(path)
    film.seek(1)
    lower = torch.frombuffer(bytearray(film.convert("L").tobytes()), dtype=torch.uint8).view(130, 64)[66::8, ::8]
    expected = to_uint8(gan.sample([4], labels=torch.tensor([7])))[0, 0]
    assert (lower.int() - expected.int()).abs().max() <= 2


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
    third = arc(a, b, torch.tensor([[1 / 3]]))
    assert torch.allclose(third, 2 * torch.tensor([[3**0.5 / 2, 0.5]]))
    assert torch.equal(arc(a, a, torch.tensor([[0.5]])), a)


def test_loop_passes_through_every_point_and_closes() -> None:
    z = torch.tensor([[0.0], [1.0], [4.0]])
    assert loop(z, 6, spherical=False).flatten().tolist() == [0, 0.5, 1, 2.5, 4, 2]
    directions = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loop(directions, 6, spherical=True)[::2], directions, atol=1e-6)


# ---- a model of another family -------------------------------------------------------------------------------------


class Painter(torch.nn.Module):
    """It draws a grey for each seed, and has no latents to walk through."""

    resolution, channels, num_classes, images_seen, device = 8, 1, 0, 0, torch.device("cpu")

    def sample(self, seeds: torch.Tensor, *, psi: float = 1.0, **look: object) -> torch.Tensor:
        return (psi * seeds.float() / 100).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)


def test_whatever_samples_is_drawn_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gans.runs.load.load_run", lambda run, trust: Painter())
    (path,) = sample("painter", seeds="0-3", grid=True, output=tmp_path)
    assert torch.equal(cells(path)[1, 0], to_uint8(Painter().sample(torch.tensor([2])))[0, 0])
    (path,) = sample("painter", seeds=[50], psi=[0.5, 1], output=tmp_path)
    assert cells(path)[:, 0, 0, 0].tolist() == to_uint8(torch.tensor([0.25, 0.5])).tolist()
    with pytest.raises(ValueError, match="a film needs a model that draws images of latents, and a Painter does not"):
        sample("painter", interpolate=2, output=tmp_path)


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
        ({"device": "cudda"}, "device 'cudda' is not here .*: give auto, cpu, cuda"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not here .*: give auto, cpu, cuda"),
        ({"interpolate": 2, "output": "x.png"}, "does not fit a film: give a folder or a file .gif or .mp4"),
        ({"interpolate": 2, "output": "x.gif", "format": "mp4"}, "contradict each other"),
        ({"output": "x.png"}, "does not fit single images: give a folder$"),
        ({"psi": []}, "psi is empty"),
        ({"psi": [0.5, 1], "output": "x.gif"}, "does not fit a table of psi: give a folder or a file .png"),
        ({"psi": [0.5, 1], "interpolate": 2}, "a table of psi and a film were asked for: give one of them"),
        ({"interpolate": 2, "space": "w"}, "VanillaGAN has no W: use space 'z'"),
        ({"space": "w"}, "space 'w' is where a film walks: give interpolate too"),
        ({"mix": ("1", "2")}, "a table of mixed styles needs a model that has styles .* and a VanillaGAN does not"),
        ({"mix": ("1", "")}, "mix '': '' is not a number"),
        ({"mix": ["1"]}, "mix has 1 parts"),
        ({"mix_layers": "1"}, "give the seeds of rows and columns as mix too"),
    ],
)
def test_arguments_that_cannot_be_met(run: Path, tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(run, **{"output": tmp_path, **arguments})
    assert not any(tmp_path.iterdir())


def test_a_table_has_one_class(conditional: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"classes \[3, 5\]: all images of this table have one class"):
        sample(conditional, classes="3,5", sticking=True, output=tmp_path)


def test_a_layer_that_does_not_exist(styled: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layer 4 does not exist: this model has the layers 0 to 3"):
        sample(styled, mix=("1", "2"), mix_layers="2-4", output=tmp_path)


def test_a_class_that_does_not_exist(conditional: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="class 10 does not exist: this model has the classes 0 to 9"):
        sample(conditional, classes="3,10", output=tmp_path)


def test_the_command_tells_where_the_files_are(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--seeds", "0-1", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"2 images in {tmp_path}\n"
    assert main([str(run), "--seeds", "0-1", "--grid", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'grid.png'}\n"


def test_the_command_says_one_line_when_there_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing"), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lit-gans sample: ") and "does not exist" in error and error.count("\n") == 1
