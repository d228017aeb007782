from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from lit_gans.adversarial import GAN
from lit_gans.callbacks.clock import EveryKimg, crossed, later

from .common import fit, tiny_gan


@pytest.mark.parametrize(
    ("before", "after", "every_kimg", "due"),
    [
        (0, 16, 0.016, True),
        (0, 15, 0.016, False),
        (16, 31, 0.016, False),
        (16, 32, 0.016, True),
        (16, 100, 0.016, True),
        (990, 1000, 1.0, True),
        (1000, 1010, 1.0, False),
        (0, 5, 0.0001, True),
        (56, 57, 0.057, True),
        (0, 10**9, 0, False),
    ],
)
def test_crossed(before: int, after: int, every_kimg: float, due: bool) -> None:
    assert crossed(before, after, every_kimg) is due


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_number_is_read_later(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x = torch.full((), 3.0, device=device)
    assert later(2 * x)() == 6.0


class Noted(EveryKimg):
    def __init__(self, *args: float, **kwargs: bool) -> None:
        super().__init__(*args, **kwargs)
        self.at: list[int] = []

    def act(self, trainer: Trainer, gan: GAN) -> None:
        self.at.append(gan.images_seen)


def test_acts_at_multiples_at_the_start_and_once_at_the_end(tmp_path: Path) -> None:
    plain, ends, never = Noted(0.04), Noted(0.04, at_start=True, at_end=False), Noted(0, at_start=True)
    fit(tmp_path, tiny_gan(total_kimg=0.112), plain, ends, never)
    assert plain.at == [48, 80, 112]  # 112 > 80 is no multiple: training's end
    assert ends.at == [0, 48, 80]
    assert never.at == []
    exact = Noted(0.056)
    fit(tmp_path, tiny_gan(total_kimg=0.112), exact)
    assert exact.at == [64, 112]


def test_resume_neither_repeats_nor_skips(tmp_path: Path) -> None:
    gan, first, second, third = tiny_gan(total_kimg=0.064), *(Noted(0.032, at_start=True) for _ in range(3))
    trainer = fit(tmp_path, gan, first)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    fit(tmp_path, tiny_gan(total_kimg=0.128), second, ckpt_path=tmp_path / "x.ckpt")
    fit(tmp_path, tiny_gan(total_kimg=0.064), third, ckpt_path=tmp_path / "x.ckpt")
    assert (first.at, second.at, third.at) == ([0, 32, 64], [96, 128], [])


def test_negative_is_refused() -> None:
    with pytest.raises(ValueError, match="Noted: every_kimg is -1; give 0"):
        Noted(-1)
