"""How often captions of drawn shapes are followed: a model that draws the very pictures, and one that errs."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lit_gans import fit
from lit_gans.base.images import from_uint8
from lit_gans.data import ShapeCaptions
from lit_gans.runs.caption_fit import caption_fit, caption_fit_of_run
from tests.adversarial.painter import Painter

FORMS = 5


def shapes() -> ShapeCaptions:
    return ShapeCaptions(batch_size=8, resolution=32, images=16, test_images=40)


class Copier(Painter):
    """Draws the pictures that the held-out captions were written for, those of the first `wrong` seeds in grey."""

    wrong = 0

    def multi_scale(self, seeds: Tensor, **_: Any) -> list[Tensor]:
        images = from_uint8(shapes().dataset("test").images(seeds // FORMS))
        images = torch.where((seeds < self.wrong)[:, None, None, None], images.mean(1, keepdim=True), images)
        return [images[..., ::2, ::2] + 0.25, images]


def copier() -> Copier:
    return Copier(vocabulary=list(shapes().vocabulary.words), sentence_dim=8, word_dim=4, resolution=32)


def test_the_pictures_themselves_fit_and_grey_ones_have_no_colour() -> None:
    gan = copier()
    found = caption_fit(gan, shapes(), num_images=40, batch_size=7)
    assert found[:4] == (1.0, 1.0, 1.0, 1.0)
    assert found.colour_difference == pytest.approx(0.25, abs=0.02)
    gan.wrong = 10
    found = caption_fit(gan, shapes(), num_images=40)
    assert found.colour == found.colour_and_shape == 0.75


def test_of_a_run(tmp_path: Path) -> None:
    model = {"resolution": 16, "branches": 2, "width": 2, "discriminator_width": 2, "z_dim": 4, "condition_dim": 3,
             "encoder": "words", "sentence_dim": 6, "word_dim": 4, "total_kimg": 0.008}  # fmt: skip
    data = {"resolution": 16, "images": 16, "test_images": 8, "batch_size": 8, "wrong": "image"}
    plan = {
        "model": {"class_path": "lit_gans.papers.StackGAN2", "init_args": model},
        "data": {"class_path": "lit_gans.data.ShapeCaptions", "init_args": data},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plan))
    argv = ["--config", str(tmp_path / "config.yaml"), "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    assert fit.main([*argv, "--image_grid.every_kimg=0", "--evaluate.every_kimg=0"]) == 0
    found = caption_fit_of_run(tmp_path / "run", num_images=10)
    assert all(0 <= share <= 1 for share in found[:4]) and found.colour_difference >= 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    config["data"] = {"class_path": "lit_gans.data.Shapes", "init_args": {"batch_size": 8, "resolution": 16}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="a StackGAN2 of Shapes, and a text-to-image model of ShapeCaptions"):
        caption_fit_of_run(tmp_path / "run")
