"""Films of images that move, and sheets of what sticks to the pixels."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_gans.base.images import to_uint8
from lit_gans.base.random import derive_seed
from lit_gans.editing.films import moving_film
from lit_gans.editing.styles import sticking_sheet
from lit_gans.metrics.equivariance import TRANSLATE_MAX
from lit_gans.papers import StyleGAN3
from lit_gans.runs.pretrained import save_pretrained
from lit_gans.sample import main, sample
from tests.callbacks.common import tiny_gan
from tests.metrics.waves import Waves

PX = 32
LOOK = {"psi": 1.0, "ema": True, "batch_size": 5}


def frames_of(move: str, seeds: list[int], *, grid: bool = True, frames: int = 4) -> torch.Tensor:
    drawn, columns = moving_film(Waves(PX), seeds, None, move=move, frames=frames, grid=grid, **LOOK)
    assert columns == (2 if grid else 1)
    return drawn.unflatten(0, (frames, -1))


def test_images_go_round() -> None:
    """At a quarter each: to the right, down, to the left and up by an eighth, which is four pixels."""
    right, down, left, up = frames_of("translate", [3, 4])
    image = to_uint8(Waves(PX).synthesize(Waves(PX).styles(Waves(PX).seeded_latents(torch.tensor([3, 4])))))
    shift = round(TRANSLATE_MAX * PX)
    assert shift == 4 and len(right) == 2
    for moved, expected in ((right[..., 4:], image[..., :-4]), (left[..., :-4], image[..., 4:])):
        assert (moved.int() - expected.int()).abs().max() <= 1
    for moved, expected in ((down[..., 4:, :], image[..., :-4, :]), (up[..., :-4, :], image[..., 4:, :])):
        assert (moved.int() - expected.int()).abs().max() <= 1


def test_images_turn_to_the_left() -> None:
    still, quarter, half, _ = frames_of("rotate", [3], grid=False)[:, 0]
    assert (quarter.int() - still.rot90(1, (1, 2)).int()).abs().max() <= 1
    assert (half.int() - still.rot90(2, (1, 2)).int()).abs().max() <= 1


def test_what_sticks_is_sharp_in_the_mean_and_streaked() -> None:
    sheet = sticking_sheet(Waves(64), [1, 2], steps=20, neighbours=8, reach=1.0, batch_size=7)
    assert sheet.shape == (2, 2 * 64 + 2, 2 * (64 + 2) + 20)
    image = to_uint8(Waves(64).generate(Waves(64).seeded_latents(torch.tensor([2]))))[0]
    row = sheet[:, 66:]
    assert torch.equal(row[..., :64], image)
    mean, strip = row[..., 66:130], row[..., 132:]
    others = Waves(64).seeded_latents([derive_seed("sticking", 2, i) for i in range(1, 9)])  # all the way to them
    assert (mean - to_uint8(Waves(64).generate(others)).double().mean(0)).abs().max() <= 0.51
    assert torch.equal(strip[..., 0], image[..., 32])  # the way begins at the image
    assert (strip[..., 0].int() - strip[..., -1].int()).abs().max() > 20


def test_small_images_are_enlarged() -> None:
    assert sticking_sheet(Waves(16), [1], steps=3, neighbours=2).shape == (2, 64, 2 * (64 + 2) + 3 * 4)


def test_films_and_sheets_of_a_model_are_files(tmp_path: Path) -> None:
    arguments = {"resolution": 16, "z_dim": 8, "w_dim": 8, "num_layers": 3, "channel_base": 64, "channel_max": 4}
    save_pretrained(StyleGAN3(num_classes=3, **arguments), tmp_path / "ours")
    run = str(tmp_path / "ours")
    argv = [run, "--transform", "rotate", "--frames", "3", "--grid", "--seeds", "0-1", "--output", str(tmp_path)]
    assert main(argv) == 0
    with Image.open(tmp_path / "moving.gif") as gif:
        assert gif.n_frames == 3
        assert gif.size[1] > gif.size[0]  # a row for each of three classes, two seeds in each
    assert main([run, "--sticking", "--seeds", "0-2", "--frames", "8", "--output", str(tmp_path / "a.png")]) == 0
    assert Image.open(tmp_path / "a.png").size == (2 * (64 + 2) + 8 * 4, 3 * 64 + 4)
    with pytest.raises(ValueError, match="a film of moves and a sheet of texture sticking were asked for"):
        sample(run, transform="rotate", sticking=True, output=tmp_path)


def test_a_model_that_cannot_be_moved_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_pretrained(tiny_gan(), tmp_path / "plain")
    assert main([str(tmp_path / "plain"), "--transform", "translate", "--output", str(tmp_path / "a.gif")]) == 2
    said = capsys.readouterr().err
    assert "a film of moves needs a model that moves and turns its input, and a VanillaGAN does not" in said
    assert not (tmp_path / "a.gif").exists()
