"""Separability during training."""

import json
from pathlib import Path

import pytest
from torch import Tensor, nn

from lit_gans import papers
from lit_gans.callbacks import Separability
from tests.callbacks.common import fit, tiny_gan
from tests.cases import CASES, StopAt, largest_difference, state, train


class Bright(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((1, 2, 3)) - 100


class Left(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        left, right = images.float().mean((1, 2)).chunk(2, 1)
        return (left - right).mean(1)


def scores(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "separability_z" in line]


def test_z_and_w_are_scored_on_the_clock(tmp_path: Path) -> None:
    gan = CASES["stylegan1-wgan-gp"]()
    assert isinstance(gan, papers.StyleGAN1)
    watching = Separability(0.032, [Bright(), Left()], num_samples=60, batch_size=20)
    train(gan, tmp_path, batches=4, callbacks=[watching])
    found = scores(tmp_path)
    assert [line["kimg"] for line in found] == [0.032, 0.064]
    assert all(line["separability_z"] >= 1 and line["separability_w"] >= 1 for line in found)
    assert found[0]["protocol"] == {"classifiers": ["Bright", "Left"], "num_samples": 60, "psi": 1.0}


def test_without_w_there_is_z_alone_and_training_is_not_disturbed(tmp_path: Path) -> None:
    watched, plain = CASES["gan"](), CASES["gan"]()
    with_it = train(watched, tmp_path / "a", batches=3, callbacks=[Separability(0.016, [Left()], num_samples=40)])
    without = train(plain, tmp_path / "b", batches=3)
    assert largest_difference(state(watched, with_it), state(plain, without)) == 0.0
    assert "separability_w" not in scores(tmp_path / "a")[0]


def test_what_is_missing_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="separability.classifiers is empty"):
        fit(tmp_path, tiny_gan(), Separability(0.016))
    from tests.papers.test_pix2pix import CASES as TRANSLATORS
    from tests.papers.test_pix2pix import pairs
    from tests.papers.test_pix2pix import train as translate

    with pytest.raises(ValueError, match="Separability .* needs a model that draws images of latents, and a Pix2Pix"):
        translate(
            TRANSLATORS["batch"](), pairs(tmp_path / "d"), tmp_path, batches=1, callbacks=[Separability(1, [Left()])]
        )
    fit(tmp_path, tiny_gan(), Separability(), StopAt(1))
