"""`lit-gans compare`: runs and result files side by side, where only numbers measured in the same way are ranked."""

import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Any

from lit_gans.base.command import run_verb
from lit_gans.base.files import replacing
from lit_gans.runs.comparison import Column, Comparison, badge, comparison_of, earlier_best, furthest_kimg, heading
from lit_gans.runs.comparison_table import TABLES
from lit_gans.runs.results import Target


def compare(
    targets: Sequence[str | Path],
    *,
    metrics: Sequence[str] | None = None,
    output: str | Path | None = None,
    csv: str | Path | None = None,
    markdown: str | Path | None = None,
    latex: str | Path | None = None,
) -> Comparison:
    """Runs side by side, where only numbers that were measured in the same way are ranked.

    Args:
        targets: run folders, or .jsonl files that `lit-gans evaluate` wrote.
        metrics: only these, ranked by the first; by default all.
        output: HTML file to write: ranking, curves, samples, differences; it needs no other file.
        csv, markdown, latex: files to write the ranked table to, with the protocol of its numbers; or - to print it
            in place of the terminal's.
    """
    comparison = comparison_of(targets, metrics=metrics)
    for kind, path in {"csv": csv, "markdown": markdown, "latex": latex}.items():
        if path is not None and str(path) != "-":
            with replacing(path) as unfinished:
                unfinished.write_text(TABLES[kind](comparison), encoding="utf-8")
    if output is not None:
        from lit_gans.runs.comparison_page import write

        write(comparison, Path(output))
    return comparison


# ---- terminal --------------------------------------------------------------------------------------------------------


def show(
    comparison: Comparison,
    *,
    json: bool = False,
    strict: bool = False,
    output: str | Path | None = None,
    csv: str | Path | None = None,
    markdown: str | Path | None = None,
    latex: str | Path | None = None,
) -> int:
    """Prints the comparison; 1 where `strict` and not all could be ranked.

    Args:
        json: print JSON instead of a table.
        strict: exit status 1 if protocols differ, so that not all could be ranked.
    """
    printed = [kind for kind, path in {"csv": csv, "markdown": markdown, "latex": latex}.items() if str(path) == "-"]
    if json:
        print(dumps(comparison.as_dict(), indent=1))
    elif printed:
        print("\n".join(TABLES[kind](comparison) for kind in printed), end="")
    else:
        show_table(comparison)
        print(f"page: {output}" if output else "a page with curves and samples: --output compare.html")
    return int(strict and bool(comparison.refusals))


def show_table(comparison: Comparison) -> None:
    """Prints the table, what was not ranked, and the notes."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    table = _terminal_table(comparison, breaks=False)
    width = console.measure(table, options=console.options.update(width=10_000)).maximum
    if width > console.width and console.is_terminal:
        table = _terminal_table(comparison, breaks=True)
    elif width > console.width:  # a file or a pipe has room
        console = Console(width=width)
    console.print(table)
    for line in comparison.refusals:
        console.print(Text(line, style="bold"), soft_wrap=True)
    for line in comparison.notes:
        console.print(Text(f"note: {line}"), soft_wrap=True)


def _terminal_table(comparison: Comparison, *, breaks: bool) -> Any:
    """A rich table; with `breaks` the metrics' names are broken at their underscores."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.title, table.title_justify = "last evaluation (rank)", "left"
    table.add_column("target", overflow="fold")
    table.add_column("kimg", justify="right")
    for column in comparison.columns:
        name = heading(column).replace("_", "_\n") if breaks else heading(column)
        table.add_column(Text(name), justify="right", overflow="fold")
    for row in comparison.targets:
        table.add_row(Text(row.label), furthest_kimg(row, comparison), *(_printed(row, c) for c in comparison.columns))
    return table


def _printed(row: Target, column: Column) -> Any:
    from rich.text import Text

    if row.label not in column.cells:
        return Text("-")
    cell = column.cells[row.label]
    text = Text(f"{cell.number.value:.4g}", style="bold green" if cell.rank == 1 else "")
    if place := badge(cell, column):
        text.append(f" ({place})")
    if best := earlier_best(cell):
        text.append("\n" + best.removesuffix(" kimg").replace(" at ", "\nat "), style="dim")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(compare, argv, show=show)


if __name__ == "__main__":
    sys.exit(main())
