"""The verb that trains: `python -m lit_gans.fit --config experiments/cgan/digits.yaml`."""

import os
import sys
from pathlib import Path

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_gans import callbacks
from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Captioned, Samples, Translates, can
from lit_gans.training.cli import FitCLI, parse, train


def fit(config: str | os.PathLike, *overrides: str, run: str | None = None, ckpt_path: str | None = None) -> Path:
    """Trains what a config describes; the run folder.

    `overrides` are arguments as on the command line: `fit("cgan/digits.yaml", "--model.init_args.width=64")`.
    """
    argv = ["--config", str(config), *overrides]
    argv += [f"--run_folder={run}"] if run else []
    argv += [f"--ckpt_path={ckpt_path}"] if ckpt_path else []
    return train(parse(argv), argv)


def main(argv: list[str] | None = None) -> int:
    """The command; the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        cli = parse(argv)
        run = train(cli, argv)
    except SIGTERMException:
        return _stopped(cli)
    except (ValueError, OSError, callbacks.DivergenceError) as error:
        if os.environ.get("LIT_GANS_TRACEBACK") == "1":
            raise
        print(f"lit-gans fit: {error}", file=sys.stderr)
        return 1
    if cli.trainer.is_global_zero:
        _say_where(run, cli.model)
    return 0


def _stopped(cli: FitCLI) -> int:
    if cli.trainer.is_global_zero:
        saved = cli.run / "checkpoints"
        print(f"stopped on request; the state is in {saved}: continue with --ckpt_path=last", file=sys.stderr)
    return 130


def _say_where(run: Path, game: Game) -> None:
    """The last lines: what there is to look at."""
    for what, name in (("grid", "samples/latest.png"), ("metrics", "metrics.jsonl"), ("page", "index.html")):
        if (run / name).is_file():
            print(f"{what:<12}{run / name}")
    if can(game, Captioned):
        print(f"{'sample':<12}lit-gans sample {run} --text 'WHAT TO DRAW' --seeds 0-7 --output {run / 'out'}")
    elif can(game, Samples):
        print(f"{'sample':<12}lit-gans sample {run} --seeds 0-63 --output {run / 'out'}")
    elif can(game, Translates):
        print(f"{'translate':<12}lit-gans translate {run} PICTURES --output {run / 'out'}")
    else:
        return  # it makes nothing to be looked at or measured
    print(f"{'evaluate':<12}lit-gans evaluate {run}")


if __name__ == "__main__":
    sys.exit(main())
