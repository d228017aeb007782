"""No step of any game waits for its device: a GPU computes while the host prepares what comes next."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lit_gans.adversarial import Progressive
from lit_gans.callbacks import EMA, AdaptiveAugmentation, FadeIn
from tests.cases import BATCH, each
from tests.papers.games import GANS, OTHERS
from tests.waits import DEVICE, waits_of

QUICK = {"wgan-gp", "pggan", "stylegan2-ada", "pix2pix-batch", "stackgan"}  # the others are slow tests
pytestmark = pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")


@pytest.mark.parametrize("name", each(GANS, slow=set(GANS) - QUICK))
def test_steps_of_gans_wait_for_nothing(name: str, tmp_path: Path) -> None:
    build, data = GANS[name]
    game, callbacks = build(), [EMA(0.1)]
    if isinstance(game, Progressive):
        callbacks.append(FadeIn(start_px=4, stabilise_kimg=0.0, fade_kimg=2 * BATCH / 1000))
    if name == "stylegan2-ada":
        callbacks.append(AdaptiveAugmentation(interval=2))
    assert waits_of(game, data(tmp_path), tmp_path, batches=4, callbacks=callbacks) == []


@pytest.mark.parametrize("name", each(OTHERS, slow=set(OTHERS) - QUICK))
def test_steps_of_other_games_wait_for_nothing(name: str, tmp_path: Path) -> None:
    build, data = OTHERS[name]
    game = build()
    callbacks = [EMA(0.1)] if game.averages() else []
    assert waits_of(game, data(tmp_path / "data"), tmp_path, batches=2, callbacks=callbacks) == []


def wait_by(act: Callable[[torch.Tensor], Any], folder: Path) -> list[str]:
    build, data = GANS["gan"]

    class Act(pl.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            act(torch.ones(3, device=DEVICE))

    return waits_of(build(), data(folder), folder, batches=2, callbacks=[Act()])


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
