"""Text-to-image models: each scale's discriminator, both of its judgements, and captions that are wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.papers import AttnGAN, StackGAN, StackGAN2
from lit_gans.papers.text.game import scaled_images
from tests.papers import captioned, test_attngan, test_stackgan, test_stackgan2
from tests.papers.replay import Replay, replayed
from tests.papers.test_directions import alone

Logits = dict[str, dict[str, Tensor]]  # by scale and kind
ALONE = ("alone", "fake alone")

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")


def of_stackgan(game: StackGAN, batch: dict[str, Tensor]) -> Logits:
    judge, text = game.discriminator[game.stage], game.features(batch).sentence
    noise, (real,) = (
        game.draws("noise").normal(len(text), game.noise_dim),
        scaled_images(batch["image"], [game.stage_px]),
    )
    fake, wrong = game.drawn(game.latents(len(text), "z"), text, noise), game.features(batch, prefix="wrong_").sentence
    found = judged(judge.conditional, judge(real), judge(fake.image), game.condition(text), game.condition(wrong))
    if judge.alone is not None:
        found |= {k: judge.unconditional(judge(x)) for k, x in zip(ALONE, (real, fake.image), strict=True)}
    return {game.stage: found}


def of_attngan(game: AttnGAN, batch: dict[str, Tensor]) -> Logits:
    text, wrong, found = game.features(batch), game.features(batch, prefix="wrong_").sentence, {}
    noise = game.draws("eps").normal(len(wrong), game.noise_dim)
    fakes, reals = (
        game.draw(game.latents(len(wrong), "z"), noise, *text).images,
        scaled_images(batch["image"], game.sides),
    )
    for (side, judge), *pictures in zip(game.discriminator.at.items(), reals, fakes, strict=True):
        h = [judge(x) for x in pictures]
        found[side] = judged(judge.conditional, *h, text.sentence, wrong)
        found[side] |= {k: judge.unconditional(x) for k, x in zip(ALONE, h, strict=True)}
    return found


def judged(head: Callable[..., Tensor], real: Tensor, fake: Tensor, right: Tensor, wrong: Tensor) -> dict[str, Tensor]:
    return {"pair": head(real, right), "wrong": head(real, wrong), "fake": head(fake, right)}


def of_stackgan2(game: StackGAN2, batch: dict[str, Tensor]) -> Logits:
    drawn, found = game.generator(*game.inputs(batch)), {}
    kinds = scaled_images(batch["image"], game.sides), scaled_images(batch["wrong"], game.sides), drawn.images
    for judge, *pictures in zip(game.discriminator, *kinds, strict=True):
        pair, wrong, fake = (judge(x, drawn.mu) for x in pictures)
        found[str(pictures[0].shape[-1])] = {
            "pair": pair.pair, "wrong": wrong.pair, "fake": fake.pair,
            "alone": pair.alone, "wrong alone": wrong.alone, "fake alone": fake.alone,
        }  # fmt: skip
    return found


# name: the game, its data, its logits, how many scales.
CASES: dict[str, tuple[Callable[..., Game], dict[str, Any], Callable[..., Logits], int]] = {
    "stackgan-1": (test_stackgan.tiny, {"wrong": "caption"}, of_stackgan, 1),
    "stackgan-2": (lambda: test_stackgan.tiny(stage1_kimg=0.0), {"wrong": "caption"}, of_stackgan, 1),
    "stackgan2": (test_stackgan2.CASES["captions"], {"wrong": "image"}, of_stackgan2, 2),
    "attngan": (lambda: test_attngan.attngan(damsm_weight=0.0), {"wrong": "caption"}, of_attngan, 2),
}
TOLD = (("pair", "wrong"), ("pair", "fake"), ("alone", "fake alone"), ("wrong alone", "fake alone"))


@pytest.mark.parametrize("name", CASES)
def test_every_scale_learns_both_judgements(name: str, tmp_path: Path) -> None:
    build, data, logits, scales = CASES[name]

    def look(game: Game, batch: dict[str, Tensor]) -> None:
        alone(game)
        for name, p in game.named_parameters():
            if "augment" in name:
                p.data.mul_(10)  # so that captions differ much
        replay = Replay(game, batch)
        seen: list[Logits] = []
        for number in (None, 1, 0):
            replay.restore() if number is None else replay.stepped(number)
            with torch.no_grad():
                seen.append(logits(game, batch))
        before, told, passed = seen
        assert len(before) == scales
        for scale, kinds in before.items():
            for more, less in TOLD:
                if more in kinds:
                    gaps = [(at[scale][more].mean() - at[scale][less].mean()).item() for at in (told, before)]
                    assert gaps[0] > gaps[1], (scale, more, less)
            for kind in ("fake", "fake alone"):
                if kind in kinds:
                    assert passed[scale][kind].mean() > kinds[kind].mean(), (scale, kind)

    words = test_attngan.words() if name == "attngan" else captioned.WORDS
    replayed(build(), captioned.shapes(**data, vocabulary=words), tmp_path, look)


# As sorted: real pairs, wrong ones, fakes, and fakes that shall pass; alone, wrong images are real ones.
PAIR = [-1, -1, 1, 1]
HEADS = {
    "stackgan-1": {"discriminator.stage1.logits": PAIR},
    "stackgan-2": {"discriminator.stage2.logits": PAIR, "discriminator.stage2.alone": [-1, -1, 1]},
    "stackgan2": {f"discriminator.{k}.{head}": pulls for k in range(2)
                  for head, pulls in {"logits": PAIR, "alone": [-1, -1, -1, 1]}.items()},
    "attngan": {f"discriminator.at.{side}.{head}": pulls for side in (16, 32)
                for head, pulls in {"conditional": PAIR, "unconditional": [-1, -1, 1]}.items()},
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_every_judgement_is_pulled_the_right_way(name: str, tmp_path: Path) -> None:
    build, data, *_ = CASES[name]

    def look(game: Game, batch: dict[str, Tensor]) -> None:
        alone(game)
        replay = Replay(game, batch)
        assert {head: sorted(replay.pulls(head)) for head in HEADS[name]} == HEADS[name]

    words = test_attngan.words() if name == "attngan" else captioned.WORDS
    replayed(build(), captioned.shapes(**data, vocabulary=words), tmp_path, look)
