"""Every option that weighs a term of a loss reaches the gradient, in proportion, with the factor that is written."""

import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lit_gans import papers
from lit_gans.adversarial import Game
from tests.papers.games import GANS, OTHERS
from tests.papers.replay import Replay, Run, moved, replayed

GAMES = GANS | OTHERS
OPTION = re.compile(r"\w*_weight|\w*gamma|drift|orthogonal")

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")


class Term(NamedTuple):
    """option: of the constructor, and of the game by this name. case: of `games`, built with `given`.

    player: 0 is the generator's optimiser, 1 the discriminator's. reported: as, without its weight; the loss has it
    `factor` times the weight. None: it is not reported alone. least: the smallest weight that is tried.
    """

    option: str
    case: str
    player: int
    reported: str | None = None
    factor: float = 1.0
    given: dict[str, Any] = {}
    least: float = 0.0


class Distance(nn.Module):
    """In the place of VGG19."""

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        return (fake - real).square().mean()


TERMS = [
    Term("r1_gamma", "gan", 1, "r1", 0.5),
    Term("r1_gamma", "dcgan", 1, "r1", 0.5),
    Term("r1_gamma", "cgan-conv", 1, "r1", 0.5),
    Term("penalty_weight", "wgan-gp", 1, "gp"),
    Term("penalty_weight", "msg-gan-wgan", 1, "gp"),
    Term("r1_gamma", "msg-gan-style", 1, "r1", 0.5),
    Term("penalty_weight", "pggan", 1, "gp"),
    Term("drift", "pggan", 1, "drift"),
    Term("class_weight", "pggan-classes", 0),
    Term("class_weight", "pggan-classes", 1),
    Term("r1_gamma", "stylegan1", 1, "r1", 0.5),
    Term("penalty_weight", "stylegan1-wgan-gp", 1, "gp"),
    Term("drift", "stylegan1-wgan-gp", 1, "drift"),
    # Lazy: the interval makes up for the batches without.
    Term("r1_gamma", "stylegan2", 1, "r1", 0.5 * 3),
    Term("pl_weight", "stylegan2", 0, "path_length", 2.0),
    Term("r1_gamma", "stylegan3-t", 1, "r1", 0.5 * 3),
    Term("r1_gamma", "age-cgan", 1, "r1", 0.5),
    Term("gamma", "r3gan", 1),
    Term("reconstruction_weight", "fastgan", 1, "reconstruction"),
    # The official code does not multiply it by the interval.
    Term("pl_weight", "stylegan-xl", 0, "path_length", given={"pl_from_kimg": 0.0, "policy": []}),
    Term("guidance_weight", "stylegan-xl", 0, "guidance"),
    Term("guidance_weight", "stylegan-t-captions", 0, "guidance"),
    Term("kl_weight", "stackgan", 0, "kl"),
    Term("kl_weight", "stackgan2-captions", 0, "kl"),
    Term("colour_weight", "stackgan2-none", 0, "colour"),
    Term("alone_weight", "stackgan2-captions", 0, least=0.5),  # 0 is another loss: StackGAN's
    Term("alone_weight", "stackgan2-captions", 1, least=0.5),
    Term("r1_gamma", "stackgan2-smooth", 1, "r1", 0.5 * 2),
    Term("kl_weight", "attngan", 0),
    Term("damsm_weight", "attngan", 0, "damsm"),
    Term("l1_weight", "pix2pix-batch", 0, "l1"),
    Term("matching_weight", "pix2pixhd", 0, "matching"),
    Term("perceptual_weight", "pix2pixhd", 0, "perceptual", given={"perceptual": Distance()}),
    Term("cycle_weight", "cyclegan-plain", 0, "cycle"),
    Term("identity_weight", "cyclegan-usual", 0, "identity", 10.0),
]  # fmt: skip


def test_no_options_term_is_left_out() -> None:
    options = {
        (name, option)
        for name in papers.__all__
        for option, p in inspect.signature(getattr(papers, name)).parameters.items()
        if OPTION.fullmatch(option) and p.default is not inspect.Parameter.empty
    }
    assert {(type(GAMES[t.case][0]()).__name__, t.option) for t in TERMS} == options


def weigh(game: Game, option: str, weight: float) -> None:
    if option == "cycle_weight":
        game.cycle_weights = (weight, weight)
    else:
        setattr(game, option, weight)


@pytest.mark.parametrize("term", TERMS, ids=lambda t: f"{t.case}-{t.option}-{'gd'[t.player]}")
def test_the_gradient_is_in_proportion_to_the_weight(term: Term, tmp_path: Path) -> None:
    build, data = GAMES[term.case]
    runs: list[Run] = []

    def look(game: Game, batch: dict[str, Tensor]) -> None:
        moved(game)
        replay = Replay(game, batch)
        for more in (0.0, 0.7, 1.4):
            weigh(game, term.option, term.least + more)
            runs.append(replay.fresh())

    replayed(build(**term.given), data(tmp_path / "data"), tmp_path, look)
    none, once, twice = (run.gradients[term.player] for run in runs)
    assert (once - none).norm() > 1e-6 * none.norm()
    assert ((twice - none) - 2 * (once - none)).norm() < 1e-3 * (once - none).norm()
    if term.reported:
        added = 0.7 * term.factor * runs[1].reports[term.reported]
        assert runs[1].loss - runs[0].loss == pytest.approx(added, rel=1e-3, abs=1e-5)
    if not any((t.case, t.option, t.player) == (term.case, term.option, 1 - term.player) for t in TERMS):
        none, once, _ = (run.gradients[1 - term.player] for run in runs)
        assert torch.equal(none, once), "it is one player's alone"


@pytest.mark.parametrize(("name", "option"), sorted({(t.case, t.option) for t in TERMS}))
def test_the_constructors_weight_is_the_games(name: str, option: str) -> None:
    try:
        game = GAMES[name][0](**{option: 0.37})
    except TypeError:  # a case that sets it itself
        game = GAMES[name][0]()
    assert getattr(game, "cycle_weights" if option == "cycle_weight" else option) in (
        game.hparams[option],
        (game.hparams[option],) * 2,
    )
