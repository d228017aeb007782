"""What each player is shown in a step: labels, augmentation, fading, partners, domains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, softplus

from lit_gans.adversarial import Game
from lit_gans.augment import AdaptiveAugment
from lit_gans.papers import CycleGAN
from lit_gans.papers.attngan.losses import damsm_loss
from tests.cases import BATCH, CASES
from tests.papers.games import GANS, OTHERS
from tests.papers.replay import Passes, Replay, heard, moved, replayed, spied, watched
from tests.papers.test_attngan import attngan, damsm, shapes

GENERATOR, DISCRIMINATOR = 0, 1  # their optimisers
# BigGAN draws the classes of its fakes: see its own tests.
CONDITIONAL = [name for name, build in CASES.items() if build().num_classes and not name.startswith("biggan")]


def calls_of(
    name: str, folder: Path, *networks: str, change: Callable[[Game], None] = lambda game: None, **given: Any
) -> tuple[list[Passes], dict[str, Tensor]]:
    """The calls of these networks in the first batch, and that batch."""
    build, data = (GANS | OTHERS)[name]
    found: list[Any] = []

    def look(game: Game, batch: dict[str, Tensor]) -> None:
        change(game)
        with watched(game, *networks) as calls:
            Replay(game, batch).fresh()
        found.extend((calls, batch))

    replayed(build(**given), data(folder / "data"), folder, look)
    return found[0], found[1]


def rows(name: str, step: int) -> slice:
    """Those of the batch whose images a player's step shows."""
    return slice(1 - step, None, 2) if name.startswith("r3gan") else slice(None)


def shown(calls: list[Passes], network: str, step: int) -> list[Tensor]:
    """The first arguments of the network's calls in a player's step."""
    return [call.args[0] for call in calls if (call.network, call.step) == (network, step)]


# ---- labels and latents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONDITIONAL)
def test_both_players_are_told_the_labels_of_the_batch(name: str, tmp_path: Path) -> None:
    """Each image has its own: fakes those of the reals beside which they are judged."""
    styled = name.startswith("stylegan")
    maker = "generator.mapping" if styled else "generator"
    calls, batch = calls_of(name, tmp_path, maker, "discriminator")
    told: dict[tuple[str, int], int] = {}
    for call in calls:
        tensors = [x for x in (*call.args[1:], *call.kwargs.values()) if isinstance(x, Tensor)]
        if call.network == "discriminator" and name.startswith("pggan"):
            continue  # it names the class itself
        (labels,) = tensors
        assert torch.equal(labels, batch["label"][rows(name, call.step)][: len(call.args[0])]), call.network
        told[call.network, call.step] = told.get((call.network, call.step), 0) + 1
    assert {network for network, _ in told} == ({maker} if name.startswith("pggan") else {maker, "discriminator"})


def test_pggan_names_the_classes_of_reals_and_fakes(tmp_path: Path) -> None:
    found: list[float] = []

    def look(game: Game, batch: dict[str, Tensor]) -> None:
        replay = Replay(game, batch)
        for game.class_weight in (0.0, 1.0):
            classified: list[Tensor] = []
            with heard(game.discriminator, "classify", classified.append):
                found.append(replay.fresh().loss)
        found.append(sum(cross_entropy(game.discriminator.classify(x)[1], batch["label"]).item() for x in classified))
        assert len(classified) == 3 and torch.equal(classified[0], batch["image"])

    replayed(CASES["pggan-classes"](), GANS["pggan-classes"][1](tmp_path), tmp_path, look)
    without, with_classes, of_classes = found
    assert with_classes - without == pytest.approx(of_classes, rel=1e-4)


# As in the authors' code; of Age-cGAN, which has none, as in DCGAN, after which it is made.
SAME_FAKES = ("age-cgan", "dcgan", "dcgan-r1", "fastgan", "msg-gan", "msg-gan-wgan", "msg-gan-style")


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("stylegan")])
def test_the_generators_step_draws_new_latents_but_where_the_authors_code_does_not(name: str, tmp_path: Path) -> None:
    calls, _ = calls_of(name, tmp_path, "generator", change=lambda game: vars(game).update(n_critic=1, d_steps=1))
    latents = [call.args[0] for call in calls]
    assert all(torch.equal(z, latents[0]) for z in latents) == (name in SAME_FAKES)
    assert all(len(call.args[0]) == len(range(BATCH)[rows(name, call.step)]) for call in calls)


@pytest.mark.parametrize("name", [name for name, build in CASES.items() if "n_critic" in build().hparams])
def test_the_generator_steps_in_every_n_critic_th_batch(name: str, tmp_path: Path) -> None:
    def look(game: Game, batch: dict[str, Tensor]) -> None:
        replay, steps = Replay(game, batch), []
        for game.batches_seen in range(7):
            steps.append(replay.fresh().steps)
        game.batches_seen = 0
        assert steps == [[1, 0], [1], [1], [1, 0], [1], [1], [1, 0]]

    build, data = GANS[name]
    game = build()
    game.n_critic = 3
    replayed(game, data(tmp_path), tmp_path, look)


def test_cgan_swaps_the_flipped_pairs_and_no_others(tmp_path: Path) -> None:
    """Each pair has its own coin, at the rate of `label_flip`, and both of it change places."""

    def look(game: Game, batch: dict[str, Tensor]) -> None:
        chance = torch.tensor([0.0, 0.19, 0.21, 0.99]).repeat(4)  # label_flip is 0.2
        draws, losses = game.draws, []
        coins = type("Coins", (), {"uniform": lambda self, n: chance})()
        game.r1_gamma = 0.0
        with spied(game, "draws", lambda *key: coins if key == ("flip",) else draws(*key)):
            with heard(game, "accumulate", lambda loss: losses.append(loss.item())):
                real, fake = Replay(game, batch).fresh().judged[0]
        flip = chance < 0.2
        expected = softplus(torch.where(flip, -fake, -real)).mean() + softplus(torch.where(flip, real, fake)).mean()
        assert losses[0] == pytest.approx(expected.item(), rel=1e-5)

    replayed(CASES["cgan-conv"](), GANS["cgan-conv"][1](tmp_path), tmp_path, look)


# ---- augmentation and fading -----------------------------------------------------------------------------------------


class Shift(AdaptiveAugment):
    """Leaves a mark on every image."""

    def __init__(self) -> None:
        super().__init__(p=1.0)
        self.given: list[Tensor] = []
        self.made: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.given.append(images)
        self.made.append(images * 0.5 + 3)
        return self.made[-1]


@pytest.mark.parametrize("name", ["stylegan2", "stylegan2-ada", "stylegan3-t"])
def test_the_discriminator_sees_nothing_that_is_not_augmented(name: str, tmp_path: Path) -> None:
    augment = Shift()
    calls, batch = calls_of(name, tmp_path, "discriminator", augment=augment)
    judged = [call.args[0] for call in calls]
    assert all(any(x is made for made in augment.made) for x in judged) and len(judged) == len(augment.made) == 4
    passed, fake, real, penalised = augment.given
    for images in (real, penalised):
        assert torch.equal(images, batch["image"])
    assert not torch.equal(fake, batch["image"]) and not torch.equal(passed, batch["image"])
    assert penalised.requires_grad, "R1 is of the reals before augmentation"
    assert [call.step for call in calls] == [GENERATOR, DISCRIMINATOR, DISCRIMINATOR, DISCRIMINATOR]


@pytest.mark.parametrize("name", ["pggan", "pggan-classes", "stylegan1", "stylegan1-wgan-gp"])
def test_reals_fade_in_as_fakes_do(name: str, tmp_path: Path) -> None:
    """At 0.3 of a stage, reals are 0.3 of themselves and 0.7 of what the stage before saw of them."""

    def fade(game: Game) -> None:
        game.set_progress(game.resolution, 0.3)

    calls, batch = calls_of(name, tmp_path, "discriminator", change=fade)
    judged = []
    if name == "pggan-classes":  # judged by another method
        build, data = GANS[name]

        def look(game: Game, batch: dict[str, Tensor]) -> None:
            fade(game)
            with heard(game.discriminator, "analysed", judged.append):
                Replay(game, batch).fresh()

        replayed(build(), data(tmp_path), tmp_path, look)
    else:
        judged = shown(calls, "discriminator", DISCRIMINATOR)
    image = batch["image"]
    coarse = avg_pool2d(image, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = 0.3 * image + 0.7 * coarse
    torch.testing.assert_close(judged[0], expected)
    assert not any(torch.equal(x, image) for x in judged)


# ---- translators -----------------------------------------------------------------------------------------------------


def test_pix2pix_judges_pairs_of_an_input_and_its_own_output(tmp_path: Path) -> None:
    calls, batch = calls_of("pix2pix-batch", tmp_path, "generator", "discriminator")
    (made,) = (call for call in calls if call.network == "generator")
    assert torch.equal(made.args[0], batch["a"])
    pairs = {"fake": torch.cat([batch["a"], made.out], 1), "real": torch.cat([batch["a"], batch["b"]], 1)}
    for step, kinds in ((DISCRIMINATOR, ["fake", "real"]), (GENERATOR, ["fake"])):
        found = shown(calls, "discriminator", step)
        assert [next(kind for kind, pair in pairs.items() if torch.equal(pair, x)) for x in found] == kinds
        assert all(x.requires_grad == (step == GENERATOR) for x in found)


def test_pix2pixhd_judges_photographs_and_fakes_beside_the_same_maps(tmp_path: Path) -> None:
    calls, batch = calls_of("pix2pixhd", tmp_path, "discriminator")
    whole = [(step, x) for step in (GENERATOR, DISCRIMINATOR) for x in shown(calls, "discriminator", step)]
    assert [step for step, _ in whole] == [GENERATOR] * 2 + [DISCRIMINATOR] * 2
    maps = [x[:, :-3] for _, x in whole]
    assert all(torch.equal(x, maps[0]) for x in maps)
    photo = avg_pool2d(batch["b"], 3, 2, 1, count_include_pad=False)  # the first phase works at half the size
    real, fake, fake_again, real_again = (x[:, -3:] for _, x in whole)
    assert torch.equal(fake, fake_again) and not torch.equal(real, fake)
    torch.testing.assert_close(real, photo)
    torch.testing.assert_close(real_again, photo)


@pytest.mark.parametrize("name", ["cyclegan-usual", "cyclegan-plain"])
def test_cyclegans_discriminators_judge_their_own_domain(name: str, tmp_path: Path) -> None:
    networks = ("generator_ab", "generator_ba", "discriminator_a", "discriminator_b")
    calls, batch = calls_of(name, tmp_path, *networks)
    a, b = batch["a"], batch["b"]
    fake_b, fake_a = (next(c.out for c in calls if c.network == f"generator_{way}") for way in ("ab", "ba"))
    for domain, real, fake in (("a", a, fake_a), ("b", b, fake_b)):
        (passed,) = shown(calls, f"discriminator_{domain}", GENERATOR)
        told = shown(calls, f"discriminator_{domain}", DISCRIMINATOR)
        assert torch.equal(passed, fake) and torch.equal(told[0], real) and torch.equal(told[1], fake)
        assert passed.requires_grad and not told[1].requires_grad
    inputs = {way: shown(calls, f"generator_{way}", GENERATOR) for way in ("ab", "ba")}
    identity = name == "cyclegan-usual"
    for way, (first, cycled, target) in {"ab": (a, fake_a, b), "ba": (b, fake_b, a)}.items():
        expected = [first, cycled, *([target] if identity else [])]
        assert all(torch.equal(x, y) for x, y in zip(inputs[way], expected, strict=True))


@pytest.mark.parametrize("domain", [0, 1])
def test_cyclegans_cycle_and_identity_of_a_domain_have_its_own_weight(domain: int, tmp_path: Path) -> None:
    build, data = OTHERS["cyclegan-usual"]

    def look(game: CycleGAN, batch: dict[str, Tensor]) -> None:
        replay = Replay(game, batch)
        game.cycle_weights = (0.0, 0.0)
        none = replay.fresh().loss
        game.cycle_weights = ((3.0, 0.0), (0.0, 3.0))[domain]
        found = replay.fresh().loss - none
        there, back = (game.generator_ab, game.generator_ba)[:: 1 - 2 * domain]
        x = batch["ab"[domain]]
        expected = 3 * (back(there(x)) - x).abs().mean() + 3 * game.identity_weight * (back(x) - x).abs().mean()
        assert found == pytest.approx(expected.item(), rel=1e-4)

    replayed(build(), data(tmp_path / "data"), tmp_path, look)


# ---- penalties -------------------------------------------------------------------------------------------------------

PENALISED = {
    "gan": "r1", "dcgan-r1": "r1", "cgan-conv": "r1", "stylegan1": "r1", "stylegan2": "r1", "stylegan3-t": "r1",
    "wgan-gp": "gp", "pggan": "gp", "stylegan1-wgan-gp": "gp",
}  # fmt: skip


@pytest.mark.parametrize("name", PENALISED)
def test_penalties_are_taken_where_the_paper_takes_them(name: str, tmp_path: Path) -> None:
    """R1 at the reals; the gradient penalty on lines between each real and a fake, at places of their own."""
    calls, batch = calls_of(name, tmp_path, "discriminator")
    told = [x.detach() for x in shown(calls, "discriminator", DISCRIMINATOR)]
    real = batch["image"]
    if PENALISED[name] == "r1":
        assert sum(torch.equal(x, real) for x in told) == 2  # judged, and penalised
        return
    fake, between = told[1], told[2]
    assert torch.equal(told[0], real)
    away, line = between - fake, real - fake
    share = (away * line).flatten(1).sum(1) / line.square().flatten(1).sum(1)
    torch.testing.assert_close(away, share[:, None, None, None] * line, atol=1e-5, rtol=1e-4)
    assert 0 <= share.min() < 0.3 and 0.7 < share.max() <= 1 and len(share.unique()) == BATCH


@pytest.mark.parametrize("name", ["pggan", "stylegan1-wgan-gp"])
def test_the_drift_is_of_the_reals(name: str, tmp_path: Path) -> None:
    build, data = GANS[name]

    def look(game: Game, batch: dict[str, Tensor]) -> None:
        moved(game)
        run = Replay(game, batch).fresh()
        ((real, fake),) = run.judged
        assert run.reports["drift"] == pytest.approx(real.square().mean().item(), rel=1e-5)
        assert run.reports["drift"] != pytest.approx(fake.square().mean().item(), rel=1e-2)

    replayed(build(), data(tmp_path), tmp_path, look)


@pytest.mark.parametrize(("name", "number"), [("pix2pix-batch", 0), ("cyclegan-usual", 1)])
def test_translators_halve_the_discriminators_loss(name: str, number: int, tmp_path: Path) -> None:
    """App. 7.1 of CycleGAN; Sec. 3.3 of pix2pix. Which accumulation it is depends on who steps first."""
    build, data = OTHERS[name]

    def look(game: Game, batch: dict[str, Tensor]) -> None:
        losses: list[float] = []
        with heard(game, "accumulate", lambda loss: losses.append(loss.item())):
            judged = Replay(game, batch).fresh().judged
        if name == "pix2pix-batch":
            terms = [softplus(-real).mean() + softplus(fake).mean() for real, fake in judged]
        else:
            terms = [(real - 1).square().mean() + fake.square().mean() for real, fake in judged]
        assert losses[number] == pytest.approx(0.5 * sum(terms).item(), rel=1e-4)

    replayed(build(), data(tmp_path / "data"), tmp_path, look)


@pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")
def test_attngans_matching_is_of_the_finest_fakes_and_their_own_captions(tmp_path: Path) -> None:
    calls, batch = calls_of("attngan", tmp_path, "generator", "image_encoder", "text_encoder")
    (made,), (matched,), (read, *_) = (
        [call for call in calls if call.network == name] for name in ("generator", "image_encoder", "text_encoder")
    )
    assert matched.args[0] is made.out.images[-1] and matched.step == GENERATOR
    assert torch.equal(read.args[0]["words"], batch["words"]) and torch.equal(made.args[1], read.out.sentence)


@pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")
@pytest.mark.parametrize(("build", "reported"), [(attngan, "damsm"), (damsm, "loss")])
def test_pictures_of_one_class_are_no_mismatches(build: Callable[..., Game], reported: str, tmp_path: Path) -> None:
    def look(game: Game, batch: dict[str, Tensor]) -> None:
        with watched(game, "image_encoder", "text_encoder") as calls:
            found = Replay(game, batch).fresh().reports[reported]
        (regions, image), text = (
            next(call.out for call in calls if call.network == name) for name in ("image_encoder", "text_encoder")
        )
        with_classes, without = (
            sum(damsm_loss(regions, image, text.words, text.sentence, text.mask, classes=classes, gammas=game.gammas))
            for classes in (batch["label"], None)
        )
        assert found == pytest.approx(with_classes.item(), rel=1e-4)
        assert found != pytest.approx(without.item(), rel=1e-3)

    replayed(build(), shapes(label="shape"), tmp_path, look)
