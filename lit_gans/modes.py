"""`lit-gans modes`: how many modes of a mixture of Gaussians in the plane each GAN covers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lit_gans.base.command import run_verb


class Result(NamedTuple):
    """`table` is Markdown; `pictures` one PNG per mixture."""

    table: str
    output: Path
    pictures: list[Path]


def modes(
    *,
    games: Sequence[str] | None = None,
    mixtures: Sequence[Literal["ring", "grid"]] = ("ring", "grid"),
    seeds: int = 5,
    batches: int = 1000,
    batch_size: int = 128,
    z_dim: int = 2,
    width: int = 64,
    samples: int = 2500,
    file: str | Path | None = None,
    output: str | Path = "runs/modes",
) -> Result:
    """How many modes of a mixture of Gaussians in the plane each GAN covers, over several seeds.

    Each paper's game is played with small networks in the place of its own: its losses, penalties, optimisers and
    steps, on the ring of 8 Gaussians and the grid of 25. Rows that are in the output already are not made again, so
    that a bench that was stopped goes on. Seconds per game, mixture and seed on one core.

    Args:
        games: papers by name, or classes of your own by import path (default: all that play in the plane).
        mixtures: ring, grid or both.
        seeds: trainings of each game, from seed 0 on.
        batches: of each training.
        batch_size: points in each.
        z_dim: size of the latent.
        width: of the three hidden layers of both networks.
        samples: that are measured.
        file: a table of games of your own, as lit_gans/training/games.yaml is.
        output: folder of rows.jsonl, points, table.md and a picture per mixture.
    """
    from lit_gans.base.files import replacing
    from lit_gans.base.progress import Lines
    from lit_gans.training.modes import Settings, bench, players_of
    from lit_gans.training.modes_report import draw, table

    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; it must be 1 or more")
    settings = Settings(batches=batches, batch_size=batch_size, z_dim=z_dim, width=width, samples=samples)
    players, names, where = players_of(games, file=file), list(dict.fromkeys(mixtures)), Path(output)
    total, rows, told = len(names) * len(players) * seeds, [], Lines("trainings")
    for row in bench(players, names, seeds, output=where, settings=settings):
        rows.append(row)
        told(len(rows), total, f"{row.game} on {row.mixture}, seed {row.seed}: {row.modes} modes")
    text, pictures = table(rows, players, names, settings), [where / f"{name}.png" for name in names]
    with replacing(where / "table.md") as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    for name, path in zip(names, pictures, strict=True):
        draw(rows, name, path, output=where)
    return Result(text, where, pictures)


def show(result: Result) -> None:
    """Prints the table."""
    print(result.table)
    print("rows and table in", result.output, "pictures", *result.pictures)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(modes, argv, show=show)


if __name__ == "__main__":
    sys.exit(main())
