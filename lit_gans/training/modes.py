"""What `lit-gans modes` measures: how many modes of a mixture in the plane each game covers, over several seeds.

Rows stand in `<output>/rows.jsonl`, one per mixture, game and seed; those that are there are not made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.base.cache import key_of, write_tensors
from lit_gans.base.random import derive_seed
from lit_gans.data.points import MIXTURES, Mixture, Points
from lit_gans.metrics.modes import MixtureModes, mode_divergence
from lit_gans.runs.classes import trusted_class
from lit_gans.runs.records import append_line
from lit_gans.training.plane import Form, into_plane

SHIPPED = Path(__file__).with_name("games.yaml")
ROWS, POINTS = "rows.jsonl", "points"
OF_THE_BENCH = ("z_dim", "seed", "total_kimg", "num_classes", "channels")
WITHOUT_MEANING = {"augment": "augmentation is of pictures, and a point is none: leave it out"}


@dataclass(frozen=True)
class Player:
    """A game to be played: its class, the arguments beside those of the bench, and what is said of it in the table."""

    name: str
    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)
    networks: Form = "plain"
    says: str = ""

    def __post_init__(self) -> None:
        for name in self.init_args:
            if name in WITHOUT_MEANING:
                raise ValueError(f"{self.name}: {WITHOUT_MEANING[name]}")
            if name in OF_THE_BENCH:
                raise ValueError(f"{self.name}: {name} is the same for all games; take it out of init_args")

    def build(self, *, z_dim: int, seed: int, total_kimg: float) -> GAN:
        """The game with its own networks. ValueError where the class takes no such arguments."""
        cls = trusted_class(self.class_path, GAN, trust=self.class_path.partition(".")[0])
        try:
            return cls(**self.init_args, z_dim=z_dim, seed=seed, total_kimg=total_kimg)
        except TypeError as error:
            raise ValueError(f"{self.class_path} cannot be built for the plane: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is the same for all games. ValueError for a count below 1.

    Args:
        batches, batch_size: of training: each game is shown so many points, whatever it makes of them.
        z_dim, width: of the latents, and of the hidden layers of both networks.
        points: of the training set.
        samples: that are measured; 2,500 as published.
    """

    batches: int = 1000
    batch_size: int = 128
    z_dim: int = 2
    width: int = 64
    points: int = 100_000
    samples: int = 2500

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One game on one mixture from one seed: `divergence` is None where no sample is of high quality."""

    mixture: str
    game: str
    seed: int
    settings: str  # digits of all that the numbers depend on
    modes: int
    high_quality: float
    divergence: float | None
    cpu_s: float

    @property
    def place(self) -> tuple[str, str, int]:
        return self.mixture, self.game, self.seed


# ---- who plays -------------------------------------------------------------------------------------------------------


def players_of(names: Sequence[str] | None, *, file: str | Path | None = None) -> list[Player]:
    """The games of these names in the table of `file` (None: the shipped one), all for None; or at import paths.

    Raises:
        ValueError: a name is not there, with the reason where it was left out; or the file is no such table.
    """
    path = Path(file) if file is not None else SHIPPED
    table = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not (isinstance(table, dict) and isinstance(table.get("games"), dict)):
        raise ValueError(f"{path} has no `games:`, a table of name -> class_path, init_args, networks, says")
    games, left_out = table["games"], table.get("left_out") or {}
    return [_player(name, games, left_out, path) for name in (games if names is None else dict.fromkeys(names))]


def _player(name: str, games: Mapping[str, Any], left_out: Mapping[str, str], path: Path) -> Player:
    if name in left_out:
        raise ValueError(f"{name} does not play in the plane: {left_out[name]}")
    if name not in games:
        if "." in name:
            return Player(name.rpartition(".")[2], name)
        raise ValueError(f"no game {name!r} in {path.name}; it has {', '.join(games)}; others by their import path")
    entry, known = games[name] or {}, {f.name for f in dataclasses.fields(Player)} - {"name"}
    if unknown := set(entry) - known:
        raise ValueError(f"{path}: {name} has {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    if "class_path" not in entry:
        raise ValueError(f"{path}: {name} has no class_path, such as lit_gans.papers.DCGAN")
    return Player(name, **entry)


# ---- one game --------------------------------------------------------------------------------------------------------


def play(player: Player, mixture: Mixture, *, seed: int, settings: Settings) -> tuple[Tensor, float]:
    """Trains a game on a mixture; (its samples, float64 [samples, 2], and the seconds of CPU that training took).

    A function of its arguments (and of the machine's arithmetic), on one thread, which is fastest for networks so
    small. Samples are of the generator that was trained, not of an average.

    Raises:
        ValueError: the game asks its networks for something that those in the plane have not.
    """
    kimg = settings.batches * settings.batch_size / 1000
    with torch.random.fork_rng(devices=[]), _quietly(), _on_one_thread():
        torch.manual_seed(derive_seed("networks in the plane", seed))
        gan = player.build(z_dim=settings.z_dim, seed=seed, total_kimg=kimg)
        into_plane(gan, form=player.networks, width=settings.width)
        data = Points(mixture, points=settings.points, batch_size=settings.batch_size, seed=seed)
        started = time.process_time()
        try:
            _trainer().fit(gan, datamodule=data)
            samples = gan.sample(range(settings.samples), ema=False)
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"{player.class_path} does not play with {player.networks!r} networks of lit_gans.training.plane "
                f"({error})"
            ) from error
        assert gan.is_finished
    return mixture.as_points(samples), time.process_time() - started


def measure(points: Tensor, mixture: Mixture) -> tuple[int, float, float | None]:
    """points [N, 2] -> (modes, share of high quality, divergence of those samples over the modes from equal shares)."""
    metric = MixtureModes(mixture.centres, mixture.sigma)
    metric.update(points)
    modes, share = metric.compute()
    return int(modes), share.item(), mode_divergence(metric.found).item() if modes else None


def _trainer() -> pl.Trainer:
    return pl.Trainer(
        max_epochs=-1, accelerator="cpu", devices=1, precision="32-true", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what Lightning says at each start."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)


@contextlib.contextmanager
def _on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ---- all of them -----------------------------------------------------------------------------------------------------


def bench(
    players: Sequence[Player], mixtures: Sequence[str], seeds: int, *, output: Path, settings: Settings
) -> Iterator[Row]:
    """Every row, read where it is there, else made, written and then given: one seed of all, then the next.

    So that a bench that was stopped has as many seeds of each. Beside each row stand its samples, in
    `points/<mixture>-<game>-<seed>.safetensors`.

    Raises:
        ValueError: rows of other settings are there, or a line is no row.
    """
    there = {row.place: row for row in read_rows(output)}
    for seed, mixture, player in itertools.product(range(seeds), mixtures, players):
        key = _key(player, mixture, settings)
        row = there.get((mixture, player.name, seed))
        if row is not None and row.settings != key:
            raise ValueError(
                f"{output / ROWS} has {player.name} on {mixture} of other settings (this table or other counts): "
                "give another output"
            )
        yield row or _new_row(player, mixture, seed, key, output=output, settings=settings)


def _new_row(player: Player, name: str, seed: int, key: str, *, output: Path, settings: Settings) -> Row:
    mixture = MIXTURES[name]
    points, cpu_s = play(player, mixture, seed=seed, settings=settings)
    modes, share, divergence = measure(points, mixture)
    row = Row(
        mixture=name, game=player.name, seed=seed, settings=key, modes=modes, high_quality=share,
        divergence=divergence, cpu_s=round(cpu_s, 2),
    )  # fmt: skip
    write_tensors(points_file(output, *row.place), {"points": points.float()}, {})
    append_line(output / ROWS, asdict(row))
    return row


def _key(player: Player, mixture: str, settings: Settings) -> str:
    """Of all but what the table says of the game in words."""
    about = {name: value for name, value in asdict(player).items() if name != "says"}
    of = MIXTURES[mixture]
    return key_of(**about, **asdict(settings), mixture=[of.centres.tolist(), of.sigma, of.reach])


def points_file(output: Path, mixture: str, game: str, seed: int) -> Path:
    """Where the samples of a row are kept."""
    return output / POINTS / f"{mixture}-{game}-{seed}.safetensors"


def read_rows(output: Path) -> list[Row]:
    """The rows of an earlier start; [] where there was none. ValueError, with its number, for a line that is none."""
    path = output / ROWS
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], start=1):
        try:
            rows.append(Row(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no row ({error}): take it out and start again") from error
    return rows
