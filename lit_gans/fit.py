"""The verb that trains: `python -m lit_gans.fit --config experiments/cgan/digits.yaml`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_gans.base.command import told, underscored

if TYPE_CHECKING:
    from lit_gans.adversarial import Game
    from lit_gans.training.cli import FitCLI

HELP = """usage: lit-gans fit --config CONFIG [options]

Trains what a config describes, into a run folder. The options that are used most:

  --config FILE                  config, or several, each laid over those before; shipped ones also as cgan/digits
  --model.init_args.NAME=VALUE   of the model: width, total_kimg, micro_batches, ...
  --data.init_args.NAME=VALUE    of the data: path, batch_size (of all processes), num_workers, ...
  --trainer.NAME=VALUE           of Lightning's trainer: devices, accelerator, precision, num_nodes, ...
  --CALLBACK.NAME=VALUE          --evaluate.every_kimg=20, --checkpoint.every_kimg=50, --ema.half_life_kimg=20, ...
  --CALLBACK=off                 --evaluate=off, --image_grid=off
  --run_folder FOLDER            default: runs/<config's folder>-<config's name>
  --stages FILE FILE ...         several configs, each trained when the one before is finished; goes on where it stopped
  --init_from RUN                begins with the weights of a run, a .ckpt, a saved folder, the hub, or an official .pkl
  --ckpt_path last               continues the run exactly where it stopped; auto: or starts it; or a .ckpt file
  --logger NAME                  wandb (default), tensorboard, csv or none
  --seed_everything N            of all that is random (default: 0)
  --print_config                 everything that can be set, as a config with its values

The rest:

  lit-gans fit --help=all        every option (long)
  lit-gans fit --help=GROUP      those of trainer, or of a callback such as evaluate, image_grid, health
  lit-gans fit --model.help lit_gans.papers.DCGAN            arguments of a model
  lit-gans fit --data.help lit_gans.data.Images              arguments of data

Examples:

  lit-gans fit --config experiments/cgan/digits.yaml
  lit-gans fit --config experiments/dcgan/celeba64.yaml --data.init_args.path=/path/to/images --trainer.devices=2
  lit-gans fit --config experiments/cgan/digits.yaml --ckpt_path=last
  lit-gans fit --config stylegan2/photos --data.init_args.path=/path/to/photographs
  lit-gans fit --config stylegan2/photos --data.init_args.path=/path/to/photographs --init_from=runs/stylegan2-ffhq
"""


def fit(config: str | os.PathLike, *overrides: str, run: str | None = None, ckpt_path: str | None = None) -> Path:
    """Trains what a config describes; the run folder.

    `overrides` are arguments as on the command line: `fit("cgan/digits.yaml", "--model.init_args.width=64")`.
    """
    from lit_gans.training.cli import parse, train

    argv = ["--config", str(config), *overrides]
    argv += [f"--run_folder={run}"] if run else []
    argv += [f"--ckpt_path={ckpt_path}"] if ckpt_path else []
    return train(parse(argv), argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    argv = underscored(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print(HELP)
        raise SystemExit(0)
    if any(word.partition("=")[0] == "--stages" for word in argv):
        return _stages(argv)
    from lightning.fabric.utilities.exceptions import MisconfigurationException  # not before: help is shown at once
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from lit_gans.callbacks import DivergenceError
    from lit_gans.training.cli import parse, train

    try:
        cli = parse(argv)
        run = train(cli, argv)
    except SIGTERMException:
        return _stopped(cli)
    except KeyboardInterrupt:  # before training, which ends by itself with a checkpoint
        print("lit-gans fit: broken off before training", file=sys.stderr)
        return 130
    except (ValueError, OSError, DivergenceError, MisconfigurationException) as error:
        if os.environ.get("LIT_GANS_TRACEBACK") == "1":
            raise
        print(f"lit-gans fit: {told(error)}", file=sys.stderr)
        return 1
    if cli.trainer.is_global_zero:
        _say_where(run, cli.model)
    return 0


def _stages(argv: Sequence[str]) -> int:
    from lit_gans.training.stages import fit_stages

    try:
        return fit_stages(argv)
    except ValueError as error:
        print(f"lit-gans fit: {told(error)}", file=sys.stderr)
        return 1


def _stopped(cli: "FitCLI") -> int:
    if cli.trainer.is_global_zero:
        saved = cli.run / "checkpoints"
        print(f"stopped on request; the state is in {saved}: continue with --ckpt_path=last", file=sys.stderr)
    return 130


def _say_where(run: Path, game: "Game") -> None:
    """The last lines: what there is to look at."""
    from lit_gans.runs.uses import commands

    for what, name in (("grid", "samples/latest.png"), ("metrics", "metrics.jsonl"), ("page", "index.html")):
        if (run / name).is_file():
            print(f"{what:<12}{run / name}")
    for what, command in commands(run, game).items():
        print(f"{what:<12}{command}")


if __name__ == "__main__":
    sys.exit(main())
