"""What is shown of `lit-gans modes`: a table of means and spreads, and a picture of the samples."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from lit_gans.base.cache import read_tensors
from lit_gans.base.files import replacing
from lit_gans.data.mixtures import sample_mixture
from lit_gans.data.points import MIXTURES, Mixture
from lit_gans.data.stream import uniform
from lit_gans.training.modes import Player, Row, Settings, measure, points_file

COLUMNS = 4  # of a picture
SHOWN = 1000  # points of each


def table(rows: Sequence[Row], players: Sequence[Player], mixtures: Sequence[str], settings: Settings) -> str:
    """Markdown: a row per game with mean and standard deviation over its seeds, and the protocol above.

    Below, what the data themselves and noise that knows nothing of them come to.
    """
    seeds = len({row.seed for row in rows})
    head = ["game", "its losses and optimiser"]
    for name in mixtures:
        head += [f"{name}: modes of {len(MIXTURES[name].centres)}", "high quality", "divergence"]
    lines = [protocol(settings, seeds), "", _line([*head, "CPU s"]), "|" + "---|" * (len(head) + 1)]
    for player in players:
        cells, own = [player.name, player.says], [row for row in rows if row.game == player.name]
        for name in mixtures:
            cells += _cells([row for row in own if row.mixture == name])
        lines.append(_line([*cells, f"{statistics.mean(row.cpu_s for row in own):.1f}"]))
    marks = (("the data themselves", "", _data), ("uniform noise", "over the square of the picture", _noise))
    for name, says, points in marks:
        found = [_told(*measure(points(MIXTURES[m], settings.samples), MIXTURES[m])) for m in mixtures]
        lines.append(_line([name, says, *itertools.chain(*found), ""]))
    return "\n".join(lines) + "\n"


def _data(mixture: Mixture, samples: int) -> Tensor:
    return sample_mixture(mixture.centres, mixture.sigma, n=samples)


def _noise(mixture: Mixture, samples: int) -> Tensor:
    """What a generator that knows nothing of modes finds of them: one sample makes a mode."""
    numbers = np.arange(samples)
    sides = [uniform(0, f"noise in the plane {axis}", numbers) for axis in range(2)]
    return mixture.reach * (2 * torch.from_numpy(np.stack(sides, axis=1)) - 1)


def _told(modes: int, share: float, divergence: float | None) -> list[str]:
    return [str(modes), f"{100 * share:.1f} %", "none" if divergence is None else f"{divergence:.2f}"]


def protocol(settings: Settings, seeds: int) -> str:
    """One sentence that says how the numbers came about."""
    s = settings
    return (
        f"{s.batches:,} batches of {s.batch_size}, z of {s.z_dim}, three hidden layers of {s.width} in both networks; "
        f"{s.samples:,} samples of the generator itself, of high quality within three deviations of the nearest "
        f"centre; mean and standard deviation over {seeds} seeds."
    )


def _cells(rows: Sequence[Row]) -> list[str]:
    known = [row.divergence for row in rows if row.divergence is not None]
    divergence = spread(known, "{:.2f}")
    if len(known) < len(rows):
        divergence = f"{divergence} (of {len(known)})" if known else "none"
    shares = [100 * row.high_quality for row in rows]
    return [spread([row.modes for row in rows], "{:.1f}"), f"{spread(shares, '{:.1f}')} %", divergence]


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± sample standard deviation, of one value alone the value; "" of none."""
    if not values:
        return ""
    mean = form.format(statistics.mean(values))
    return mean if len(values) == 1 else f"{mean} ± {form.format(statistics.stdev(values))}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw(rows: Sequence[Row], mixture: str, path: Path, *, output: Path) -> None:
    """A PNG: the mixture itself, then the samples of each game's first seed, which is not chosen."""
    of = MIXTURES[mixture]
    first = [row for row in rows if row.mixture == mixture and row.seed == 0]
    panels = [("data", sample_mixture(of.centres, of.sigma, n=SHOWN))]
    for row in first:
        kept = read_tensors(points_file(output, *row.place))
        if kept is not None:
            title = f"{row.game}: {row.modes} of {len(of.centres)}, {100 * row.high_quality:.0f} %"
            panels.append((title, kept[0]["points"][:SHOWN]))
    lines = math.ceil(len(panels) / COLUMNS)
    with rc_context({"text.parse_math": False, "font.size": 8}):
        figure = Figure(figsize=(2.3 * COLUMNS, 2.45 * lines), dpi=100, layout="constrained")
        for number, (title, points) in enumerate(panels, start=1):
            axes = figure.add_subplot(lines, COLUMNS, number, title=title)
            axes.scatter(*of.centres.T.numpy(), s=60, facecolors="none", edgecolors="tab:orange", linewidths=0.6)
            axes.scatter(*points.T.numpy(), s=1.5, color="tab:blue", linewidths=0)
            axes.set(xlim=(-of.reach, of.reach), ylim=(-of.reach, of.reach), xticks=[], yticks=[])
            axes.set_aspect("equal")
        with replacing(path) as unfinished:
            figure.savefig(unfinished, format="png")
