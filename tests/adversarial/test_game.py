"""What every game shares, on one that has neither latents nor one generator."""

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from lit_gans import fit, papers
from lit_gans.adversarial import GAN, Game
from lit_gans.adversarial.preview import draw_grid
from lit_gans.base.checkpoints import checkpoints
from lit_gans.base.grids import grid
from lit_gans.callbacks import EMA, Evaluate, Health, ImageGrid, Report, Throughput
from lit_gans.callbacks.ema import ema_weight
from lit_gans.data import Digits, ShapeDomains
from lit_gans.runs import pretrained
from lit_gans.runs.load import load_run
from lit_gans.sample import sample
from tests.adversarial.tiny import BATCH, TinyTranslator, build, train
from tests.cases import CASES, largest_difference
from tests.distributed.launch import run_processes


def tensors(game: Game) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in game.state_dict().items()}


def test_a_gan_is_a_game_and_not_every_game_is_a_gan() -> None:
    gan = CASES["gan"]()
    assert isinstance(gan, Game) and not isinstance(build(), GAN)
    assert gan.networks() == [gan.generator, gan.discriminator]
    assert gan.averages() == [(gan.generator_ema, gan.generator)]
    gan.generator_ema = None
    assert gan.averages() == []
    with pytest.raises(TypeError, match="abstract"):
        Game()


def test_preview_of_a_gan_is_its_samples_in_class_rows() -> None:
    gan = CASES["cgan-mlp"]()
    images, columns = gan.preview(None, rows=3, columns=2, psi=0.5)
    assert images.shape == (20, 1, 8, 8) and columns == 2
    assert torch.equal(images[5], gan.preview(None, rows=1, columns=2, psi=0.5)[0][5])
    assert not torch.equal(images, gan.preview(None, rows=3, columns=2, psi=1.0)[0])


@pytest.mark.parametrize("classes", [0, 3])
def test_each_cell_of_a_preview_has_its_row_and_column(classes: int) -> None:
    """A class in each row, a seed in each column, where there are other numbers of both; without, seeds row by row."""

    class Numbered:
        resolution, num_classes = 2, classes

        def sample(self, seeds: torch.Tensor, *, labels: torch.Tensor | None, psi: float, ema: bool) -> torch.Tensor:
            rows = torch.zeros_like(seeds) if labels is None else labels
            numbers = (10 * rows + seeds) / 127.5 - 1
            return numbers.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)

    images, columns = draw_grid(Numbered(), 3, 4)
    cells = [[10 * row + column if classes else 4 * row + column for column in range(4)] for row in range(3)]
    assert grid(images, columns)[0, ::2, ::2].tolist() == cells


def test_all_callbacks_that_need_no_latents_run(tmp_path: Path) -> None:
    game = build()
    shared = Report(0.008), Throughput(0.008), Health(0.008, diversity_every_kimg=0)
    train(game, tmp_path, EMA(0.05), *shared, ImageGrid(0.008, rows=3, columns=9), batches=4)
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert names == [*(f"fakes-00000.{n:03d}.png" for n in (0, 8, 16)), "latest.png"], "no reals.png"
    assert Image.open(tmp_path / "samples" / "latest.png").size == (2 * 66 - 2, 3 * 66 - 2)
    assert {"loss_g", "loss_d", "img_per_s"} <= game.latest_metrics.keys()


def test_ema_keeps_every_average(tmp_path: Path) -> None:
    game, seen = build(), []

    class Watch(EMA):
        def on_train_batch_end(self, *args: object) -> None:
            super().on_train_batch_end(*args)
            seen.append((tensors(game.ab)["weight"], tensors(game.ba)["weight"]))

    first = tensors(game)
    train(game, tmp_path, Watch(0.02, ramp_up=None), batches=3)
    for side, average in ((0, game.ab_ema), (1, game.ba_ema)):
        expected = first[("ab", "ba")[side] + ".weight"]
        for live in seen:
            expected = expected.lerp(live[side], 1 - ema_weight(BATCH, 0, half_life_kimg=0.02, ramp_up=None))
        assert torch.allclose(average.weight, expected, atol=1e-7)


def test_ema_that_is_off_leaves_averages_alone(tmp_path: Path) -> None:
    game = build()
    before = tensors(game)
    train(game, tmp_path, EMA(None), batches=2)
    assert torch.equal(game.ab_ema.weight, before["ab_ema.weight"])
    assert not torch.equal(game.ab.weight, before["ab.weight"])
    train(build(averaged=False), tmp_path / "none", EMA(None), batches=1)


def test_what_needs_a_gan_says_how_to_switch_it_off(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"TinyTranslator does not: it makes no images; set evaluate\.every_kimg=0"):
        train(build(averaged=False), tmp_path, Evaluate(0.01), batches=1)


def test_what_a_game_does_not_have_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(build(averaged=False), tmp_path, EMA(0.05), Report(), Health(0.008, diversity_every_kimg=0.008), batches=4)
    told = capsys.readouterr().err
    assert "no average is kept: TinyTranslator declares none" in told
    assert "no diversity is measured: a TinyTranslator draws no images from seeds" in told


def test_gan_and_pictures_to_translate_do_not_fit(tmp_path: Path) -> None:
    trainer = train(build(), tmp_path, batches=1)
    with pytest.raises(ValueError, match="VanillaGAN makes images from latents, and ShapeDomains gives pictures"):
        trainer.fit(papers.VanillaGAN(resolution=8), datamodule=ShapeDomains(batch_size=4, resolution=8))
    with pytest.raises(ValueError, match=r"batch_size 4 \(global\) is not divisible by 1 processes x 3 micro-batches"):
        trainer.fit(build(micro_batches=3), datamodule=ShapeDomains(batch_size=4, resolution=8))
    with pytest.raises(KeyError, match="'a'"):  # which data it takes is the paper's to check
        trainer.fit(build(), datamodule=Digits(batch_size=4, resolution=8))


# ---- the pool in checkpoints and on several processes ----------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 5])  # before and after the pool of 6 is full
def test_a_resumed_run_goes_on_with_its_pool(stop: int, tmp_path: Path) -> None:
    whole, half, resumed = build(), build(), build()
    train(whole, tmp_path / "whole", batches=8)
    train(half, tmp_path / "half", batches=stop)
    assert len(half.pool.images) == min(stop * BATCH, 6)
    train(resumed, tmp_path / "half", batches=8, resume=checkpoints(tmp_path / "half")[-1])
    assert largest_difference(tensors(whole), tensors(resumed)) == 0.0
    assert whole.images_seen == resumed.images_seen == 8 * BATCH


@pytest.mark.slow  # two processes take their time to start
def test_two_processes_share_one_pool(tmp_path: Path) -> None:
    alone = build()
    train(alone, tmp_path / "alone", batches=8)
    run_processes(2, ["-m", "tests.adversarial.tiny", str(tmp_path)])
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert largest_difference(first, second) == 0.0 and len(first["pool.images"]) == 6
    assert largest_difference(tensors(alone), first) < 1e-6


def test_run_is_loaded_as_what_it_is(tmp_path: Path) -> None:
    game = build()
    train(game, tmp_path, batches=3)
    loaded = load_run(tmp_path, trust="tests.adversarial")
    assert type(loaded) is TinyTranslator and torch.equal(loaded.ab.weight, game.ab.weight)
    with pytest.raises(ValueError, match="sampling needs a model that draws .*, and a TinyTranslator does not"):
        sample(tmp_path, output=tmp_path / "out", trust="tests.adversarial")
    with pytest.raises(ValueError, match=r"differ from the config's in 2 tensors \(judge"):
        wider = build()
        wider.judge = torch.nn.Conv2d(3, 2, 3)
        train(wider, tmp_path, batches=4, resume=checkpoints(tmp_path)[-1])


def test_a_pretrained_folder_leaves_the_pool_behind(tmp_path: Path) -> None:
    game = build()
    train(game, tmp_path / "run", batches=3)
    loaded = pretrained.from_pretrained(pretrained.save_pretrained(game, tmp_path / "folder"), trust="tests")
    assert torch.equal(loaded.ba_ema.weight, game.ba_ema.weight) and loaded.images_seen == 12
    assert len(loaded.pool.images) == 0 and len(game.pool.images) == 6


def test_the_fit_verb_trains_a_game(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = {
        "model": {"class_path": "tests.adversarial.tiny.TinyTranslator", "init_args": {"total_kimg": 0.016}},
        "data": {"class_path": "lit_gans.data.ShapeDomains", "init_args": {"resolution": 8, "batch_size": 4}},
        "ema": {"half_life_kimg": None},
        "image_grid": {"every_kimg": 0.008, "rows": 2},
        "logger": "none",
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    run = tmp_path / "run"
    assert fit.main(["--config", str(tmp_path / "tiny.yaml"), f"--run_folder={run}", "--seed_everything=5"]) == 0
    printed = capsys.readouterr().out
    assert f"{run / 'metrics.jsonl'}" in printed
    assert "lit-gans" not in printed, "it has no method that a verb could call"
    assert yaml.safe_load((run / "config.yaml").read_text())["ema"]["half_life_kimg"] is None
    assert load_run(run, trust="tests.adversarial").seed == 5
