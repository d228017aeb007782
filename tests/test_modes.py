"""`lit-gans modes`: games in the plane, their modes, and a bench that goes on where it was stopped."""

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lit_gans import papers
from lit_gans.adversarial import GAN
from lit_gans.data.mixtures import sample_mixture
from lit_gans.data.points import MIXTURES, Mixture
from lit_gans.modes import main, modes
from lit_gans.training import modes as of_modes
from lit_gans.training.modes import SHIPPED, Player, Row, Settings, bench, measure, play, players_of, read_rows
from lit_gans.training.modes_report import protocol, spread, table
from lit_gans.training.plane import PLAYERS, Generator, into_plane

TINY = Settings(batches=3, batch_size=16, width=8, points=64, samples=20)
PAIR = Mixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64), 0.3, 2.5)
TABLE = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("player", players_of(None), ids=lambda player: player.name)
def test_every_game_of_the_table_is_played_and_both_its_players_learn(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    games, before = [], []

    def watched(gan: GAN, **options: Any) -> None:
        into_plane(gan, **options)
        games.append(gan)
        before.append({name: p.detach().clone() for name, p in gan.named_parameters()})

    monkeypatch.setattr(of_modes, "into_plane", watched)
    points, _ = play(player, MIXTURES["ring"], seed=0, settings=TINY)
    assert points.shape == (20, 2) and points.dtype == torch.float64 and points.isfinite().all()
    gan = games[0]
    assert gan.batches_seen == 3 and type(gan) is getattr(papers, player.class_path.rpartition(".")[2])
    names = {name for name, _ in gan.named_parameters()}
    assert {name.partition(".")[0] for name in names} == {"generator", "discriminator"} and len(names) == 16
    # A critic's last bias falls out of the difference of its scores, and of a hinge inside the margins.
    still = {name for name, p in gan.named_parameters() if torch.equal(p, before[0][name])}
    assert still <= {"discriminator.layers.7.bias"}
    assert torch.equal(play(player, MIXTURES["ring"], seed=0, settings=TINY)[0], points)
    assert not torch.equal(play(player, MIXTURES["ring"], seed=1, settings=TINY)[0], points)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("VanillaGAN", {"loss": "lit_gans.adversarial.losses.minimax"}),
        ("VanillaGAN", {"optimizer": "adam", "lr": 0.001}),
        ("DCGAN", {"betas": [0.0, 0.9]}),
        ("WGAN", {"clip": 0.02}),
        ("WGANGP", {"penalty_weight": 1.0}),
        ("WGANGP", {"n_critic": 1}),
        ("PGGAN", {"penalty_weight": 1.0}),
        ("PGGAN", {"drift": 10.0}),
        ("MSGGAN", {"loss": "lit_gans.adversarial.losses.hinge"}),
        ("StyleGAN1", {"r1_gamma": 1.0}),
        ("StyleGAN2", {"r1_gamma": 1.0}),
        ("StyleGAN2", {"pl_weight": 0.0}),
        ("StyleGAN3", {"r1_gamma": 100.0}),
        ("FastGAN", {"betas": [0.0, 0.9]}),
        ("R3GAN", {"gamma": 5.0}),
        ("R3GAN", {"beta2_end": 0.9}),
    ],
)
def test_losses_penalties_and_optimisers_are_the_papers(name: str, changed: dict) -> None:
    (player,) = players_of([name])
    other = replace(player, init_args={**player.init_args, **changed})
    both = [play(each, MIXTURES["ring"], seed=0, settings=TINY)[0] for each in (player, other)]
    assert not torch.equal(*both)


def test_the_table_names_every_unconditional_gan_or_why_it_is_left_out() -> None:
    gans = {name for name in papers.__all__ if issubclass(getattr(papers, name), GAN)}
    assert gans - TABLE["games"].keys() - TABLE["left_out"].keys() == set()
    assert not TABLE["games"].keys() & TABLE["left_out"].keys()
    assert all(player.says for player in players_of(None))


def backwards(step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], *, player: int) -> Callable:
    """The loss with the sign of one player's part turned."""

    def turned(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        losses = list(step(real, fake))
        losses[player] = -losses[player]
        return losses[0], losses[1]

    return turned


def covered(player: Player, turn: int | None = None) -> tuple[int, float]:
    """Modes of two wide ones, and high quality, after a training of seconds; `turn`: whose loss has the wrong sign."""
    build = player.build
    turned = replace(player)

    def built(**given: object) -> GAN:
        gan = build(**given)
        if turn is not None:
            gan.loss = backwards(gan.loss, player=turn)
        return gan

    object.__setattr__(turned, "build", built)
    settings = Settings(batches=200, batch_size=32, width=16, points=5000, samples=500)
    return measure(play(turned, PAIR, seed=0, settings=settings)[0], PAIR)[:2]


def test_a_game_that_is_played_backwards_is_noticed() -> None:
    player = replace(players_of(["DCGAN"])[0], init_args={"resolution": 8, "width": 8, "lr": 0.002, "r1_gamma": 0.3})
    found, share = covered(player)
    assert found == 2 and share > 0.8
    assert covered(player, turn=0) == (0, 0)  # the discriminator leads away from the data
    assert covered(player, turn=1) == (0, 0)  # the generator flees from it


def test_measured_is_what_the_samples_show() -> None:
    ring = MIXTURES["ring"]
    real = sample_mixture(ring.centres, ring.sigma, n=4000)
    covered, share, divergence = measure(real, ring)
    assert covered == 8 and share == pytest.approx(0.989, abs=0.01) and divergence == pytest.approx(0, abs=0.01)
    one = sample_mixture(ring.centres[:1], ring.sigma, n=500)
    assert measure(one, ring) == (1, pytest.approx(0.989, abs=0.02), pytest.approx(torch.tensor(8).log().item()))
    noise = 2 * torch.rand(5000, 2, generator=torch.Generator().manual_seed(0)).double() - 1
    assert measure(0.5 * noise, ring) == (0, 0.0, None)
    assert measure(torch.full((3, 2), torch.nan), ring) == (0, 0.0, None)


def test_a_bench_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    players = players_of(["DCGAN", "VanillaGAN"])
    rows = bench(players, ["ring"], 2, output=tmp_path, settings=TINY)
    first = [next(rows) for _ in range(3)]
    rows.close()
    assert read_rows(tmp_path) == first
    played, real_play = [], play

    def counted(player: Player, *args: object, **options: object) -> object:
        played.append((player.name, options["seed"]))
        return real_play(player, *args, **options)

    monkeypatch.setattr(of_modes, "play", counted)
    whole = list(bench(players, ["ring"], 2, output=tmp_path, settings=TINY))
    assert whole[:3] == first and played == [("VanillaGAN", 1)]
    assert [row.place for row in whole] == [("ring", p.name, seed) for seed in (0, 1) for p in players]
    with pytest.raises(ValueError, match="has DCGAN on ring of other settings .* give another output"):
        list(bench(players, ["ring"], 2, output=tmp_path, settings=replace(TINY, batches=4)))
    faster = [replace(players[0], init_args={**players[0].init_args, "lr": 1.0}), players[1]]
    with pytest.raises(ValueError, match="of other settings"):
        list(bench(faster, ["ring"], 2, output=tmp_path, settings=TINY))
    named = [replace(player, says="in other words") for player in players]
    assert list(bench(named, ["ring"], 2, output=tmp_path, settings=TINY)) == whole
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"mixture": "ri')
    with pytest.raises(ValueError, match="line 5 is no row .* take it out"):
        list(bench(players, ["ring"], 2, output=tmp_path, settings=TINY))


def row(game: str, seed: int, modes: int, quality: float, divergence: float | None) -> Row:
    return Row(
        mixture="ring", game=game, seed=seed, settings="", modes=modes, high_quality=quality, divergence=divergence,
        cpu_s=2.0,
    )  # fmt: skip


def test_the_table_has_means_and_spreads() -> None:
    rows = [row("A", 0, 8, 0.5, 0.1), row("A", 1, 6, 0.7, 0.3), row("B", 0, 0, 0.0, None), row("B", 1, 2, 0.1, 1.0)]
    lines = table(rows, [Player("A", "a.A", says="hinge"), Player("B", "b.B")], ["ring"], Settings()).splitlines()
    assert lines[0] == protocol(Settings(), 2) and "over 2 seeds" in lines[0] and "2,500 samples" in lines[0]
    assert "| ring: modes of 8 |" in lines[2]
    assert lines[4] == "| A | hinge | 7.0 ± 1.4 | 60.0 ± 14.1 % | 0.20 ± 0.14 | 2.0 |"
    assert lines[5] == "| B |  | 1.0 ± 1.4 | 5.0 ± 7.1 % | 1.00 (of 1) | 2.0 |"
    data, noise = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[6:])
    assert data[0] == "the data themselves" and data[2] == "8" and 98 < float(data[3][:-2]) < 100 and data[4] == "0.00"
    # Discs of 3 deviations are 8 pi 0.06^2 / 25 of the square: 9 of 2,500 points, in 5.4 of 8 modes.
    assert noise[0] == "uniform noise" and 4 <= int(noise[2]) <= 7 and 0.1 < float(noise[3][:-2]) < 0.8
    assert spread([3.0], "{:.1f}") == "3.0" and spread([], "{:.1f}") == ""


def test_the_command_writes_rows_table_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--games", "DCGAN", "WGAN", "--mixtures", "grid", "--seeds", "1", "--batches", "2", "--batch-size", "8"]
    words += ["--width", "8", "--samples", "12", "--output", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "| DCGAN |" in printed and "grid: modes of 25" in printed and "ring" not in printed
    assert (tmp_path / "table.md").read_text(encoding="utf-8") in printed
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG" and not (tmp_path / "ring.png").exists()
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["game"], line["mixture"]) for line in lines] == [("DCGAN", "grid"), ("WGAN", "grid")]
    assert (tmp_path / "points" / "grid-DCGAN-0.safetensors").is_file()
    assert main([*words, "--batches", "3"]) == 2 and "of other settings" in capsys.readouterr().err


def test_a_class_of_ones_own_plays_by_its_import_path() -> None:
    (player,) = players_of(["lit_gans.adversarial.template.Template"])
    assert (player.name, player.networks, player.init_args) == ("Template", "plain", {})
    points, _ = play(player, MIXTURES["grid"], seed=0, settings=TINY)
    assert points.shape == (20, 2) and points.isfinite().all()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"games": ["ProjectedGAN"]}, "ProjectedGAN does not play in the plane: its discriminators look through"),
        ({"games": ["StyleGANXL"]}, "StyleGANXL does not play in the plane"),
        ({"games": ["CGAN"]}, "CGAN does not play in the plane: it is conditional"),
        ({"games": ["DCGANN"]}, "no game 'DCGANN' in games.yaml; it has VanillaGAN, DCGAN, .*by their import path"),
        ({"games": ["lit_gans.papers.CycleGAN"]}, "has no class 'CycleGAN' of its own that is a GAN"),
        ({"seeds": 0}, "seeds is 0; it must be 1 or more"),
        ({"batches": 0}, "batches is 0; it must be 1 or more"),
        ({"z_dim": -1}, "z_dim is -1; it must be 1 or more"),
    ],
)
def test_what_cannot_be_played_is_refused(given: dict, error: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=error):
        modes(**{"output": tmp_path, "seeds": 1, "mixtures": ["ring"], **given})


@pytest.mark.parametrize(
    ("class_path", "init_args", "error"),
    [
        ("lit_gans.papers.MSGGAN", {"resolution": 8, "width": 8}, "does not play with 'plain' networks of .*plane ."),
        ("lit_gans.papers.CGAN", {"form": "mlp"}, "CGAN has 10 classes, and points have none"),
        ("lit_gans.papers.DCGAN", {"breadth": 8}, "DCGAN cannot be built for the plane: .*breadth"),
    ],
)
def test_games_that_ask_for_more_than_points_are_refused(class_path: str, init_args: dict, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        play(Player("X", class_path, init_args), MIXTURES["ring"], seed=0, settings=TINY)


def test_tables_of_games_are_checked(tmp_path: Path) -> None:
    def written(text: str) -> Path:
        path = tmp_path / "games.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    mine = "games:\n  Mine:\n    class_path: lit_gans.papers.DCGAN\n    init_args: {%s}\n%s"
    assert players_of(None, file=written(mine % ("lr: 0.001", "")))[0].init_args == {"lr": 0.001}
    for arguments, more, error in (
        ("augment: 1", "", "Mine: augmentation is of pictures"),
        ("seed: 1", "", "Mine: seed is the same for all games"),
        ("", "  Bare:\n    says: nothing\n", "Bare has no class_path"),
        ("", "  Bare:\n", "Bare has no class_path"),
        ("", "    network: plain\n", "Mine has network; known are class_path, init_args, networks, says"),
    ):
        with pytest.raises(ValueError, match=error):
            players_of(None, file=written(mine % (arguments, more)))
    with pytest.raises(ValueError, match="has no `games:`"):
        players_of(None, file=written("DCGAN: 1\n"))
    (odd,) = players_of(None, file=written(mine % ("", "    networks: round\n")))
    with pytest.raises(ValueError, match="networks 'round' are none of plain, scales, encoder"):
        into_plane(papers.DCGAN(resolution=8), form=odd.networks)


def test_halves_of_the_generator_are_the_whole_and_magnitudes_only_matter_where_tracked() -> None:
    torch.manual_seed(0)
    network, z = Generator(3, 8), torch.randn(5, 3)
    squares: list[Tensor] = []
    parts = network.synthesis(network.mapping(z), squares=squares)
    assert torch.equal(parts, network(z)) and parts.shape == (5, 2, 1, 1) and len(squares) == 3
    assert squares[0] == pytest.approx(network.mapping(z).square().mean().item())
    network.mapping.track(torch.ones(8))
    assert torch.allclose(network.mapping.w_avg, torch.full((8,), 0.005))
    assert torch.allclose(network(z, psi=0.0), network.synthesis(network.mapping.w_avg.expand(5, 1, 8)))
    layer, x = network.synthesis.layers[0], torch.randn(5, 8)
    layer.track(torch.tensor(9.0), decay=0.5)  # mean of 1 and 9
    assert torch.allclose(layer(x), torch.nn.functional.linear(x / 5**0.5, layer.weight, layer.bias))


def test_the_plane_names_no_paper() -> None:
    names = {node.id for node in ast.walk(ast.parse(Path(of_modes.__file__).read_text())) if isinstance(node, ast.Name)}
    assert not names & set(papers.__all__) and set(PLAYERS) == {"plain", "scales", "encoder"}
