"""The verb that times: `python -m lit_gans.benchmark --config experiments/dcgan/digits.yaml --batches 200`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_gans.base.command import parameters, run_verb

if TYPE_CHECKING:
    from lit_gans.training.benchmark import Benchmark


def benchmark(argv: Sequence[str], *, batches: int = 100, repeats: int = 5, warmup: int = 10) -> "Benchmark":
    """Speed of a config, against a bare loop over the same networks.

    The framework's whole loop takes turns with plain torch around the paper's own `training_step`: no Lightning, no
    clock, no callbacks. All other options are those of `lit-gans fit`: --config FILE, --model.init_args.width=64, ...

    Args:
        argv: what `fit` would be given.
        batches: of each turn.
        repeats: turns of each loop.
        warmup: batches before each turn's clock starts.

    Raises:
        ValueError: a count is below 1, or several processes are asked for.
    """
    from lit_gans.training.benchmark import measure

    return measure(list(argv), batches=batches, repeats=repeats, warmup=warmup)


def show(result: "Benchmark", *, output: str | Path | None = None) -> None:
    """Prints the measurement.

    Args:
        output: adds a line to OUTPUT.jsonl and a row to OUTPUT.md.
    """
    from lit_gans.training.benchmark import append, table

    print(table(result))
    if output:
        print("added to", " and ".join(map(str, append(result, Path(output)))))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    own, fits = _parted(sys.argv[1:] if argv is None else argv)
    return run_verb(benchmark, own, show=show, argv=fits)


def _parted(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of `benchmark`, and those of `fit`."""
    names = [f"--{option.name}" for option in parameters(benchmark, show, without=["argv"])]
    own, fits = [], []
    for word in argv:
        mine = word in ("-h", "--help") or word.partition("=")[0] in names or (own and own[-1] in names)
        (own if mine else fits).append(word)
    return own, fits


if __name__ == "__main__":
    sys.exit(main())
