from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_gans.adversarial import Game
from lit_gans.adversarial.preview import draw, draw_walks
from lit_gans.base.grids import columns_of, layout, readable_grid, spread
from lit_gans.base.images import save_png
from lit_gans.callbacks.image_grid import ImageGrid, real_rows, save_growth
from lit_gans.data import Digits, TensorSet

from .common import fit, tiny_cgan, tiny_gan


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "samples").iterdir())


def size(path: Path) -> tuple[int, int]:
    return Image.open(path).size


def test_files_of_an_unconditional_run(tmp_path: Path) -> None:
    fit(tmp_path, tiny_gan(total_kimg=0.064), ImageGrid(0.032, columns=3, rows=2))
    fakes = ["fakes-00000.000.png", "fakes-00000.032.png", "fakes-00000.064.png"]
    assert names(tmp_path) == [*fakes, "latest.png", "reals.png"]
    assert size(tmp_path / "samples" / "latest.png") == (3 * 66 - 2, 2 * 66 - 2)
    assert size(tmp_path / "samples" / "reals.png") == (3 * 66 - 2, 10 * 66 - 2)  # labelled: a row per class
    last = (tmp_path / "samples" / fakes[-1]).read_bytes()
    assert (tmp_path / "samples" / "latest.png").read_bytes() == last
    assert last == (tmp_path / "samples" / fakes[0]).read_bytes()  # the averaged generator, which nothing moved here


def test_conditional_rows_are_classes(tmp_path: Path) -> None:
    gan = tiny_cgan(total_kimg=0.016)
    fit(tmp_path, gan, ImageGrid(0.016, columns=4, at_start=False))
    assert names(tmp_path) == ["fakes-00000.016.png", "latest.png", "reals.png"]
    picture = torch.frombuffer(bytearray(Image.open(tmp_path / "samples" / "latest.png").tobytes()), dtype=torch.uint8)
    picture = picture.view(10 * 66 - 2, 4 * 66 - 2)
    expected = draw(gan, torch.tensor([2]), labels=torch.tensor([7]))[0, 0]
    assert torch.equal(picture[7 * 66 : 7 * 66 + 64 : 8, 2 * 66 : 2 * 66 + 64 : 8], expected)
    assert picture[64:66].unique().tolist() == [128]


def test_walks_begin_and_end_at_images_of_seeds(tmp_path: Path) -> None:
    gan = tiny_cgan(total_kimg=0.016)
    fit(tmp_path, gan, ImageGrid(0.016, columns=5, at_start=False, walks=3))
    assert size(tmp_path / "samples" / "walks.png") == (5 * 66 - 2, 3 * 66 - 2)
    steps = draw_walks(gan, 8, 3, 5).unflatten(0, (3, 5))
    ends = draw(gan, torch.tensor([2, 3]), labels=torch.tensor([1, 1]))
    assert (steps[1, [0, -1]].int() - ends.int()).abs().max() <= 1
    assert not torch.equal(steps[1, 0], steps[1, 2])
    with pytest.raises(ValueError, match="image_grid.walks is -1"):
        ImageGrid(1, walks=-1)


def test_columns_leave_no_gap_where_they_can() -> None:
    assert [columns_of(n) for n in (1, 2, 3, 4, 6, 7, 8, 9, 12, 18, 64)] == [1, 2, 2, 2, 3, 3, 4, 3, 4, 6, 8]


def test_layout() -> None:
    seeds, labels = layout(2, 3, num_classes=0)
    assert seeds.tolist() == [0, 1, 2, 3, 4, 5] and labels is None
    seeds, labels = layout(20, 2, num_classes=3)
    assert seeds.tolist() == [0, 1] * 3 and labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert spread(1000, 20)[[0, -1]].tolist() == [0, 999] and len(spread(1000, 20).unique()) == 20
    assert spread(7, 20).tolist() == list(range(7))


def test_reals_lie_in_their_class_rows_and_missing_ones_are_black() -> None:
    pixels = torch.arange(1, 6, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 2, 2).contiguous()
    images = TensorSet(pixels, torch.tensor([1, 0, 1, 1, 0]))
    assert real_rows(images, 2, 3, num_classes=2)[:, 0, 0, 0].tolist() == [2, 5, 0, 1, 3, 4]
    assert real_rows(TensorSet(pixels), 1, 3, num_classes=0)[:, 0, 0, 0].tolist() == [1, 3, 5]


def test_digit_rows_show_their_digit() -> None:
    digits = Digits(batch_size=1, resolution=8).dataset()
    rows = real_rows(digits, 10, 2, num_classes=10)
    assert torch.equal(rows[2 * 4], digits.fetch((digits.labels == 4).nonzero()[0])["image"][0])


@pytest.mark.parametrize(("side", "columns", "width"), [(16, 10, 658), (8, 100, 1798), (28, 10, 858), (256, 10, 2560)])
def test_small_images_are_enlarged(side: int, columns: int, width: int) -> None:
    image = readable_grid(torch.zeros(columns, 1, side, side, dtype=torch.uint8), columns)
    assert image.shape[-1] == width


def test_batches_do_not_change_images() -> None:
    gan = tiny_gan()
    assert torch.equal(draw(gan, torch.arange(7), batch_size=3), draw(gan, torch.arange(7)))


def test_large_images_get_fewer_cells() -> None:
    assert ImageGrid(1)._shape(0, 1024) == (7, 7)
    assert ImageGrid(1)._shape(1000, 128) == (20, 10)


def test_nothing_when_switched_off_and_error_without_cells(tmp_path: Path) -> None:
    fit(tmp_path, tiny_gan(total_kimg=0.016), ImageGrid(0))
    assert not (tmp_path / "samples").exists()
    with pytest.raises(ValueError, match="2 rows and 0 columns"):
        ImageGrid(1, columns=0, rows=2)


def test_the_grids_become_a_film(tmp_path: Path) -> None:
    for i in range(200):
        save_png(torch.full((3, 8, 8 if i else 4), i, dtype=torch.uint8), tmp_path / f"fakes-{i:05d}.000.png")
    film = Image.open(save_growth(tmp_path))
    assert film.n_frames == 150 and film.size == (8, 8)
    film.seek(149)
    assert film.convert("RGB").getpixel((4, 4)) == (199, 199, 199)


def test_a_film_is_made_when_training_ends(tmp_path: Path) -> None:
    for film in (True, False):
        fit(tmp_path / str(film), tiny_gan(total_kimg=0.032), ImageGrid(0.016, columns=2, rows=2, film=film))
        assert (tmp_path / str(film) / "samples" / "film.gif").is_file() == film


def test_of_a_game_that_shows_nothing_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class Silent(Game):
        def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None: ...

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)]

    fit(tmp_path, Silent(total_kimg=0.032), ImageGrid(0.016))
    assert "no pictures are drawn: a Silent has no preview, nor samples" in capsys.readouterr().err
    assert not (tmp_path / "samples").exists()
