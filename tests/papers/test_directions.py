"""Each player's step goes the way of that player, in every paper."""

import re
from pathlib import Path

import pytest
from torch import Tensor

from lit_gans import papers
from lit_gans.adversarial import Game
from lit_gans.adversarial.losses import wasserstein
from tests.papers.games import GANS, OTHERS
from tests.papers.replay import Replay, Run, moved, replayed

GAMES = GANS | OTHERS
TERM = re.compile(r"(?!alone_)\w*(weights?|gamma|drift)")
# Both players step, as far as the loss says:
FREE = {"n_critic": 1, "clip": 1e9, "ortho_g": 0.0, "ortho_d": 0.0, "d_steps": 1}
SHARE = 0.01  # of the learning rate: far enough to see where it goes

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")


def test_every_paper_is_in_the_battery() -> None:
    assert {type(build()).__name__ for build, _ in GAMES.values()} == set(papers.__all__)


def alone(game: Game) -> None:
    """Leaves the adversarial loss: penalties and other terms may pull another way."""
    for name, value in list(vars(game).items()):
        if TERM.fullmatch(name) and isinstance(value, (float, tuple)):
            setattr(game, name, (0.0,) * len(value) if isinstance(value, tuple) else 0.0)
        elif name in FREE:
            setattr(game, name, FREE[name])
    moved(game)
    for group in (g for o in game.trainer.optimizers for g in o.param_groups):
        group["lr"] *= SHARE


def judges(game: Game) -> int:
    """The number of the discriminators' optimiser."""
    own = {id(p) for name, p in game.named_parameters() if name.startswith("discriminator")}
    (number,) = (
        i for i, o in enumerate(game.trainer.optimizers) if {id(p) for g in o.param_groups for p in g["params"]} == own
    )
    return number


def gaps(run: Run) -> list[float]:
    return [(real.mean() - fake.mean()).item() for real, fake in run.judged]


def fakes(run: Run) -> list[float]:
    return [fake.mean().item() for _, fake in run.judged]


def rises(after: list[float], before: list[float]) -> bool:
    return len(after) == len(before) > 0 and all(a > b for a, b in zip(after, before, strict=True))


def wants_to_tell(replay: Replay) -> bool:
    """Its loss is about both sides, and falls as reals are taken for more real than fakes; where it says which."""
    sides = [(real, fake) for real, fake in replay.slopes() if (real, fake) != (None, None)]
    return all(real is not None and fake is not None and real.sum() < fake.sum() for real, fake in sides)


@pytest.mark.parametrize("name", GAMES)
def test_the_discriminator_learns_to_tell_and_the_generator_to_pass(name: str, tmp_path: Path) -> None:
    build, data = GAMES[name]

    def look(game: Game, batch: dict[str, Tensor]) -> None:
        alone(game)
        replay = Replay(game, batch, same_latents=True)
        before = replay.fresh()
        if not before.judged:
            pytest.skip("a game without a discriminator")
        discriminator = judges(game)
        assert sorted(before.steps) == [0, 1]
        assert wants_to_tell(replay)
        if name.startswith("biggan"):  # sums over places are far beyond the hinge: there the mean may go either way
            game.loss = wasserstein
            before = replay.fresh()
        assert rises(gaps(replay.after(discriminator)), gaps(before))
        assert rises(fakes(replay.after(1 - discriminator)), fakes(before))

    replayed(build(), data(tmp_path / "data"), tmp_path, look)
