"""No step of any game waits for its device: a GPU computes while the host prepares what comes next."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lit_gans.adversarial import Game, Progressive
from lit_gans.callbacks import EMA, AdaptiveAugmentation, FadeIn
from lit_gans.data import Digits
from tests.cases import BATCH, CASES
from tests.papers import captioned, test_attngan, test_cyclegan, test_pix2pix, test_pix2pixhd, test_stackgan2
from tests.papers.test_stackgan import tiny as stackgan
from tests.waits import DEVICE, waits_of

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")


def digits(game: Game) -> Digits:
    return Digits(batch_size=BATCH, resolution=game.resolution, seed=5)


@pytest.mark.parametrize("name", CASES)
def test_steps_of_gans_wait_for_nothing(name: str, tmp_path: Path) -> None:
    game, callbacks = CASES[name](), [EMA(0.1)]
    if isinstance(game, Progressive):
        callbacks.append(FadeIn(start_px=4, stabilise_kimg=0.0, fade_kimg=2 * BATCH / 1000))
    if name == "stylegan2-ada":
        callbacks.append(AdaptiveAugmentation(interval=2))
    assert waits_of(game, digits(game), tmp_path, batches=4, callbacks=callbacks) == []


def pixels(folder: Path) -> pl.LightningDataModule:
    return test_pix2pixhd.data(test_pix2pixhd.write_pictures(folder))


OTHERS: dict[str, tuple[Callable[[], Game], Callable[[Path], pl.LightningDataModule]]] = {
    **{f"pix2pix-{name}": (build, test_pix2pix.pairs) for name, build in test_pix2pix.CASES.items()},
    **{f"cyclegan-{name}": (build, test_cyclegan.domains) for name, build in test_cyclegan.CASES.items()},
    "pix2pixhd": (lambda: test_pix2pixhd.tiny(**test_pix2pixhd.PHASES), pixels),
    "stackgan": (stackgan, lambda _: captioned.shapes(wrong="caption")),
    **{f"stackgan2-{name}": (build, lambda _, name=name: test_stackgan2.data(name))
       for name, build in test_stackgan2.CASES.items()},
    "joint-embedding": (test_stackgan2.embedding, lambda _: captioned.shapes()),
    **{name: (build, lambda _: test_attngan.shapes()) for name, build in test_attngan.BUILD.items()},
    "damsm-gru": (lambda: test_attngan.damsm(encoder_rnn="gru"), lambda _: test_attngan.shapes()),
    "damsm-bag": (lambda: test_attngan.damsm(encoder_rnn="bag"), lambda _: test_attngan.shapes()),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_steps_of_other_games_wait_for_nothing(name: str, tmp_path: Path) -> None:
    build, data = OTHERS[name]
    game = build()
    callbacks = [EMA(0.1)] if game.averages() else []
    assert waits_of(game, data(tmp_path / "data"), tmp_path, batches=2, callbacks=callbacks) == []


def wait_by(act: Callable[[torch.Tensor], Any], folder: Path) -> list[str]:
    game = CASES["gan"]()

    class Act(pl.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            act(torch.ones(3, device=DEVICE))

    return waits_of(game, digits(game), folder, batches=2, callbacks=[Act()])


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (lambda x: torch.tensor([1.0], device=x.device), "built from [1.0]"),
        (lambda x: torch.as_tensor(2.0, device=x.device), "built from 2.0"),
        (lambda x: x.new_tensor([3.0]), "built from [3.0]"),
        (lambda x: x[[0, 2]], "indexed with [0, 2]"),
        (lambda x: torch.ones(2).to(x.device), "copied (2,)"),
        (lambda x: x.copy_(torch.ones(3)), "copied (3,)"),
    ],
)
def test_what_is_copied_to_the_device_is_seen(act: Callable, found: str, tmp_path: Path) -> None:
    assert wait_by(act, tmp_path) == [found] * 2


@pytest.mark.parametrize("act", [lambda x: x[0].item(), lambda x: x.tolist(), lambda x: x[x > 0], lambda x: x.cpu()])
def test_what_is_read_from_it_is_an_error(act: Callable, tmp_path: Path) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        wait_by(act, tmp_path)


def test_what_needs_no_waiting_passes(tmp_path: Path) -> None:
    def act(x: torch.Tensor) -> None:
        x.mul_(torch.tensor(2.0)).add_(1.0)[0].fill_(3.0)
        x.copy_(torch.ones(3), non_blocking=True)
        torch.ones(3).to(x.device, non_blocking=True)

    assert wait_by(act, tmp_path) == []
